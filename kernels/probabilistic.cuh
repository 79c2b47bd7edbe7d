// The functors of lossfuncs/losses/probabilistic.py. Where its double-precision formulas would lose digits in float they are written
// otherwise: the smaller one of a probability and its complement is what everything is computed from.
#pragma once
#include "fast.cuh"

namespace lossfuncs {

constexpr double TOP_PROBABILITY = 1.0 - EPS, REST = 1.0 - TOP_PROBABILITY;  // REST: EPS but for the rounding of the other

// weight * cost, where a weight of 0 brings 0, whatever the cost.
template <class T> DEVICE T times(T weight, T cost) { return weight == T(0) ? T(0) : weight * cost; }

// Whether a clip lets a derivative through; NaN is let through. No float lies between EPS and float(EPS), nor between the tops.
template <class T> DEVICE bool within(T p, T low, T high) { return !(p < low) && !(p > high); }
template <class T> DEVICE bool within(T p) { return within(p, T(EPS), T(TOP_PROBABILITY)); }

template <class T> struct binary_entropy {
    // of what is more probable, log(1 - small) with what 1 - small rounds away; and log(small)
    DEVICE static T log_of(bool sure, T small) {
        T x = sure ? T(1) - small : small;
        return log(x) + (sure ? ((T(1) - x) - small) * (T(1) + small) : T(0));
    }
    DEVICE static fast_float cost(fast_float t, fast_float p) {
        float q = 1.0f - p.x, small = maximum(minimum(p.x, q), float(EPS));
        bool low = p.x <= 0.5f;
        float by_small = lg2_approx(small) * LN_2, by_rest = log_above_half(-small);
        return fast_float(-fmaf(low ? t.x : 1.0f - t.x, by_small, (low ? 1.0f - t.x : t.x) * by_rest));
    }
    template <class C> DEVICE static C cost(C t, C p) {
        bool low = p <= T(0.5), one = t > T(0.5);
        T small = low ? maximum(p, T(EPS)) : maximum(T(1) - p, T(REST)), weight = one ? t : T(1) - t, other = one ? T(1) - t : t;
        T cost = weight * log_of(one != low, small);
        if (other != T(0)) cost += other * log_of(one == low, small);  // a soft target, or none
        return -cost;
    }
    DEVICE T value(T t, T p) const { return cost(t, p); }
    DEVICE T slope(T t, T p) const { return within(p) ? quotient(p - t, p * (T(1) - p)) : T(0); }
    DEVICE T curve(T t, T p) const { return within(p) ? t / (p * p) + (T(1) - t) / ((T(1) - p) * (T(1) - p)) : T(0); }
};

// sigmoid(x) and 1 - sigmoid(x), each to its last digits.
template <class T> struct Sigmoids {
    T x, y;
    DEVICE explicit Sigmoids(T logit) {
        T e = exp_nonpositive(-magnitude(logit)), larger = quotient(T(1), T(1) + e), smaller = e * larger;
        x = where(logit < T(0), smaller, larger);
        y = where(logit < T(0), larger, smaller);
    }
};

template <class T> struct binary_entropy_from_logits {
    DEVICE static Logs<T> cost(T t, T x) { return {times(where(x < T(0), t, T(1) - t), magnitude(x)), exp(-magnitude(x))}; }
    DEVICE Logs<T> value(T t, T p) const { return cost(t, p); }
    DEVICE T slope(T t, T p) const {
        Sigmoids<T> q(p);
        return fused(-t, q.y, (T(1) - t) * q.x);
    }
    DEVICE T curve(T, T p) const {
        Sigmoids<T> q(p);
        return q.x * q.y;
    }
};

// F for the target t keep + share.
template <class F, class T> struct Smooth {
    T keep, share;
    F f;
    DEVICE auto value(T t, T p) const { return f.value(t * keep + share, p); }
    DEVICE T slope(T t, T p) const { return f.slope(t * keep + share, p); }
    DEVICE T curve(T t, T p) const { return f.curve(t * keep + share, p); }
};

// u^gamma; its derivative by u, and its second derivative times du^2, given the power f.
struct Power {
    template <class T> DEVICE static T power(T u, T gamma) { return pow(u, gamma); }
    template <class T> DEVICE static T slope(T u, T f, T gamma, T at_zero) { return where(u > T(0), gamma * f / u, at_zero); }
    template <class T> DEVICE static T curve(T u, T du, T f, T gamma) {
        return where(u > T(0), gamma * (gamma - T(1)) * f / u * du / u * du, T(0));  // u * u may be 0
    }
};

struct Square {
    template <class T> DEVICE static T power(T u, T) { return u * u; }
    template <class T> DEVICE static T slope(T u, T, T, T) { return T(2) * u; }
    template <class T> DEVICE static T curve(T, T du, T, T) { return T(2) * du * du; }
};

template <class T, class P> struct focal_entropy {
    T keep, share, w1, w0, gamma, at_zero;
    DEVICE T value(T t, T p) const {
        t = t * keep + share;
        T u = maximum(t * (T(1) - p) + (T(1) - t) * p, T(0));
        return (t * w1 + (T(1) - t) * w0) * P::power(u, gamma) * binary_entropy<T>::cost(t, p);
    }
    DEVICE T slope(T t, T p) const {
        t = t * keep + share;
        T u = maximum(t * (T(1) - p) + (T(1) - t) * p, T(0)), f = P::power(u, gamma);
        T bend = P::slope(u, f, gamma, at_zero) * (T(1) - T(2) * t) * binary_entropy<T>::cost(t, p);
        return (t * w1 + (T(1) - t) * w0) * (f * binary_entropy<T>().slope(t, p) + bend);
    }
    DEVICE T curve(T t, T p) const {
        t = t * keep + share;
        T u = maximum(t * (T(1) - p) + (T(1) - t) * p, T(0)), du = T(1) - T(2) * t, f = P::power(u, gamma);
        T bend = T(2) * P::slope(u, f, gamma, at_zero) * du * binary_entropy<T>().slope(t, p);
        bend += P::curve(u, du, f, gamma) * binary_entropy<T>::cost(t, p);
        return (t * w1 + (T(1) - t) * w0) * (f * binary_entropy<T>().curve(t, p) + bend);
    }
};

template <class T, class P> struct focal_entropy_from_logits {
    T keep, share, w1, w0, gamma, at_zero;
    DEVICE T value(T t, T p) const {
        t = t * keep + share;
        Sigmoids<T> q(p);
        T f = P::power(t * q.y + (T(1) - t) * q.x, gamma);
        return (t * w1 + (T(1) - t) * w0) * f * binary_entropy_from_logits<T>::cost(t, p);
    }
    DEVICE T slope(T t, T p) const {
        t = t * keep + share;
        Sigmoids<T> q(p);
        T xy = q.x * q.y, u = t * q.y + (T(1) - t) * q.x, du = (T(1) - T(2) * t) * xy, f = P::power(u, gamma);
        T bend = P::slope(u, f, gamma, at_zero) * du * binary_entropy_from_logits<T>::cost(t, p);
        return (t * w1 + (T(1) - t) * w0) * (f * ((T(1) - t) * q.x - t * q.y) + where(xy == T(0), T(0), bend));
    }
    DEVICE T curve(T t, T p) const {
        t = t * keep + share;
        Sigmoids<T> q(p);
        T xy = q.x * q.y, u = t * q.y + (T(1) - t) * q.x, du = (T(1) - T(2) * t) * xy, f = P::power(u, gamma);
        T g = P::slope(u, f, gamma, at_zero);
        T bend = (P::curve(u, du, f, gamma) + g * du * (q.y - q.x)) * binary_entropy_from_logits<T>::cost(t, p);
        bend += T(2) * g * du * ((T(1) - t) * q.x - t * q.y) + f * xy;
        return (t * w1 + (T(1) - t) * w0) * where(xy == T(0), T(0), bend);
    }
};

template <class T> struct relative_entropy {
    DEVICE static T clipped(T x) { return minimum(maximum(x, T(EPS)), T(1)); }
    // In nearly equal rows the terms a log(a / b) cancel but for their second order. In float they are (a - b) + (a + b) r, with a - b exact
    // and r = (1 + y) atanh(y) - y >= 0 for y = (a - b) / (a + b), by its series.
    DEVICE static double cost(float a, float b) {
        float y = (a - b) / (a + b), z = y * y;
        if (fabsf(y) < 0.125f) {
            float r = z * (1.0f + (1.0f + y) * y * (1.0f / 3 + z * (1.0f / 5 + z * (1.0f / 7 + z * (1.0f / 9)))));
            return ((double)a - (double)b) + (double)((a + b) * r);
        }
        return where(a < b, -a, a) * log1p(fabsf(a - b) / fminf(a, b));
    }
    // (a - b) + (a - b) r of half types, which differ by 2^-11 if at all: r = ((1 + v) log(1 + v) - v) / v for v = (a - b) / b.
    DEVICE static fast_float cost(fast_float a, fast_float b) {
        fast_float d = a - b, v = quotient(d, b), far = a * fast_float(lg2_approx(quotient(a, b)) * LN_2);
        float near = fmaf(d * v, polynomial(v, 0.49999994f, -0.16681337f, 0.08346379f), d);
        return fabsf(v) < 0.0625f ? fast_float(near) : far;
    }
    DEVICE static double cost(double a, double b) { return where(a < b, -a, a) * log1p(magnitude(a - b) / minimum(a, b)); }
    DEVICE auto value(T t, T p) const { return cost(clipped(t), clipped(p)); }
    DEVICE T slope(T t, T p) const { return within(p, T(EPS), T(1)) ? -quotient(clipped(t), clipped(p)) : T(0); }
    DEVICE T curve(T t, T p) const { return within(p, T(EPS), T(1)) ? clipped(t) / (clipped(p) * clipped(p)) : T(0); }
};

DEVICE double divisor(double total) { return total == 0.0 ? 1.0 : total; }

// The share p / total, clipped to [EPS, 1 - EPS], what is missing to 1, and the logarithm: each to its last digits.
template <class T> struct Share {
    T q, rest, log_q;
    DEVICE Share(T p, double total) {
        q = p / T(total);
        if (q > T(0.5)) {
            rest = maximum(T(total - p) / T(total), T(REST));
            log_q = log1p(-rest);
            q = T(1) - rest;
        } else {
            q = maximum(q, T(EPS));
            rest = T(1) - q;
            log_q = log(q);
        }
    }
    DEVICE static bool inside(T p, double total) { return within<double>(p, EPS * total, TOP_PROBABILITY * total); }
};

template <class T> struct cross_entropy {
    typedef Passes<Sum<1>, Dot<2>> passes;
    DEVICE T terms(At<0>, const double*, T, T p) const { return p; }
    DEVICE Numbers<T, 2> terms(At<1>, const double* s, T p) const {
        double total = divisor(s[0]);
        return {-Share<T>(p, total).log_q, T(Share<T>::inside(p, total))};
    }
    DEVICE double value(const double* s, double) const { return s[1]; }
    DEVICE Numbers<double, 3> around(const double* s, double) const { return {divisor(s[0]), s[2], 1.0 / divisor(s[0])}; }
    DEVICE T slope(const double* c, T t, T p) const {
        return Share<T>::inside(p, c[0]) ? T((c[1] * p - t * c[0]) * c[2]) / p : T(c[1] * c[2]);
    }
};

template <class T> struct cross_entropy_from_logits {
    typedef Passes<LogSumExp, Dot<2>> passes;
    DEVICE T terms(At<0>, const double*, T, T p) const { return p; }
    DEVICE Numbers<T, 2> terms(At<1>, const double* s, T p) const { return {T(1), T(s[0]) - p}; }
    DEVICE double value(const double* s, double) const { return times(s[2], (double)log1p(T(s[1]))) + s[3]; }
    DEVICE Numbers<double, 4> around(const double* s, double) const { return {s[0], s[1], 1.0 / (1.0 + s[1]), s[2]}; }
    DEVICE T slope(const double* c, T t, T p) const {
        return fused(-t, T(c[1]), fused(exp_nonpositive(p - T(c[0])), T(c[3]), -t)) * T(c[2]);
    }
    DEVICE T curve(const double* c, T, T p) const {
        T e = exp_nonpositive(p - T(c[0]));
        return T(c[3]) * e * T(c[2]) * (((T(1) - e) + T(c[1])) * T(c[2]));
    }
};

template <class T, class P> struct focal_cross_entropy {
    T alpha, gamma, at_zero;
    typedef Passes<Sum<1>, Dot<2>> passes;
    DEVICE T terms(At<0>, const double*, T, T p) const { return p; }
    DEVICE Numbers<T, 2> terms(At<1>, const double* s, T p) const {
        double total = divisor(s[0]);
        Share<T> x(p, total);
        T f = P::power(x.rest, gamma), by_log_q = P::slope(x.rest, f, gamma, at_zero) * x.q * x.log_q - f;
        return {-f * x.log_q, Share<T>::inside(p, total) ? by_log_q : T(0)};
    }
    DEVICE double value(const double* s, double) const { return times((double)alpha, s[1]); }
    DEVICE Numbers<double, 3> around(const double* s, double) const { return {divisor(s[0]), s[2], (double)alpha / divisor(s[0])}; }
    DEVICE T slope(const double* c, T t, T p) const {
        T g = t * terms(At<1>(), c, p)[1], inside = fused(g, quotient(T(c[0] - p), p), T(g - c[1]));
        return T(c[2] * (Share<T>::inside(p, c[0]) ? (double)inside : -c[1]));  // a subnormal total has no reciprocal in float
    }
};

template <class T, class P> struct focal_cross_entropy_from_logits {
    T alpha, gamma, at_zero;
    typedef Passes<LogSumExp, Dot<4>> passes;
    DEVICE T terms(At<0>, const double*, T, T p) const { return p; }
    DEVICE Numbers<T, 4> terms(At<1>, const double* s, T p) const {
        T d = T(s[0]) - p, e = exp(-d), inverse = T(1.0 / (1.0 + s[1])), u = minimum(((T(1) - e) + T(s[1])) * inverse, T(1));
        T f = P::power(u, gamma), bend = P::slope(u, f, gamma, at_zero) * (e * inverse);
        return {f, times(f, d), bend, times(bend, d)};
    }
    DEVICE double value(const double* s, double) const {
        return times((double)alpha, times(s[2], (double)log1p(T(s[1]))) + s[3]);
    }
    DEVICE Numbers<double, 5> around(const double* s, double) const {
        double log_rest = log1p(s[1]);
        return {s[0], s[1], log_rest, -(s[2] + (s[4] * log_rest + s[5])), (double)alpha / (1.0 + s[1])};
    }
    // in double: at the label of a sure row g and its sum have the same bits, and only r g is left
    DEVICE T slope(const double* c, T t, T p) const {
        Numbers<T, 4> x = terms(At<1>(), c, p);
        double g = times((double)t, -((double)x[0] + ((double)x[2] * c[2] + (double)x[3])));
        return T(c[4] * ((g - (double)exp(p - T(c[0])) * c[3]) + c[1] * g));
    }
};

template <class P> struct Widened { typedef P type; };
template <int K> struct Widened<Dot<K>> { typedef Sum<K> type; };
template <class P> struct WidenedPasses;
template <class... P> struct WidenedPasses<Passes<P...>> { typedef Passes<typename Widened<P>::type...> type; };

// F with t keep + share for t: then no target is 0, and a Dot becomes a Sum.
template <class F, class T> struct Smoothed {
    T keep, share;
    F f;
    typedef typename WidenedPasses<typename F::passes>::type passes;
    static constexpr int leading = Leading<F>::value;
    template <int I> DEVICE auto terms(At<I>, const double* s, T t, T p) const {
        if constexpr (PassAt<I, typename F::passes>::type::op == DOT) {
            auto x = f.terms(At<I>(), s, p);
            T w = t * keep + share;
            for (T& y : x.x) y *= w;
            return x;
        } else return f.terms(At<I>(), s, t, p);
    }
    DEVICE auto value(const double* s, double n) const { return f.value(s, n); }
    DEVICE auto around(const double* s, double n) const { return f.around(s, n); }
    DEVICE T slope(const double* c, T t, T p) const { return f.slope(c, t * keep + share, p); }
    DEVICE T curve(const double* c, T t, T p) const { return f.curve(c, t * keep + share, p); }
};

template <class T> struct generalized_cross_entropy {
    T q;
    typedef Passes<Dot<1>> passes;
    DEVICE T terms(At<0>, const double*, T p) const { return p; }
    DEVICE double value(const double* s, double) const { return -expm1((double)q * log(s[0])) / (double)q; }
    DEVICE Numbers<double, 1> around(const double* s, double) const { return {-pow(where(s[0] == 0.0, EPS, s[0]), (double)q - 1.0)}; }
    DEVICE T slope(const double* c, T t, T) const { return t * T(c[0]); }
};

}  // namespace lossfuncs
