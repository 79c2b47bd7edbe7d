"""Losses between a target distribution and a predicted one: `keras.losses`' cross-entropies and their relatives.

EPS = 1e-7. Predictions are probabilities, which are clipped to [EPS, 1 - EPS], or, with from_logits=True, logits,
which are not: there everything is computed in log space and no value or derivative saturates. A target of 0 brings 0,
whatever the logit. Each public function is the NumPy reference; below it stands its row maths, see `lossfuncs.rows`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..dispatch import loss
from ..options import EPS, axes, flag, number
from ..rows import Dot, Logs, LogSumExp, Pass, Rows, Scalar, Sum, exp_nonpositive, log_of_sum, mean_of, rel_entr, softplus, sum_of, where

TOP = 1.0 - EPS


def _brought(weight: Any, cost: Any) -> Any:
    return np.where(weight == 0, 0.0, weight * cost)


def _times(weight: float, cost: float) -> Any:
    """weight * cost, where a weight of 0 brings 0, whatever the cost."""
    return where(weight == 0.0, 0.0, weight * cost)


def _within(p: float, low: float, high: float, inside: float, outside: float) -> Any:
    """`inside` for low <= p <= high and for NaN, else `outside`: what a clip lets through of a derivative."""
    return where(p < low, outside, where(p > high, outside, inside))


@loss
def binary_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int | tuple[int, ...] | None = -1,
    *,
    sample_weight: Any = None,
    reduction: str | None = None,
) -> Any:
    """mean(-t log q - (1 - t) log(1 - q)) over `axis`, t = y_true (1 - label_smoothing) + label_smoothing / 2.

    y_true and y_pred have equal shapes; the axis or axes (None: all) of the mean are removed. q is y_pred clipped to
    [EPS, 1 - EPS], with derivative (q - t) / (q (1 - q)) and 0 outside; or sigmoid(y_pred) with from_logits, with
    derivative q - t. ValueError unless label_smoothing is in [0, 1].
    """
    t = y_true * (1.0 - label_smoothing) + label_smoothing / 2.0
    if from_logits:
        costs = _brought(np.where(y_pred < 0.0, t, 1.0 - t), np.abs(y_pred)) + np.log1p(np.exp(-np.abs(y_pred)))
    else:
        q = np.clip(y_pred, EPS, TOP)
        costs = -(t * np.log(q) + (1.0 - t) * np.log1p(-q))
    return np.mean(costs, axis=axes(axis))


def _complement(q: float) -> tuple[float, float]:
    """1 - q, and what its rounding lost."""
    d = 1.0 - q
    return d, (1.0 - d) - q


def _binary_cost(t: float, p: float) -> float:
    q = min(max(p, EPS), TOP)
    d, lost = _complement(q)
    return -(t * math.log(q) + (1.0 - t) * log_of_sum(d, lost))


def _hard_binary_cost(t: float, p: float) -> Any:
    # of the two sides, the one that counts
    q = min(max(p, EPS), TOP)
    d, lost = _complement(q)
    return -log_of_sum(where(t > 0.5, q, d), where(t > 0.5, 0.0, lost))


def _hard_binary_odds(t: float, p: float) -> tuple[float, Any]:
    # -log q = log1p((1 - q) / q)
    q = min(max(p, EPS), TOP)
    d = 1.0 - q
    return 0.0, where(t > 0.5, d, q) / where(t > 0.5, q, d)


def _binary_odds(t: float, p: float) -> tuple[Any, Any]:
    hard = (t == 0.0) | (t == 1.0)
    return where(hard, 0.0, _binary_cost(t, p)), where(hard, _hard_binary_odds(t, p)[1], 0.0)


def _binary_cost_slope(t: float, p: float) -> Any:
    q = min(max(p, EPS), TOP)
    return _within(p, EPS, TOP, (q - t) / (q * (1.0 - q)), 0.0)


def _binary_cost_curve(t: float, p: float) -> Any:
    q = min(max(p, EPS), TOP)
    return _within(p, EPS, TOP, t / (q * q) + (1.0 - t) / ((1.0 - q) * (1.0 - q)), 0.0)


def _binary_cost_from_logit(t: float, x: float) -> Any:
    # t softplus(-x) + (1 - t) softplus(x): the weight is that of the side that x is not on
    weight = where(x < 0.0, t, 1.0 - t)
    return _times(weight, abs(x)) + softplus(-abs(x))


def _minus_distance(t: float, x: float) -> float:
    return -abs(x)


def _binary_cost_from_logit_parts(t: float, x: float, e: float) -> tuple[Any, float]:
    weight = where(x < 0.0, t, 1.0 - t)
    return _times(weight, abs(x)), e


def _both_sigmoids(x: float) -> tuple[Any, Any]:
    """sigmoid(x) and 1 - sigmoid(x), each to its last digits."""
    return _both_sigmoids_of(x, exp_nonpositive(-abs(x)))


def _both_sigmoids_of(x: float, e: float) -> tuple[Any, Any]:
    larger = 1.0 / (1.0 + e)
    smaller = e * larger
    return where(x < 0.0, smaller, larger), where(x < 0.0, larger, smaller)


def _binary_cost_from_logit_slope(t: float, p: float) -> Any:
    return _binary_cost_from_logit_slope_of(t, p, exp_nonpositive(-abs(p)))


def _binary_cost_from_logit_slope_of(t: float, p: float, e: float) -> Any:
    x, y = _both_sigmoids_of(p, e)
    return (1.0 - t) * x - t * y


def _binary_cost_from_logit_curve(t: float, p: float) -> Any:
    x, y = _both_sigmoids(p)
    return x * y


def _smooth(f: Scalar) -> Scalar:
    """f for the target t keep + share."""

    def smooth(t: float, p: float, keep: float, share: float) -> Any:
        return f(t * keep + share, p)

    return smooth


def _smooth_of(f: Scalar) -> Scalar:
    def smooth(t: float, p: float, e: float, keep: float, share: float) -> Any:
        return f(t * keep + share, p, e)

    return smooth


_BINARY_ENTROPY = (_binary_cost, _binary_cost_slope, _binary_cost_curve)
_FROM_LOGITS = (_binary_cost_from_logit, _binary_cost_from_logit_slope, _binary_cost_from_logit_curve)
_PARTS, _SLOPE_OF = _binary_cost_from_logit_parts, _binary_cost_from_logit_slope_of
BINARY_ENTROPY = mean_of(*_BINARY_ENTROPY, hard=_hard_binary_cost, logs=(_binary_odds, _hard_binary_odds))._replace(
    name="binary_entropy", cuda="Mean<binary_entropy<T>>"
)
BINARY_ENTROPY_FROM_LOGITS = mean_of(*_FROM_LOGITS, logs=(_PARTS,), exponent=(_minus_distance, _SLOPE_OF))._replace(
    name="binary_entropy_from_logits", cuda="Mean<binary_entropy_from_logits<T>>"
)
SMOOTH_BINARY_ENTROPY = mean_of(*map(_smooth, _BINARY_ENTROPY))._replace(
    name="smooth_binary_entropy", cuda="Mean<Smooth<binary_entropy<T>, T>>"
)
SMOOTH_BINARY_ENTROPY_FROM_LOGITS = mean_of(
    *map(_smooth, _FROM_LOGITS), logs=(_smooth_of(_PARTS),), exponent=(_smooth(_minus_distance), _smooth_of(_SLOPE_OF))
)._replace(
    name="smooth_binary_entropy_from_logits", cuda="Mean<Smooth<binary_entropy_from_logits<T>, T>>"
)


def binary_entropy_rows(n: int, from_logits: bool = False, label_smoothing: float = 0.0) -> tuple[Rows, tuple[float, ...]]:
    smoothing = number("label_smoothing", label_smoothing, 0.0, 1.0)
    if flag("from_logits", from_logits):
        rows, smooth = BINARY_ENTROPY_FROM_LOGITS, SMOOTH_BINARY_ENTROPY_FROM_LOGITS
    else:
        rows, smooth = BINARY_ENTROPY, SMOOTH_BINARY_ENTROPY
    return (smooth, (1.0 - smoothing, smoothing / 2.0)) if smoothing else (rows, ())


@loss
def binary_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int | tuple[int, ...] | None = -1,
    *,
    sample_weight: Any = None,
    reduction: str | None = None,
) -> Any:
    """mean(w u^gamma B) over `axis`: B the binary cross-entropy, u the probability given to the other class.

    u = t (1 - x) + (1 - t) x, where x is y_pred, or sigmoid(y_pred) with from_logits; t is smoothed as in
    `binary_crossentropy`, and shapes are as there. w = 1, or with apply_class_balancing t alpha + (1 - t)(1 - alpha).
    From logits B does not saturate (Keras' stops at 16.1). Where u = 0 and gamma < 1 the derivative is 0, not NaN; u
    < 0, for x outside [0, 1], counts as 0. ValueError unless gamma >= 0 and label_smoothing is in [0, 1]. Lin et al.,
    Focal loss for dense object detection, 2017.
    """
    t = y_true * (1.0 - label_smoothing) + label_smoothing / 2.0
    if from_logits:
        right, wrong = np.logaddexp(0.0, -y_pred), np.logaddexp(0.0, y_pred)
        entropy = _brought(t, right) + _brought(1.0 - t, wrong)
        u = t * np.exp(-wrong) + (1.0 - t) * np.exp(-right)
    else:
        q = np.clip(y_pred, EPS, TOP)
        entropy = -(t * np.log(q) + (1.0 - t) * np.log1p(-q))
        u = np.maximum(t * (1.0 - y_pred) + (1.0 - t) * y_pred, 0.0)
    w = t * alpha + (1.0 - t) * (1.0 - alpha) if apply_class_balancing else 1.0
    return np.mean(w * u**gamma * entropy, axis=axes(axis))


class _Power(NamedTuple):
    """u^gamma; its derivative by u, and its second derivative times du^2, given the power f."""

    power: Scalar
    slope: Scalar
    curve: Scalar
    cuda: str


def _power(u: float, gamma: float) -> float:
    return math.pow(u, gamma)


def _power_slope(u: float, f: float, gamma: float, at_zero: float) -> Any:
    return where(u > 0.0, gamma * f / u, at_zero)


def _power_curve(u: float, du: float, f: float, gamma: float) -> Any:
    return where(u > 0.0, gamma * (gamma - 1.0) * f / u * du / u * du, 0.0)  # u * u may be 0


def _square(u: float, gamma: float) -> float:
    return u * u


def _square_slope(u: float, f: float, gamma: float, at_zero: float) -> float:
    return 2.0 * u


def _square_curve(u: float, du: float, f: float, gamma: float) -> float:
    return 2.0 * du * du


# The default gamma = 2 needs neither exp and log nor a division.
GENERAL = _Power(_power, _power_slope, _power_curve, "Power")
SQUARE = _Power(_square, _square_slope, _square_curve, "Square")


def _slope_at_zero(gamma: float) -> float:
    """What the derivative of u^gamma counts as at u = 0: itself where it exists, else 0."""
    return 1.0 if gamma == 1.0 else 0.0


def _binary_focal(of: _Power) -> tuple[Rows, Rows]:
    """From probabilities, from logits; parameters keep, share, w1, w0, gamma and the derivative of u^gamma at 0."""
    power, power_slope, power_curve, cuda = of

    def focal_entropy(t: float, p: float, *a: float) -> Any:
        keep, share, w1, w0, gamma, at_zero = a
        t = t * keep + share
        u = max(t * (1.0 - p) + (1.0 - t) * p, 0.0)
        return (t * w1 + (1.0 - t) * w0) * power(u, gamma) * _binary_cost(t, p)

    def slope(t: float, p: float, *a: float) -> Any:
        keep, share, w1, w0, gamma, at_zero = a
        t = t * keep + share
        u = max(t * (1.0 - p) + (1.0 - t) * p, 0.0)
        f = power(u, gamma)
        bend = power_slope(u, f, gamma, at_zero) * (1.0 - 2.0 * t) * _binary_cost(t, p)
        return (t * w1 + (1.0 - t) * w0) * (f * _binary_cost_slope(t, p) + bend)

    def curve(t: float, p: float, *a: float) -> Any:
        keep, share, w1, w0, gamma, at_zero = a
        t = t * keep + share
        u, du = max(t * (1.0 - p) + (1.0 - t) * p, 0.0), 1.0 - 2.0 * t
        f = power(u, gamma)
        bend = 2.0 * power_slope(u, f, gamma, at_zero) * du * _binary_cost_slope(t, p)
        bend += power_curve(u, du, f, gamma) * _binary_cost(t, p)
        return (t * w1 + (1.0 - t) * w0) * (f * _binary_cost_curve(t, p) + bend)

    def focal_entropy_from_logits(t: float, p: float, *a: float) -> Any:
        keep, share, w1, w0, gamma, at_zero = a
        t = t * keep + share
        x, y = _both_sigmoids(p)
        f = power(t * y + (1.0 - t) * x, gamma)
        return (t * w1 + (1.0 - t) * w0) * f * _binary_cost_from_logit(t, p)

    # The derivative of x = sigmoid(p) is x y. That is 0 only where exp(-|p|) is: there its product with the cost, which may be
    # infinite, tends to 0.

    def slope_from_logits(t: float, p: float, *a: float) -> Any:
        keep, share, w1, w0, gamma, at_zero = a
        t = t * keep + share
        x, y = _both_sigmoids(p)
        u, du = t * y + (1.0 - t) * x, (1.0 - 2.0 * t) * (x * y)
        f = power(u, gamma)
        bend = power_slope(u, f, gamma, at_zero) * du * _binary_cost_from_logit(t, p)
        return (t * w1 + (1.0 - t) * w0) * (f * ((1.0 - t) * x - t * y) + where(x * y == 0.0, 0.0, bend))

    def curve_from_logits(t: float, p: float, *a: float) -> Any:
        keep, share, w1, w0, gamma, at_zero = a
        t = t * keep + share
        x, y = _both_sigmoids(p)
        u, du = t * y + (1.0 - t) * x, (1.0 - 2.0 * t) * (x * y)
        f = power(u, gamma)
        g = power_slope(u, f, gamma, at_zero)
        bend = (power_curve(u, du, f, gamma) + g * du * (y - x)) * _binary_cost_from_logit(t, p)
        bend += 2.0 * g * du * ((1.0 - t) * x - t * y) + f * (x * y)
        return (t * w1 + (1.0 - t) * w0) * where(x * y == 0.0, 0.0, bend)

    from_probabilities = mean_of(focal_entropy, slope, curve)
    from_logits = mean_of(focal_entropy_from_logits, slope_from_logits, curve_from_logits)
    return (
        from_probabilities._replace(cuda=f"Mean<focal_entropy<T, {cuda}>>"),
        from_logits._replace(cuda=f"Mean<focal_entropy_from_logits<T, {cuda}>>"),
    )


BINARY_FOCAL, BINARY_FOCAL_FROM_LOGITS = _binary_focal(GENERAL)
BINARY_FOCAL_SQUARE, BINARY_FOCAL_SQUARE_FROM_LOGITS = _binary_focal(SQUARE)


def binary_focal_rows(
    n: int,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
) -> tuple[Rows, tuple[float, ...]]:
    alpha, gamma = number("alpha", alpha), number("gamma", gamma, 0.0)
    smoothing = number("label_smoothing", label_smoothing, 0.0, 1.0)
    if flag("from_logits", from_logits):
        rows = BINARY_FOCAL_SQUARE_FROM_LOGITS if gamma == 2.0 else BINARY_FOCAL_FROM_LOGITS
    else:
        rows = BINARY_FOCAL_SQUARE if gamma == 2.0 else BINARY_FOCAL
    w1, w0 = (alpha, 1.0 - alpha) if flag("apply_class_balancing", apply_class_balancing) else (1.0, 1.0)
    return rows, (1.0 - smoothing, smoothing / 2.0, w1, w0, gamma, _slope_at_zero(gamma))


def _surprisal(x: Any, axis: int) -> Any:
    """-log softmax(x), as (m - x) + log1p(sum of the others' exp), which keeps the digits of a sure prediction."""
    m = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    e = np.exp(np.where(x == m, 0.0, x - m))  # where both are infinite too
    if e.shape[axis]:
        np.put_along_axis(e, np.argmax(x, axis=axis, keepdims=True), 0.0, axis)
    return (m - x) + np.log1p(np.sum(e, axis=axis, keepdims=True))


def _clipped_shares(p: Any, axis: int) -> Any:
    total = np.sum(p, axis=axis, keepdims=True)
    return np.clip(p / np.where(total == 0.0, 1.0, total), EPS, TOP)


def _smoothed(t: Any, smoothing: float, axis: int) -> Any:
    return t * (1.0 - smoothing) + smoothing / t.shape[axis] if smoothing else t


@loss
def categorical_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
    *,
    sample_weight: Any = None,
    reduction: str | None = None,
) -> Any:
    """-sum(t log q) over the class axis, t = y_true (1 - label_smoothing) + label_smoothing / C, C the size of `axis`.

    y_true and y_pred have equal shapes; `axis` is removed. q = y_pred / sum(y_pred), clipped to [EPS, 1 - EPS], or
    softmax(y_pred) with from_logits, whose derivative is sum(t) q - t. y_true need not sum to 1. A row of zeros
    counts as EPS in every class (Keras: NaN); Keras 3.15.1 divides the smoothing by shape[-1] for any axis, its next
    release as here. ValueError unless label_smoothing is in [0, 1].
    """
    t = _smoothed(y_true, label_smoothing, axis)
    costs = _surprisal(y_pred, axis) if from_logits else -np.log(_clipped_shares(y_pred, axis))
    return np.sum(_brought(t, costs), axis=axis)


@loss
def sparse_categorical_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
    *,
    sample_weight: Any = None,
    reduction: str | None = None,
) -> Any:
    """-log q[y_true], q as in `categorical_crossentropy`.

    y_true holds class numbers and has y_pred's shape without `axis`; so has the result. Where y_true is ignore_class,
    value and derivative are 0. ValueError for any other label outside 0 ... C - 1.
    """
    costs = _surprisal(y_pred, axis) if from_logits else -np.log(_clipped_shares(y_pred, axis))
    return np.squeeze(np.take_along_axis(costs, np.expand_dims(y_true, axis), axis), axis)


def _prediction(s: Any, t: float, p: float) -> float:
    return p


def _divisor(total: float) -> Any:
    return where(total == 0.0, 1.0, total)


def _surprise(s: Any, p: float) -> tuple[float, Any]:
    total = _divisor(s[0])
    return -math.log(min(max(p / total, EPS), TOP)), _within(p, EPS * total, TOP * total, 1.0, 0.0)


def _hard_odds(s: Any, t: float, p: float) -> tuple[float, Any]:
    # 1 / q - 1, right to 1e-9 of itself. Where p and the total have different signs, q is clipped at EPS
    r = _divisor(s[0]) / p
    r = min(max(where(r < 0.0, 1.0 / EPS, r), 1.0 / TOP), 1.0 / EPS)
    return 0.0, where(t == 1.0, r - 1.0, 0.0)


def _odds(s: Any, t: float, p: float) -> tuple[Any, Any]:
    soft = where(t == 1.0, 0.0, t)
    return _times(soft, _surprise(s, p)[0]), _hard_odds(s, t, p)[1]


def _inside(s: Any, p: float) -> Any:
    return _surprise(s, p)[1]


def cross_entropy_value(s: Any, n: float) -> Any:
    return s[1]


def cross_entropy_around(s: Any, n: float) -> tuple[float, float]:
    return _divisor(s[0]), s[2]


def narrow_cross_entropy_around(s: Any, n: float) -> tuple[float, float]:
    return _divisor(s[0]), s[3]


def cross_entropy_slope(c: Any, t: float, p: float) -> Any:
    # (sum of t inside the clip - t / o) / total, o = p / total, with the cancellation of o near 1 left to an exact
    # difference
    total, inside = c
    return _within(p, EPS * total, TOP * total, (inside * p - t * total) / p, inside) / total


def narrow_cross_entropy_slope(c: Any, t: float, p: float) -> Any:
    # with one division an element: p total neither over- nor underflows
    total, inside = c
    return _within(p, EPS * total, TOP * total, (inside * p - t * total) / (p * total), inside / total)


def _surprise_from_logits(s: Any, p: float) -> tuple[float, float]:
    return 1.0, s[0] - p


def cross_entropy_from_logits_value(s: Any, n: float) -> Any:
    return _times(s[2], math.log1p(s[1])) + s[3]


def cross_entropy_from_logits_around(s: Any, n: float) -> tuple[float, float, float, float]:
    return s[0], s[1], 1.0 / (1.0 + s[1]), s[2]


def cross_entropy_from_logits_slope(c: Any, t: float, p: float) -> Any:
    return cross_entropy_softmax_slope(c, t, exp_nonpositive(p - c[0]))


def cross_entropy_softmax_slope(c: Any, t: float, e: float) -> Any:
    # softmax sum(t) - t over the common denominator 1 + r: at the label of a sure row e is 1 and exactly -t r is left
    m, r, inverse, sum_t = c
    return ((e * sum_t - t) - t * r) * inverse


def cross_entropy_from_logits_curve(c: Any, t: float, p: float) -> Any:
    m, r, inverse, sum_t = c
    e = exp_nonpositive(p - m)
    return sum_t * e * inverse * (((1.0 - e) + r) * inverse)


def smoothed(rows: Rows) -> Rows:
    """The rows with t keep + share for t, two parameters put in front: then no target is 0, and a Dot becomes a Sum."""

    def widened(one: Pass) -> Pass:
        f = one.terms

        def terms(s: Any, t: float, p: float, keep: float, share: float, *a: float) -> Any:
            return f(s, t, p, *a)

        def two(s: Any, t: float, p: float, keep: float, share: float, *a: float) -> Any:
            w = t * keep + share
            x, y = f(s, p, *a)
            return w * x, w * y

        def four(s: Any, t: float, p: float, keep: float, share: float, *a: float) -> Any:
            w = t * keep + share
            x, y, u, v = f(s, p, *a)
            return w * x, w * y, w * u, w * v

        return Sum({2: two, 4: four}[one.size], one.size) if one.op == "dot" else one._replace(terms=terms, by_label=False)

    value, around, slope, curve, softmax_slope = rows.value, rows.around, rows.slope, rows.curve, rows.softmax_slope
    assert around is not None and slope is not None

    def smoothed_value(s: Any, n: float, keep: float, share: float, *a: float) -> Any:
        return value(s, n, *a)

    def smoothed_around(s: Any, n: float, keep: float, share: float, *a: float) -> Any:
        return around(s, n, *a)

    def smoothed_slope(c: Any, t: float, p: float, keep: float, share: float, *a: float) -> Any:
        return slope(c, t * keep + share, p, *a)

    def smoothed_curve(c: Any, t: float, p: float, keep: float, share: float, *a: float) -> Any:
        return curve(c, t * keep + share, p, *a)  # type: ignore[misc]

    def smoothed_softmax_slope(c: Any, t: float, e: float, keep: float, share: float, *a: float) -> Any:
        return softmax_slope(c, t * keep + share, e, *a)  # type: ignore[misc]

    return rows._replace(
        name=f"smoothed_{rows.name}",
        passes=tuple(widened(one) for one in rows.passes),
        value=smoothed_value,
        around=smoothed_around,
        slope=smoothed_slope,
        curve=smoothed_curve if curve else None,
        softmax_slope=smoothed_softmax_slope if softmax_slope else None,
        narrow=None,
        cuda=f"Smoothed<{rows.cuda or f'{rows.name}<T>'}, T>",
    )


NARROW_CROSS_ENTROPY = Rows(
    "cross_entropy",
    (Sum(_prediction), Logs(_odds, _hard_odds, sparse=True), Dot(_inside)),
    cross_entropy_value,
    narrow_cross_entropy_around,
    narrow_cross_entropy_slope,
    leading=2,
)
CROSS_ENTROPY = Rows(
    "cross_entropy",
    (Sum(_prediction), Dot(_surprise, 2)),
    cross_entropy_value,
    cross_entropy_around,
    cross_entropy_slope,
    narrow=NARROW_CROSS_ENTROPY,
)
CROSS_ENTROPY_FROM_LOGITS = Rows(
    "cross_entropy_from_logits",
    (LogSumExp(_prediction, by_label=True), Dot(_surprise_from_logits, 2)),
    cross_entropy_from_logits_value,
    cross_entropy_from_logits_around,
    cross_entropy_from_logits_slope,
    cross_entropy_from_logits_curve,
    cross_entropy_softmax_slope,
)
SMOOTHED_CROSS_ENTROPY = smoothed(CROSS_ENTROPY)
SMOOTHED_CROSS_ENTROPY_FROM_LOGITS = smoothed(CROSS_ENTROPY_FROM_LOGITS)


def cross_entropy_rows(n: int, from_logits: bool = False, label_smoothing: float = 0.0) -> tuple[Rows, tuple[float, ...]]:
    logits, smoothing = flag("from_logits", from_logits), number("label_smoothing", label_smoothing, 0.0, 1.0)
    if smoothing:
        rows = SMOOTHED_CROSS_ENTROPY_FROM_LOGITS if logits else SMOOTHED_CROSS_ENTROPY
        return rows, (1.0 - smoothing, smoothing / n)
    return CROSS_ENTROPY_FROM_LOGITS if logits else CROSS_ENTROPY, ()


def sparse_cross_entropy_rows(n: int, from_logits: bool = False) -> tuple[Rows, tuple[float, ...]]:
    return cross_entropy_rows(n, from_logits)


@loss
def categorical_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    alpha: Any = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
    *,
    sample_weight: Any = None,
    reduction: str | None = None,
) -> Any:
    """-sum(alpha t (1 - q)^gamma log q) over the class axis.

    t, q, smoothing and shapes are those of `categorical_crossentropy`. alpha is a number, or one for each class;
    unlike in the binary loss it always applies. From logits neither value nor derivative saturates (Keras' value
    stops at alpha 16.1). ValueError unless gamma >= 0 and label_smoothing is in [0, 1].
    """
    t, p = np.moveaxis(_smoothed(y_true, label_smoothing, axis), axis, -1), np.moveaxis(y_pred, axis, -1)
    weight = np.asarray(alpha, np.float64)
    if weight.ndim:
        t, weight = t * weight, np.ones(())
    if from_logits:
        cost = _surprisal(p, -1)
        other = -np.expm1(-cost)
    else:
        q = _clipped_shares(p, -1)
        cost, other = -np.log(q), 1.0 - q
    return _brought(weight, np.sum(_brought(t, other**gamma * cost), axis=-1))


def _categorical_focal(of: _Power) -> tuple[Rows, Rows]:
    """From probabilities, from logits; parameters alpha, gamma and the derivative of u^gamma at 0."""
    power, power_slope, _, cuda = of

    def terms(s: Any, p: float, alpha: float, gamma: float, at_zero: float) -> tuple[Any, Any]:
        total = _divisor(s[0])
        q = min(max(p / total, EPS), TOP)
        log_q, u = math.log(q), 1.0 - q
        f = power(u, gamma)
        by_log_q = power_slope(u, f, gamma, at_zero) * q * log_q - f
        return -f * log_q, _within(p, EPS * total, TOP * total, by_log_q, 0.0)

    def value(s: Any, n: float, alpha: float, gamma: float, at_zero: float) -> Any:
        return _times(alpha, s[1])

    def around(s: Any, n: float, alpha: float, gamma: float, at_zero: float) -> Any:
        return _divisor(s[0]), s[2], alpha / _divisor(s[0])

    def slope(c: Any, t: float, p: float, alpha: float, gamma: float, at_zero: float) -> Any:
        total, summed, scale = c
        g = t * terms(c, p, alpha, gamma, at_zero)[1]
        # (g total / p - summed) scale, where g and the sum cancel exactly in a row with one label
        inside = (g * (total - p) + (g - summed) * p) / p
        return scale * _within(p, EPS * total, TOP * total, inside, -summed)

    # From logits: q = e / (1 + r) and u = 1 - q = ((1 - e) + r) / (1 + r) with e = exp(-d), d = m - p, and -log q = d + L with
    # L = log1p(r), which belongs to the row and is left to its formulas.

    def terms_from_logits(s: Any, p: float, alpha: float, gamma: float, at_zero: float) -> tuple[Any, Any, Any, Any]:
        d = s[0] - p
        e, inverse = math.exp(-d), 1.0 / (1.0 + s[1])
        u = min(((1.0 - e) + s[1]) * inverse, 1.0)
        f = power(u, gamma)
        bend = power_slope(u, f, gamma, at_zero) * (e * inverse)
        return f, _times(f, d), bend, _times(bend, d)

    def value_from_logits(s: Any, n: float, alpha: float, gamma: float, at_zero: float) -> Any:
        return _times(alpha, _times(s[2], math.log1p(s[1])) + s[3])

    def around_from_logits(s: Any, n: float, alpha: float, gamma: float, at_zero: float) -> Any:
        log_rest = math.log1p(s[1])
        summed = -(s[2] + (s[4] * log_rest + s[5]))
        return s[0], s[1], log_rest, summed, alpha / (1.0 + s[1])

    def slope_from_logits(c: Any, t: float, p: float, alpha: float, gamma: float, at_zero: float) -> Any:
        m, r, log_rest, summed, scale = c
        f, _, bend, bend_d = terms_from_logits(c, p, alpha, gamma, at_zero)
        g = _times(t, -(f + (bend * log_rest + bend_d)))
        return scale * ((g - math.exp(p - m) * summed) + r * g)

    return (
        Rows("focal_cross_entropy", (Sum(_focal_prediction), Dot(terms, 2)), value, around, slope,
             cuda=f"focal_cross_entropy<T, {cuda}>"),  # fmt: skip
        Rows(
            "focal_cross_entropy_from_logits",
            (LogSumExp(_focal_prediction), Dot(terms_from_logits, 4)),
            value_from_logits,
            around_from_logits,
            slope_from_logits,
            cuda=f"focal_cross_entropy_from_logits<T, {cuda}>",
        ),
    )


def _focal_prediction(s: Any, t: float, p: float, alpha: float, gamma: float, at_zero: float) -> float:
    return p


# by (from_logits, gamma == 2, smoothed)
FOCAL_CROSS_ENTROPY = {
    (logits, square, smooth): smoothed(rows) if smooth else rows
    for square, power in ((False, GENERAL), (True, SQUARE))
    for logits, rows in enumerate(_categorical_focal(power))
    for smooth in (False, True)
}


def focal_cross_entropy_rows(
    n: int, alpha: float = 0.25, gamma: float = 2.0, from_logits: bool = False, label_smoothing: float = 0.0
) -> tuple[Rows, tuple[float, ...]]:
    alpha, gamma = number("alpha", alpha), number("gamma", gamma, 0.0)
    smoothing = number("label_smoothing", label_smoothing, 0.0, 1.0)
    rows = FOCAL_CROSS_ENTROPY[flag("from_logits", from_logits), gamma == 2.0, smoothing > 0.0]
    parameters = (alpha, gamma, _slope_at_zero(gamma))
    return rows, (1.0 - smoothing, smoothing / n, *parameters) if smoothing else parameters


@loss
def kl_divergence(y_true: Any, y_pred: Any, *, sample_weight: Any = None, reduction: str | None = None) -> Any:
    """sum(a log(a / b)) over the last axis, a and b being y_true and y_pred clipped to [EPS, 1].

    Shapes (..., C) -> (...). Nothing is normalised. The derivative is -a / b, 0 where y_pred is clipped.
    """
    a, b = np.clip(y_true, EPS, 1.0), np.clip(y_pred, EPS, 1.0)
    return np.sum(a * np.sign(a - b) * np.log1p(np.abs(a - b) / np.minimum(a, b)), axis=-1)


def relative_entropy(t: float, p: float) -> Any:
    return rel_entr(min(max(t, EPS), 1.0), min(max(p, EPS), 1.0))


def relative_entropy_slope(t: float, p: float) -> Any:
    a, b = min(max(t, EPS), 1.0), min(max(p, EPS), 1.0)
    return _within(p, EPS, 1.0, -a / b, 0.0)


def relative_entropy_curve(t: float, p: float) -> Any:
    a, b = min(max(t, EPS), 1.0), min(max(p, EPS), 1.0)
    return _within(p, EPS, 1.0, a / (b * b), 0.0)


RELATIVE_ENTROPY = sum_of(relative_entropy, relative_entropy_slope, relative_entropy_curve)


@loss
def categorical_generalized_cross_entropy(
    y_true: Any, y_pred: Any, q: float, *, sample_weight: Any = None, reduction: str | None = None
) -> Any:
    """(1 - p^q) / q, p = y_pred[y_true]: between cross-entropy (q -> 0) and absolute error (q = 1).

    y_true holds class numbers and has y_pred's shape without the last axis; so has the result. The derivative at the
    label is -p^(q - 1); at p = 0, where that is infinite, EPS stands for p. ValueError unless q > 0, and for labels
    outside 0 ... C - 1 (Keras gives 1 / q). Zhang and Sabuncu, Generalized cross entropy loss, 2018.
    """
    p = np.take_along_axis(y_pred, np.expand_dims(y_true, -1), -1)[..., 0]
    return -np.expm1(q * np.log(p)) / q


def _of_label(s: Any, p: float, q: float) -> tuple[float]:
    return (p,)


def generalized_cross_entropy_value(s: Any, n: float, q: float) -> float:
    return -math.expm1(q * math.log(s[0])) / q


def generalized_cross_entropy_around(s: Any, n: float, q: float) -> tuple[float]:
    return (-math.pow(where(s[0] == 0.0, EPS, s[0]), q - 1.0),)


def generalized_cross_entropy_slope(c: Any, t: float, p: float, q: float) -> Any:
    return t * c[0]


GENERALIZED_CROSS_ENTROPY = Rows(
    "generalized_cross_entropy",
    (Dot(_of_label),),
    generalized_cross_entropy_value,
    generalized_cross_entropy_around,
    generalized_cross_entropy_slope,
)


def generalized_cross_entropy_rows(n: int, q: float) -> tuple[Rows, tuple[float, ...]]:
    if not (q := number("q", q)) > 0.0:
        raise ValueError(f"q must be a number > 0, got {q}")
    return GENERALIZED_CROSS_ENTROPY, (q,)
