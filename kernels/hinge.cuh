// The functors of lossfuncs/losses/hinge.py.
#pragma once
#include "rows.cuh"

namespace lossfuncs {

// The derivative of max(x, 0).
template <class T> DEVICE T half_step(T x) { return where(x > T(0), T(1), where(x < T(0), T(0), T(0.5))); }

template <class T> struct margin_loss {
    T scale, shift;
    DEVICE T value(T t, T p) const { return maximum(T(1) - (t * scale + shift) * p, T(0)); }
    DEVICE T slope(T t, T p) const {
        T y = t * scale + shift;
        return -y * half_step(T(1) - y * p);
    }
    DEVICE T curve(T, T) const { return T(0); }
};

template <class T> struct squared_margin_loss {
    T scale, shift;
    DEVICE T value(T t, T p) const {
        T m = maximum(T(1) - (t * scale + shift) * p, T(0));
        return m * m;
    }
    DEVICE T slope(T t, T p) const {
        T y = t * scale + shift;
        return T(-2) * y * maximum(T(1) - y * p, T(0));
    }
    DEVICE T curve(T t, T p) const {
        T y = t * scale + shift;
        return T(2) * y * y * half_step(T(1) - y * p);
    }
};

template <class T> struct categorical_margin {
    typedef Passes<Dot<1>, Max<1>, Sum<1>> passes;
    static constexpr int leading = 2;
    DEVICE T terms(At<0>, const double*, T p) const { return p; }
    DEVICE T terms(At<1>, const double*, T t, T p) const { return (T(1) - t) * p; }
    DEVICE T terms(At<2>, const double* s, T t, T p) const { return where((T(1) - t) * p == T(s[1]), T(1), T(0)); }
    DEVICE static double shortfall(const double* s) { return s[0] < 2.0 ? (1.0 - s[0]) + s[1] : (s[1] - s[0]) + 1.0; }
    DEVICE double value(const double* s, double) const { return maximum(shortfall(s), 0.0); }
    DEVICE Numbers<double, 3> around(const double* s, double) const {
        double active = half_step(shortfall(s));
        return {active, s[1], active / s[2]};
    }
    DEVICE T slope(const double* c, T t, T p) const {
        return where((T(1) - t) * p == T(c[1]), T(c[2]), T(0)) * (T(1) - t) - T(c[0]) * t;
    }
};

}  // namespace lossfuncs
