// What half types are computed in: float, with functions of a few instructions around those of the special-function units.
//
// A result of 8 or 11 bits needs no more than some 18 right ones, but it needs these relative to itself: logarithms next to 1, expm1 and tanh
// next to 0 are polynomials there, for the instructions are exact to 2^-22 of 1, not of the result. The functions below are right to 2^-16.8
// of their result for every half argument, whichever way the instructions err, pow to 2^-15.5 (tests/test_fast.py); but numbers below 2^-126
// are taken as 0, in arguments and results.
#pragma once
#include "rows.cuh"

namespace lossfuncs {

struct fast_float {
    float x;
    fast_float() = default;
    DEVICE explicit constexpr fast_float(float n) : x(n) {}
    DEVICE explicit constexpr fast_float(double n) : x((float)n) {}
    DEVICE explicit constexpr fast_float(int n) : x((float)n) {}
    DEVICE constexpr operator float() const { return x; }
    DEVICE fast_float& operator+=(fast_float y) { x += y.x; return *this; }
    DEVICE fast_float& operator*=(fast_float y) { x *= y.x; return *this; }
};

// With doubles, all is double.
DEVICE fast_float operator-(fast_float a) { return fast_float(-a.x); }
DEVICE fast_float operator+(fast_float a, fast_float b) { return fast_float(a.x + b.x); }
DEVICE fast_float operator-(fast_float a, fast_float b) { return fast_float(a.x - b.x); }
DEVICE fast_float operator*(fast_float a, fast_float b) { return fast_float(a.x * b.x); }
DEVICE fast_float operator/(fast_float a, fast_float b) { return fast_float(divide_approx(a.x, b.x)); }
DEVICE fast_float quotient(fast_float a, fast_float b) { return fast_float(a.x * rcp_approx(b.x)); }
DEVICE fast_float fused(fast_float a, fast_float b, fast_float c) { return fast_float(fmaf(a.x, b.x, c.x)); }

DEVICE fast_float magnitude(fast_float a) { return fast_float(fabsf(a.x)); }
DEVICE fast_float maximum(fast_float a, fast_float b) { return fast_float(maximum(a.x, b.x)); }
DEVICE fast_float minimum(fast_float a, fast_float b) { return fast_float(minimum(a.x, b.x)); }
DEVICE fast_float fmax(fast_float a, fast_float b) { return fast_float(fmaxf(a.x, b.x)); }
DEVICE fast_float copysign(fast_float a, fast_float b) { return fast_float(copysignf(a.x, b.x)); }

constexpr float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;

DEVICE float polynomial(float, float c) { return c; }
template <class... Higher> DEVICE float polynomial(float x, float c, Higher... higher) { return fmaf(polynomial(x, higher...), x, c); }

DEVICE fast_float exp(fast_float a) { return fast_float(ex2_approx(a.x * LOG2_E)); }
DEVICE fast_float expm1(fast_float a) {
    float near = a.x * polynomial(a.x, 1.0f, 0.4999983f, 0.1666674f, 0.0417752f, 0.00833333f);
    return fast_float(fabsf(a.x) < 0.25f ? near : exp(a).x - 1.0f);
}

// log(x), where d is x - 1 to its own last digits
DEVICE fast_float log_of(float x, float d) {
    float near = d * polynomial(d, 0.99999964f, -0.49999928f, 0.3341166f, -0.25078353f);
    return fast_float(fabsf(d) < 0.0625f ? near : lg2_approx(x) * LN_2);
}
DEVICE fast_float log(fast_float a) { return log_of(a.x, a.x - 1.0f); }
DEVICE fast_float log1p(fast_float a) { return log_of(1.0f + a.x, a.x); }
// log(1 + d) for -0.5 <= d <= 0
DEVICE float log_above_half(float d) {
    return d * polynomial(d, 1.00000095f, -0.49981675f, 0.3389107f, -0.187535f, 0.5227351f, 0.63790357f, 0.99057f);
}
// y = |x|: of cosh(y) - 1 next to 0, else y - log(2) + log1p(exp(-2 y))
DEVICE Logs<fast_float> logs_of_cosh(fast_float a) {
    float y = fabsf(a.x), z = y * y;
    bool near = y < 1.0f;
    float rest = near ? z * polynomial(z, 0.50000077f, 0.041652717f, 0.0014263330f) : ex2_approx(y * (-2.0f * LOG2_E));
    return {fast_float(near ? 0.0f : y - LN_2), fast_float(rest)};
}
DEVICE fast_float tanh(fast_float a) {
    float y = fabsf(a.x), z = y * y, e = ex2_approx(y * (-2.0f * LOG2_E));
    float near = y * polynomial(z, 0.99999946f, -0.3332632f, 0.131903f, -0.04440221f);
    return fast_float(copysignf(y < 0.5f ? near : (1.0f - e) * rcp_approx(1.0f + e), a.x));
}
DEVICE fast_float sqrt(fast_float a) { return fast_float(sqrt_approx(a.x)); }
// for a >= 0
DEVICE fast_float pow(fast_float a, fast_float b) { return fast_float(b.x == 0.0f ? 1.0f : ex2_approx(b.x * lg2_approx(a.x))); }

}  // namespace lossfuncs
