// CUDA's 16-bit floating-point types, rounded as a GPU rounds: to nearest, ties to even, once from whatever comes in.
#pragma once
#include <cstdint>
#include <cstring>

namespace emulator {

template <class To, class From>
inline To bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

// The float whose last bit is set where digits were lost: rounded again, to 22 bits or fewer, it gives what one rounding would.
inline float round_to_odd(double x) {
    float nearest = static_cast<float>(x);
    if (x != x || static_cast<double>(nearest) == x) return nearest;
    uint32_t u = bits<uint32_t>(nearest);
    if (__builtin_fabs(static_cast<double>(nearest)) > __builtin_fabs(x)) u--;  // towards 0
    return bits<float>(u | 1);
}

}  // namespace emulator

struct __half {
    uint16_t u;
    __half() = default;
    __half(float x) : u(emulator::bits<uint16_t>(static_cast<_Float16>(x))) {}
    __half(double x) : __half(emulator::round_to_odd(x)) {}
    __half(int x) : __half(static_cast<double>(x)) {}
    operator float() const { return static_cast<float>(emulator::bits<_Float16>(u)); }
};

struct __nv_bfloat16 {
    uint16_t u;
    __nv_bfloat16() = default;
    __nv_bfloat16(float x) {
        uint32_t wide = emulator::bits<uint32_t>(x);
        u = static_cast<uint16_t>(x != x ? 0x7fff : (wide + 0x7fff + (wide >> 16 & 1)) >> 16);
    }
    __nv_bfloat16(double x) : __nv_bfloat16(emulator::round_to_odd(x)) {}
    __nv_bfloat16(int x) : __nv_bfloat16(static_cast<double>(x)) {}
    operator float() const { return emulator::bits<float>(static_cast<uint32_t>(u) << 16); }
};

inline float __half2float(__half x) { return x; }
inline __half __float2half(float x) { return x; }
inline __half __float2half_rn(float x) { return x; }
inline __half __double2half(double x) { return x; }
inline float __bfloat162float(__nv_bfloat16 x) { return x; }
inline __nv_bfloat16 __float2bfloat16(float x) { return x; }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return x; }
inline __nv_bfloat16 __double2bfloat16(double x) { return x; }
inline unsigned short __half_as_ushort(__half x) { return x.u; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.u; }
inline __half __ushort_as_half(unsigned short u) { return emulator::bits<__half>(u); }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short u) { return emulator::bits<__nv_bfloat16>(u); }
