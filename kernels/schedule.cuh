// How rows run on a GPU; the only file that knows a thread. No loss is known here.
//
//     rows      a team of 1 to 32 lanes, or a block, for each row. Its elements come
//                   DIRECT   from global memory, by 16-byte vectors, in every pass
//                   TILE     through shared memory: a block reads whole rows, all at once, and no pass nor the gradient reads them again
//                   STEP     a thread for a row whose elements lie apart: the rows lie side by side (the class axis is not the last)
//     pieces    many blocks for each row: one launch a pass, the last block of a row adds up in fixed order. The total of a pointwise loss
//               is one long row.
//
// To read it: `Task` is what gpu.py packs. `rows` walks over rows and leaves each to a `Team`, whose `gather` makes the passes: `each` hands
// out elements by vectors, a state (states.cuh) takes them in, `merged` makes one of the states of all lanes, and `give` writes the totals;
// `derive` hands out the elements once more and writes derivatives. `Pieces` does one pass, or the derivatives, of rows that are shared.
//
// Sums are added in double, in an order that depends on the shape and the alignment alone; of half types a vector's elements are added in
// float before, for there are too many of them to widen each once more. Where t, p and the derivatives do not lie at the same place of a
// 16-byte vector, elements are read one by one.
#pragma once
#include "states.cuh"

namespace lossfuncs {

constexpr unsigned ALL = 0xffffffffu;
constexpr i64 NO_CLASS = -9223372036854775807LL - 1;

// One operand: row r begins at (r / inner) * outer + (r % inner) * side, and its elements are `step` apart.
struct Operand {
    const void* data;
    i64 outer, side, step;
};

// What is to be done; the fields are packed by lossfuncs/gpu.py. Pointers may be null, for what is not wanted.
struct Task {
    Operand t, p, gradient, curve;
    const void* labels;       // instead of t
    void* values;             // of the rows
    double* total;            // of weight * value, divided
    const void* weights;      // of the total and the derivatives
    const void* value_weights;
    const double* divisor_at; // of the total and the derivatives, where the host does not know it
    const double* parameters_at;  // likewise
    double* partials;         // workspace: a number a block; or, in pieces, totals and states
    unsigned* tickets;        // zero between launches
    u64* status;              // the first row with a label out of range
    i64 m, n, inner;
    i64 length;               // of a row as the formulas know it
    i64 ignore;
    i64 per_tile;             // TILE: rows; pieces: blocks a row
    double scale, divisor;
    double parameters[8];
    int wide_labels, wide_weights, wide_value_weights;  // 8 bytes instead of 4
    int free_labels;          // any label will do
};

// ---- vectors

template <class E> struct alignas(16) Vector {
    static constexpr int size = 16 / sizeof(E);
    E x[size];
};

template <class E> DEVICE int phase(const E* p) { return (int)((u64)p / sizeof(E) % Vector<E>::size); }

// ---- teams: WIDTH lanes of one warp, or a whole block of WIDTH threads

template <class S> DEVICE S from_lane(S x, int distance) {
    static_assert(sizeof(S) % 4 == 0, "states are shuffled by words");
    unsigned w[sizeof(S) / 4];
    memcpy(w, &x, sizeof(S));
#pragma unroll
    for (int i = 0; i < (int)(sizeof(S) / 4); i++) w[i] = __shfl_xor_sync(ALL, w[i], distance);
    memcpy(&x, w, sizeof(S));
    return x;
}

template <int WIDTH, class S> DEVICE S within_warp(S x) {
#pragma unroll
    for (int distance = WIDTH / 2; distance; distance /= 2) x.merge(from_lane(x, distance));
    return x;
}

// No lane goes on before all have read what one of them will write over.
template <int WIDTH> DEVICE void together() {
    if constexpr (WIDTH > 32) __syncthreads();
    else if constexpr (WIDTH > 1) __syncwarp();
}

// All lanes of the team get the merged state.
template <int WIDTH, class S> DEVICE S merged(S x) {
    if constexpr (WIDTH <= 32) return within_warp<WIDTH>(x);
    else {
        constexpr int WARPS = WIDTH / 32;
        SHARED(double, scratch, (WARPS * sizeof(S) + 7) / 8);
        S* of_warp = reinterpret_cast<S*>(scratch);
        int lane = threadIdx.x % 32;
        x = within_warp<32>(x);
        if (lane == 0) of_warp[threadIdx.x / 32] = x;
        __syncthreads();
        x = lane < WARPS ? of_warp[lane] : S::none();
        __syncthreads();  // the next merge writes there
        return within_warp<32>(x);
    }
}

// A double by itself, for totals.
struct Tally {
    double x;
    DEVICE static Tally none() { return {0.0}; }
    DEVICE void merge(const Tally& other) { x += other.x; }
};

// ---- a row's elements

// A part of a row: its elements begin..end, counted from the row's beginning.
template <class E> struct Part {
    const E *t, *p;  // where the row begins
    i64 t_step, p_step;
    i64 begin, end, length;
    i64 label;  // -1: t is in memory
};

template <class E, class C> DEVICE C target(const Part<E>& row, i64 i, bool labelled) {
    return labelled ? C(i == row.label) : C(widen(row.t[i * row.t_step]));
}

template <int N> struct Count { static constexpr int value = N; };

// f(i, t, p) for the elements of this lane, of which there are LANES: arrays of elements i, i + 1, ... `head` elements are read one by one,
// and then vectors.
template <bool LABELLED, bool VECTORS, bool STEP, int LANES, class C, class E, class F>
DEVICE void each(const Part<E>& row, int lane, i64 head, const F& f) {
    auto one = [&](i64 i) {
        C t[1] = {target<E, C>(row, i, LABELLED)}, p[1] = {C(widen(row.p[i * row.p_step]))};
        f(i, t, p);
    };
    if constexpr (STEP) {
        i64 i = row.begin + lane;
        if constexpr (LANES == 1) {
            for (; i + 4 <= row.end; i += 4) {  // four loads in flight
                C t[4], p[4];
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    t[j] = target<E, C>(row, i + j, LABELLED);
                    p[j] = C(widen(row.p[(i + j) * row.p_step]));
                }
                f(i, t, p);
            }
        }
        for (; i < row.end; i += LANES) one(i);
    } else if constexpr (!VECTORS) {
        for (i64 i = row.begin + lane; i < row.end; i += LANES) one(i);
    } else {
        constexpr int V = Vector<E>::size, U = LABELLED ? 4 : 2;  // vectors of an operand in flight
        i64 first = row.begin + head;
#pragma unroll 4
        for (i64 i = row.begin + lane; i < first; i += LANES) one(i);
        i64 vectors = (row.end - first) / V, k = lane;
        const Vector<E>* p = reinterpret_cast<const Vector<E>*>(row.p + first);
        const Vector<E>* t = reinterpret_cast<const Vector<E>*>(row.t + first);
        auto some = [&](auto count, i64 k) {
            constexpr int N = decltype(count)::value;
            Vector<E> a[N], b[N];
#pragma unroll
            for (int u = 0; u < N; u++) {
                b[u] = p[k + u * LANES];
                if constexpr (!LABELLED) a[u] = t[k + u * LANES];
            }
#pragma unroll
            for (int u = 0; u < N; u++) {
                i64 at = first + (k + u * LANES) * V;
                C x[V], y[V];
#pragma unroll
                for (int j = 0; j < V; j++) {
                    y[j] = C(widen(b[u].x[j]));
                    if constexpr (LABELLED) x[j] = C(0);
                    else x[j] = C(widen(a[u].x[j]));
                }
                if constexpr (LABELLED) {
                    u64 hit = (u64)(row.label - at);
                    if (hit < V) {  // once a row
#pragma unroll
                        for (int j = 0; j < V; j++) x[j] = C(j == (int)hit);
                    }
                }
                f(at, x, y);
            }
        };
#pragma unroll 1
        for (; k + (U - 1) * LANES < vectors; k += U * LANES) some(Count<U>(), k);
#pragma unroll 1
        for (; k < vectors; k += LANES) some(Count<1>(), k);
#pragma unroll 1
        for (i64 i = first + vectors * V + lane; i < row.end; i += LANES) one(i);
    }
}

// How many elements come before the first vector of all operands; all of them where there is none.
template <class E> DEVICE i64 head_of(const E* p, const E* t, const E* d, const E* h, i64 count) {
    int at = phase(p);
    bool together = (!t || phase(t) == at) && (!d || phase(d) == at) && (!h || phase(h) == at);
    i64 head = together ? (at ? Vector<E>::size - at : 0) : count;
    return head < count ? head : count;
}

// To global memory, to be read by others: by one instruction, which a compiler is not sure to make of an assignment.
template <class E> DEVICE void store_vector(const Vector<E>& v, E* to) {
    uint4 bits;
    memcpy(&bits, &v, 16);
    __stcs(reinterpret_cast<uint4*>(to), bits);
}

template <bool VECTORS, bool ON_CHIP, class E, class C, int K> DEVICE void put(E* d, i64 i, i64 step, const C (&x)[K]) {
    if constexpr (VECTORS && K == Vector<E>::size) {
        Vector<E> v;
#pragma unroll
        for (int j = 0; j < K; j++) narrow(x[j], v.x[j]);
        if constexpr (ON_CHIP) *reinterpret_cast<Vector<E>*>(d + i) = v;
        else store_vector(v, d + i);
    } else {
#pragma unroll
        for (int j = 0; j < K; j++) narrow(x[j], d[(i + j) * step]);
    }
}

// ---- what belongs to a row

template <class E> DEVICE const E* row_of(const Operand& x, i64 row, i64 inner) {
    return static_cast<const E*>(x.data) + (inner == 1 ? row * x.outer : row / inner * x.outer + row % inner * x.side);
}

DEVICE double weight_of(const void* w, int wide, i64 row) {
    return !w ? 1.0 : wide ? static_cast<const double*>(w)[row] : (double)static_cast<const float*>(w)[row];
}

DEVICE i64 label_of(const Task& a, i64 row) {
    return a.wide_labels ? static_cast<const i64*>(a.labels)[row] : (i64)static_cast<const int*>(a.labels)[row];
}

enum Standing { COUNTS, IGNORED, BAD };

DEVICE Standing judge(const Task& a, i64 label) {
    if (label == a.ignore && a.ignore != NO_CLASS) return IGNORED;
    return a.free_labels || (label >= 0 && label < a.n) ? COUNTS : BAD;
}

template <template <class> class L, class C, int PARAMETERS> DEVICE L<C> functor(const Task& a) {
    C numbers[PARAMETERS + 1];
#pragma unroll
    for (int i = 0; i < PARAMETERS; i++) numbers[i] = C(a.parameters_at ? a.parameters_at[i] : a.parameters[i]);
    return with_parameters<L<C>, PARAMETERS>(numbers);
}

// ---- gathering a row's totals, and deriving

template <bool FIRST, class A, class B> struct Choose { typedef A type; };
template <class A, class B> struct Choose<false, A, B> { typedef B type; };

// The whole of one row by one team.
template <template <class> class L, class E, class C, int PARAMETERS, bool LABELLED, int ORDER, int WIDTH, bool VECTORS, bool STEP, bool ON_CHIP>
struct Team {
    typedef typename L<C>::passes passes;
    static constexpr bool POINTWISE = Pointwise<L<C>>::value && !LABELLED;
    // What is worked out once a row: in double where rows are long
    static constexpr bool LONG = WIDTH >= 32;
    typedef typename Choose<LONG, double, C>::type Once;
    const L<C>& f;
    const L<double>& g;
    int lane;

    DEVICE const L<Once>& once() const {
        if constexpr (LONG) return g;
        else return f;
    }

    template <class F> DEVICE void over(const Part<E>& row, i64 head, const F& each_of) const {
        each<LABELLED, VECTORS, STEP, WIDTH, C>(row, lane, head, each_of);
    }

    // Passes I and later.
    template <int I> DEVICE void gather(const Part<E>& row, i64 head, double* s) const {
        if constexpr (I < passes::count && (ORDER > 0 || I < Leading<L<C>>::value)) {
            typedef typename PassAt<I, passes>::type P;
            double* at = s + SlotOf<I, passes>::value;
            if constexpr (collective<P, LABELLED>()) {
                typedef typename StateOf<C, P, I>::type State;
                State state = State::none();
                over(row, head, [&](i64 i, auto& t, auto& p) { state.add(f, s, i, t, p); });
                merged<WIDTH>(state).give(at);
            } else single<I, P>(row, s, at);
            gather<I + 1>(row, head, s);
        }
    }

    // A pass that needs no more than the label.
    template <int I, class P> DEVICE void single(const Part<E>& row, const double* s, double* at) const {
        if constexpr (P::op == LABEL) at[0] = (double)row.label;
        else {
            const i64 i = P::op == PICK ? (i64)s[P::label] : row.label;
            // A row that is not there, or does not count, is not read: others may be writing where it is.
            auto y = f.terms(At<I>(), s, row.length ? C(widen(row.p[i * row.p_step])) : C(0));
#pragma unroll
            for (int k = 0; k < P::size; k++) at[k] = row.length ? (double)number(y, k) : 0.0;
        }
    }

    // Derivatives of all elements, times u.
    DEVICE void derive(const Part<E>& row, i64 head, const double* c, double u, E* d, i64 d_step, E* h, i64 h_step) const {
        over(row, head, [&](i64 i, auto& t, auto& p) { store(c, (C)u, i, t, p, d, d_step, h, h_step); });
    }

    template <int K>
    DEVICE void store(const double* c, C u, i64 i, const C (&t)[K], const C (&p)[K], E* d, i64 d_step, E* h, i64 h_step) const {
        C x[K];
#pragma unroll
        for (int j = 0; j < K; j++) x[j] = u * f.slope(c, t[j], p[j]);
        if constexpr (ORDER == 2) {
            C y[K];
#pragma unroll
            for (int j = 0; j < K; j++) y[j] = u * f.curve(c, t[j], p[j]);
            put<VECTORS, ON_CHIP>(h, i, h_step, y);
        }
        put<VECTORS, ON_CHIP>(d, i, d_step, x);  // last: it may take p's place
    }

    // Where a row does not count: the same everywhere.
    DEVICE void fill(const Part<E>& row, C x, E* d, i64 d_step, E* h, i64 h_step) const {
#pragma unroll 1
        for (i64 i = row.begin + lane; i < row.end; i += WIDTH) {
            narrow(x, d[i * d_step]);
            if constexpr (ORDER == 2) narrow(x, h[i * h_step]);
        }
    }

    DEVICE i64 head(const Part<E>& row, const E* d, const E* h) const {
        if constexpr (!VECTORS) return 0;
        const i64 at = row.begin;
        return head_of<E>(row.p + at, LABELLED ? nullptr : row.t + at, d ? d + at : nullptr, h ? h + at : nullptr, row.end - at);
    }

    // The one pass of a pointwise loss and, if ORDER, the derivatives in the same read.
    DEVICE void read_once(const Part<E>& row, double n, double u, double* s, E* d, i64 d_step, E* h, i64 h_step) const {
        auto c = g.around(s, n);
        typedef typename StateOf<C, typename PassAt<0, passes>::type, 0>::type State;
        State state = State::none();
        over(row, head(row, d, h), [&](i64 i, auto& t, auto& p) {
            state.add(f, s, i, t, p);
            if constexpr (ORDER > 0) store(c.x, (C)u, i, t, p, d, d_step, h, h_step);
        });
        merged<WIDTH>(state).give(s);
    }

    // The value of the row and, if ORDER, its derivatives.
    DEVICE double run(const Task& a, Part<E> row, Standing standing, double u, E* d, i64 d_step, E* h, i64 h_step) const {
        const double n = (double)a.length;
        double s[passes::size];
        if (standing != COUNTS) {  // the lanes of other teams gather: this one goes along with a row of nothing
            if constexpr (ORDER > 0 && LABELLED) fill(row, standing == BAD ? not_a_number<C>() : C(0), d, d_step, h, h_step);
            row.end = row.begin;
            row.label = row.length = 0;
        }
        if constexpr (POINTWISE) read_once(row, n, u, s, d, d_step, h, h_step);
        else {
            const i64 first = head(row, d, h);
            gather<0>(row, first, s);
            if constexpr (ORDER > 0) {
                together<WIDTH>();  // the derivatives may take the place of predictions
                derive(row, first, g.around(s, n).x, u, d, d_step, h, h_step);
            }
        }
        return standing == COUNTS ? (double)once().value(s, n) : standing == BAD ? not_a_number<double>() : 0.0;
    }
};

// ---- totals over the grid

// The last block to come, told to all its threads. Every block has written what the last one is to read.
DEVICE bool is_last(unsigned* ticket, unsigned blocks) {
    SHARED(int, last, 1);
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        *last = atomicInc(ticket, blocks - 1) == blocks - 1;  // wraps: zero for the next launch
        __threadfence();
    }
    __syncthreads();
    return *last;  // a kernel asks once, so nothing writes there again
}

template <int BLOCK> DEVICE double block_total(double x) {
    return merged<BLOCK>(Tally{x}).x;
}

// The sum over all blocks: true in the one that has it. merged<BLOCK> is for blocks of more than a warp.
template <int BLOCK> DEVICE bool grid_total(double& x, double* partials, unsigned* ticket) {
    x = block_total<BLOCK>(x);
    if (threadIdx.x == 0) partials[blockIdx.x] = x;
    if (!is_last(ticket, gridDim.x)) return false;
    x = 0.0;
    for (unsigned i = threadIdx.x; i < gridDim.x; i += BLOCK) x += partials[i];
    x = block_total<BLOCK>(x);
    return threadIdx.x == 0;
}

DEVICE double divisor_of(const Task& a) { return a.divisor_at ? *a.divisor_at : a.divisor; }

// ---- the kernels

enum Source { DIRECT, TILE, STEP };

// Copies `count` elements, which begin at the same place of a vector, by all threads of a block of BLOCK; on chip or from there.
template <int BLOCK, bool TO_CHIP, class E> DEVICE void copy(const E* from, E* to, i64 count) {
    i64 head = head_of<E>(from, to, nullptr, nullptr, count);
#pragma unroll 4
    for (i64 i = threadIdx.x; i < head; i += BLOCK) to[i] = from[i];
    i64 vectors = (count - head) / Vector<E>::size;
    const Vector<E>* x = reinterpret_cast<const Vector<E>*>(from + head);
    auto store = [&](const Vector<E>& v, i64 at) {
        if constexpr (TO_CHIP) reinterpret_cast<Vector<E>*>(to + head)[at] = v;
        else store_vector(v, to + head + at * Vector<E>::size);
    };
    i64 k = threadIdx.x;
#pragma unroll 1
    for (; k + 3 * BLOCK < vectors; k += 4 * BLOCK) {
        Vector<E> v[4];
#pragma unroll
        for (int u = 0; u < 4; u++) v[u] = x[k + u * BLOCK];
#pragma unroll
        for (int u = 0; u < 4; u++) store(v[u], k + u * BLOCK);
    }
#pragma unroll 1
    for (; k < vectors; k += BLOCK) store(x[k], k);
#pragma unroll 1
    for (i64 i = head + vectors * Vector<E>::size + threadIdx.x; i < count; i += BLOCK) to[i] = from[i];
}

// `rows` rows of an operand, one after the other in shared memory from `to` on; returns where the first begins, at the place of a
// vector where it begins in global memory. There is room for a vector more than the rows need.
template <int BLOCK, class E> DEVICE E* bring(const Operand& x, i64 first, i64 rows, i64 n, E* to) {
    const E* from = row_of<E>(x, first, 1);
    E* begin = to + phase(from);
    if (x.outer == n) copy<BLOCK, true>(from, begin, rows * n);
    else for (i64 r = 0; r < rows; r++) copy<BLOCK, true>(from + r * x.outer, begin + r * n, n);
    return begin;
}

template <int BLOCK, class E> DEVICE void send(const E* from, const Operand& x, i64 first, i64 rows, i64 n) {
    E* to = const_cast<E*>(row_of<E>(x, first, 1));
    if (x.outer == n) copy<BLOCK, false>(from, to, rows * n);
    else for (i64 r = 0; r < rows; r++) copy<BLOCK, false>(from + r * n, to + r * x.outer, n);
}

template <bool WANTED> DEVICE unsigned char* shared_memory() {
    if constexpr (WANTED) {
        DYNAMIC_SHARED(memory);
        return memory;
    } else return nullptr;
}

template <template <class> class L, class E, class C, int PARAMETERS, bool LABELLED, int ORDER, Source SOURCE, int WIDTH, int BLOCK>
DEVICE void rows(const Task& a) {
    constexpr int TEAMS = BLOCK / WIDTH;
    constexpr bool TILED = SOURCE == TILE;
    const L<C> f = functor<L, C, PARAMETERS>(a);
    const L<double> g = functor<L, double, PARAMETERS>(a);
    typedef Team<L, E, C, PARAMETERS, LABELLED, ORDER, WIDTH, SOURCE != STEP && WIDTH >= 32, SOURCE == STEP, TILED> OneTeam;
    const OneTeam team = {f, g, (int)threadIdx.x % WIDTH};
    const double scale = ORDER > 0 ? a.scale / divisor_of(a) : 0.0;
    double tally = 0.0;
    unsigned char* const memory = shared_memory<TILED>();
    const i64 per_tile = TILED ? a.per_tile : TEAMS;
    const i64 room = (per_tile * a.n + 2 * Vector<E>::size - 1) / Vector<E>::size * Vector<E>::size;  // of an operand, in elements
    E* in_p = reinterpret_cast<E*>(memory);
    E* in_t = LABELLED ? nullptr : in_p + room;
    E* in_h = in_p + (LABELLED ? 1 : 2) * room;
    for (i64 first = blockIdx.x * per_tile; first < a.m; first += gridDim.x * per_tile) {
        const i64 here = a.m - first < per_tile ? a.m - first : per_tile;
        E *tile_p = nullptr, *tile_t = nullptr, *tile_h = nullptr;
        if constexpr (TILED) {
            tile_p = bring<BLOCK, E>(a.p, first, here, a.n, in_p);
            if constexpr (!LABELLED) tile_t = bring<BLOCK, E>(a.t, first, here, a.n, in_t);
            if constexpr (ORDER == 2) tile_h = in_h + (tile_p - in_p);
            __syncthreads();
        }
        for (i64 r = threadIdx.x / WIDTH; r < per_tile; r += TEAMS) {  // as many times in every lane, for teams of a warp shuffle together
            const bool live = r < here;
            const i64 row = first + (live ? r : 0);
            Part<E> part = {};
            E *d = nullptr, *h = nullptr;
            i64 d_step = 1, h_step = 1;
            if constexpr (TILED) {
                part = {tile_t + (row - first) * a.n, tile_p + (row - first) * a.n, 1, 1, 0, a.n, a.n, -1};
                if constexpr (ORDER > 0) d = tile_p + (row - first) * a.n;
                if constexpr (ORDER == 2) h = tile_h + (row - first) * a.n;
            } else {
                const E *t = LABELLED ? nullptr : row_of<E>(a.t, row, a.inner), *p = row_of<E>(a.p, row, a.inner);
                part = {t, p, a.t.step, a.p.step, 0, a.n, a.n, -1};
                if constexpr (ORDER > 0) d = const_cast<E*>(row_of<E>(a.gradient, row, a.inner)), d_step = a.gradient.step;
                if constexpr (ORDER == 2) h = const_cast<E*>(row_of<E>(a.curve, row, a.inner)), h_step = a.curve.step;
            }
            Standing standing = COUNTS;
            if constexpr (LABELLED) {
                part.label = label_of(a, row);
                standing = judge(a, part.label);
                if (standing == BAD && live && team.lane == 0) atomicMin(a.status, (u64)row);
            }
            if (!live) part.end = part.length = 0, standing = IGNORED;  // joins the shuffles, and has nothing to read or write
            const double w = weight_of(a.weights, a.wide_weights, row);
            const double value = team.run(a, part, standing, w * scale, d, d_step, h, h_step);
            if (live && team.lane == 0) {
                if (a.values) narrow(value * weight_of(a.value_weights, a.wide_value_weights, row), static_cast<E*>(a.values)[row]);
                if (a.total) tally += w * value;
            }
        }
        if constexpr (TILED) {
            __syncthreads();
            if constexpr (ORDER > 0) {
                send<BLOCK, E>(tile_p, a.gradient, first, here, a.n);
                if constexpr (ORDER == 2) send<BLOCK, E>(tile_h, a.curve, first, here, a.n);
                __syncthreads();
            }
        }
    }
    if (a.total && grid_total<BLOCK>(tally, a.partials, a.tickets)) *a.total = tally / divisor_of(a);
}


// Pass I of rows that several blocks share, or with I = the number of passes their derivatives. In the workspace: the totals of all
// rows, their weighted values, and a state a block.
template <template <class> class L, class E, class C, int PARAMETERS, bool LABELLED, int ORDER, int I, int BLOCK> struct Pieces {
    typedef Team<L, E, C, PARAMETERS, LABELLED, ORDER, BLOCK, true, false, false> OneTeam;
    typedef typename OneTeam::passes passes;
    static constexpr int SIZE = passes::size, LAST = ORDER > 0 ? passes::count : Leading<L<C>>::value;

    // Totals of the passes J ... END - 1: those that were gathered from the workspace, those that need only the label anew.
    template <int J, int END> DEVICE static void recall(const OneTeam& team, const Part<E>& row, const double* totals, double* s) {
        if constexpr (J < END) {
            typedef typename PassAt<J, passes>::type P;
            constexpr int at = SlotOf<J, passes>::value;
            if constexpr (collective<P, LABELLED>()) {
#pragma unroll
                for (int k = 0; k < P::size; k++) s[at + k] = totals[at + k];
            } else team.template single<J, P>(row, s, s + at);
            recall<J + 1, END>(team, row, totals, s);
        }
    }

    template <int J> DEVICE static constexpr bool is_final() {  // no pass after J reads the whole row
        if constexpr (J + 1 >= LAST) return true;
        else return !collective<typename PassAt<J + 1, passes>::type, LABELLED>() && is_final<J + 1>();
    }

    DEVICE static void run(const Task& a) {
        const L<C> f = functor<L, C, PARAMETERS>(a);
        const L<double> g = functor<L, double, PARAMETERS>(a);
        const OneTeam team = {f, g, (int)threadIdx.x};
        const i64 blocks = a.per_tile, index = blockIdx.x / blocks, piece = blockIdx.x % blocks;
        const i64 step = (a.n / blocks + Vector<E>::size) / Vector<E>::size * Vector<E>::size;
        const i64 begin = piece * step < a.n ? piece * step : a.n, end = begin + step < a.n ? begin + step : a.n;
        double *const totals = a.partials + index * SIZE, *const values = a.partials + a.m * SIZE;
        Part<E> row = {LABELLED ? nullptr : row_of<E>(a.t, index, 1), row_of<E>(a.p, index, 1), 1, 1, begin, end, a.n, -1};
        E *d = nullptr, *h = nullptr;
        if constexpr (ORDER > 0) d = const_cast<E*>(row_of<E>(a.gradient, index, 1));
        if constexpr (ORDER == 2) h = const_cast<E*>(row_of<E>(a.curve, index, 1));
        Standing standing = COUNTS;
        if constexpr (LABELLED) {
            row.label = label_of(a, index);
            standing = judge(a, row.label);
            if (standing == BAD && piece == 0 && threadIdx.x == 0) atomicMin(a.status, (u64)index);
            if (standing != COUNTS) row.label = 0;
        }
        const double w = weight_of(a.weights, a.wide_weights, index), n = (double)a.length;
        const double u = ORDER > 0 ? w * a.scale / divisor_of(a) : 0.0;
        double s[SIZE];
        if constexpr (I == passes::count) {
#pragma unroll
            for (int k = 0; k < SIZE; k++) s[k] = totals[k];
            if (standing == COUNTS) team.derive(row, team.head(row, d, h), g.around(s, n).x, u, d, 1, h, 1);
            else if constexpr (LABELLED) team.fill(row, standing == BAD ? not_a_number<C>() : C(0), d, 1, h, 1);
        } else {
            typedef typename PassAt<I, passes>::type P;
            typedef typename StateOf<C, P, I>::type State;
            State state = State::none(), *const states = reinterpret_cast<State*>(values + a.m);
            recall<0, I>(team, row, totals, s);
            if constexpr (OneTeam::POINTWISE) {
                team.read_once(row, n, u, s, d, 1, h, 1);
                state.x[0] = s[0];
            } else {
                team.over(row, team.head(row, nullptr, nullptr), [&](i64 i, auto& t, auto& p) { state.add(f, s, i, t, p); });
                state = merged<BLOCK>(state);
            }
            if (threadIdx.x == 0) states[blockIdx.x] = state;
            if (!is_last(a.tickets + 1 + index, (unsigned)blocks)) return;
            state = State::none();
            for (i64 k = threadIdx.x; k < blocks; k += BLOCK) state.merge(states[index * blocks + k]);
            merged<BLOCK>(state).give(s + SlotOf<I, passes>::value);
            if (threadIdx.x != 0) return;
            if constexpr (is_final<I>()) recall<I + 1, LAST>(team, row, totals, s);
#pragma unroll
            for (int k = 0; k < SIZE; k++) totals[k] = s[k];
            if constexpr (is_final<I>()) {
                finish(a, index, standing == COUNTS ? (double)g.value(s, n) : standing == BAD ? not_a_number<double>() : 0.0, w, values);
            }
        }
    }

    // By one thread, for one row; the last one adds up.
    DEVICE static void finish(const Task& a, i64 index, double value, double w, double* values) {
        if (a.values) narrow(value * weight_of(a.value_weights, a.wide_value_weights, index), static_cast<E*>(a.values)[index]);
        if (!a.total) return;
        values[index] = w * value;
        __threadfence();
        if (atomicInc(a.tickets, (unsigned)a.m - 1) != (unsigned)a.m - 1) return;
        __threadfence();
        double total = 0.0;
        for (i64 k = 0; k < a.m; k++) total += values[k];
        *a.total = total / divisor_of(a);
    }
};

// What a total is divided by, where that depends on weights or on ignored labels: the sum of the weights of the rows that count, to
// `total`. If nothing is left 0 / 0 shall be 0.
template <int BLOCK> DEVICE void divisors(const Task& a) {
    double x = 0.0;
    for (i64 row = (i64)blockIdx.x * BLOCK + threadIdx.x; row < a.m; row += (i64)gridDim.x * BLOCK)
        if (!a.labels || a.ignore == NO_CLASS || label_of(a, row) != a.ignore) x += weight_of(a.weights, a.wide_weights, row);
    if (grid_total<BLOCK>(x, a.partials, a.tickets)) *a.total = x == 0.0 ? infinity<double>() : x;
}

// The parameters by which targets of nothing but 0 and 1 are read as -1 and 1, and others as they are: to total[0], total[1].
template <class E, int BLOCK> DEVICE void signs(const Task& a) {
    const E* t = static_cast<const E*>(a.t.data);
    int other = 0;
    for (i64 i = (i64)blockIdx.x * BLOCK + threadIdx.x; i < a.n; i += (i64)gridDim.x * BLOCK) other |= widen(t[i]) != 0 && widen(t[i]) != 1;
    if (other) atomicOr(a.tickets + 1, 1u);
    if (is_last(a.tickets, gridDim.x) && threadIdx.x == 0) {
        other = (int)atomicExch(a.tickets + 1, 0u);
        a.total[0] = other ? 1.0 : 2.0;
        a.total[1] = other ? 0.0 : -1.0;
    }
}
}  // namespace lossfuncs
