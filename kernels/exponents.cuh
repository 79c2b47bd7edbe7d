// Powers of two, by their bits.
#pragma once
#include "portable.cuh"

namespace lossfuncs {

DEVICE double power_of_two(int e) {  // -1022 <= e <= 1023
    i64 bits = (i64)(e + 1023) << 52;
    double x;
    memcpy(&x, &bits, 8);
    return x;
}

// x 2^e, -2044 <= e <= 2046, to the last bit unless it is subnormal.
DEVICE double scaled(double x, int e) { return x * power_of_two(e / 2) * power_of_two(e - e / 2); }

// e of x = m 2^e, 1 <= m < 2, of a number that is neither negative nor subnormal.
DEVICE int exponent(double x) {
    i64 bits;
    memcpy(&bits, &x, 8);
    return (int)(bits >> 52) - 1023;
}

}  // namespace lossfuncs
