"""Losses between two real arrays: `keras.losses`' mean_* family, huber, log_cosh, poisson and cosine_similarity.

Everywhere: e = y_pred - y_true, EPS = 1e-7; y_true and y_pred have shape (..., C) and the result (...), a mean over
the last axis. Each public function is the NumPy reference; below it stands its row maths, see `lossfuncs.rows`.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from ..dispatch import loss
from ..exact import CANCELLED, add_to_parts, dot, sum_of_parts, two_product, where_cancelled
from ..options import EPS, number
from ..rows import Careful, Rows, Sum, Top, coshm1, mean_of, product, where
from ..rows import log_cosh as log_cosh_of


def _sign(x: float) -> Any:
    return where(x > 0.0, 1.0, where(x < 0.0, -1.0, 0.0))


def _zero(t: float, p: float, *a: float) -> float:
    return 0.0


@loss
def mean_squared_error(y_true: Any, y_pred: Any, *, sample_weight: Any = None, reduction: str | None = None) -> Any:
    """mean(e^2).

    The derivative is 2e / C. Integers are computed as float64: Keras' function wraps around in their own type.
    """
    e = y_pred - y_true
    return np.mean(e * e, axis=-1)


def squared_error(t: float, p: float) -> float:
    return (p - t) * (p - t)


def squared_error_slope(t: float, p: float) -> float:
    return 2.0 * (p - t)


def squared_error_curve(t: float, p: float) -> float:
    return 2.0


SQUARED_ERROR = mean_of(squared_error, squared_error_slope, squared_error_curve)


@loss
def mean_absolute_error(y_true: Any, y_pred: Any, *, sample_weight: Any = None, reduction: str | None = None) -> Any:
    """mean(|e|).

    The derivative is sign(e) / C, 0 at e = 0; the second derivative is taken as 0 everywhere.
    """
    return np.mean(np.abs(y_pred - y_true), axis=-1)


def absolute_error(t: float, p: float) -> float:
    return abs(p - t)


def absolute_error_slope(t: float, p: float) -> Any:
    return _sign(p - t)


ABSOLUTE_ERROR = mean_of(absolute_error, absolute_error_slope, _zero)


@loss
def mean_absolute_percentage_error(y_true: Any, y_pred: Any, *, sample_weight: Any = None, reduction: str | None = None) -> Any:
    """100 mean(|e| / max(|y_true|, EPS)).

    The derivative is 100 sign(e) / max(|y_true|, EPS) / C, 0 at e = 0. A target of 0 counts as EPS = 1e-7: an error
    of 0.5 there costs 5e8.
    """
    return 100.0 * np.mean(np.abs(y_pred - y_true) / np.maximum(np.abs(y_true), EPS), axis=-1)


def relative_error(t: float, p: float) -> float:
    return abs(p - t) / max(abs(t), EPS)


def percentage(s: Any, n: float) -> Any:
    return 100.0 * (s[0] / n)


def percentage_error_slope(t: float, p: float) -> Any:
    return 100.0 * _sign(p - t) / max(abs(t), EPS)


PERCENTAGE_ERROR = mean_of(relative_error, percentage_error_slope, _zero)._replace(
    name="percentage_error", value=percentage, cuda="percentage_error<T>"
)


@loss
def mean_squared_logarithmic_error(y_true: Any, y_pred: Any, *, sample_weight: Any = None, reduction: str | None = None) -> Any:
    """mean((log(1 + max(y_pred, EPS)) - log(1 + max(y_true, EPS)))^2).

    Values below EPS, negative ones included, count as EPS; the derivative is 0 below it and halved at it. Computed as
    one log1p of the quotient, which keeps the digits of small and of nearly equal values that Keras' log(1 + x)
    loses.
    """
    a, b = np.maximum(y_true, EPS), np.maximum(y_pred, EPS)
    return np.mean(np.log1p(np.abs(b - a) / (1.0 + np.minimum(a, b))) ** 2, axis=-1)


def squared_log_error(t: float, p: float) -> float:
    a, b = max(t, EPS), max(p, EPS)
    d = math.log1p(abs(b - a) / (1.0 + min(a, b)))
    return d * d


def squared_log_error_slope(t: float, p: float) -> Any:
    a, b = max(t, EPS), max(p, EPS)
    d = math.copysign(math.log1p(abs(b - a) / (1.0 + min(a, b))), b - a)
    return where(p > EPS, 2.0, where(p < EPS, 0.0, 1.0)) * d / (1.0 + b)


def squared_log_error_curve(t: float, p: float) -> Any:
    a, b = max(t, EPS), max(p, EPS)
    d = math.copysign(math.log1p(abs(b - a) / (1.0 + min(a, b))), b - a)
    return where(p < EPS, 0.0, 2.0 * (1.0 - d) / ((1.0 + b) * (1.0 + b)))


SQUARED_LOG_ERROR = mean_of(squared_log_error, squared_log_error_slope, squared_log_error_curve)


@loss
def huber(y_true: Any, y_pred: Any, delta: float = 1.0, *, sample_weight: Any = None, reduction: str | None = None) -> Any:
    """mean(e^2 / 2 where |e| <= delta, else delta |e| - delta^2 / 2).

    The derivative is e cut to [-delta, delta], / C. ValueError unless delta >= 0. P. J. Huber, Robust estimation of a
    location parameter, 1964.
    """
    e = np.abs(y_pred - y_true)
    return np.mean(np.where(e <= delta, 0.5 * e * e, delta * (e - 0.5 * delta)), axis=-1)


def huber_error(t: float, p: float, delta: float) -> Any:
    e = abs(p - t)
    m = where(e > delta, delta, e)  # min, but that NaN, which stays, costs nothing
    return m * (e - 0.5 * m)  # both branches in one: m is e or delta


def huber_error_slope(t: float, p: float, delta: float) -> Any:
    e = p - t
    return where(e > delta, delta, where(e < -delta, -delta, e))


def huber_error_curve(t: float, p: float, delta: float) -> Any:
    return where(abs(p - t) <= delta, 1.0, 0.0)


HUBER_ERROR = mean_of(huber_error, huber_error_slope, huber_error_curve)


def huber_rows(n: int, delta: float = 1.0) -> tuple[Rows, tuple[float, ...]]:
    # Finite, as the difference of an infinite error and half an infinite delta would be NaN.
    return HUBER_ERROR, (min(number("delta", delta, 0.0), sys.float_info.max),)


@loss
def log_cosh(y_true: Any, y_pred: Any, *, sample_weight: Any = None, reduction: str | None = None) -> Any:
    """mean(log(cosh(e))).

    The derivative is tanh(e) / C. About e^2 / 2 near 0, |e| - log 2 far away; right to the last digits in both, where
    Keras' form cancels for small errors and gives NaN for an error of -inf.
    """
    e = np.abs(y_pred - y_true)
    near = np.log1p(2.0 * np.sinh(np.minimum(e, 1.0) / 2.0) ** 2)  # cosh e = 1 + 2 sinh(e/2)^2
    return np.mean(np.where(e < 1.0, near, e + np.log1p(np.exp(-2.0 * e)) - np.log(2.0)), axis=-1)


def log_cosh_error(t: float, p: float) -> float:
    return log_cosh_of(p - t)


def log_cosh_error_slope(t: float, p: float) -> float:
    return math.tanh(p - t)


def log_cosh_error_curve(t: float, p: float) -> float:
    w = math.exp(-2.0 * abs(p - t))
    return 4.0 * w / ((1.0 + w) * (1.0 + w))  # 1 - tanh^2, without its cancellation


def _log_cosh_parts(t: float, p: float) -> tuple[Any, Any]:
    # log1p(cosh e - 1), and from 10 on a straight line of slope 1: what that leaves out, exp(-20), is below 2^-32 of it
    d = abs(p - t)
    near = where(d > 10.0, 10.0, d)
    return d - near, coshm1(near)


LOG_COSH_ERROR = mean_of(log_cosh_error, log_cosh_error_slope, log_cosh_error_curve, logs=(_log_cosh_parts,))


@loss
def poisson(y_true: Any, y_pred: Any, *, sample_weight: Any = None, reduction: str | None = None) -> Any:
    """mean(y_pred - y_true log(y_pred + EPS)): -log likelihood of counts y_true at rates y_pred, up to a constant.

    The derivative is (1 - y_true / (y_pred + EPS)) / C. NaN for y_pred < -EPS.
    """
    return np.mean(y_pred - y_true * np.log(y_pred + EPS), axis=-1)


def poisson_deviation(t: float, p: float) -> float:
    return p - t * math.log(p + EPS)


def poisson_deviation_slope(t: float, p: float) -> float:
    return ((p - t) + EPS) / (p + EPS)


def poisson_deviation_curve(t: float, p: float) -> float:
    return t / ((p + EPS) * (p + EPS))


POISSON_DEVIATION = mean_of(poisson_deviation, poisson_deviation_slope, poisson_deviation_curve)


@loss
def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1, *, sample_weight: Any = None, reduction: str | None = None) -> Any:
    """MINUS the cosine of the angle between the vectors along `axis`: -sum(n(y_true) n(y_pred)).

    n(x) = x / max(||x||, EPS). -1 for equal directions, 0 for a vector of zeros; the metric of this name has the
    other sign. Shape (..., C) -> (...), with `axis` removed. Norms neither over- nor underflow, the result stays in
    [-1, 1], and the derivative by a vector of zeros is 0 where Keras' is NaN.
    """
    return -cosine_reference(y_true, y_pred, axis)


def cosine_reference(y_true: Any, y_pred: Any, axis: int) -> Any:
    """Plus the cosine: what the loss and the metric share."""
    (t, norm_t, floor_t), (p, norm_p, floor_p) = _scaled_to_one(y_true, axis), _scaled_to_one(y_pred, axis)
    product = where_cancelled(np.sum(t * p, axis=axis), norm_t * norm_p, dot, t, p, axis)
    return np.clip(product / np.maximum(norm_t, floor_t) / np.maximum(norm_p, floor_p), -1.0, 1.0)


def _scaled_to_one(x: Any, axis: int) -> tuple[Any, Any, Any]:
    """x times a power of two, so that no square over- or underflows, its norm, and Keras' floor of that."""
    _, exponent = np.frexp(np.max(np.abs(x), axis=axis, keepdims=True, initial=0.0))
    x = np.ldexp(x, -exponent)
    return x, np.sqrt(np.sum(x * x, axis=axis)), np.ldexp(EPS, -np.squeeze(exponent, axis=axis))


def _scale(largest: float) -> Any:
    """What brings a vector to where no square over- or underflows: a constant, as that costs no division, and loses no bit."""
    return where(largest > 1e100, 2.0**-664, where(largest < 1e-100, 2.0**664, 1.0))


def _largest(s: Any, t: float, p: float, sign: float) -> tuple[float, float]:
    return abs(t), abs(p)


def _scaled_products(s: Any, t: float, p: float, sign: float) -> tuple[float, float, float]:
    u, v = t * _scale(s[0]), p * _scale(s[1])
    return u * u, v * v, u * v


def _cancelled(s: Any, sign: float) -> Any:
    return abs(s[4]) < CANCELLED * (math.sqrt(s[2]) * math.sqrt(s[3]))


def _exact_scaled_product(s: Any, t: float, p: float, sign: float) -> tuple[float, float]:
    return two_product(t * _scale(s[0]), p * _scale(s[1]))


def _product_of_parts(x: Any, sign: float) -> Any:
    return sum_of_parts(add_to_parts(add_to_parts(add_to_parts((x[0], x[1], x[2]), x[3]), x[4]), x[5]))


def _norm(squares: float, scale: float) -> float:
    return max(math.sqrt(squares), EPS * scale)  # of the scaled vector, with Keras' floor


def _cosine(s: Any) -> Any:
    return min(max(s[4] / _norm(s[2], _scale(s[0])) / _norm(s[3], _scale(s[1])), -1.0), 1.0)


def cosine_value(s: Any, n: float, sign: float) -> Any:
    return sign * _cosine(s)


def cosine_around(s: Any, n: float, sign: float) -> tuple[Any, ...]:
    scale_t, scale_p = _scale(s[0]), _scale(s[1])
    by_t = scale_t / _norm(s[2], scale_t)
    by_p = where(s[3] == 0.0, 0.0, scale_p / _norm(s[3], scale_p))
    # a vector shorter than EPS is only divided by EPS: there is no projection to differentiate
    along = where(math.sqrt(s[3]) > EPS * scale_p, _cosine(s), 0.0)
    return by_t, by_p, along * by_p


def cosine_slope(c: Any, t: float, p: float, sign: float) -> Any:
    return sign * c[1] * (t * c[0] - p * c[2])


def _products(s: Any, t: float, p: float, sign: float) -> tuple[float, float, float]:
    return product(t, t), product(p, p), product(t, p)


def _narrow_cancelled(s: Any, sign: float) -> Any:
    return s[2] * s[2] < CANCELLED**2 * (s[0] * s[1])


def _product(s: Any, t: float, p: float, sign: float) -> float:
    return t * p


def _narrow_product_of_parts(x: Any, sign: float) -> Any:
    return sum_of_parts(x)


def narrow_cosine_value(s: Any, n: float, sign: float) -> Any:
    return cosine_value((1.0, 1.0, *s), n, sign)


def narrow_cosine_around(s: Any, n: float, sign: float) -> tuple[Any, ...]:
    return cosine_around((1.0, 1.0, *s), n, sign)


NARROW_COSINE = Rows(
    "cosine",
    (Sum(_products, 3, careful=Careful(2, _narrow_cancelled, _product, 1, _narrow_product_of_parts)),),
    narrow_cosine_value,
    narrow_cosine_around,
    cosine_slope,
)
COSINE = Rows(
    "cosine",
    (Top(_largest, 2), Sum(_scaled_products, 3, careful=Careful(4, _cancelled, _exact_scaled_product, 2, _product_of_parts))),
    cosine_value,
    cosine_around,
    cosine_slope,
    narrow=NARROW_COSINE,
)


def cosine_rows(n: int) -> tuple[Rows, tuple[float, ...]]:
    return COSINE, (-1.0,)
