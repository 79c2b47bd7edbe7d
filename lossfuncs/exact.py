"""Sums whose terms cancel: in parts that add up to them, for the row maths, and in whole numbers, for the references."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

# A sum of products this small beside the norms is gathered again. Before that float64 keeps 2^-53 of the norms, and some 2^-48 in long
# rows, which is at most 2^-30 of the sum. Of random rows with 1000 elements one in 10,000 is as nearly orthogonal.
CANCELLED = 2.0**-18


def two_sum(x: float, y: float) -> tuple[float, float]:
    """x + y, and what that lost, by Knuth."""
    total = x + y
    of_y = total - x
    return total, (x - (total - of_y)) + (y - of_y)


def _halves(x: float) -> tuple[float, float]:
    """x as two numbers of 26 bits, by Veltkamp."""
    y = 134217729.0 * x  # 2^27 + 1
    high = y - (y - x)
    return high, x - high


def two_product(x: float, y: float) -> tuple[float, float]:
    """x y, and what that lost, by Dekker: for |x|, |y| and |x y| < 2^996."""
    product, (x_high, x_low), (y_high, y_low) = x * y, _halves(x), _halves(y)
    return product, x_low * y_low - (((product - x_high * y_high) - x_low * y_high) - x_high * y_low)


def add_to_parts(x: tuple[float, float, float], y: float) -> tuple[float, float, float]:
    """The three parts of a sum to which y is added."""
    first, rest = two_sum(x[0], y)
    second, rest = two_sum(x[1], rest)
    return first, second, x[2] + rest


def add_product_to_parts(x: tuple[float, float, float], y: float, z: float) -> tuple[float, float, float]:
    product, rest = two_product(y, z)
    return add_to_parts(add_to_parts(x, product), rest)


def sum_of_parts(x: tuple[float, float, float]) -> float:
    """x[0] + x[1] + x[2], though each may be the negative of all but the last digits of the next."""
    first, second = two_sum(x[0], x[1])
    second, third = two_sum(second, x[2])
    first, second = two_sum(first, second)
    return first + (second + third)


def where_cancelled(total: Any, norms: Any, exactly: Callable[[Any, Any], float], t: Any, p: Any, axis: Any) -> Any:
    """`total`, or exactly(t, p) of the vectors along `axis` where it is small beside the norms; unless that overflows."""
    in_doubt = np.abs(total) < CANCELLED * norms
    if not np.any(in_doubt):
        return total
    axes = tuple(range(t.ndim)) if axis is None else np.atleast_1d(axis) % t.ndim
    shape = (*np.shape(total), -1)
    t, p = (np.moveaxis(x, axes, range(-len(axes), 0)).reshape(shape) for x in (t, p))
    found = np.array(total)
    for row in zip(*np.nonzero(np.atleast_1d(in_doubt)), strict=True) if found.ndim else [()]:
        try:
            found[row] = exactly(t[row], p[row])
        except OverflowError:
            continue
    return found


def dot(t: Any, p: Any) -> float:
    """sum(t p), rounded once."""
    (t, by_t), (p, by_p) = _whole(t), _whole(p)
    return _rounded(sum(map(operator.mul, t, p)), 1, by_t + by_p)


def covariance(t: Any, p: Any) -> float:
    """sum((t - mean(t)) (p - mean(p))), rounded once."""
    (t, by_t), (p, by_p) = _whole(t), _whole(p)
    return _rounded(len(t) * sum(map(operator.mul, t, p)) - sum(t) * sum(p), len(t), by_t + by_p)


def _whole(x: Any) -> tuple[list[int], int]:
    """k and e with x = k 2^e."""
    mantissa, exponent = np.frexp(x)
    exponent = np.where(mantissa == 0, 0, exponent)
    least = int(np.min(exponent))
    return [int(m) << e for m, e in zip((mantissa * 2.0**53).tolist(), (exponent - least).tolist(), strict=True)], least - 53


def _rounded(numerator: int, denominator: int, exponent: int) -> float:
    """numerator / denominator 2^exponent."""
    return (numerator << max(exponent, 0)) / (denominator << max(-exponent, 0))
