"""Accuracies: 1 where the prediction is right, 0 where it is not. NaN is never right.

Each public function is the NumPy reference; below it stands its row maths, see `lossfuncs.rows`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dispatch import metric
from ..options import count, flag, number
from ..rows import Earlier, Label, Larger, Pick, Rows, Sum, prediction, where


@metric
def accuracy(y_true: Any, y_pred: Any, *, sample_weight: Any = None, reduction: str | None = None) -> Any:
    """1 where y_true == y_pred, element by element; equal shapes, and the result has them too."""
    return (y_true == y_pred).astype(np.float64)


def _equal(s: Any, t: float, p: float) -> Any:
    return where(t == p, 1.0, 0.0)


def _total(s: Any, n: float, *a: float) -> Any:
    return s[0]


EQUALITY = Rows("equality", (Sum(_equal),), _total)


@metric
def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5, *, sample_weight: Any = None, reduction: str | None = None) -> Any:
    """1 where y_true equals [y_pred > threshold], element by element; equal shapes, and the result has them too.

    A y_true other than 0 and 1 is never right; a NaN prediction counts as 0. (Before Keras 3 this was a mean over the
    last axis.) ValueError unless threshold is a number.
    """
    return (y_true == (y_pred > threshold)).astype(np.float64)


def _right_side(s: Any, t: float, p: float, threshold: float) -> Any:
    return where(t == where(p > threshold, 1.0, 0.0), 1.0, 0.0)


DECISION = Rows("decision", (Sum(_right_side),), _total)


def decision_rows(n: int, threshold: float = 0.5) -> tuple[Rows, tuple[float, ...]]:
    return DECISION, (number("threshold", threshold),)


@metric
def categorical_accuracy(y_true: Any, y_pred: Any, *, sample_weight: Any = None, reduction: str | None = None) -> Any:
    """1 where the largest of y_pred stands where the largest of y_true does; (..., C) -> (...).

    Of equals the first counts as the largest. A NaN at that place is never right, one elsewhere counts as larger than all.
    """
    return _is_largest(y_pred, np.argmax(y_true, axis=-1))


@metric
def sparse_categorical_accuracy(y_true: Any, y_pred: Any, *, sample_weight: Any = None, reduction: str | None = None) -> Any:
    """1 where the largest of y_pred stands at y_true; y_true: class numbers (...), y_pred: (..., C), result (...).

    Of equals the first counts as the largest. A NaN at that place is never right, one elsewhere counts as larger than all.
    """
    return _is_largest(y_pred, y_true)


def _is_largest(scores: Any, labels: Any) -> Any:
    own = np.take_along_axis(scores, labels[..., None], axis=-1)[..., 0]
    return ((labels == np.argmax(scores, axis=-1)) & ~np.isnan(own)).astype(np.float64)


def _is_first(s: Any, n: float) -> Any:
    return where(s[2] + s[3] == 0.0, 1.0, 0.0)


TOP_CLASS = Rows("top_class", (Label(), Pick(prediction, 0), Larger(1), Earlier(0, 1, 2)), _is_first)


@metric
def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5, *, sample_weight: Any = None, reduction: str | None = None) -> Any:
    """1 where the prediction for the largest of y_true is among the k largest of y_pred; (..., C) -> (...).

    Ties and NaN as in `sparse_top_k_categorical_accuracy`. ValueError unless k is a whole number >= 0.
    """
    return _in_top_k(np.argmax(y_true, axis=-1), y_pred, k)


@metric
def sparse_top_k_categorical_accuracy(
    y_true: Any,
    y_pred: Any,
    k: int = 5,
    from_sorted_ids: bool = False,
    *,
    sample_weight: Any = None,
    reduction: str | None = None,
) -> Any:
    """1 where fewer than k of y_pred are larger than the prediction for y_true.

    y_true: class numbers (...), y_pred: (..., C), result (...). All that tie with the k-th largest are in; NaN counts
    as larger than all, but a NaN at the label is not in; k > C is C. With from_sorted_ids y_pred holds class numbers,
    best first: 1 where y_true is one of the first k. ValueError unless k is a whole number >= 0.
    """
    if from_sorted_ids:
        return np.any(y_pred[..., :k] == y_true[..., None], axis=-1).astype(np.float64)
    return _in_top_k(y_true, y_pred, k)


def _in_top_k(labels: Any, scores: Any, k: int) -> Any:
    own = np.take_along_axis(scores, labels[..., None], axis=-1)
    larger = np.sum((scores > own) | np.isnan(scores), axis=-1)
    return ((larger < k) & ~np.isnan(own[..., 0])).astype(np.float64)


def _ranked_in(s: Any, n: float, k: float) -> Any:
    return where(s[2] < k, 1.0, 0.0)


TOP_K = Rows("top_k", (Label(), Pick(prediction, 0), Larger(1)), _ranked_in)


def top_k_rows(n: int, k: int = 5) -> tuple[Rows, tuple[float, ...]]:
    # with k <= n, a NaN at the label, which makes all n count, is never in
    return TOP_K, (float(min(count("k", k), n)),)


def _is_label(s: Any, t: float, p: float) -> Any:
    return where(p == s[0], 1.0, 0.0)


def _found(s: Any, n: float) -> Any:
    return where(s[1] > 0.0, 1.0, 0.0)


AMONG_FIRST = Rows("among_first", (Label(), Sum(_is_label)), _found)


def sparse_top_k_rows(n: int, k: int = 5, from_sorted_ids: bool = False) -> tuple[Rows, tuple[float, ...]]:
    """With from_sorted_ids the rows are the first k ids, and any label is allowed."""
    if flag("from_sorted_ids", from_sorted_ids):
        count("k", k)
        return AMONG_FIRST, ()
    return top_k_rows(n, k)
