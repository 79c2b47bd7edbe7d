// The functors of lossfuncs/losses/overlap.py. In double, for the derivatives cancel; that costs less than the memory does.
#pragma once
#include "rows.cuh"

namespace lossfuncs {

template <class T> struct dice {
    typedef Passes<Sum<2>> passes;
    DEVICE Numbers<double, 2> terms(At<0>, const double*, T t, T p) const {
        double u = t, v = p;
        return {u * v, u * (1.0 - v) + v * (1.0 - u)};
    }
    DEVICE static double divisor(const double* s) { return (s[1] + 2.0 * s[0]) + EPS; }
    DEVICE double value(const double* s, double) const { return (s[1] + EPS) / divisor(s); }
    DEVICE Numbers<double, 2> around(const double* s, double) const { return {s[0] / divisor(s), 2.0 / divisor(s)}; }
    DEVICE T slope(const double* c, T t, T) const { return T((c[0] - t) * c[1]); }
};

template <class T> struct tversky {
    T alpha, beta;
    typedef Passes<Sum<3>> passes;
    DEVICE Numbers<double, 3> terms(At<0>, const double*, T t, T p) const {
        double u = t, v = p;
        return {u * v, u * (1.0 - v), v * (1.0 - u)};
    }
    DEVICE double cost(const double* s) const { return (double)alpha * s[1] + (double)beta * s[2] + EPS; }
    DEVICE double value(const double* s, double) const { return cost(s) / (s[0] + cost(s)); }
    DEVICE Numbers<double, 4> around(const double* s, double) const {  // alpha and beta too: as exact as they were there
        double divisor = s[0] + cost(s);
        return {s[0] / divisor, 1.0 / divisor, alpha, beta};
    }
    DEVICE T slope(const double* c, T t, T) const {
        return T((c[0] * (t * (1.0 - c[2]) + c[3] * (1.0 - t)) - t) * c[1]);
    }
};

}  // namespace lossfuncs
