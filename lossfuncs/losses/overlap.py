"""Losses of overlapping sets: dice and tversky, for segmentation.

The rows are what `axis` names; with the default None the whole arrays, the batch included, are one row. EPS = 1e-7.
Each public function is the NumPy reference; below it stands its row maths, see `lossfuncs.rows`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dispatch import loss
from ..options import EPS, axes, number
from ..rows import Rows, Sum


@loss
def dice(
    y_true: Any,
    y_pred: Any,
    axis: int | tuple[int, ...] | None = None,
    *,
    sample_weight: Any = None,
    reduction: str | None = None,
) -> Any:
    """1 - 2 I / (U + EPS), I = sum(y_true y_pred), U = sum(y_true) + sum(y_pred), over `axis` (None: everything).

    y_true and y_pred have equal shapes; the axes are removed. Computed as (sum(t (1 - p) + p (1 - t)) + EPS) / (U +
    EPS), which keeps the digits of a good prediction. The derivative is 2 (I / (U + EPS) - y_true) / (U + EPS).
    Nothing marked and nothing predicted costs 1.
    """
    over = axes(axis)
    apart = np.sum(y_true * (1.0 - y_pred) + y_pred * (1.0 - y_true), axis=over)
    return (apart + EPS) / (np.sum(y_true + y_pred, axis=over) + EPS)


def _common_and_apart(s: Any, t: float, p: float) -> tuple[float, float]:
    return t * p, t * (1.0 - p) + p * (1.0 - t)


def dice_value(s: Any, n: float) -> Any:
    return (s[1] + EPS) / ((s[1] + 2.0 * s[0]) + EPS)


def dice_around(s: Any, n: float) -> tuple[float, float]:
    divisor = (s[1] + 2.0 * s[0]) + EPS
    return s[0] / divisor, 2.0 / divisor


def dice_slope(c: Any, t: float, p: float) -> Any:
    return (c[0] - t) * c[1]


DICE = Rows("dice", (Sum(_common_and_apart, 2),), dice_value, dice_around, dice_slope)


@loss
def tversky(
    y_true: Any,
    y_pred: Any,
    alpha: float = 0.5,
    beta: float = 0.5,
    axis: int | tuple[int, ...] | None = None,
    *,
    sample_weight: Any = None,
    reduction: str | None = None,
) -> Any:
    """1 - I / (I + alpha M + beta F + EPS): I the common part, M what was missed, F what was falsely found.

    I = sum(y_true y_pred), M = sum(y_true (1 - y_pred)), F = sum(y_pred (1 - y_true)). Sums over `axis` (None:
    everything); equal shapes, the axes are removed. alpha weighs what was missed and beta what was falsely found, as
    in Keras 3.15.1; Keras' documentation, its next release and the paper have them the other way round. Nothing
    marked and nothing predicted costs 1. Salehi et al., Tversky loss function for image segmentation, 2017.
    """
    over = axes(axis)
    common = np.sum(y_true * y_pred, axis=over)
    missed = np.sum(y_true * (1.0 - y_pred), axis=over)
    false = np.sum(y_pred * (1.0 - y_true), axis=over)
    cost = alpha * missed + beta * false + EPS
    return cost / (common + cost)


def _common_missed_false(s: Any, t: float, p: float, alpha: float, beta: float) -> tuple[float, float, float]:
    return t * p, t * (1.0 - p), p * (1.0 - t)


def tversky_value(s: Any, n: float, alpha: float, beta: float) -> Any:
    cost = alpha * s[1] + beta * s[2] + EPS
    return cost / (s[0] + cost)


def tversky_around(s: Any, n: float, alpha: float, beta: float) -> tuple[float, float]:
    divisor = s[0] + (alpha * s[1] + beta * s[2] + EPS)
    return s[0] / divisor, 1.0 / divisor


def tversky_slope(c: Any, t: float, p: float, alpha: float, beta: float) -> Any:
    return (c[0] * (t * (1.0 - alpha) + beta * (1.0 - t)) - t) * c[1]


TVERSKY = Rows("tversky", (Sum(_common_missed_false, 3),), tversky_value, tversky_around, tversky_slope)


def tversky_rows(n: int, alpha: float = 0.5, beta: float = 0.5) -> tuple[Rows, tuple[float, ...]]:
    return TVERSKY, (number("alpha", alpha), number("beta", beta))
