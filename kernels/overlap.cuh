// The functors of lossfuncs/losses/overlap.py.
#pragma once
#include "rows.cuh"

namespace lossfuncs {

template <class T> struct dice {
    typedef Passes<Sum<2>> passes;
    DEVICE Numbers<T, 2> terms(At<0>, const double*, T t, T p) const { return {t * p, t * (T(1) - p) + p * (T(1) - t)}; }
    DEVICE static double divisor(const double* s) { return (s[1] + 2.0 * s[0]) + EPS; }
    DEVICE double value(const double* s, double) const { return (s[1] + EPS) / divisor(s); }
    DEVICE Numbers<double, 2> around(const double* s, double) const { return {s[0] / divisor(s), 2.0 / divisor(s)}; }
    DEVICE T slope(const double* c, T t, T) const { return (T(c[0]) - t) * T(c[1]); }
};

template <class T> struct tversky {
    T alpha, beta;
    typedef Passes<Sum<3>> passes;
    DEVICE Numbers<T, 3> terms(At<0>, const double*, T t, T p) const { return {t * p, t * (T(1) - p), p * (T(1) - t)}; }
    DEVICE double cost(const double* s) const { return (double)alpha * s[1] + (double)beta * s[2] + EPS; }
    DEVICE double value(const double* s, double) const { return cost(s) / (s[0] + cost(s)); }
    DEVICE Numbers<double, 2> around(const double* s, double) const {
        double divisor = s[0] + cost(s);
        return {s[0] / divisor, 1.0 / divisor};
    }
    DEVICE T slope(const double* c, T t, T) const {
        return (T(c[0]) * (t * (T(1) - alpha) + beta * (T(1) - t)) - t) * T(c[1]);
    }
};

}  // namespace lossfuncs
