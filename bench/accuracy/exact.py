"""The exact value and gradient of a row of float32 numbers, worked out in long double by formulas that lose no digits.

The same formulas with 90 digits of mpmath, on some of the rows, show that long double is enough.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import mpmath
import numpy as np
from mpmath import mp

from lossfuncs.options import EPS

from .rows import find

Array = np.ndarray[Any, Any]

# What the row maths keeps of a term, for losses whose terms may cancel: SINGLE's functions have 35 bits, float64 arithmetic has 53, of
# which a sum over a row and what goes into its terms take a few.
BY_LOG, BY_FLOAT64 = 2.0**-34, 2.0**-47


@dataclass
class Exact:
    """Value (m,) and gradient (m, n) of m rows. The slacks are what a sum of terms of both signs may lose, where it has such terms."""

    value: Any
    gradient: Any
    slack: Any = 0.0
    gradient_slack: Any = 0.0


def _either(name: str) -> Callable[[Array], Array]:
    """A function of long double arrays, and of arrays of mpmath's numbers."""
    ordinary, precise = getattr(np, name), np.frompyfunc(lambda x: getattr(mp, name)(x) if x or name != "log" else -mp.inf, 1, 1)
    return lambda x: precise(x) if x.dtype == object else ordinary(x)


_exp, _log, _log1p, _expm1, _sqrt, _sinh, _tanh = map(_either, ("exp", "log", "log1p", "expm1", "sqrt", "sinh", "tanh"))


def _sum(x: Any) -> Any:
    return np.sum(x, axis=-1, keepdims=True)


def _of_others(x: Array) -> Array:
    """For each element the sum of the other ones, without a subtraction."""
    before, after = np.cumsum(x, axis=-1), np.cumsum(x[:, ::-1], axis=-1)[:, ::-1]
    nothing = np.zeros_like(x[:, :1])
    return np.concatenate([nothing, before[:, :-1]], axis=-1) + np.concatenate([after[:, 1:], nothing], axis=-1)


def _signs(x: Array) -> Array:
    return np.where(x > 0, 1.0, np.where(x < 0, -1.0, 0.0))


def _step(x: Array) -> Array:
    return (1.0 + _signs(x)) / 2.0


def _mean(value: Any, gradient: Any, slack: Any = 0.0, gradient_slack: Any = 0.0) -> Exact:
    n = value.shape[-1]
    return Exact(_sum(value) / n, gradient / n, _sum(slack + np.zeros(value.shape)) / n, gradient_slack / n)


def _squared_error(t: Array, p: Array) -> Exact:
    return _mean((p - t) ** 2, 2 * (p - t))


def _absolute_error(t: Array, p: Array) -> Exact:
    return _mean(abs(p - t), _signs(p - t))


def _percentage_error(t: Array, p: Array) -> Exact:
    whole = np.maximum(abs(t), EPS)
    return _mean(100 * abs(p - t) / whole, 100 * _signs(p - t) / whole)


def _log_ratio(b: Array, a: Array) -> Array:
    """log(b / a)."""
    near = abs(b - a) < a / 2
    return np.where(near, _log1p(np.where(near, (b - a) / a, 0)), _log(b) - _log(a))


def _squared_log_error(t: Array, p: Array) -> Exact:
    a, b = np.maximum(t, EPS), np.maximum(p, EPS)
    near = abs(b - a) < (1 + a) / 2
    d = np.where(near, _log1p(np.where(near, (b - a) / (1 + a), 0)), _log1p(b) - _log1p(a))
    return _mean(d**2, 2 * d / (1 + b) * _step(p - EPS))


def _huber(t: Array, p: Array, delta: float = 1.0) -> Exact:
    e = p - t
    value = np.where(abs(e) <= delta, e * e / 2, delta * abs(e) - delta * delta / 2)
    return _mean(value, np.clip(e, -delta, delta))


def _log_cosh(t: Array, p: Array) -> Exact:
    e = p - t
    a = abs(e)
    value = np.where(a < 2, _log1p(_sinh(np.minimum(a, 2)) ** 2) / 2, a - (_log(2 + 0 * a) - _log1p(_exp(-2 * a))))
    return _mean(value, _tanh(e))


def _poisson(t: Array, p: Array) -> Exact:
    costs = t * _log(p + EPS)
    return _mean(p - costs, ((p - t) + EPS) / (p + EPS), BY_LOG * (abs(p) + abs(costs)))


def _covariance(t: Array, p: Array, centred: bool) -> Array:
    """sum(t p), of numbers less their means if `centred`; in fractions where it cancels."""
    terms = _centred(t) * _centred(p) if centred else t * p
    total = _sum(terms)
    if terms.dtype == object:
        return total
    for i in np.nonzero(abs(total[:, 0]) < 2.0**-12 * _sum(abs(terms))[:, 0])[0]:
        a, b = ([Fraction(float(x)) for x in row] for row in (t[i], p[i]))
        exact = sum(map(operator.mul, a, b), Fraction(0)) - (sum(a) * sum(b) / len(a) if centred else 0)
        high = float(exact)
        total[i] = np.longdouble(high) + np.longdouble(float(exact - Fraction(high)))
    return total


def _cosine(t: Array, p: Array, sign: float) -> Exact:
    norm_t, norm_p = np.maximum(_sqrt(_sum(t * t)), EPS), _sqrt(_sum(p * p))
    floored = np.maximum(norm_p, EPS)
    u, v = t / norm_t, p / floored
    cosine = _covariance(t, p, False) / norm_t / floored
    along = np.where(norm_p > EPS, cosine, 0) * v
    counts = sign * (norm_p > 0)
    rounding = BY_FLOAT64 * np.max(abs(u) + abs(along), axis=-1, keepdims=True) / floored
    return Exact(sign * cosine, counts * (u - along) / floored, 0.0, rounding)


def _centred(x: Array) -> Array:
    x = x - x[:, :1]
    return x - _sum(x) / x.shape[-1]


def _pearson(t: Array, p: Array) -> Exact:
    dt, dp = _centred(t), _centred(p)
    norm_t, norm_p = _sqrt(_sum(dt * dt)), _sqrt(_sum(dp * dp))
    one = np.where((norm_t > 0) & (norm_p > 0), 1, 0)
    norm_t, norm_p = np.where(one, norm_t, 1), np.where(one, norm_p, 1)
    value = _covariance(t, p, True) / norm_t / norm_p
    gradient = (dt / norm_t - value * dp / norm_p) / norm_p
    return Exact(np.where(one, value, math.nan), one * gradient, 0.0, BY_FLOAT64 * one / norm_p)


def _concordance(t: Array, p: Array) -> Exact:
    n = t.shape[-1]
    dt, dp, difference = _centred(t), _centred(p), _sum(p - t) / n
    divisor = (_sum(dt * dt) + _sum(dp * dp)) / n + difference**2 + EPS
    value = 2 * _covariance(t, p, True) / n / divisor
    return Exact(value, 2 / divisor / n * (dt - value * (dp + difference)))


def _hinge(t: Array, p: Array) -> Exact:
    return _mean(np.maximum(1 - t * p, 0), -t * _step(1 - t * p))


def _squared_hinge(t: Array, p: Array) -> Exact:
    m = np.maximum(1 - t * p, 0)
    return _mean(m * m, -2 * t * m)


def _categorical_hinge(t: Array, p: Array) -> Exact:
    rivals = (1 - t) * p
    positive, negative = _sum(t * p), np.max(rivals, axis=-1, keepdims=True)
    d = negative - positive
    back = d - negative
    rest = (negative - (d - back)) - (positive + back)  # what d lost
    active, top = _step((d + 1) + rest), rivals == negative
    return Exact(np.maximum((d + 1) + rest, 0), active * (np.where(top, 1, 0) * (1 - t) / _sum(np.where(top, 1, 0)) - t))


def _smoothed(t: Array, smoothing: float, classes: int) -> Array:
    return t * (1.0 - smoothing) + smoothing / classes


def _binary_cost(t: Array, p: Array) -> tuple[Array, Array]:
    q = np.clip(p, EPS, 1.0 - EPS)
    return -(t * _log(q) + (1 - t) * _log1p(-q)), np.where(q == p, (q - t) / (q * (1 - q)), 0)


def _binary_logits(x: Array) -> tuple[Array, Array, Array, Array]:
    """-log of sigmoid(x) and of sigmoid(-x), and these."""
    e = _exp(-abs(x))
    rest, larger, smaller = _log1p(e), 1 / (1 + e), e / (1 + e)
    right = np.where(x < 0, -x, 0) + rest
    return right, np.where(x < 0, 0, x) + rest, np.where(x < 0, smaller, larger), np.where(x < 0, larger, smaller)


def _binary_entropy(t: Array, p: Array, from_logits: bool = False, label_smoothing: float = 0.0) -> Exact:
    t = _smoothed(t, label_smoothing, 2)
    if not from_logits:  # a smoothed target is rounded itself
        cost, slope = _binary_cost(t, p)
        return _mean(cost, slope, 0.0, BY_FLOAT64 * (slope != 0) / np.clip(p * (1 - p), EPS, 1) if label_smoothing else 0.0)
    right, wrong, yes, no = _binary_logits(p)
    return _mean(t * right + (1 - t) * wrong, (1 - t) * yes - t * no, 0.0, BY_LOG * ((1 - t) * yes + t * no))


def _power(u: Array, gamma: float) -> tuple[Array, Array]:
    """u^gamma and its derivative, which counts as 0 where it is infinite."""
    some = u > 0
    base = np.where(some, u, 1)
    return np.where(some, base**gamma, float(gamma == 0)), np.where(some, gamma * base ** (gamma - 1), float(gamma == 1))


def _binary_focal(t: Array, p: Array, gamma: float = 2.0, from_logits: bool = False) -> Exact:
    if from_logits:
        right, wrong, yes, no = _binary_logits(p)
        cost, slope, by_p = t * right + (1 - t) * wrong, (1 - t) * yes - t * no, yes * no
    else:
        (cost, slope), yes, no, by_p = _binary_cost(t, p), p, 1 - p, 1
    f, df = _power(t * no + (1 - t) * yes, gamma)
    bend = df * (1 - 2 * t) * by_p * cost
    return _mean(f * cost, f * slope + bend, 0.0, BY_LOG * (abs(f * slope) + abs(bend)))


def _shares(p: Array) -> tuple[Array, Array, Array, Array]:
    """-log q of each class, q, whether it is within the clip, and the derivative of log q by p at all but the label's part."""
    total = _sum(p)
    total = np.where(total == 0, 1, total)
    share = p / total
    q = np.clip(share, EPS, 1.0 - EPS)
    # near 1, log q = log1p(-the others / total)
    others = _of_others(p) / total
    near = (share > 0.5) & (q == share)
    log_q = np.where(near, _log1p(np.where(near, -others, 0)), _log(q))
    return -log_q, q, np.where(q == share, 1, 0), total


def _cross_entropy(t: Array, p: Array, from_logits: bool = False, label_smoothing: float = 0.0) -> Exact:
    t = _smoothed(t, label_smoothing, t.shape[-1])
    return _focal(t, p, 1.0, 0.0, from_logits)


def _focal(t: Array, p: Array, alpha: float = 0.25, gamma: float = 2.0, from_logits: bool = False) -> Exact:
    """sum(alpha t (1 - q)^gamma (-log q)); the derivative of its k-th term by log q_k is -alpha t_k bend_k."""
    if from_logits:
        d = np.max(p, axis=-1, keepdims=True) - p
        e = _exp(-d)
        others, total = _of_others(e), _sum(e)
        low = d > 1000
        q, u = e / total, others / total
        cost = np.where(low, d + _log(total), _log1p(others / np.where(low, 1, e)))
        inside, ratio, scale = 1, u, q
    else:
        cost, q, inside, total = _shares(p)
        u = 1 - q
        ratio = inside * _of_others(p) / np.where(p == 0, 1, p)
        scale = 1 / total + 0 * p
    f, df = _power(u, gamma)
    bend = alpha * t * inside * (f + df * q * cost)
    gained, lost = scale * _of_others(bend), bend * ratio * (1 if from_logits else scale)
    digits = BY_LOG if from_logits or gamma else BY_FLOAT64
    return Exact(_sum(alpha * t * f * cost), gained - lost, 0.0, digits * (gained + lost))


def _generalized(t: Array, p: Array, q: float) -> Exact:
    x = _sum(t * p)
    return Exact(-_expm1(q * _log(x)) / q, -t * np.where(x == 0, EPS, x) ** (q - 1))


def _divergence(t: Array, p: Array) -> Exact:
    a, b = np.clip(t, EPS, 1.0), np.clip(p, EPS, 1.0)
    terms = -a * _log_ratio(b, a)
    return Exact(_sum(terms), np.where(b == p, -a / b, 0))


def _dice(t: Array, p: Array, axis: int = -1) -> Exact:
    union = _sum(t) + _sum(p) + EPS
    common = _sum(t * p)
    return Exact((_sum(t * (1 - p) + p * (1 - t)) + EPS) / union, 2 * (common / union - t) / union)


def _tversky(t: Array, p: Array, alpha: float = 0.5, beta: float = 0.5, axis: int = -1) -> Exact:
    common, cost = _sum(t * p), alpha * _sum(t * (1 - p)) + beta * _sum(p * (1 - t)) + EPS
    whole = common + cost
    return Exact(cost / whole, (common * (t * (1.0 - alpha) + beta * (1 - t)) - t * whole) / whole**2)


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + _log1p(_exp(-abs(x)))


def _log_sum_exp(x: Array, take: Array) -> tuple[Array, Array]:
    """log sum exp of what is taken of each row, and the share of each element in the sum; -inf and 0 where nothing is."""
    x = np.where(take, x, -math.inf)
    m = np.max(x, axis=-1, keepdims=True)
    e = np.where(take, _exp(np.where(take, x - m, 0)), 0)
    total = np.where(np.any(take, axis=-1, keepdims=True), _sum(e), 1)
    return m + _log(total), e / total


def _circle(labels: Array, p: Array, gamma: float = 80.0, margin: float = 0.4) -> Exact:
    s = p @ p.T
    d = np.maximum(1 - s, 0)
    same = labels[:, None] == labels[None, :]
    near, near_share = _log_sum_exp(gamma * (d * d - margin**2), same & ~np.eye(len(labels), dtype=bool))
    far, far_share = _log_sum_exp(gamma * np.maximum(1 + margin - d, 0) * (1 - margin - d), ~same)
    x = near + far
    outer = 2 * gamma / (1 + _exp(-x))
    by_s = outer * (far_share * np.where(d < 1 + margin, 1 - d, 0) - near_share * d) * _step(1 - s)
    rounding = BY_LOG * abs(by_s) + BY_FLOAT64 * outer * (near_share + far_share)  # the latter of s, where 1 - s is small
    both = by_s + by_s.T
    slack = np.max((rounding + rounding.T) @ abs(p), axis=-1, keepdims=True)
    return Exact(_softplus(x), both @ p, 0.0, slack)


def _alignments(log_p: Array, path: Array) -> Array:
    """log of the probability of all ways to be at each place of the path after each frame; log_p (m, frames, places)."""
    m, _, places = log_p.shape
    skips = np.zeros((m, places), bool)
    skips[:, 2:] = path[:, 2:] != path[:, :-2]
    out = np.full_like(log_p, -math.inf)
    out[:, 0, :2] = log_p[:, 0, :2]
    for i in range(1, log_p.shape[1]):
        at = out[:, i - 1]
        step, skip = np.full_like(at, -math.inf), np.full_like(at, -math.inf)
        step[:, 1:], skip[:, 2:] = at[:, :-1], at[:, :-2]
        out[:, i] = np.logaddexp(np.logaddexp(at, step), np.where(skips, skip, -math.inf)) + log_p[:, i]
    return out


def _ctc(labels: Array, logits: Array) -> Exact:
    m, frames, classes = logits.shape
    path = np.zeros((m, 2 * labels.shape[1] + 1), int)
    path[:, 1::2] = labels
    d = logits - np.max(logits, axis=-1, keepdims=True)
    q = _exp(d) / _sum(_exp(d))
    first = np.argmax(d, axis=-1, keepdims=True)
    log_q = d - _log1p(_sum(np.where(np.arange(classes) == first, 0, _exp(d))))
    log_p = np.take_along_axis(log_q, np.broadcast_to(path[:, None], (m, frames, path.shape[1])), -1)
    forward = _alignments(log_p, path)
    backward = _alignments(log_p[:, ::-1, ::-1], path[:, ::-1])[:, ::-1, ::-1]
    total = np.logaddexp(forward[:, -1, -1], forward[:, -1, -2])[:, None, None]
    possible = total > -math.inf
    here = np.where(possible, _exp(np.where(possible, forward + backward - log_p - total, 0)), 0)
    there = np.stack([np.sum(here * (path[:, None] == k), axis=-1) for k in range(classes)], axis=-1)
    gradient = np.where(possible, q - there, 0).reshape(m, -1)
    terms = np.sum(np.max(abs(log_q), axis=-1), axis=-1, keepdims=True)
    return Exact(-total[:, :, 0], gradient, BY_FLOAT64 * terms, BY_FLOAT64 * (1 + terms))


# Why a loss's bound has a slack, and which.
LOG_TERMS = "values that are differences of a logarithm of 35 bits: 2^-34 of the terms"
PARALLEL = "slopes that are 0 between parallel vectors: 2^-47 of the terms"
FITTED = "slopes near 0 where p fits a soft target: 2^-34 (2^-47 without logarithms) of the terms"

EXACT_LOSSES: dict[str, tuple[Callable[..., Exact], str]] = {
    "mean_squared_error": (_squared_error, ""),
    "mean_absolute_error": (_absolute_error, ""),
    "mean_absolute_percentage_error": (_percentage_error, ""),
    "mean_squared_logarithmic_error": (_squared_log_error, ""),
    "huber": (_huber, ""),
    "log_cosh": (_log_cosh, ""),
    "poisson": (_poisson, LOG_TERMS),
    "cosine_similarity": (partial(_cosine, sign=-1), PARALLEL),
    "pearson_correlation": (_pearson, PARALLEL),
    "concordance_correlation": (_concordance, ""),
    "hinge": (_hinge, ""),
    "squared_hinge": (_squared_hinge, ""),
    "categorical_hinge": (_categorical_hinge, ""),
    "binary_crossentropy": (_binary_entropy, FITTED),
    "binary_focal_crossentropy": (_binary_focal, FITTED),
    "categorical_crossentropy": (_cross_entropy, FITTED),
    "sparse_categorical_crossentropy": (_cross_entropy, ""),
    "categorical_focal_crossentropy": (_focal, FITTED),
    "categorical_generalized_cross_entropy": (_generalized, ""),
    "kl_divergence": (_divergence, ""),
    "dice": (_dice, ""),
    "tversky": (_tversky, ""),
    "circle": (_circle, "slopes that are sums over pairs, of both signs: 2^-34 of the terms, 2^-47 of the similarities'"),
    "ctc": (_ctc, "sums of probabilities near 1: 2^-47 of the frames' largest costs"),
}


def ulp(x: Any) -> Array:
    """The distance of neighbours in float32 at x."""
    _, exponent = np.frexp(np.asarray(x, np.float64))
    return np.ldexp(np.float64(1), np.maximum(exponent - 24, -149))


class NotEnoughDigits(ArithmeticError):
    """Long double is not exact enough to be compared with."""


def exact_rows(name: str, options: dict[str, Any], t: Array, p: Array) -> Exact:
    """The exact values and gradients, in long double, of rows as a call takes them; gradients as (m, n)."""
    formula = EXACT_LOSSES[name][0]
    if find(name).shape == "own":
        return formula(t, p.astype(np.longdouble), **options)
    if t.ndim < p.ndim:
        t = np.arange(p.shape[-1]) == t[:, None]
    m, n = p.shape
    out = Exact(*(np.empty((m, k), np.longdouble) for k in (1, n, 1, n)))
    step = max(1, (1 << 14) // n)  # elements that stay in the caches
    for lo in range(0, m, step):
        part = formula(*(x[lo : lo + step].astype(np.longdouble) for x in (t, p)), **options)
        for field, x in vars(part).items():
            getattr(out, field)[lo : lo + step] = x
    return out


def check_exact_rows(name: str, options: dict[str, Any], t: Array, p: Array, exact: Exact) -> None:
    """NotEnoughDigits unless mpmath, by the same formula, finds the same for the first and last row to 2^-10 of an ULP of float32."""
    if t.ndim < p.ndim:
        t = np.arange(p.shape[-1]) == t[:, None]
    rows = [i for i in (0, len(p) - 1) if np.isfinite(exact.value[i]).all()]
    if not rows:
        return
    number = np.frompyfunc(lambda x: mpmath.mpf(float(x)), 1, 1)
    with mp.workdps(90):
        precise = EXACT_LOSSES[name][0](number(t[rows]), number(p[rows]), **options)
        largest = np.max(abs(exact.gradient[rows]), axis=-1, keepdims=True)
        for got, wanted, unit in ((exact.value, precise.value, ulp(exact.value[rows])), (exact.gradient, precise.gradient, ulp(largest))):
            high = got[rows].astype(np.float64)  # mpmath does not know long double: it comes in two parts
            low = (got[rows] - high).astype(np.float64)
            error = np.max(abs(number(high) + number(low) - wanted) / unit)
            if error > 2.0**-10:
                raise NotEnoughDigits(f"{name}, {options}: long double is {float(error)} ULP of float32 off at {t[rows]}, {p[rows]}")
