"""The polynomials of `lossfuncs.vectormath`: what each stands for, and minimax fits of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath
from mpmath import mp

from lossfuncs import vectormath


@dataclass(frozen=True)
class Fit:
    """What a polynomial of vectormath stands for: `function` on [low, high], error times `weight` at most 2^log2_error."""

    log2_error: float
    function: Callable[[Any], Any]
    low: Any
    high: Any
    weight: Callable[[Any], Any]


def fits() -> dict[str, Fit]:
    def off_zero(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda x: function(x if abs(x) > tiny else tiny)

    def relative(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda x: 1 / abs(function(x))

    def of_log1p_of_square(z: Any) -> Any:
        root, z = sinh_half(z), z if z > tiny else tiny
        square = z * root**2
        return 2 * square / ((1 + square) * mp.log1p(square) * root)

    tiny = mpmath.mpf(2) ** -90
    half_ln2 = mp.log(2) / 2 * (1 + mpmath.mpf(2) ** -20)  # rounding to the nearest multiple of ln2 may overshoot
    high = mp.sqrt(2) - 1
    narrow, wide = (2 * high / (high + 2)) ** 2, mpmath.mpf(4) / 9
    expm1 = off_zero(lambda r: mp.expm1(r) / r)
    log_cosh = off_zero(lambda z: mp.log(mp.cosh(mp.sqrt(z))) / z)
    sinh_half = off_zero(lambda z: mp.sqrt(2) * mp.sinh(mp.sqrt(z) / 2) / mp.sqrt(z))
    atanh = off_zero(lambda z: 2 * mp.atanh(mp.sqrt(z) / 2) / mp.sqrt(z))
    atanh_tail = off_zero(lambda z: (atanh(z) - 1 - z / 12) / z**2)
    square = mpmath.mpf(0.6) ** 2
    zero = mpmath.mpf(0)
    return {
        "EXPM1": Fit(-37.6, expm1, -half_ln2, half_ln2, relative(expm1)),
        "EXPM1_EIGHTH": Fit(-40.6, expm1, -half_ln2 / 8, half_ln2 / 8, lambda r: half_ln2 / 8),
        "ATANH": Fit(-37.7, atanh, zero, narrow, relative(atanh)),
        "ATANH_WIDE": Fit(-38.5, atanh, zero, wide, relative(atanh)),
        "ATANH_RATIO": Fit(-35.5, atanh, zero, mpmath.mpf(0.16), relative(atanh)),
        "LOG_COSH": Fit(-36.4, log_cosh, zero, square, relative(log_cosh)),
        "SINH_HALF": Fit(-34.9, sinh_half, zero, mpmath.mpf(100), of_log1p_of_square),
        "LOG2": Fit(-45.0, lambda z: atanh(z) / mp.log(2), zero, narrow, relative(lambda z: atanh(z) / mp.log(2))),
        "EXP_TAIL": Fit(-59.9, off_zero(lambda r: (mp.expm1(r) - r) / r**2), -half_ln2, half_ln2, lambda r: half_ln2),
        "LOG_COSH_TAIL": Fit(-57.3, off_zero(lambda z: (log_cosh(z) - 0.5) / z), zero, square, lambda z: 2 * z + 2.0**-20),
        "ATANH_TAIL": Fit(-65.8, atanh_tail, zero, narrow, lambda z: z * z + 2.0**-30),
        "ATANH_WIDE_TAIL": Fit(-58.9, atanh_tail, zero, wide, lambda z: z * z + 2.0**-30),
    }


def _grid(fit: Fit, count: int) -> list[Any]:
    return [(fit.low + fit.high - (fit.high - fit.low) * mp.cos(mp.pi * k / count)) / 2 for k in range(count + 1)]


def _polynomial(coefficients: Any, x: Any) -> Any:
    """Sum of coefficients[k] x^k."""
    total = 0
    for c in reversed(coefficients):
        total = total * x + c
    return total


def weighted_error(fit: Fit, coefficients: Sequence[Any], count: int = 1000) -> float:
    """max of |polynomial - function| weight over a Chebyshev grid of the interval."""
    return float(max(abs(_polynomial(coefficients, x) - fit.function(x)) * fit.weight(x) for x in _grid(fit, count)))


def minimax(fit: Fit, degree: int) -> list[Any]:
    """Remez' exchange: solve for an error that alternates on degree + 2 points, move them to the extremes of the error, repeat."""
    size = degree + 2
    points = [(fit.low + fit.high - (fit.high - fit.low) * mp.cos(mp.pi * (2 * k + 1) / (2 * size))) / 2 for k in range(size)]
    grid = _grid(fit, 1500)
    values = [(x, fit.function(x), fit.weight(x)) for x in grid]
    coefficients: list[Any] = []
    for _ in range(8):
        system = mpmath.matrix([[x**k for k in range(degree + 1)] + [(-1) ** i / fit.weight(x)] for i, x in enumerate(points)])
        *coefficients, level = mp.lu_solve(system, mpmath.matrix([fit.function(x) for x in points]))
        extremes: list[tuple[Any, Any]] = []
        for x, value, weight in values:
            error = (_polynomial(coefficients, x) - value) * weight
            if extremes and (extremes[-1][1] > 0) == (error > 0):
                extremes[-1] = max(extremes[-1], (x, error), key=lambda extreme: abs(extreme[1]))
            else:
                extremes.append((x, error))
        while len(extremes) > size:
            extremes.pop(0 if abs(extremes[0][1]) < abs(extremes[-1][1]) else -1)
        if len(extremes) < size or max(abs(error) for _, error in extremes) < 1.001 * abs(level):
            break
        points = [x for x, _ in extremes]
    return coefficients


def derive() -> None:
    """Prints a fresh fit of each polynomial of vectormath, its error and that of the coefficients in use."""
    with mp.workprec(500):
        for name, fit in fits().items():
            used = getattr(vectormath, name)
            fresh = [float(c) for c in minimax(fit, len(used) - 1)]
            errors = [math.log2(weighted_error(fit, coefficients)) for coefficients in (fresh, used)]
            print(f"{name}: degree {len(used) - 1}, error 2^{errors[0]:.2f}, in use 2^{errors[1]:.2f}\n    {fresh}", flush=True)
        ln2 = mp.log(2)
        high = mp.floor(ln2 * 2**42) / 2**42
        print(f"LN2_HIGH, LN2_LOW: {float(high)!r}, {float(ln2 - high)!r}")
        print(f"TWELFTH_LOW: {float(mpmath.mpf(1) / 12 - 1 / 12)!r}")
