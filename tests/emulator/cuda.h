// CUDA C++ for a C++ compiler. This is included before a kernel's own text instead of CUDA's headers; EMULATED says so.
//
// Covered is what kernels that also run on sm_75 use: indices, barriers, shuffles and votes, shared memory, fences, atomics, vector
// types, cache hints and maths. What is not covered does not compile.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "fibres.h"

#define EMULATED 1
#define DEVICE inline

// ---- qualifiers
#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __restrict__ __restrict
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define __shared__ static_assert(false, "declare shared memory by SHARED(type, name, count)");

// ---- where a thread is
#define threadIdx (::emulator::current->index)
#define blockIdx (::emulator::current->block)
#define blockDim (::emulator::block_size)
#define gridDim (::emulator::grid_size)
#define warpSize 32

// ---- shared memory: one array for each line in which it is declared, and each instance of the template that the line is in
#define SHARED(type, name, count)                                                                    \
    static char name##_key;                                                                          \
    using name##_array = type[count];                                                                \
    name##_array& name = *static_cast<name##_array*>(::emulator::shared(&name##_key, #name, sizeof(name##_array)))
#define DYNAMIC_SHARED(name) unsigned char* const name = static_cast<unsigned char*>(::emulator::dynamic_shared())

// ---- synchronisation: each knows where it was called, for the reports and to see threads that are not at the same one
#define EMULATOR_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(EMULATOR_HERE) { emulator::barrier({file, line}); }
inline void __syncwarp(unsigned mask = ~0u, EMULATOR_HERE) { emulator::exchange(emulator::SYNC, mask, 0, 0, {file, line}); }
inline void __threadfence() { emulator::fence(); }
inline void __threadfence_block() { emulator::fence(); }

namespace emulator {

template <class To, class From>
To bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

template <class T>
T shuffle(uint32_t mask, T value, int source, Place place) {
    static_assert(sizeof(T) <= sizeof(uint64_t) && std::is_trivially_copyable_v<T>);
    uint64_t wide = 0;
    memcpy(&wide, &value, sizeof value);
    wide = exchange(SHUFFLE, mask, wide, source, place);
    memcpy(&value, &wide, sizeof value);
    return value;
}

inline int lane() { return static_cast<int>(current->lane); }
inline int first_of(int width) { return lane() & ~(width - 1); }

}  // namespace emulator

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMULATOR_HERE) {
    return emulator::shuffle(mask, value, emulator::first_of(width) + (source & (width - 1)), {file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int other, int width = 32, EMULATOR_HERE) {
    int source = emulator::lane() ^ other;
    return emulator::shuffle(mask, value, source < emulator::first_of(width) + width ? source : emulator::lane(), {file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, EMULATOR_HERE) {
    int source = emulator::lane() + static_cast<int>(by);
    return emulator::shuffle(mask, value, source < emulator::first_of(width) + width ? source : emulator::lane(), {file, line});
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, EMULATOR_HERE) {
    int source = emulator::lane() - static_cast<int>(by);
    return emulator::shuffle(mask, value, source >= emulator::first_of(width) ? source : emulator::lane(), {file, line});
}
inline unsigned __ballot_sync(unsigned mask, int vote, EMULATOR_HERE) {
    return static_cast<unsigned>(emulator::exchange(emulator::BALLOT, mask, vote != 0, 0, {file, line}));
}
inline int __any_sync(unsigned mask, int vote, EMULATOR_HERE) { return __ballot_sync(mask, vote, file, line) != 0; }
inline int __all_sync(unsigned mask, int vote, EMULATOR_HERE) { return __ballot_sync(mask, !vote, file, line) == 0; }
inline unsigned __activemask() = delete;  // it says which lanes happen to be there, not which must be

// ---- atomics: each whole, none ordering anything else, as on a GPU
namespace emulator {

template <class T, class F>
T update(T* at, F new_of) {
    T old, wanted;
#if defined(__SANITIZE_THREAD__)
    before_atomic(at);
#endif
    __atomic_load(at, &old, __ATOMIC_RELAXED);
    do wanted = new_of(old);
    while (!__atomic_compare_exchange(at, &old, &wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}

}  // namespace emulator

template <class T>
T atomicAdd(T* at, std::common_type_t<T> value) {
    return emulator::update(at, [=](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicMax(T* at, std::common_type_t<T> value) {
    return emulator::update(at, [=](T old) { return old < value ? value : old; });
}
template <class T>
T atomicMin(T* at, std::common_type_t<T> value) {
    return emulator::update(at, [=](T old) { return value < old ? value : old; });
}
template <class T>
T atomicOr(T* at, std::common_type_t<T> value) {
    return emulator::update(at, [=](T old) { return old | value; });
}
template <class T>
T atomicAnd(T* at, std::common_type_t<T> value) {
    return emulator::update(at, [=](T old) { return old & value; });
}
template <class T>
T atomicExch(T* at, std::common_type_t<T> value) {
    return emulator::update(at, [=](T) { return value; });
}
template <class T>
T atomicCAS(T* at, std::common_type_t<T> expected, std::common_type_t<T> value) {
    return emulator::update(at, [=](T old) { return old == expected ? value : old; });
}
inline unsigned atomicInc(unsigned* at, unsigned last) {
    return emulator::update(at, [=](unsigned old) { return old >= last ? 0u : old + 1; });
}

// ---- vector types
#define EMULATOR_VECTORS(name, type)                                    \
    struct alignas(2 * sizeof(type)) name##2 { type x, y; };            \
    struct alignas(sizeof(type) < 8 ? 4 * sizeof(type) : 16) name##4 { type x, y, z, w; }; \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }    \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
EMULATOR_VECTORS(float, float)
EMULATOR_VECTORS(double, double)
EMULATOR_VECTORS(int, int)
EMULATOR_VECTORS(uint, unsigned)
EMULATOR_VECTORS(short, short)
EMULATOR_VECTORS(ushort, unsigned short)
EMULATOR_VECTORS(longlong, long long)
EMULATOR_VECTORS(ulonglong, unsigned long long)

// ---- loads and stores with hints, bits
template <class T> inline T __ldg(const T* at) { return *at; }
template <class T> inline T __ldcs(const T* at) { return *at; }
template <class T> inline T __ldcg(const T* at) { return *at; }
template <class T> inline T __ldca(const T* at) { return *at; }
template <class T> inline T __ldlu(const T* at) { return *at; }
template <class T> inline void __stcs(T* at, T value) { *at = value; }
template <class T> inline void __stcg(T* at, T value) { *at = value; }
template <class T> inline void __stwt(T* at, T value) { *at = value; }

inline float __int_as_float(int x) { return emulator::bits<float>(x); }
inline int __float_as_int(float x) { return emulator::bits<int>(x); }
inline float __uint_as_float(unsigned x) { return emulator::bits<float>(x); }
inline unsigned __float_as_uint(float x) { return emulator::bits<unsigned>(x); }
inline double __longlong_as_double(long long x) { return emulator::bits<double>(x); }
inline long long __double_as_longlong(double x) { return emulator::bits<long long>(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }

// ---- maths: CUDA has every function of <cmath> for float and double without std::; its max and min pass NaN over
using std::abs, std::acos, std::acosh, std::asin, std::asinh, std::atan, std::atan2, std::atanh, std::cbrt, std::ceil, std::copysign, std::cos,
    std::cosh, std::erf, std::erfc, std::exp, std::exp2, std::expm1, std::fabs, std::floor, std::fma, std::fmax, std::fmin, std::fmod, std::hypot,
    std::isfinite, std::isinf, std::isnan, std::ldexp, std::lgamma, std::log, std::log10, std::log1p, std::log2, std::pow, std::remainder,
    std::rint, std::round, std::signbit, std::sin, std::sinh, std::sqrt, std::tan, std::tanh, std::tgamma, std::trunc;

inline float max(float a, float b) { return fmaxf(a, b); }
inline float min(float a, float b) { return fminf(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
template <class T> inline std::enable_if_t<std::is_integral_v<T>, T> max(T a, T b) { return a < b ? b : a; }
template <class T> inline std::enable_if_t<std::is_integral_v<T>, T> min(T a, T b) { return b < a ? b : a; }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float rsqrt(float x) { return rsqrtf(x); }

// ---- the instructions of the special-function units, wrong by as much as NVIDIA allows them to be: up (ERROR_OF_INSTRUCTIONS 1), down (-1),
// or one or the other by the bits of the argument. Subnormal numbers are 0 to them.
#ifndef ERROR_OF_INSTRUCTIONS
#define ERROR_OF_INSTRUCTIONS 0
#endif

namespace emulator {

inline float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
inline float wrong(float argument, double exact, double bound) {
    int direction = ERROR_OF_INSTRUCTIONS ? ERROR_OF_INSTRUCTIONS : (bits<unsigned>(argument) * 2654435761u >> 31 ? 1 : -1);
    return std::isfinite(exact) && exact != 0.0 ? flushed(static_cast<float>(exact + direction * bound)) : static_cast<float>(exact);
}
// of units in the last place of x in float, or somewhat more
inline double units(int count, double x) { return count * 0x1p-23 * std::fabs(x); }

}  // namespace emulator

inline float ex2_approx(float x) {
    double y = std::exp2(static_cast<double>(emulator::flushed(x)));
    return emulator::wrong(x, y, y == 1.0 ? 0.0 : emulator::units(2, y));  // of 0 it is 1
}
inline float lg2_approx(float x) {
    double y = std::log2(static_cast<double>(emulator::flushed(x)));
    return emulator::wrong(x, x == 1.0f ? 0x1p-40 : y, x > 0.5f && x < 2.0f ? 0x1p-22 : 0x1p-22 * std::fabs(y));
}
inline float rcp_approx(float x) {
    double y = 1.0 / static_cast<double>(emulator::flushed(x));
    return emulator::wrong(x, y, emulator::units(1, y));
}
inline float sqrt_approx(float x) {
    double y = std::sqrt(static_cast<double>(emulator::flushed(x)));
    return emulator::wrong(x, y, 0x1p-23 * y);
}
inline float divide_approx(float x, float y) {
    double z = std::fabs(y) > 0x1p126f ? x * std::copysign(0.0, static_cast<double>(y)) : static_cast<double>(x) / static_cast<double>(y);
    return emulator::wrong(y, z, emulator::units(2, z));
}

// ---- calling a kernel with its arguments as cuLaunchKernel takes them
namespace emulator {

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_const_t<A>*>(arguments[I])...);
}
template <class... A>
void call(void (*kernel)(A...), void** arguments) {
    call(kernel, arguments, std::index_sequence_for<A...>{});
}

// Size and alignment of each parameter, and 0 after the last.
template <class... A>
const unsigned* parameters(void (*)(A...)) {
    static const unsigned all[] = {static_cast<unsigned>(sizeof(A) << 8 | alignof(A))..., 0};
    return all;
}

}  // namespace emulator

#define EMULATED_KERNEL(name)                                                                                                  \
    extern "C" __attribute__((visibility("default"))) void emulated_##name(void** a) { ::emulator::call(&name, a); }           \
    extern "C" __attribute__((visibility("default"))) const unsigned* parameters_of_##name() { return ::emulator::parameters(&name); }
