"""The coefficient of determination."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..call import adjust_ranks
from ..devices import device_of
from ..options import count, shown
from ..problem import Array
from .confusion import divide
from .metric import Metric, Variable, both, mask_of, weights_of

AGGREGATIONS = (None, "uniform_average", "variance_weighted_average")
SUMS = ("count", "mean", "spread", "residual")


class R2Score(Metric):
    """1 - sum w (t - p)^2 / sum w (t - mean)^2 for each column, and the mean of these; negative where the mean would do better.

    class_aggregation: None for one a column, "uniform_average", or "variance_weighted_average". A column of one constant target is 1
    where it is predicted perfectly, and else 0. num_regressors q > 0: adjusted to 1 - (1 - r) (n - 1) / (n - q - 1), n the samples that
    have a weight. Sums of squares are taken about the means, so that targets far from 0 lose nothing. One-dimensional data are one
    column. 0 before the first batch.
    """

    _options = ("class_aggregation", "num_regressors")

    def __init__(self, class_aggregation: str | None = "uniform_average", num_regressors: int = 0, name: str | None = "r2_score",
                 dtype: Any = None) -> None:  # fmt: skip
        super().__init__(dtype, name)
        if class_aggregation not in AGGREGATIONS:
            wanted = ", ".join(map(repr, AGGREGATIONS))
            raise ValueError(f"class_aggregation must be one of {wanted}, got {shown(class_aggregation)}")
        self.class_aggregation, self.num_regressors = class_aggregation, count("num_regressors", num_regressors)
        self.num_samples = self.add_variable(name="num_samples")
        self._sums: list[Variable] = []

    def _make_room(self, size: int) -> None:
        if not self._sums and size > 1 and size % 4 == 1:
            self._sums = [self.add_variable((size // 4,), name=name) for name in SUMS]
            self.count, self.mean, self.spread, self.residual = self._sums

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None, *, mask: Any = None) -> None:
        """Take in a batch (N, C) or (N,). sample_weight: per sample, or of y_pred's shape."""
        t, p = (x.astype(np.float64) for x in adjust_ranks(*both(y_true, y_pred)))
        if p.ndim not in (1, 2) or p.shape[1:] == (0,):
            raise ValueError(f"y_pred must have shape (samples, columns), got shape {p.shape}")
        device = device_of(p)
        xp = np if device is None else device.xp
        given = weights_of(p.shape, sample_weight, mask_of(y_pred, mask), device)
        t, p = (x[:, None] if x.ndim == 1 else x for x in (t, p))
        if self._sums and self._sums[0].shape != p.shape[1:]:
            raise ValueError(f"y_pred must have the {self._sums[0].shape[0]} columns of the batches before it, got shape {p.shape}")
        w = xp.ones(p.shape) if given is None else given.reshape(p.shape)
        self._make_room(1 + 4 * p.shape[1])
        weight = np.sum(w, axis=0)
        with np.errstate(all="ignore"):
            total = np.sum(np.where(w != 0, w * t, 0.0), axis=0)
            mean = divide(total, weight) if device is None else xp.where(weight != 0, total / xp.where(weight != 0, weight, 1.0), 0.0)
            away, off = t - mean, t - p
            spread = np.sum(np.where(w != 0, w * away * away, 0.0), axis=0)
            residual = np.sum(np.where(w != 0, w * off * off, 0.0), axis=0)
        samples = np.count_nonzero(np.any(w != 0, axis=1))
        if device is not None:  # the moments about a new mean need those before: it is waited for
            weight, mean, spread, residual, samples = (device.fetch(x) for x in (weight, mean, spread, residual, samples))
        self._gather(weight, mean, spread, residual)
        self.num_samples.assign_add(samples)

    def _gather(self, weight: Any, mean: Any, spread: Any, residual: Any) -> None:
        """Add moments about another mean (Chan, Golub and LeVeque 1979)."""
        with np.errstate(all="ignore"):
            before, apart = self.count.value, mean - self.mean.value
            share = divide(weight, before + weight)
            self.spread.assign_add(spread + apart * apart * before * share)
            self.mean.assign_add(apart * share)
        self.count.assign_add(weight)
        self.residual.assign_add(residual)

    def _absorb(self, other: Metric) -> None:
        assert isinstance(other, R2Score)
        if other._sums:
            self._make_room(1 + 4 * other._sums[0].shape[0])
            if self._sums[0].shape != other._sums[0].shape:
                raise ValueError(f"an R2Score of {other._sums[0].shape[0]} columns cannot be merged into one of {self._sums[0].shape[0]}")
            self._gather(*(x.value for x in other._sums))
        self.num_samples.assign_add(other.num_samples.value)

    def state_vector(self) -> Array:
        """The state as one flat float64 array; the sum of several means nothing, they merge by `merge_state`."""
        return super().state_vector()

    def result(self) -> Any:
        if not self._sums:
            return np.float64(0.0)
        spread, residual = self.spread.value, self.residual.value
        constant = np.where(np.isnan(residual), np.nan, np.where(residual != 0, 0.0, 1.0))
        scores: Any = np.where(spread != 0, 1.0 - divide(residual, spread), constant)
        scores = np.where(self.count.value != 0, scores, 0.0)
        if self.class_aggregation is not None:
            by_spread = self.class_aggregation == "variance_weighted_average" and np.any(spread != 0)
            scores = np.float64(divide(np.sum(spread * scores), np.sum(spread)) if by_spread else np.mean(scores))
        n, q = float(self.num_samples), self.num_regressors
        if q and q >= n - 1:
            warnings.warn(f"r2 is not adjusted: {q} regressors are too many for {n:g} samples", stacklevel=2)
        elif q:
            scores = 1.0 - (1.0 - scores) * (n - 1.0) / (n - q - 1.0)
        return scores
