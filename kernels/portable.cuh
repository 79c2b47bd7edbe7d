// What differs between NVRTC or nvcc, the CPU emulation of the tests (which includes its own header first and defines EMULATED), and plain
// host C++, for which a functor is an ordinary class.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define DEVICE __device__ __forceinline__
#define SHARED(T, name, count) __shared__ T name[count]
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#else
#include <cmath>
#include <cstring>
#ifndef EMULATED
#define DEVICE inline
#endif
#endif

namespace lossfuncs {

typedef long long i64;
typedef unsigned long long u64;

#if !(defined(__CUDACC__) || defined(__CUDACC_RTC__))
using std::acos; using std::acosh; using std::asin; using std::asinh; using std::atan; using std::atan2; using std::atanh; using std::cbrt;
using std::ceil; using std::copysign; using std::cos; using std::cosh; using std::exp; using std::exp2; using std::expm1; using std::floor;
using std::fmod; using std::hypot; using std::isfinite; using std::isinf; using std::isnan; using std::log; using std::log10; using std::log1p;
using std::log2; using std::pow; using std::sin; using std::sinh; using std::sqrt; using std::tan; using std::tanh; using std::trunc;
#endif

// 16-bit numbers in memory; they are computed in float.
struct float16 { unsigned short bits; };
struct bfloat16 { unsigned short bits; };

DEVICE float bits_to_float(unsigned x) {
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
    return __uint_as_float(x);
#else
    float f;
    std::memcpy(&f, &x, 4);
    return f;
#endif
}

DEVICE unsigned float_to_bits(float x) {
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
    return __float_as_uint(x);
#else
    unsigned u;
    std::memcpy(&u, &x, 4);
    return u;
#endif
}

DEVICE float widen(float x) { return x; }
DEVICE double widen(double x) { return x; }
DEVICE float widen(bfloat16 x) { return bits_to_float((unsigned)x.bits << 16); }
DEVICE float widen(float16 x) {
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(x.bits));
    return f;
#else
    _Float16 h;
    std::memcpy(&h, &x.bits, 2);
    return (float)h;
#endif
}

DEVICE void narrow(float x, float& y) { y = x; }
DEVICE void narrow(double x, double& y) { y = x; }
DEVICE void narrow(double x, float& y) { y = (float)x; }
DEVICE void narrow(float x, float16& y) {
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#else
    _Float16 h = (_Float16)x;
    std::memcpy(&y.bits, &h, 2);
#endif
}
DEVICE void narrow(float x, bfloat16& y) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#else
    unsigned u = float_to_bits(x);
    y.bits = x != x ? 0x7fff : (unsigned short)((u + 0x7fff + (u >> 16 & 1)) >> 16);  // to nearest, ties to even
#endif
}
// With the last bit set where x is no float: what is rounded again then is as if it had been x.
DEVICE float odd_float(double x) {
    float y = (float)x;
    if ((double)y == x || x != x) return y;
    unsigned bits = float_to_bits(y);
    return bits_to_float((fabs((double)y) > fabs(x) ? bits - 1 : bits) | 1);
}
DEVICE void narrow(double x, float16& y) { narrow(odd_float(x), y); }
DEVICE void narrow(double x, bfloat16& y) { narrow(odd_float(x), y); }

// exp2 for the hot loops of the softmax family: two units in the last place, a subnormal result is 0.
DEVICE float fast_exp2(float x) {
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2(x);
#endif
}

}  // namespace lossfuncs
