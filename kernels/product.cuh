// The products of embeddings: the rows of the circle loss, and its gradient.
#pragma once
#include "circle.cuh"

namespace lossfuncs {

// c (m, n) = a (m, k) b (k, n), or c plus that. a and b of any strides, counted in elements; c has its rows one after the other.
struct Product {
    const void *a, *b;
    double* c;
    i64 m, n, k;
    i64 a_row, a_step;   // from one row of a to the next, and within a row
    i64 b_step, b_column;  // from one row of b to the next, and within a row
    // With labels, c holds similarities, and `kinds` receives the targets of the row maths.
    const i64 *labels, *reference_labels;
    double* kinds;
    i64 first;  // the number of the first row, for the pairs of a sample with itself
    int more;   // add to c
    int remove_diagonal;
};

// A block makes a tile of 64 by 64, a thread 4 by 4 of it, 16 apart so that neighbours lie beside each other. Sums are in double, one after
// the other over k, whatever A and B are: the loss multiplies the error of a similarity by gamma, which is 80.
template <class A, class B> DEVICE void product(const Product& x) {
    constexpr int SIDE = 64, DEPTH = 16, THREADS = 256, LINE = SIDE + 1;
    DYNAMIC_SHARED(memory);
    double *tile_a = reinterpret_cast<double*>(memory), *tile_b = tile_a + DEPTH * LINE;
    const A* a = static_cast<const A*>(x.a);
    const B* b = static_cast<const B*>(x.b);
    const int column = threadIdx.x % 16, row = threadIdx.x / 16;
    const i64 across = (x.n + SIDE - 1) / SIDE, tiles = across * ((x.m + SIDE - 1) / SIDE);
    for (i64 tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const i64 i0 = tile / across * SIDE, j0 = tile % across * SIDE;
        double sum[4][4] = {};
        for (i64 k0 = 0; k0 < x.k; k0 += DEPTH) {
            for (int e = threadIdx.x; e < SIDE * DEPTH; e += THREADS) {  // neighbouring threads along the axis whose elements are neighbours
                int i = x.a_step == 1 ? e / DEPTH : e % SIDE, k = x.a_step == 1 ? e % DEPTH : e / SIDE;
                bool inside = i0 + i < x.m && k0 + k < x.k;
                tile_a[k * LINE + i] = inside ? (double)widen(a[(i0 + i) * x.a_row + (k0 + k) * x.a_step]) : 0.0;
                int j = x.b_column == 1 ? e % SIDE : e / DEPTH;
                k = x.b_column == 1 ? e / SIDE : e % DEPTH;
                inside = j0 + j < x.n && k0 + k < x.k;
                tile_b[k * LINE + j] = inside ? (double)widen(b[(k0 + k) * x.b_step + (j0 + j) * x.b_column]) : 0.0;
            }
            __syncthreads();
#pragma unroll
            for (int k = 0; k < DEPTH; k++) {
                double u[4], v[4];
#pragma unroll
                for (int r = 0; r < 4; r++) u[r] = tile_a[k * LINE + row + 16 * r], v[r] = tile_b[k * LINE + column + 16 * r];
#pragma unroll
                for (int r = 0; r < 4; r++)
#pragma unroll
                    for (int q = 0; q < 4; q++) sum[r][q] = fma(u[r], v[q], sum[r][q]);
            }
            __syncthreads();
        }
#pragma unroll
        for (int r = 0; r < 4; r++)
#pragma unroll
            for (int q = 0; q < 4; q++) {
                const i64 i = i0 + row + 16 * r, j = j0 + column + 16 * q;
                if (i >= x.m || j >= x.n) continue;
                double* c = x.c + i * x.n + j;
                *c = x.more ? *c + sum[r][q] : sum[r][q];
                if (x.kinds) {
                    bool same = x.labels[x.first + i] == x.reference_labels[j];
                    bool itself = x.remove_diagonal && x.first + i == j;
                    x.kinds[i * x.n + j] = itself ? circle<double>::EXCLUDED : same ? circle<double>::SAME : circle<double>::OTHER;
                }
            }
    }
}

}  // namespace lossfuncs
