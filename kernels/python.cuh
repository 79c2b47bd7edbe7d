// What Python means where C++ means something else: the vocabulary of translated functions (lossfuncs/translate.py).
#pragma once
#include "portable.cuh"

template <class T, int N> struct Tuple {
    T at[N];
    __device__ __forceinline__ T operator[](int i) const { return at[i]; }
};

template <class T> __device__ __forceinline__ T infinity() { return T(1) / T(0); }
template <class T> __device__ __forceinline__ T nan() { return infinity<T>() - infinity<T>(); }
template <class T> __device__ __forceinline__ bool is_nan(T x) { return x != x; }
template <class T> __device__ __forceinline__ bool is_finite(T x) { return x - x == T(0); }
template <class T> __device__ __forceinline__ bool is_inf(T x) { return x == x && !is_finite(x); }
template <class T> __device__ __forceinline__ T square(T x) { return x * x; }

// NaN stays, from either side.
template <class T> __device__ __forceinline__ T largest(T x, T y) { return x > y || x != x ? x : y; }
template <class T> __device__ __forceinline__ T smallest(T x, T y) { return x < y || x != x ? x : y; }

// x % y has y's sign; x // y is the whole number below x / y, exactly, which floor(x / y) is not once that is rounded.
template <class T> __device__ __forceinline__ T floor_modulo(T x, T y) {
    T r = ::fmod(x, y);
    if (r == T(0)) return ::copysign(r, y);
    return (r < T(0)) != (y < T(0)) ? r + y : r;
}
template <class T> __device__ __forceinline__ T floor_divide(T x, T y) {
    if (y == T(0)) return x / y;
    T q = (x - floor_modulo(x, y)) / y;  // whole but for rounding
    T whole = ::floor(q);
    return q - whole > T(0.5) ? whole + T(1) : whole;
}
