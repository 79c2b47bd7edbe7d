// Connectionist temporal classification: lossfuncs/losses/ctc.py, a block for each sequence.
//
// The forward and backward recurrences run on probabilities, not on their logarithms: sums and products of numbers whose exponent is
// kept apart, so that nothing over- or underflows and no exp or log stands between a frame and the next. Twice the digits of a double
// keep those of a loss next to 0, whose likelihood is next to 1.
#pragma once
#include "exponents.cuh"
#include "rows.cuh"

namespace lossfuncs {

// (m + rest) 2^e, 1 <= m < 2, rest what rounding took from m, e whole. 0 is 0 at LEAST; NaN is NaN at -LEAST, so that it stays.
struct Wide {
    double m, rest, e;
};

constexpr double LEAST = -1e300;

DEVICE Wide normal(double m, double rest, double e) {
    double s = m + rest;
    rest -= s - m;
    if (!(s > 0.0)) return {s, 0.0, s == 0.0 ? LEAST : -LEAST};
    int up = exponent(s);
    double k = power_of_two(-up);
    return {s * k, rest * k, e + up};
}

// 2^(e - to); what is 2^1000 times smaller is nothing.
DEVICE double lift(double e, double to) {
    double down = e - to;
    return down < -1000.0 ? 0.0 : power_of_two(down > 1000.0 ? 1000 : (int)down);
}

DEVICE Wide times(const Wide& x, const Wide& y) {
    double m = x.m * y.m;
    return normal(m, fma(x.m, y.m, -m) + (x.m * y.rest + x.rest * y.m), x.e + y.e);
}

// a + b, and what its rounding takes, into `lost`.
DEVICE double sum_and_loss(double a, double b, double& lost) {
    double s = a + b, from_b = s - a;
    lost += (a - (s - from_b)) + (b - from_b);
    return s;
}

DEVICE Wide plus(const Wide& x, const Wide& y, const Wide& z) {
    double e = fmax(fmax(x.e, y.e), z.e), a = lift(x.e, e), b = lift(y.e, e), c = lift(z.e, e);
    double lost = x.rest * a + y.rest * b + z.rest * c;
    double m = sum_and_loss(x.m * a, y.m * b, lost);
    m = sum_and_loss(m, z.m * c, lost);
    return normal(m, lost, e);
}

constexpr double LN2 = 0.693147180559945286, LN2_REST = 2.319046813846299558e-17;

__device__ __noinline__ inline Wide wide_exp(double x) {
    if (x == -(double)bits_to_float(0x7f800000u)) return {0.0, 0.0, LEAST};
    double e = rint(x / LN2);
    double rest = fma(-e, LN2_REST, fma(-e, LN2, x));
    rest = rest > 1.0 ? 1.0 : rest < -1.0 ? -1.0 : rest;  // beyond 2^50 nothing but e counts; NaN stays
    double lost = 0.0, m = sum_and_loss(1.0, expm1(rest), lost);
    return normal(m, lost, e);
}

DEVICE double wide_log(const Wide& x) {
    if (x.m == 0.0) return -(double)bits_to_float(0x7f800000u);
    if (x.e == 0.0) return log1p((x.m - 1.0) + x.rest);
    if (x.e == -1.0) return log1p((0.5 * x.m - 1.0) + 0.5 * x.rest);
    return log(x.m) + x.e * LN2;
}

// What is to be done; the fields are packed by lossfuncs/own.py. Strides are counted in elements.
struct Sequences {
    const void* logits;       // (batch, frames, classes)
    const i64* labels;        // (batch, length), padded with 0, the blank
    double* values;           // (batch,)
    void* gradient;           // as logits, or null
    const double* weights;    // of the gradient, or null
    double* norms;            // workspace: for each frame of each sequence the two parts of the logarithm of the sum of exp(logits)
    double* alpha;            // workspace for the gradient: two numbers for each frame and place
    Wide* steps;              // workspace for what shared memory has no room for: 3 a place, or null
    u64* status;              // the first row with a label out of range
    i64 batch, frames, classes, length;
    i64 first;                // the sequence that the workspace begins with
    i64 by_sequence, by_frame, by_class;  // strides of logits
    i64 to_sequence, to_frame, to_class;  // of gradient
    double scale;             // of the gradient
};

struct TopAndRest {  // the largest of a row, how often it stands there, and the sum of exp(x - it) of the others
    double top, ties, rest;
    DEVICE void merge(const TopAndRest& other) {
        if (other.ties == 0.0) return;
        if (ties == 0.0) { *this = other; return; }
        double m = maximum(top, other.top);
        if (top == m) rest += other.top == m ? other.rest : (other.rest + other.ties) * exp(other.top - m);
        else rest = (rest + ties) * exp(top - m) + other.rest;
        ties = m != m ? 1.0 : (top == m ? ties : 0.0) + (other.top == m ? other.ties : 0.0);  // NaN stays
        top = m;
    }
};

DEVICE double over_warp(double x, int distance) { return __shfl_xor_sync(0xffffffffu, x, distance); }

template <class E> DEVICE double logit(const Sequences& a, i64 sequence, i64 frame, i64 k) {
    return (double)widen(static_cast<const E*>(a.logits)[sequence * a.by_sequence + frame * a.by_frame + k * a.by_class]);
}

// The norms of a sequence's frames, a warp for each; and the softmax as the beginning of the gradient.
template <class E> __device__ __noinline__ void normalise(const Sequences& a, i64 sequence, double weight, double* norms) {
    const int lane = threadIdx.x % 32;
    for (i64 i = threadIdx.x / 32; i < a.frames; i += blockDim.x / 32) {
        TopAndRest all = {0.0, 0.0, 0.0};
        for (i64 k = lane; k < a.classes; k += 32) all.merge({logit<E>(a, sequence, i, k), 1.0, 0.0});
        for (int distance = 16; distance; distance /= 2)
            all.merge({over_warp(all.top, distance), over_warp(all.ties, distance), over_warp(all.rest, distance)});
        const double top = all.top, rest = log1p(all.rest + (all.ties - 1.0));
        if (lane == 0) norms[2 * i] = top, norms[2 * i + 1] = rest;
        if (a.gradient) {
            E* to = static_cast<E*>(a.gradient) + sequence * a.to_sequence + i * a.to_frame;
            for (i64 k = lane; k < a.classes; k += 32) narrow(weight * exp((logit<E>(a, sequence, i, k) - top) - rest), to[k * a.to_class]);
        }
    }
}

template <class E> __device__ __noinline__ void fill_gradient(const Sequences& a, i64 sequence, double x) {
    for (i64 e = threadIdx.x; a.gradient && e < a.frames * a.classes; e += blockDim.x) {
        i64 at = sequence * a.to_sequence + e / a.classes * a.to_frame + e % a.classes * a.to_class;
        narrow(x, static_cast<E*>(a.gradient)[at]);
    }
}

// One block, of whole warps. A place is one of blank, label, blank, ..., label, blank; a thread has every blockDim.x-th of them.
template <class E> DEVICE void ctc(const Sequences& a) {
    SHARED(int, found, 2);
    DYNAMIC_SHARED(memory);
    const i64 sequence = a.first + blockIdx.x, room = 2 * a.length + 1;
    const i64* labels = a.labels + sequence * a.length;
    if (threadIdx.x == 0) found[0] = found[1] = 0;
    __syncthreads();
    for (i64 j = threadIdx.x; j < a.length; j += blockDim.x) {
        if (labels[j] != 0) atomicAdd(&found[0], 1);
        if (labels[j] < 0 || labels[j] >= a.classes) atomicAdd(&found[1], 1);
    }
    __syncthreads();
    if (found[1]) {
        if (threadIdx.x == 0) {
            atomicMin(a.status, (u64)sequence);
            a.values[sequence] = bits_to_float(0x7fc00000u);
        }
        fill_gradient<E>(a, sequence, bits_to_float(0x7fc00000u));
        return;
    }
    const int count = found[0], places = 2 * count + 1, frames = (int)a.frames;
    const double weight = a.weights ? a.scale * a.weights[sequence] : a.scale;
    double* norms = a.norms + (i64)blockIdx.x * a.frames * 2;
    normalise<E>(a, sequence, weight, norms);
    __syncthreads();

    Wide* steps = a.steps ? a.steps + (i64)blockIdx.x * room * 3 : reinterpret_cast<Wide*>(memory);
    Wide *now = steps, *before = steps + room;
    double* alpha = a.alpha ? a.alpha + (i64)blockIdx.x * a.frames * room * 2 : nullptr;
    const Wide one = {1.0, 0.0, 0.0}, zero = {0.0, 0.0, LEAST};
    auto label = [&](int s) { return s % 2 ? labels[s / 2] : 0; };
    auto log_softmax = [&](int i, i64 k) { return (logit<E>(a, sequence, i, k) - norms[2 * i]) - norms[2 * i + 1]; };
    auto emission = [&](int i, int s) { return s < places && i >= 0 && i < frames ? wide_exp(log_softmax(i, label(s))) : zero; };
    const int mine = threadIdx.x;

    Wide ahead = emission(0, mine);  // what does not wait for the frame before is computed before the barrier
    for (int i = 0; i < frames; i++) {
        for (int s = mine; s < places; s += blockDim.x) {
            Wide x = s < 2 ? one : zero;
            if (i > 0) {
                bool skip = s > 2 && s % 2 && label(s) != labels[s / 2 - 1];
                x = plus(before[s], s > 0 ? before[s - 1] : zero, skip ? before[s - 2] : zero);
            }
            x = times(x, s == mine ? ahead : emission(i, s));
            now[s] = x;
            if (alpha) alpha[2 * (i * room + s)] = x.m, alpha[2 * (i * room + s) + 1] = x.e;
        }
        ahead = emission(i + 1, mine);
        __syncthreads();
        Wide* other = now;
        now = before, before = other;
    }
    Wide likelihood = count == 0 ? one : zero;
    if (frames > 0) likelihood = plus(before[places - 1], places > 1 ? before[places - 2] : zero, zero);
    if (mine == 0) a.values[sequence] = -wide_log(likelihood);
    if (!a.gradient || frames == 0) return;
    if (likelihood.m == 0.0) {
        fill_gradient<E>(a, sequence, 0.0);
        return;
    }

    // Places with the same label make a chain; the first of them adds up their occupancies.
    double *share_now = reinterpret_cast<double*>(steps + 2 * room), *share_before = share_now + room;
    int *next = reinterpret_cast<int*>(share_before + room), *is_first = next + room;
    for (int s = 2 * mine + 1; s < places; s += 2 * blockDim.x) {
        int after = s + 2, earlier = s - 2;
        while (after < places && label(after) != label(s)) after += 2;
        while (earlier > 0 && label(earlier) != label(s)) earlier -= 2;
        next[s] = after < places ? after : 0;
        is_first[s] = earlier < 0 && label(s) != 0;
    }
    E* to = static_cast<E*>(a.gradient) + sequence * a.to_sequence;
    ahead = emission(frames - 1, mine);
    __syncthreads();  // the likelihood is read, the chains are written
    for (int i = frames - 1; i >= 0; i--) {
        for (int s = mine; s < places; s += blockDim.x) {
            Wide x = s + 2 >= places ? one : zero;
            if (i < frames - 1) {
                bool skip = s + 2 < places && s % 2 && label(s) != labels[s / 2 + 1];
                x = plus(before[s], s + 1 < places ? before[s + 1] : zero, skip ? before[s + 2] : zero);
            }
            const double m = alpha[2 * (i * room + s)], e = alpha[2 * (i * room + s) + 1];
            const double share = m * x.m / likelihood.m * lift(e + x.e, likelihood.e);
            share_now[s] = share > 1.0 ? 1.0 : share;  // by rounding, or where a likelihood of 2^-1e16 has no digits
            now[s] = times(x, s == mine ? ahead : emission(i, s));
        }
        ahead = emission(i - 1, mine);
        __syncthreads();
        auto give = [&](i64 k, double occupied) { narrow(weight * (exp(log_softmax(i, k)) - occupied), to[i * a.to_frame + k * a.to_class]); };
        for (int s = 2 * mine + 1; s < places; s += 2 * blockDim.x) {
            if (!is_first[s]) continue;
            double occupied = share_now[s];
            for (int other = next[s]; other; other = next[other]) occupied += share_now[other];
            give(label(s), occupied);
        }
        if (mine < 32) {
            double occupied = 0.0;
            for (int s = mine; s < places; s += 32) occupied += label(s) == 0 ? share_now[s] : 0.0;
            for (int distance = 16; distance; distance /= 2) occupied += over_warp(occupied, distance);
            if (mine == 0) give(0, occupied);
        }
        Wide* other = now;
        now = before, before = other;
        double* share_other = share_now;
        share_now = share_before, share_before = share_other;
    }
}

}  // namespace lossfuncs
