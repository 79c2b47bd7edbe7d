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
LARGEST = 1 << 27  # numbers that the replicates of one metric may hold: 1 GB

_ODD = np.array(0x9E3779B97F4A7C15, np.uint64)  # 2^64 over the golden ratio, as in SplitMix64


class Estimate(NamedTuple):
    """A result, and the interval in which that share of the bootstrap's replicates lies; arrays where the metric gives an array."""

    value: Any
    low: Any
    high: Any


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


def times(seed: int, first: int, rows: int, replicates: int) -> Array:
    """How often each of the samples `first`, `first` + 1, ... counts in each replicate: (rows, replicates)."""
    key = _mixed(np.array([seed % 2**64], np.uint64))
    row = _mixed(np.arange(first, first + rows, dtype=np.uint64) * _ODD + key)
    draws = _mixed(row[:, None] + np.arange(-(-replicates // 4), dtype=np.uint64) * _ODD)  # of four replicates each
    found: Array = np.take(_TIMES, draws.astype("<u8", copy=False).view("<u2")[:, :replicates])
    return found


class Draws:
    """How often each of a block of samples counts in each replicate, for all metrics alike."""

    def __init__(self, seed: int, first: int, rows: int, replicates: int) -> None:
        self.often = times(seed, first, rows, replicates)

    @functools.cached_property
    def single(self) -> Array:
        """As float32, for small whole numbers: their sums over a block are exact."""
        return self.often.astype(np.float32)

    def sums(self, numbers: Array) -> Array:
        """The sums of numbers (rows, numbers) in each replicate: (replicates, numbers)."""
        finite = np.isfinite(numbers)
        if finite.all():
            return (self.single if numbers.dtype == np.float32 else self.often).T @ numbers
        found: Array = self.often.T @ np.where(finite, numbers, 0.0)
        for i in np.flatnonzero(~finite.all(axis=0)):  # a sample that does not count must not be 0 * inf
            with np.errstate(invalid="ignore"):
                odd = self.often * np.where(finite[:, i], 0.0, numbers[:, i])[:, None]
            found[:, i] += np.sum(odd, axis=0, where=self.often != 0)
        return found


class Sums:
    """The state of a metric that is a sum over the samples, in each replicate: a sample adds to it as often as it counts."""

    def __init__(self, name: str, fold: Any, replicates: int) -> None:
        self.name, self.fold, self.replicates = name, fold, replicates
        self.sums: Any = 0.0  # (replicates, numbers)

    def add(self, draws: Draws, y_true: Array, y_pred: Array, sample_weight: Any) -> None:
        """Take in a block of samples."""
        size = self.fold.state_size
        if size * self.replicates > LARGEST:
            raise ValueError(f"bootstrap={self.replicates} is too many for {self.name}, whose state is {size:,} numbers: "
                             f"at most {LARGEST // size}")  # fmt: skip
        self.sums = self.sums + draws.sums(self.fold.contributions(y_true, y_pred, sample_weight))

    def merge(self, other: Sums) -> None:
        """Take in all that the other has seen."""
        self.sums = self.sums + other.sums

    def results(self) -> Any:
        """The result of each replicate."""
        return self.fold.results(self.sums)


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
