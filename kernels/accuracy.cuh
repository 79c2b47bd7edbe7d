// The functors of lossfuncs/metrics/accuracy.py.
#pragma once
#include "rows.cuh"

namespace lossfuncs {

template <class T> struct equality {
    typedef Passes<Sum<1>> passes;
    DEVICE T terms(At<0>, const double*, T t, T p) const { return where(t == p, T(1), T(0)); }
    DEVICE double value(const double* s, double) const { return s[0]; }
};

template <class T> struct decision {
    T threshold;
    typedef Passes<Sum<1>> passes;
    DEVICE T terms(At<0>, const double*, T t, T p) const { return where(t == where(p > threshold, T(1), T(0)), T(1), T(0)); }
    DEVICE double value(const double* s, double) const { return s[0]; }
};

template <class T> struct top_class {
    typedef Passes<Label, Pick<0>, Rank<0, 1>, Pick<0>> passes;  // Larger and Earlier in one sweep; nothing is left for the last
    DEVICE T terms(At<1>, const double*, T p) const { return p; }
    DEVICE T terms(At<3>, const double*, T) const { return T(0); }
    DEVICE double value(const double* s, double) const { return where(s[2] + s[3] == 0.0, 1.0, 0.0); }
};

template <class T> struct top_k {
    T k;
    typedef Passes<Label, Pick<0>, Sum<1>> passes;
    DEVICE T terms(At<1>, const double*, T p) const { return p; }
    DEVICE T terms(At<2>, const double* s, T, T p) const { return where(p <= T(s[1]), T(0), T(1)); }  // NaN on either side counts
    DEVICE double value(const double* s, double) const { return where(s[2] < (double)k, 1.0, 0.0); }
};

template <class T> struct among_first {
    typedef Passes<Label, Sum<1>> passes;
    DEVICE T terms(At<1>, const double* s, T, T p) const { return where((double)p == s[0], T(1), T(0)); }
    DEVICE double value(const double* s, double) const { return where(s[1] > 0.0, 1.0, 0.0); }
};

}  // namespace lossfuncs
