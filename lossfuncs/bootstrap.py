"""The Poisson bootstrap: how far a result may lie from that of other samples of the same kind.

In each replicate a sample counts 0, 1, 2, ... times, drawn from the Poisson distribution of mean 1, and the spread of the replicates'
results is that of the result itself. How often depends on the seed, the replicate and the sample's place in the data alone: neither
batches, nor threads, nor the order in which parts are merged change it, and nothing of it is kept.

Chamandy, Muralidharan, Najmi and Naidu, "Estimating uncertainty for massive data streams" (2012).
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from .problem import Array

BLOCK = 1 << 20  # counts that are drawn at a time: 8 MB
ROWS = 1 << 10  # samples at a time at most: what each adds to a state is told apart
DENSE = 8  # cells for each element, up to which a matrix product is sooner done than a sum for each cell that is met
LARGEST = 1 << 27  # numbers that the replicates of one metric may hold: 1 GB

_ODD = np.array(0x9E3779B97F4A7C15, np.uint64)  # 2^64 over the golden ratio, as in SplitMix64


class Estimate(NamedTuple):
    """A result, and the interval in which that share of the bootstrap's replicates lies; arrays where the metric gives an array."""

    value: Any
    low: Any
    high: Any


class Cells(NamedTuple):
    """What samples add to sums of many cells: each of a sample's elements its weight, or 1, to one of them."""

    places: Array  # (N, elements)
    weights: Array | None
    size: int

    def dense(self) -> Array:
        """What each sample adds to every cell: (N, cells), float32 where they are counts."""
        rows = len(self.places)
        places = (self.places + np.arange(rows)[:, None] * self.size).reshape(-1)
        found = np.bincount(places, None if self.weights is None else self.weights.reshape(-1), rows * self.size)
        return found.reshape(rows, -1).astype(np.float32 if self.weights is None else np.float64)


def _mixed(x: Array) -> Array:
    """SplitMix64's output function: every bit of the result depends on every bit of x."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x ^= x >> np.uint64(shift)
        x *= np.uint64(factor)
    x ^= x >> np.uint64(31)
    return x


def _poisson_quantiles() -> Array:
    """Poisson's quantiles at the middles of 2^16 equal parts of [0, 1]: their mean and variance are 1 to 5e-5."""
    below = np.cumsum([math.exp(-1.0) / math.factorial(k) for k in range(16)])
    return np.searchsorted(below, (np.arange(1 << 16) + 0.5) / (1 << 16)).astype(np.float64)


_TIMES = _poisson_quantiles()


def times(seed: int, places: Array, replicates: int, begin: int = 0) -> Array:
    """How often the samples at these places count in the replicates `begin`, ..., `replicates` - 1; `begin` is a multiple of 4."""
    key = _mixed(np.array([seed % 2**64], np.uint64))
    sample = _mixed(places.astype(np.uint64) * _ODD + key)
    draws = _mixed(sample[:, None] + np.arange(begin // 4, -(-replicates // 4), dtype=np.uint64) * _ODD)  # of four replicates each
    found: Array = np.take(_TIMES, draws.astype("<u8", copy=False).view("<u2")[:, : replicates - begin])
    return found


class Draws:
    """How often each of a block of samples counts in each replicate, for all metrics alike."""

    def __init__(self, seed: int, first: int, rows: int, replicates: int) -> None:
        self.places = np.arange(first, first + rows)
        self.often = times(seed, self.places, replicates)

    @functools.cached_property
    def single(self) -> Array:
        """As float32, which is twice as fast, for whole numbers whose sums over a block float32 holds exactly."""
        return self.often.astype(np.float32)

    def add(self, numbers: Array | Cells, sums: Array) -> None:
        """Add to the sums of each replicate, (replicates, numbers), what the samples bring."""
        if isinstance(numbers, Cells) and numbers.size <= DENSE * numbers.places.shape[1]:
            numbers = numbers.dense()
        if not isinstance(numbers, Cells):
            sums += self.sums(numbers)
            return
        for i in range(numbers.places.shape[1]):
            places = numbers.places[:, i]
            order = np.argsort(places, kind="stable")
            first = np.flatnonzero(np.diff(places[order], prepend=-1))
            if numbers.weights is None:
                drawn = self.single[order]
            else:
                w = numbers.weights[order, i, None]
                with np.errstate(invalid="ignore"):  # of 0 * inf, for a sample that does not count
                    drawn = np.where(self.often[order] != 0, self.often[order] * w, 0.0)
            sums[:, places[order][first]] += np.add.reduceat(drawn, first, axis=0).T

    def met(self, which: Array) -> Array:
        """How many of the samples `which` says, (rows,), are drawn in each replicate."""
        found: Array = (self.often[which] != 0).sum(axis=0, dtype=np.float64)
        return found

    def sums(self, numbers: Array) -> Array:
        """The sums of numbers (rows, numbers) in each replicate: (replicates, numbers). float32 means whole numbers >= 0."""
        if numbers.dtype == np.float32 and np.max(numbers, initial=0.0) * np.max(_TIMES) * len(numbers) <= 2.0**24:
            return (self.single.T @ numbers).astype(np.float64)
        numbers = numbers.astype(np.float64, copy=False)
        finite = np.isfinite(numbers)
        found: Array = self.often.T @ (numbers if finite.all() else np.where(finite, numbers, 0.0))
        for i in np.flatnonzero(~finite.all(axis=0)):  # a sample that does not count must not be 0 * inf
            with np.errstate(invalid="ignore"):
                odd = self.often * np.where(finite[:, i], 0.0, numbers[:, i])[:, None]
            found[:, i] += np.sum(odd, axis=0, where=self.often != 0)
        return found


class Sums:
    """The state of a metric that is a sum over the samples, in each replicate: a sample adds to it as often as it counts."""

    def __init__(self, name: str, fold: Any, replicates: int) -> None:
        self.name, self.fold, self.replicates = name, fold, replicates
        self.sums: Any = None  # (replicates, numbers)

    def add(self, draws: Draws, y_true: Array, y_pred: Array, sample_weight: Any) -> None:
        """Take in a block of samples."""
        size = self.fold.state_size
        if size * self.replicates > LARGEST:
            raise ValueError(f"bootstrap={self.replicates} is too many for {self.name}, whose state is {size:,} numbers: "
                             f"at most {LARGEST // size}")  # fmt: skip
        numbers = self.fold.contributions(y_true, y_pred, sample_weight)
        if self.sums is None:
            self.sums = np.zeros((self.replicates, numbers.size if isinstance(numbers, Cells) else numbers.shape[1]))
        draws.add(numbers, self.sums)

    def merge(self, other: Sums) -> None:
        """Take in all that the other has seen."""
        self.sums = self.sums + other.sums

    def results(self) -> Any:
        """The result of each replicate."""
        return self.fold.results(self.sums)


class Scores:
    """An AUC with exact=True: all scores are kept, and the counts drawn once more when they are sorted."""

    def __init__(self, name: str, fold: Any, replicates: int, seed: int) -> None:
        self.name, self.metric, self.replicates, self.seed = name, fold.metric, replicates, seed
        self.parts: list[tuple[Array, ...]] = []  # places, scores, which are positive, weights

    def add(self, draws: Draws, y_true: Array, y_pred: Array, sample_weight: Any) -> None:
        """Take in a block of samples."""
        self.parts.append((draws.places, *self.metric.scores(y_true, y_pred, sample_weight)))
        self._check()

    def merge(self, other: Scores) -> None:
        """Take in all that the other has seen."""
        self.parts = self.parts + other.parts
        self._check()

    def _check(self) -> None:
        most = self.metric.capacity
        if sum(part[1].size for part in self.parts) > most:
            raise ValueError(f"bootstrap of {self.name} with exact=True keeps every score, and there are more than its capacity, {most:,}")

    def results(self) -> Any:
        """The result of each replicate."""
        places, scores, positive, weights = (np.concatenate(x) for x in zip(*self.parts, strict=True))
        columns = [SortedScores(*(x[..., i] for x in (scores, positive, weights))) for i in range(scores.shape[2])]
        step = max(4, (BLOCK // scores[..., 0].size) // 4 * 4)
        found = []
        for begin in range(0, self.replicates, step):
            often = times(self.seed, places, min(begin + step, self.replicates), begin)
            found.append(self.metric.combined(np.stack([self.metric.area(*column.cells(often)) for column in columns])))
        return np.concatenate(found)


class SortedScores:
    """Scores (samples, elements) in order, ready to be counted with many weights of the samples."""

    def __init__(self, scores: Array, positive: Array, weights: Array) -> None:
        order = np.argsort(scores, axis=None, kind="stable")
        ranked = scores.reshape(-1)[order]
        self.samples = order // scores.shape[1]
        self.first = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
        positive, weights = positive.reshape(-1)[order], weights.reshape(-1)[order]
        self.weights = [np.where(which, weights, 0.0)[:, None] for which in (positive, ~positive)]

    def cells(self, often: Array) -> tuple[Array, ...]:
        """True and false positives, true and false negatives, below all scores, between them, and above: (thresholds, replicates)."""
        drawn = often[self.samples]
        below = []
        for weights in self.weights:
            at = np.add.reduceat(drawn * weights, self.first, axis=0)
            below.append(np.concatenate([np.zeros((1, at.shape[1])), np.cumsum(at, axis=0)]))
        positives, negatives = below
        return positives[-1] - positives, negatives[-1] - negatives, negatives, positives


class Twins:
    """A metric whose state is no such sum, once for each replicate, with the counts for weights."""

    def __init__(self, name: str, fold: Any, replicates: int) -> None:
        self.metrics = [fold.copy() for _ in range(replicates)]

    def add(self, draws: Draws, y_true: Array, y_pred: Array, sample_weight: Any) -> None:
        """Take in a block of samples. sample_weight: one a sample, or None."""
        for metric, often in zip(self.metrics, draws.often.T, strict=True):
            metric.update_state(y_true, y_pred, sample_weight=often if sample_weight is None else often * sample_weight)

    def merge(self, other: Twins) -> None:
        """Take in all that the other has seen."""
        for mine, its in zip(self.metrics, other.metrics, strict=True):
            mine.merge_state(its)

    def results(self) -> Any:
        """The result of each replicate."""
        return np.array([metric.result() for metric in self.metrics])


def interval(value: Any, results: Any, confidence: float) -> Estimate:
    """The value with the central interval that holds this share of the replicates' results."""
    outside = (1.0 - confidence) / 2.0
    low, high = np.quantile(np.asarray(results, np.float64), (outside, 1.0 - outside), axis=0, method="inverted_cdf")
    return Estimate(value, low, high) if np.ndim(low) else Estimate(value, float(low), float(high))
