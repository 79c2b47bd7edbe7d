// The functors of lossfuncs/losses/regression.py and metrics/correlation.py.
#pragma once
#include "fast.cuh"

namespace lossfuncs {

template <class T> DEVICE T sign(T x) { return where(x > T(0), T(1), where(x < T(0), T(-1), T(0))); }

template <class T> struct squared_error {
    DEVICE T value(T t, T p) const { return (p - t) * (p - t); }
    DEVICE T slope(T t, T p) const { return T(2) * (p - t); }
    DEVICE T curve(T, T) const { return T(2); }
};

template <class T> struct absolute_error {
    DEVICE T value(T t, T p) const { return magnitude(p - t); }
    DEVICE T slope(T t, T p) const { return sign(p - t); }
    DEVICE T curve(T, T) const { return T(0); }
};

template <class T> struct relative_error {
    DEVICE T value(T t, T p) const { return magnitude(p - t) / maximum(magnitude(t), T(EPS)); }
    DEVICE T slope(T t, T p) const { return T(100) * sign(p - t) / maximum(magnitude(t), T(EPS)); }  // as a percentage
    DEVICE T curve(T, T) const { return T(0); }
};

template <class T> struct percentage_error : Mean<relative_error<T>> {
    DEVICE double value(const double* s, double n) const { return 100.0 * (s[0] / n); }
};

template <class T> struct squared_log_error {
    DEVICE static T distance(T a, T b) { return log1p(magnitude(b - a) / (T(1) + minimum(a, b))); }
    DEVICE T value(T t, T p) const {
        T d = distance(maximum(t, T(EPS)), maximum(p, T(EPS)));
        return d * d;
    }
    DEVICE T slope(T t, T p) const {
        T a = maximum(t, T(EPS)), b = maximum(p, T(EPS)), d = copysign(distance(a, b), b - a);
        return where(above(p), T(2), where(p < T(EPS), T(0), T(1))) * d / (T(1) + b);
    }
    DEVICE T curve(T t, T p) const {
        T a = maximum(t, T(EPS)), b = maximum(p, T(EPS)), d = copysign(distance(a, b), b - a);
        return where(p < T(EPS), T(0), T(2) * (T(1) - d) / ((T(1) + b) * (T(1) + b)));
    }
    // p > EPS; float(EPS) is itself more than EPS
    DEVICE static bool above(float p) { return p >= float(EPS); }
    DEVICE static bool above(double p) { return p > EPS; }
};

template <class T> struct huber_error {
    T delta;
    DEVICE T value(T t, T p) const {
        T e = magnitude(p - t), m = minimum(e, delta);
        return m * (e - T(0.5) * m);
    }
    DEVICE T slope(T t, T p) const { return maximum(minimum(p - t, delta), -delta); }
    DEVICE T curve(T t, T p) const { return where(magnitude(p - t) <= delta, T(1), T(0)); }
};

template <class T> struct log_cosh_error {
    DEVICE Logs<T> value(T t, T p) const { return logs_of_cosh(p - t); }
    DEVICE T slope(T t, T p) const { return tanh(p - t); }
    DEVICE T curve(T t, T p) const {
        T w = exp(T(-2) * magnitude(p - t));
        return T(4) * w / ((T(1) + w) * (T(1) + w));
    }
};

template <class T> struct poisson_deviation {
    // log(p + EPS), where p + EPS would be rounded to p
    DEVICE static double shifted_log(double p) { return log(p + EPS); }
    DEVICE static float shifted_log(float p) { return p > 0.01f ? log(p) + float(EPS) / p : log(p + float(EPS)); }
    DEVICE static fast_float shifted_log(fast_float p) { return log_of(p.x + float(EPS), (p.x - 1.0f) + float(EPS)); }
    DEVICE T value(T t, T p) const { return fused(-t, shifted_log(p), p); }
    DEVICE T slope(T t, T p) const { return quotient((p - t) + T(EPS), p + T(EPS)); }
    DEVICE T curve(T t, T p) const { return t / ((p + T(EPS)) * (p + T(EPS))); }
};

// Products of two vectors cancel, and overflow in float: they are taken in double, which costs less than the memory does.
template <class T> struct cosine {
    T sign;
    typedef Passes<Top<2>, Sum<3>> passes;
    DEVICE static double scale(double largest) { return largest > 1e100 ? 0x1p-664 : largest < 1e-100 ? 0x1p664 : 1.0; }
    DEVICE static double norm(double squares, double scale) { return maximum(sqrt(squares), EPS * scale); }
    DEVICE static double of(const double* s) {
        return minimum(maximum(s[4] / norm(s[2], scale(s[0])) / norm(s[3], scale(s[1])), -1.0), 1.0);
    }
    DEVICE Numbers<T, 2> terms(At<0>, const double*, T t, T p) const { return {magnitude(t), magnitude(p)}; }
    DEVICE Numbers<double, 3> terms(At<1>, const double* s, T t, T p) const {
        double u = t * scale(s[0]), v = p * scale(s[1]);
        return {u * u, v * v, u * v};
    }
    DEVICE double value(const double* s, double) const { return sign * of(s); }
    DEVICE Numbers<double, 3> around(const double* s, double) const {
        double scale_t = scale(s[0]), scale_p = scale(s[1]), by_t = scale_t / norm(s[2], scale_t);
        double by_p = s[3] == 0.0 ? 0.0 : scale_p / norm(s[3], scale_p);
        return {by_t, by_p, (sqrt(s[3]) > EPS * scale_p ? of(s) : 0.0) * by_p};
    }
    DEVICE T slope(const double* c, T t, T p) const { return T(sign * c[1] * (t * c[0] - p * c[2])); }
};

// Pearson's and Lin's coefficient: see metrics/correlation.py for the totals.
template <class T> struct moments {
    T length;
    typedef Passes<Top<2>, Sum<2>, Sum<3>> passes;
    DEVICE Numbers<T, 2> terms(At<0>, const double*, T t, T p) const { return {t, p}; }
    DEVICE Numbers<double, 2> terms(At<1>, const double* s, T t, T p) const { return {t - s[0], p - s[1]}; }
    DEVICE Numbers<double, 3> terms(At<2>, const double* s, T t, T p) const {
        double dt = (t - s[0]) - s[2] / (double)length, dp = (p - s[1]) - s[3] / (double)length;
        return {dt * dt, dp * dp, dt * dp};
    }
};

template <class T> struct pearson : moments<T> {
    DEVICE static double reciprocal_root(double x) { return x == 0.0 ? 0.0 : 1.0 / sqrt(x); }
    DEVICE double value(const double* s, double) const { return minimum(maximum(s[6] / (sqrt(s[4]) * sqrt(s[5])), -1.0), 1.0); }
    DEVICE Numbers<double, 7> around(const double* s, double n) const {
        double by_t = reciprocal_root(s[4]), by_p = reciprocal_root(s[5]);
        return {s[0], s[2] / n, s[1], s[3] / n, by_t, by_p, s[6] * by_t * by_p * by_p};
    }
    DEVICE T slope(const double* c, T t, T p) const { return T((((t - c[0]) - c[1]) * c[4] - ((p - c[2]) - c[3]) * c[6]) * c[5]); }
};

template <class T> struct concordance : moments<T> {
    DEVICE static double mean_difference(const double* s, double n) { return (s[1] - s[0]) + (s[3] - s[2]) / n; }
    DEVICE static double divisor(const double* s, double n) {
        double difference = mean_difference(s, n);
        return (s[4] + s[5]) / n + difference * difference + EPS;
    }
    DEVICE double value(const double* s, double n) const { return 2.0 * s[6] / n / divisor(s, n); }
    DEVICE Numbers<double, 7> around(const double* s, double n) const {
        return {s[0], s[2] / n, s[1], s[3] / n, mean_difference(s, n), value(s, n), 2.0 / n / divisor(s, n)};
    }
    DEVICE T slope(const double* c, T t, T p) const {
        return T((((t - c[0]) - c[1]) - c[5] * (((p - c[2]) - c[3]) + c[4])) * c[6]);
    }
};

}  // namespace lossfuncs
