// What metrics keep on the device: how many elements, or what weight, fell into each cell; and sums that lose nothing.
//
// Counts are integers, and so are the sums of weights: parts of a power of two that the largest weight of the batch decides. So any
// order of additions gives the same, and atomics do.
#pragma once
#include "exponents.cuh"
#include "rows.cuh"

namespace lossfuncs {

// What is to be done; the fields are packed by lossfuncs/metrics/device.py.
struct Counting {
    const void *t, *p;          // one after the other
    const double* weights;      // or null
    const void* bounds;         // thresholds, ascending, in the type that predictions are compared in
    u64* counts;                // of the cells; with weights three words a cell: what is left of the point, right of it, what is not finite
    u64* largest;               // the bits of the largest finite |weight|
    i64 count, columns;         // element i is in column i % columns
    i64 thresholds;             // or classes
    i64 ignore;                 // the target class that does not count
    double first, steps;        // evenly spaced: the first threshold that is finite, and how many there are a unit; else steps = 0
    int copies;                 // of the counters in shared memory; 0: there is no room
    int bits;                   // left of the point
    int staged;                 // thresholds are copied to shared memory
    int lowest;                 // NaN and -inf count as the lowest finite number
};

DEVICE bool is_positive(float16 x) { return (x.bits & 0x7fff) != 0; }
DEVICE bool is_positive(bfloat16 x) { return (x.bits & 0x7fff) != 0; }
template <class T> DEVICE bool is_positive(T x) { return x != T(0); }

template <class T> DEVICE T as_number(T x) { return x; }
DEVICE float as_number(float16 x) { return widen(x); }
DEVICE float as_number(bfloat16 x) { return widen(x); }

// Of thresholds: for each column the negatives, then the positives, by how many thresholds the prediction is larger than. C: compared in.
template <class T, class P, class C> struct ByThreshold {
    const Counting& a;
    const C* bounds;

    DEVICE static i64 cells(const Counting& a) { return 2 * (a.thresholds + 1) * a.columns; }
    DEVICE static i64 scratch(const Counting& a) { return a.staged * a.thresholds * (i64)sizeof(C); }
    DEVICE ByThreshold(const Counting& a, unsigned char* memory)
        : a(a), bounds(a.staged ? reinterpret_cast<const C*>(memory) : static_cast<const C*>(a.bounds)) {
        for (i64 i = threadIdx.x; i < a.staged * a.thresholds; i += blockDim.x) reinterpret_cast<C*>(memory)[i] = static_cast<const C*>(a.bounds)[i];
    }

    DEVICE int below(C x) const {
        int n = (int)a.thresholds, place = 0;
        const C lowest = sizeof(C) == 8 ? C(-1.7976931348623157e308) : C(-3.4028234663852886e38f);
        if (a.lowest && !(x >= lowest)) x = lowest;
        if (x != x) return 0;
        if (a.steps != 0.0) {  // a guess, put right
            C guess = ceil((x - C(a.first)) * C(a.steps));
            place = guess > C(0) ? (guess < C(n) ? (int)guess : n) : 0;
            while (place > 0 && !(bounds[place - 1] < x)) place--;
            while (place < n && bounds[place] < x) place++;
            return place;
        }
        for (int left = n; left > 0;) {
            int half = left / 2;
            bool more = bounds[place + half] < x;
            place += more ? half + 1 : 0;
            left = more ? left - half - 1 : half;
        }
        return place;
    }

    DEVICE int operator()(i64 i) const {
        int place = below(C(as_number(static_cast<const P*>(a.p)[i])));
        int row = is_positive(static_cast<const T*>(a.t)[i]) + 2 * (a.columns == 1 ? 0 : (int)(i % a.columns));
        return row * ((int)a.thresholds + 1) + place;
    }
};

// Of a confusion matrix: the target's class, the prediction's class. -1 for what does not count.
struct ByClasses {
    const Counting& a;
    DEVICE static i64 cells(const Counting& a) { return a.thresholds * a.thresholds; }
    DEVICE static i64 scratch(const Counting&) { return 0; }
    DEVICE ByClasses(const Counting& a, unsigned char*) : a(a) {}
    DEVICE int operator()(i64 i) const {
        i64 t = static_cast<const i64*>(a.t)[i], p = static_cast<const i64*>(a.p)[i], k = a.thresholds;
        return t < 0 || t >= k || p < 0 || p >= k || t == a.ignore ? -1 : (int)(t * k + p);
    }
};

// A weight in units of 2^-bits of the power of two above the largest weight: the whole units, and the rest in units as much smaller again.
struct Units {
    int up, bits;
    DEVICE Units(u64 largest, int bits) : bits(bits) {
        double x;
        memcpy(&x, &largest, 8);
        up = largest >> 52 ? exponent(x) + 1 : -1022;
    }
    DEVICE void split(double w, i64& whole, i64& rest) const {
        double x = scaled(w, bits - up), below = floor(x);
        whole = (i64)below;
        rest = (i64)scaled(x - below, bits);
    }
    DEVICE double value(i64 whole, i64 rest) const { return scaled((double)whole, up - bits) + scaled((double)rest, up - 2 * bits); }
};

constexpr u64 NOT_A_NUMBER = 1, INFINITE = 2, MINUS_INFINITE = 4;

// Counters are of the block, as many copies as there is room for, so that fewer warps meet at one; with weights, or where there is no
// room, they are the global ones.
template <class Cell, bool WEIGHTED> DEVICE void count(const Counting& a) {
    DYNAMIC_SHARED(memory);
    const i64 cells = Cell::cells(a);
    const Cell cell_of(a, memory);
    unsigned* counters = reinterpret_cast<unsigned*>(memory + (Cell::scratch(a) + 7) / 8 * 8);
    for (i64 i = threadIdx.x; i < a.copies * cells; i += blockDim.x) counters[i] = 0;
    __syncthreads();
    unsigned* mine = counters + (a.copies ? threadIdx.x / 32 % a.copies * cells : 0);
    const Units units(WEIGHTED ? *a.largest : 0, a.bits);

    auto take = [&](i64 i, int cell) {
        if (cell < 0) return;
        if constexpr (WEIGHTED) {
            double w = a.weights[i];
            u64* at = a.counts + 3 * cell;
            if (w - w != 0.0) {
                atomicOr(at + 2, w != w ? NOT_A_NUMBER : w > 0.0 ? INFINITE : MINUS_INFINITE);
            } else if (w != 0.0) {
                i64 whole, rest;
                units.split(w, whole, rest);
                atomicAdd(at, (u64)whole);
                atomicAdd(at + 1, (u64)rest);
            }
        } else if (a.copies) atomicAdd(mine + cell, 1u);
        else atomicAdd(a.counts + cell, 1ull);
    };
    const i64 step = (i64)gridDim.x * blockDim.x;
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    for (; i + step < a.count; i += 2 * step) {
        const int cell = cell_of(i), other = cell_of(i + step);
        take(i, cell);
        take(i + step, other);
    }
    if (i < a.count) take(i, cell_of(i));

    if (!a.copies) return;
    __syncthreads();
    for (i64 cell = threadIdx.x; cell < cells; cell += blockDim.x) {
        u64 sum = 0;
        for (int copy = 0; copy < a.copies; copy++) sum += counters[copy * cells + cell];
        if (sum) atomicAdd(a.counts + cell, sum);
    }
}

DEVICE void largest_weight(const Counting& a) {
    u64 mine = 0;  // the bits of numbers that are not negative are ordered as the numbers
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < a.count; i += (i64)gridDim.x * blockDim.x) {
        double w = fabs(a.weights[i]);
        u64 bits;
        memcpy(&bits, &w, 8);
        if (w - w == 0.0 && bits > mine) mine = bits;
    }
    if (mine) atomicMax(a.largest, mine);
}

// state is pairs of a sum and of what rounding took from it.
DEVICE void add_without_loss(double* state, double x) {
    double high = state[0], total = high + x;
    if (total - total == 0.0) {
        bool larger = fabs(high) >= fabs(x);
        double large = larger ? high : x, small = larger ? x : high;
        state[1] += (large - total) + small;
    }
    state[0] = total;
}

struct Finishing {
    Counting counting;  // whose count is that of the cells
    double* state;
};

// The cells' weights of a batch to the state.
DEVICE void add_cells(const Finishing& a) {
    const Units units(*a.counting.largest, a.counting.bits);
    const double infinite = bits_to_float(0x7f800000u);
    for (i64 cell = (i64)blockIdx.x * blockDim.x + threadIdx.x; cell < a.counting.count; cell += (i64)gridDim.x * blockDim.x) {
        const u64* at = a.counting.counts + 3 * cell;
        double x = units.value((i64)at[0], (i64)at[1]);
        if (at[2]) x = at[2] == INFINITE ? infinite : at[2] == MINUS_INFINITE ? -infinite : infinite - infinite;
        add_without_loss(a.state + 2 * cell, x);
    }
}

// x to the state, for each of `count` numbers.
struct Additions {
    const double* x;
    double* state;
    i64 count;
};

DEVICE void add_all(const Additions& a) {
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < a.count; i += (i64)gridDim.x * blockDim.x)
        add_without_loss(a.state + 2 * i, a.x[i]);
}

}  // namespace lossfuncs
