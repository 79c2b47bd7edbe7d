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
        t, p, w = self._columns(y_true, y_pred, sample_weight, mask_of(y_pred, mask))
        device = device_of(p)
        xp = np if device is None else device.xp
        if self._sums and self._sums[0].shape != p.shape[1:]:
            raise ValueError(f"y_pred must have the {self._sums[0].shape[0]} columns of the batches before it, got shape {p.shape}")
        self._make_room(1 + 4 * p.shape[1])
        with np.errstate(all="ignore"):
            weight, pivot = np.sum(w, axis=0), _pivot(t, w, xp)
            total = np.sum(np.where(w != 0, w * (t - pivot), 0.0), axis=0)
            mean = pivot + xp.where(weight != 0, total / xp.where(weight != 0, weight, 1.0), 0.0)
            away, off = t - mean, t - p
            spread = np.sum(np.where(w != 0, w * away * away, 0.0), axis=0)
            residual = np.sum(np.where(w != 0, w * off * off, 0.0), axis=0)
        samples = np.count_nonzero(np.any(w != 0, axis=1))
        if device is not None:  # the moments about a new mean need those before: it is waited for
            weight, mean, spread, residual, samples = (device.fetch(x) for x in (weight, mean, spread, residual, samples))
        self._gather(weight, mean, spread, residual)
        self.num_samples.assign_add(samples)

    def _columns(self, y_true: Any, y_pred: Any, sample_weight: Any, mask: Any) -> tuple[Array, Array, Array]:
        """Targets, predictions and weights, (N, C) each."""
        t, p = (x.astype(np.float64) for x in adjust_ranks(*both(y_true, y_pred)))
        if p.ndim not in (1, 2) or p.shape[1:] == (0,):
            raise ValueError(f"y_pred must have shape (samples, columns), got shape {p.shape}")
        device = device_of(p)
        given = weights_of(p.shape, sample_weight, mask, device)
        t, p = (x[:, None] if x.ndim == 1 else x for x in (t, p))
        return t, p, (np if device is None else device.xp).ones(p.shape) if given is None else given.reshape(p.shape)

    def _gather(self, weight: Any, mean: Any, spread: Any, residual: Any) -> None:
        by_mean, by_spread = _shifts(self.count.value, self.mean.value, weight, mean)
        self.spread.assign_add(spread + by_spread)
        self.mean.assign_add(by_mean)
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
        n, q = float(self.num_samples), self.num_regressors
        if q and q >= n - 1:
            warnings.warn(f"r2 is not adjusted: {q} regressors are too many for {n:g} samples", stacklevel=2)
        return self.scores(self.count.value, self.spread.value, self.residual.value, n)

    def scores(self, count: Array, spread: Array, residual: Array, samples: Any) -> Any:
        """The result for these moments, (..., columns), of so many samples, (...)."""
        constant = np.where(np.isnan(residual), np.nan, np.where(residual != 0, 0.0, 1.0))
        scores: Any = np.where(spread != 0, 1.0 - divide(residual, spread), constant)
        scores = np.where(count != 0, scores, 0.0)
        n, q = np.asarray(samples, np.float64), self.num_regressors
        if self.class_aggregation is not None:
            scores, mean = np.mean(scores, axis=-1), scores
            if self.class_aggregation == "variance_weighted_average":
                whole = np.sum(spread, axis=-1)
                scores = np.where(np.any(spread != 0, axis=-1), divide(np.sum(spread * mean, axis=-1), whole), scores)
        else:
            n = n[..., None]
        if q:
            scores = np.where(q >= n - 1, scores, 1.0 - divide((1.0 - scores) * (n - 1.0), n - q - 1.0))
        return scores[()]


def _pivot(t: Any, w: Any, xp: Any) -> Any:
    """A finite target that counts of each column, 0 where there is none: about it a constant column has mean and spread 0 exactly."""
    if not len(t):
        return 0.0
    largest = xp.max(xp.where((w != 0) & (abs(t) < np.inf), t, -np.inf), axis=0)
    return xp.where(largest > -np.inf, largest, 0.0)


def _shifts(count: Any, mean: Any, weight: Any, its_mean: Any) -> tuple[Any, Any]:
    """What mean and spread grow by, beside the other spread, where moments about another mean are added (Chan, Golub, LeVeque 1979)."""
    with np.errstate(all="ignore"):
        apart, share = its_mean - mean, divide(weight, count + weight)
        return apart * share, apart * apart * count * share


class Moments:
    """What an R2Score gathers, in each replicate of a bootstrap."""

    def __init__(self, name: str, fold: Any, replicates: int) -> None:
        self.metric: R2Score = fold.metric
        self.samples: Any = 0.0  # (replicates,)
        self.moments: tuple[Any, ...] = ()  # count, mean, spread, residual: (replicates, columns)

    def add(self, draws: Any, y_true: Array, y_pred: Array, sample_weight: Any) -> None:
        """Take in a block of samples."""
        t, p, w = self.metric._columns(y_true, y_pred, sample_weight, None)
        pivot = _pivot(t, w, np)
        with np.errstate(all="ignore"):
            away, off = t - pivot, t - p
            brought = [np.where(w != 0, w * x, 0.0) for x in (np.ones_like(t), away, away * away, off * off)]
            count, first, second, residual = np.split(draws.sums(np.concatenate(brought, axis=1)), 4, axis=1)
            by_mean = divide(first, count)
            self._take(draws.met(np.any(w != 0, axis=1)), count, pivot + by_mean, second - first * by_mean, residual)

    def merge(self, other: Moments) -> None:
        """Take in all that the other has seen."""
        if other.moments:
            self._take(other.samples, *other.moments)

    def _take(self, samples: Any, weight: Any, its_mean: Any, its_spread: Any, its_residual: Any) -> None:
        self.samples = self.samples + samples
        if not self.moments:
            self.moments = weight, its_mean, its_spread, its_residual
            return
        count, mean, spread, residual = self.moments
        by_mean, by_spread = _shifts(count, mean, weight, its_mean)
        with np.errstate(invalid="ignore"):
            self.moments = count + weight, mean + by_mean, spread + its_spread + by_spread, residual + its_residual

    def results(self) -> Any:
        """The result of each replicate."""
        count, _, spread, residual = self.moments
        return self.metric.scores(count, spread, residual, self.samples)
