// What a pass has gathered of a row so far: its state. `add` takes elements i, i + 1, ...; `merge` another state, whose elements may lie
// anywhere; `give` writes the totals.
#pragma once
#include "fast.cuh"

namespace lossfuncs {

template <class T> DEVICE T number(T x, int) { return x; }
template <class T, int K> DEVICE T number(const Numbers<T, K>& x, int k) { return x.x[k]; }

template <class C> DEVICE C infinity() { return C(bits_to_float(0x7f800000)); }
template <class C> DEVICE C not_a_number() { return C(bits_to_float(0x7fc00000)); }

// In what the terms R of a vector's elements are added up; `added` is what then counts. Only of half types does it depend on where vectors
// begin.
template <class R> struct Adding { typedef double type; };
template <> struct Adding<fast_float> { typedef float type; };
template <> struct Adding<Logs<fast_float>> { typedef Logs<fast_float> type; };
DEVICE double added(double x) { return x; }
DEVICE double added(const Logs<fast_float>& x) { return (fast_float)x; }

template <class C, class P, int I> struct Sums {
    double x[P::size];
    DEVICE static Sums none() { return {}; }
    template <int K, class L> DEVICE void add(const L& f, const double* s, i64, const C (&t)[K], const C (&p)[K]) {
        typedef decltype(number(of(f, s, C(1), C(1)), 0)) R;  // C, or double where the loss wants it
        typename Adding<R>::type part[P::size] = {};
#pragma unroll
        for (int j = 0; j < K; j++) {
            if (P::op == DOT && t[j] == C(0)) continue;  // brings 0, whatever the term is
            auto y = of(f, s, t[j], p[j]);
#pragma unroll
            for (int k = 0; k < P::size; k++) {
                if constexpr (P::op == DOT) part[k] += R(t[j]) * number(y, k);
                else part[k] += number(y, k);
            }
        }
#pragma unroll
        for (int k = 0; k < P::size; k++) x[k] += added(part[k]);
    }
    template <class L> DEVICE static auto of(const L& f, const double* s, C t, C p) {
        if constexpr (P::op == DOT) return f.terms(At<I>(), s, p);
        else return f.terms(At<I>(), s, t, p);
    }
    DEVICE void merge(const Sums& other) {
#pragma unroll
        for (int k = 0; k < P::size; k++) x[k] += other.x[k];
    }
    DEVICE void give(double* s) const {
#pragma unroll
        for (int k = 0; k < P::size; k++) s[k] = x[k];
    }
};

template <class C, class P, int I> struct Maxima {
    C x[P::size];
    DEVICE static C larger(C a, C b) { return P::op == MAX ? maximum(a, b) : fmax(a, b); }  // TOP passes over NaN
    DEVICE static Maxima none() {
        Maxima all;
#pragma unroll
        for (int k = 0; k < P::size; k++) all.x[k] = P::op == MAX ? -infinity<C>() : not_a_number<C>();
        return all;
    }
    template <int K, class L> DEVICE void add(const L& f, const double* s, i64, const C (&t)[K], const C (&p)[K]) {
#pragma unroll
        for (int j = 0; j < K; j++) {
            auto y = f.terms(At<I>(), s, t[j], p[j]);
#pragma unroll
            for (int k = 0; k < P::size; k++) x[k] = larger(x[k], number(y, k));
        }
    }
    DEVICE void merge(const Maxima& other) {
#pragma unroll
        for (int k = 0; k < P::size; k++) x[k] = larger(x[k], other.x[k]);
    }
    DEVICE void give(double* s) const {
#pragma unroll
        for (int k = 0; k < P::size; k++) s[k] = (double)x[k];
    }
};

// The maximum m and the sum r of exp(x - m) over the others; -1 if there is none at all.
template <class C, class P, int I> struct Exponentials {
    double r;
    C m, unused;
    DEVICE static Exponentials none() { return {-1.0, -infinity<C>(), C(0)}; }
    template <int K, class L> DEVICE void add(const L& f, const double* s, i64, const C (&t)[K], const C (&p)[K]) {
        C x[K], top = C(0);
#pragma unroll
        for (int j = 0; j < K; j++) {
            x[j] = number(f.terms(At<I>(), s, t[j], p[j]), 0);
            top = j ? fmax(top, x[j]) : x[j];
        }
        typename Adding<C>::type part = 0;
        if (top < m) {  // nearly always: no new maximum, nor one once more
#pragma unroll
            for (int j = 0; j < K; j++) part += exp(x[j] - m);
            r += part;
            return;
        }
        int equal = 0;
#pragma unroll
        for (int j = 0; j < K; j++) {
            equal += x[j] == top;
            if (x[j] != top) part += exp(x[j] - top);
        }
        merge({(double)part + (equal - 1), top, C(0)});
    }
    DEVICE void merge(const Exponentials& other) {
        if (other.m == m) r = (r + other.r) + 1.0;
        else {
            const bool above = other.m > m;
            const double fewer = above ? r : other.r;
            r = (above ? other.r : r) + (1.0 + fewer) * exp(above ? m - other.m : other.m - m);  // NaN comes here
            m = above ? other.m : m;
        }
    }
    DEVICE void give(double* s) const {
        s[0] = r != r ? r : (double)m;
        s[1] = r;
    }
};

// The first largest target; NaN is larger than all.
template <class C> struct FirstLargest {
    i64 at;
    C top, unused;
    DEVICE static FirstLargest none() { return {0x7fffffffffffffffLL, -infinity<C>(), C(0)}; }
    DEVICE void take(i64 i, C x) {
        bool nan = top != top;
        bool better = x != x ? !nan || i < at : !nan && (x > top || (x == top && i < at));
        at = better ? i : at;
        top = better ? x : top;
    }
    template <int K, class L> DEVICE void add(const L&, const double*, i64 i, const C (&t)[K], const C (&)[K]) {
        bool none = true;
#pragma unroll
        for (int j = 0; j < K; j++) none &= t[j] <= top;
        if (none) return;  // nearly always
#pragma unroll
        for (int j = 0; j < K; j++) take(i + j, t[j]);
    }
    DEVICE void merge(const FirstLargest& other) { take(other.at, other.top); }
    DEVICE void give(double* s) const { s[0] = (double)at; }
};

// How many predictions come before the label's own.
template <class C, class P, int I> struct Before {
    i64 count;
    DEVICE static Before none() { return {0}; }
    template <int K, class L> DEVICE void add(const L&, const double* s, i64 i, const C (&)[K], const C (&p)[K]) {
        C own = (C)s[P::own];
        const i64 label = (i64)s[P::label];
        int found = 0;
        if (i > label) {
#pragma unroll
            for (int j = 0; j < K; j++) found += !(p[j] <= own);
        } else if (i + K <= label) {
#pragma unroll
            for (int j = 0; j < K; j++) found += !(p[j] < own);
        } else {
#pragma unroll
            for (int j = 0; j < K; j++) found += !(p[j] <= own) || (p[j] == own && i + j < label);
        }
        count += found;
    }
    DEVICE void merge(const Before& other) { count += other.count; }
    DEVICE void give(double* s) const { s[0] = (double)count; }
};

template <class C, class P, int I> struct StateOf { typedef Sums<C, P, I> type; };
template <class C, int K, int I> struct StateOf<C, Max<K>, I> { typedef Maxima<C, Max<K>, I> type; };
template <class C, int K, int I> struct StateOf<C, Top<K>, I> { typedef Maxima<C, Top<K>, I> type; };
template <class C, int I> struct StateOf<C, LogSumExp, I> { typedef Exponentials<C, LogSumExp, I> type; };
template <class C, int I> struct StateOf<C, Label, I> { typedef FirstLargest<C> type; };
template <class C, int L, int O, int I> struct StateOf<C, Rank<L, O>, I> { typedef Before<C, Rank<L, O>, I> type; };

// The first total of pass I.
template <int I, class P> struct SlotOf { static constexpr int value = SlotOf<I - 1, P>::value + PassAt<I - 1, P>::type::size; };
template <class P> struct SlotOf<0, P> { static constexpr int value = 0; };

// Whether a pass reads the whole row.
template <class P, bool LABELLED> DEVICE constexpr bool collective() {
    return P::op != PICK && !(LABELLED && (P::op == LABEL || P::op == DOT));
}

}  // namespace lossfuncs
