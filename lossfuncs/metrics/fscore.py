"""F-scores: weighted harmonic means of precision and recall, for each class."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..call import adjust_ranks, device_labels, whole_numbers
from ..devices import device_of
from ..options import shown
from ..problem import Array
from .confusion import divide
from .metric import Metric, Variable, both, mask_of, weights_of

AVERAGES = (None, "micro", "macro", "weighted")
CELLS = ("true_positives", "false_positives", "false_negatives", "intermediate_weights")


class FBetaScore(Metric):
    """(1 + beta^2) P R / (beta^2 P + R) with precision P and recall R, both 0 where there is nothing to divide by.

    y_true is one-hot or 0/1, (N, C), or holds class numbers, (N,). Predicted are the largest of a row, all of them if several are equal
    and none in a row of zeros; with a threshold those larger than that. One-dimensional y_pred needs a threshold.
    average: None, one score for each class; "micro", one over all counts; "macro", the mean over the classes; "weighted", that by the
    weight of their positives. Before the first batch the result is 0. ValueError unless beta is a float > 0, threshold None or a
    float in (0, 1].
    """

    _options: tuple[str, ...] = ("average", "beta", "threshold")
    sums_over_samples = True

    def __init__(self, average: str | None = None, beta: float = 1.0, threshold: float | None = None, name: str | None = "fbeta_score",
                 dtype: Any = None) -> None:  # fmt: skip
        super().__init__(dtype, name)
        if average not in AVERAGES:
            raise ValueError(f"average must be one of {', '.join(map(repr, AVERAGES))}, got {shown(average)}")
        if not isinstance(beta, float) or not 0.0 < beta < np.inf:
            raise ValueError(f"beta must be a float > 0, got {shown(beta)}")
        if threshold is not None and (not isinstance(threshold, float) or not 0.0 < threshold <= 1.0):
            raise ValueError(f"threshold must be None or a float in (0, 1], got {shown(threshold)}")
        self.average, self.beta, self.threshold = average, beta, threshold
        self._cells: list[Variable] = []

    def _build(self, shape: tuple[int, ...]) -> None:
        self._cells = [self.add_variable(shape, name=cell) for cell in CELLS]
        self.true_positives, self.false_positives, self.false_negatives, self.intermediate_weights = self._cells

    def _make_room(self, size: int) -> None:
        if not self._cells and size % 4 == 0:
            self._build(() if self.average == "micro" else (size // 4,))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None, *, mask: Any = None) -> None:
        """Take in a batch. sample_weight: per sample, or of y_pred's shape."""
        counts = self._counts(y_true, y_pred, sample_weight, mask_of(y_pred, mask))
        axis = None if self.average == "micro" else 0
        shape = () if axis is None else counts.shape[2:]
        if self._cells and self._cells[0].shape != shape:
            got = counts.shape[1:]
            raise ValueError(f"y_pred must have the {self._cells[0].shape[0]} columns of the batches before it, got shape {got}")
        if not self._cells:
            self._build(shape)
        for cell, x in zip(self._cells, counts, strict=True):
            cell.assign_add(np.sum(x, axis=axis))

    def contributions(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Array:
        counts = self._counts(y_true, y_pred, sample_weight, None)
        if self.average == "micro":
            counts = counts.sum(axis=2, keepdims=True)
        return counts.transpose(1, 0, 2).reshape(counts.shape[1], -1)

    def _counts(self, y_true: Any, y_pred: Any, sample_weight: Any, mask: Any) -> Array:
        """For each element its weight as true positive, false positive, false negative, and positive: (4, N, C)."""
        t, p = self._read(*both(y_true, y_pred))
        given = weights_of(p.shape, sample_weight, mask, device_of(p))
        w = 1.0 if given is None else given.reshape(p.shape)
        if self.threshold is None:
            largest = np.max(p, axis=-1, keepdims=True) if p.size else p
            predicted = (p >= largest) & (np.abs(p) > 1e-9)  # Keras' bound for a row of zeros
        else:
            predicted = p > self.threshold
        with np.errstate(invalid="ignore"):  # of weights that are not finite
            weighted = w * t
            misses = w - weighted
        hits = np.where(predicted, weighted, 0.0)
        return np.stack([hits, np.where(predicted, misses, 0.0), np.where(predicted, 0.0, weighted), weighted])

    def _read(self, t: Array, p: Array) -> tuple[Array, Array]:
        """Targets as float64 (N, C), and predictions."""
        if p.ndim == 2 and p.shape[1] > 1 and t.shape in (p.shape[:1], (len(p), 1)):
            device = device_of(p)
            labels = whole_numbers("y_true", t.reshape(-1)) if device is None else device_labels(device, t.reshape(-1))
            bad = (labels < 0) | (labels >= p.shape[1])
            if device is not None:  # it is not waited for: NaN, and the status word
                from .device import note

                note(device, bad)
                one_hot = labels[:, None] == device.xp.arange(p.shape[1])
                return device.xp.where(bad[:, None], np.nan, one_hot.astype(np.float64)), p
            if bad.any():
                i = int(np.argmax(bad))
                raise ValueError(f"y_true[{i}] is {labels[i]}, but y_pred has classes 0 to {p.shape[1] - 1}")
            return (labels[:, None] == np.arange(p.shape[1])).astype(np.float64), p
        t, p = adjust_ranks(t, p)
        if p.ndim == 1 and self.threshold is not None:
            t, p = t[:, None], p[:, None]
        if p.ndim != 2:
            hint = ": without a threshold the largest of a row is predicted" if p.ndim == 1 else ""
            raise ValueError(f"y_pred must have shape (samples, classes){hint}, got shape {p.shape}")
        return t.astype(np.float64), p

    def result(self) -> Any:
        if not self._cells:
            return np.float64(0.0)
        tp, fp, fn, positives = (cell.value for cell in self._cells)
        precision, recall, square = divide(tp, tp + fp), divide(tp, tp + fn), self.beta**2
        scores = divide((1.0 + square) * precision * recall, square * precision + recall)
        if self.average == "macro":
            return np.float64(np.mean(scores))
        if self.average == "weighted":
            return np.float64(divide(np.sum(scores * positives), np.sum(positives)))
        return scores


class F1Score(FBetaScore):
    """`FBetaScore` with beta 1: the harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN)."""

    _options = ("average", "threshold")

    def __init__(self, average: str | None = None, threshold: float | None = None, name: str | None = "f1_score", dtype: Any = None
                 ) -> None:  # fmt: skip
        super().__init__(average, 1.0, threshold, name, dtype)
