"""Margin losses: `keras.losses`' hinge family.

Each public function is the NumPy reference; below it stands its row maths, see `lossfuncs.rows`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dispatch import loss
from ..options import flag
from ..rows import Dot, Max, Rows, Sum, mean_of, where


def _signs(y_true: Any) -> Any:
    return 2.0 * y_true - 1.0 if np.all((y_true == 0) | (y_true == 1)) else y_true


@loss
def hinge(y_true: Any, y_pred: Any, *, sample_weight: Any = None, reduction: str | None = None) -> Any:
    """mean(max(1 - y_true y_pred, 0)) over the last axis.

    Shapes (..., C) -> (...). y_true is -1 or 1; an array that holds nothing but 0 and 1 is read as -1 and 1 (one
    other value anywhere in it, and it is used as it is). The derivative is -y_true / C within the margin, half of it
    on its edge.
    """
    return np.mean(np.maximum(1.0 - _signs(y_true) * y_pred, 0.0), axis=-1)


@loss
def squared_hinge(y_true: Any, y_pred: Any, *, sample_weight: Any = None, reduction: str | None = None) -> Any:
    """mean(max(1 - y_true y_pred, 0)^2) over the last axis; y_true and shapes as in `hinge`.

    The derivative is -2 y_true max(1 - y_true y_pred, 0) / C.
    """
    return np.mean(np.maximum(1.0 - _signs(y_true) * y_pred, 0.0) ** 2, axis=-1)


def _half_step(x: float) -> Any:
    """The derivative of max(x, 0)."""
    return where(x > 0.0, 1.0, where(x < 0.0, 0.0, 0.5))


def margin_loss(t: float, p: float, scale: float, shift: float) -> float:
    return max(1.0 - (t * scale + shift) * p, 0.0)


def margin_loss_slope(t: float, p: float, scale: float, shift: float) -> Any:
    y = t * scale + shift
    return -y * _half_step(1.0 - y * p)


def margin_loss_curve(t: float, p: float, scale: float, shift: float) -> float:
    return 0.0


def squared_margin_loss(t: float, p: float, scale: float, shift: float) -> float:
    m = max(1.0 - (t * scale + shift) * p, 0.0)
    return m * m


def squared_margin_loss_slope(t: float, p: float, scale: float, shift: float) -> float:
    y = t * scale + shift
    return -2.0 * y * max(1.0 - y * p, 0.0)


def squared_margin_loss_curve(t: float, p: float, scale: float, shift: float) -> Any:
    y = t * scale + shift
    return 2.0 * y * y * _half_step(1.0 - y * p)


MARGIN_LOSS = mean_of(margin_loss, margin_loss_slope, margin_loss_curve)
SQUARED_MARGIN_LOSS = mean_of(squared_margin_loss, squared_margin_loss_slope, squared_margin_loss_curve)


def _conversion(converted: bool) -> tuple[float, float]:
    """scale and shift that make t of {0, 1} -1 and 1, or leave it."""
    return (2.0, -1.0) if flag("converted", converted) else (1.0, 0.0)


def margin_loss_rows(n: int, converted: bool = False) -> tuple[Rows, tuple[float, ...]]:
    return MARGIN_LOSS, _conversion(converted)


def squared_margin_loss_rows(n: int, converted: bool = False) -> tuple[Rows, tuple[float, ...]]:
    return SQUARED_MARGIN_LOSS, _conversion(converted)


@loss
def categorical_hinge(y_true: Any, y_pred: Any, *, sample_weight: Any = None, reduction: str | None = None) -> Any:
    """max(max((1 - y_true) y_pred) - sum(y_true y_pred) + 1, 0), max and sum over the last axis.

    Shapes (..., C) -> (...); y_true is one-hot. The zero that the true class leaves in the max takes part. In the
    derivative equal maxima share, and the edge of the margin counts half.
    """
    positive = np.sum(np.where(y_true == 0, 0.0, y_true * y_pred), axis=-1)
    negative = np.max((1.0 - y_true) * y_pred, axis=-1, initial=-np.inf)
    # in the order that loses nothing where the three nearly cancel
    return np.maximum(np.where(positive < 2.0, (1.0 - positive) + negative, (negative - positive) + 1.0), 0.0)


def _score(s: Any, p: float) -> tuple[float]:
    return (p,)


def _rival(s: Any, t: float, p: float) -> float:
    return (1.0 - t) * p


def _is_top_rival(s: Any, t: float, p: float) -> Any:
    return where((1.0 - t) * p == s[1], 1.0, 0.0)


def _shortfall(s: Any) -> Any:
    # 1 - positive is exact for 1 <= positive <= 2, negative - positive where it is near -1 and positive is larger
    return where(s[0] < 2.0, (1.0 - s[0]) + s[1], (s[1] - s[0]) + 1.0)


def categorical_margin_value(s: Any, n: float) -> Any:
    return max(_shortfall(s), 0.0)


def categorical_margin_around(s: Any, n: float) -> tuple[Any, Any, Any]:
    active = _half_step(_shortfall(s))
    return active, s[1], active / s[2]


def categorical_margin_slope(c: Any, t: float, p: float) -> Any:
    return where((1.0 - t) * p == c[1], c[2], 0.0) * (1.0 - t) - c[0] * t


CATEGORICAL_MARGIN = Rows(
    "categorical_margin",
    (Dot(_score), Max(_rival), Sum(_is_top_rival)),
    categorical_margin_value,
    categorical_margin_around,
    categorical_margin_slope,
    leading=2,
)
