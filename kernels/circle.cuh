// The functor of lossfuncs/losses/circle.py, over rows of similarities.
#pragma once
#include "rows.cuh"

namespace lossfuncs {

template <class T> struct circle {
    T gamma, margin;
    typedef Passes<LogSumExp, LogSumExp> passes;
    static constexpr int leading = 2;
    static constexpr bool pointwise = false;

    // The pair's part in the loss of its row is its target.
    static constexpr double SAME = 1.0, OTHER = 0.0, EXCLUDED = -1.0;

    DEVICE static T none() { return T(bits_to_float(0xff800000u)); }
    DEVICE T near(T t, T p) const {
        T d = maximum(T(1) - p, T(0));
        return where(t == T(SAME), gamma * ((d + margin) * (d - margin)), none());
    }
    DEVICE T far(T t, T p) const {
        T d = maximum(T(1) - p, T(0));
        return where(t == T(OTHER), gamma * (maximum(T(1) + margin - d, T(0)) * (T(1) - margin - d)), none());
    }
    DEVICE static double exponent(const double* s) { return (s[0] + log1p(s[1])) + (s[2] + log1p(s[3])); }

    DEVICE T terms(At<0>, const double*, T t, T p) const { return near(t, p); }
    DEVICE T terms(At<1>, const double*, T t, T p) const { return far(t, p); }
    DEVICE double value(const double* s, double) const { return softplus(exponent(s)); }
    DEVICE Numbers<double, 4> around(const double* s, double) const {
        double outer = 2.0 * gamma * sigmoid(exponent(s));
        return {s[0], outer / (1.0 + s[1]), s[2], outer / (1.0 + s[3])};
    }
    DEVICE T slope(const double* c, T t, T p) const {
        T d = maximum(T(1) - p, T(0));
        bool same = t == T(SAME);
        T e = exp(same ? near(t, p) - T(c[0]) : far(t, p) - T(c[2]));
        T by_far = where(d < T(1) + margin, -(e * T(c[3]) * (T(1) - d)), T(0));
        T fall = where(p < T(1), T(-1), where(p > T(1), T(0), T(-0.5)));
        return fall * where(same, e * T(c[1]) * d, where(t == T(OTHER), by_far, T(0)));
    }
};

}  // namespace lossfuncs
