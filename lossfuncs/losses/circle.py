"""The circle loss between labelled embeddings: a matrix product, then a row loss over the similarities."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dispatch import loss
from ..options import number
from ..rows import LogSumExp, Rows, sigmoid, softplus, where


@loss
def circle(
    y_true: Any,
    y_pred: Any,
    ref_labels: Any = None,
    ref_embeddings: Any = None,
    remove_diagonal: bool = True,
    gamma: float = 80,
    margin: float = 0.4,
    *,
    sample_weight: Any = None,
    reduction: str | None = None,
) -> Any:
    """softplus(log sum exp(near) + log sum exp(far)) over the pairs of each sample, of one label and of different ones.

    near = gamma (d^2 - margin^2), far = gamma max(1 + margin - d, 0) (1 - margin - d), d = max(1 - s, 0), s the
    similarity.

    y_true: labels (N,); y_pred: embeddings (N, D), of norm 1 (they are not normalised here); result (N,). d = max(1 -
    s, 0), s the products with the reference embeddings (M, D), by default y_pred itself; then ref_labels is y_true,
    and remove_diagonal leaves out each sample's pair with itself. A sample without a pair of the same label, or
    without one of another, costs 0. ValueError unless gamma >= 0 and margin is a number. Sun et al., Circle loss,
    2020.
    """
    labels = y_true if ref_labels is None else ref_labels
    d = np.maximum(1.0 - y_pred @ (y_pred if ref_embeddings is None else ref_embeddings).T, 0.0)
    same = y_true[:, None] == labels[None, :]
    others = ~same
    if remove_diagonal:
        same = same & (np.eye(*same.shape) == 0.0)
    near = _log_sum_exp(gamma * (d + margin) * (d - margin), same)
    far = _log_sum_exp(gamma * np.maximum(1.0 + margin - d, 0.0) * (1.0 - margin - d), others)
    return np.logaddexp(0.0, near + far)


def _log_sum_exp(x: Any, take: Any) -> Any:
    return np.logaddexp.reduce(np.where(take, x, -np.inf), axis=-1)


# The pair's part in the loss of its row, as the target of the row maths.
SAME, OTHER, EXCLUDED = 1.0, 0.0, -1.0


def _near(s: Any, t: float, p: float, gamma: float, margin: float) -> Any:
    d = max(1.0 - p, 0.0)
    return where(t == SAME, gamma * ((d + margin) * (d - margin)), -math.inf)


def _far(s: Any, t: float, p: float, gamma: float, margin: float) -> Any:
    d = max(1.0 - p, 0.0)
    return where(t == OTHER, gamma * (max(1.0 + margin - d, 0.0) * (1.0 - margin - d)), -math.inf)


def _exponent(s: Any) -> Any:
    return (s[0] + math.log1p(s[1])) + (s[2] + math.log1p(s[3]))


def circle_value(s: Any, n: float, gamma: float, margin: float) -> float:
    return softplus(_exponent(s))


def circle_around(s: Any, n: float, gamma: float, margin: float) -> tuple[float, float, float, float]:
    outer = 2.0 * gamma * sigmoid(_exponent(s))
    return s[0], outer / (1.0 + s[1]), s[2], outer / (1.0 + s[3])


def circle_slope(c: Any, t: float, p: float, gamma: float, margin: float) -> Any:
    d = max(1.0 - p, 0.0)
    # by d: 2 gamma d on pairs of one label, -2 gamma (1 - d) on others as far as 1 + margin; d falls by p as far as p
    # = 1
    near = math.exp(_near(c, t, p, gamma, margin) - c[0]) * c[1] * d
    far = where(d < 1.0 + margin, math.exp(_far(c, t, p, gamma, margin) - c[2]) * c[3] * (1.0 - d), 0.0)
    fall = where(p < 1.0, -1.0, where(p > 1.0, 0.0, -0.5))
    return fall * where(t == SAME, near, where(t == OTHER, -far, 0.0))


CIRCLE = Rows("circle", (LogSumExp(_near), LogSumExp(_far)), circle_value, circle_around, circle_slope)


def circle_rows(n: int, gamma: float = 80, margin: float = 0.4) -> tuple[Rows, tuple[float, ...]]:
    return CIRCLE, (number("gamma", gamma, 0.0), number("margin", margin))
