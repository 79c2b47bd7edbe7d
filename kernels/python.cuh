// What Python means where C++ means something else: the vocabulary of translated functions (lossfuncs/translate.py).
#pragma once
#include "rows.cuh"

namespace lossfuncs {

#if !(defined(__CUDACC__) || defined(__CUDACC_RTC__))
using std::erf; using std::erfc; using std::fma; using std::lgamma; using std::remainder; using std::tgamma;
#endif

template <class T> DEVICE T square(T x) { return x * x; }

// x % y has y's sign; x // y is the whole number below x / y, which floor(x / y) is not once that is rounded.
template <class T> DEVICE T floor_modulo(T x, T y) {
    T r = fmod(x, y);
    if (r == T(0)) return copysign(r, y);
    return (r < T(0)) != (y < T(0)) ? r + y : r;
}
template <class T> DEVICE T floor_divide(T x, T y) {
    if (y == T(0)) return x / y;
    T q = (x - floor_modulo(x, y)) / y;  // whole but for rounding
    T whole = floor(q);
    return q - whole > T(0.5) ? whole + T(1) : whole;
}

}  // namespace lossfuncs
