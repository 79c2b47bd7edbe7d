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

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)  // what has overloads here (fast.cuh)
using ::copysign; using ::exp; using ::expm1; using ::fmax; using ::log; using ::log1p; using ::pow; using ::sqrt; using ::tanh;
#else
using std::acos; using std::acosh; using std::asin; using std::asinh; using std::atan; using std::atan2; using std::atanh; using std::cbrt;
using std::ceil; using std::copysign; using std::cos; using std::cosh; using std::exp; using std::exp2; using std::expm1; using std::floor;
using std::fmax; using std::fmod; using std::hypot; using std::isfinite; using std::isinf; using std::isnan; using std::log; using std::log10; using std::log1p;
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

// The instructions of the special-function units. Subnormal numbers are 0 to them, but for divide_approx.
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define INSTRUCTION(name, ptx) DEVICE float name(float x) { float y; asm(ptx " %0, %1;" : "=f"(y) : "f"(x)); return y; }
INSTRUCTION(ex2_approx, "ex2.approx.ftz.f32")    // to 2 units in the last place
INSTRUCTION(lg2_approx, "lg2.approx.ftz.f32")    // to 2^-22, for x in (0.5, 2); else to 2^-22 of the result
INSTRUCTION(rcp_approx, "rcp.approx.ftz.f32")    // to 1 unit; 0 for what is above 2^126
INSTRUCTION(sqrt_approx, "sqrt.approx.ftz.f32")  // to 2^-23 of the result
#undef INSTRUCTION
DEVICE float divide_approx(float x, float y) {   // to 2 units, for |y| <= 2^126; above x / y is 0
    float z;
    asm("div.approx.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
    return z;
}
#elif !defined(EMULATED)
DEVICE float ex2_approx(float x) { return exp2(x); }
DEVICE float lg2_approx(float x) { return log2(x); }
DEVICE float rcp_approx(float x) { return 1.0f / x; }
DEVICE float sqrt_approx(float x) { return sqrt(x); }
DEVICE float divide_approx(float x, float y) { return x / y; }
#endif

}  // namespace lossfuncs
