"""Metrics of yes-or-no predictions at thresholds: counts, precision, recall, and what one can reach at a given other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..bootstrap import Cells
from ..call import adjust_ranks, is_float
from ..devices import device_of
from ..options import number, shown
from ..problem import Array
from .metric import Metric, Variable, both, mask_of, weights_of

CELLS = ("true_positives", "false_positives", "true_negatives", "false_negatives")  # in the order in which they are counted


def divide(a: Any, b: Any) -> Any:
    """a / b, and 0 where b is 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b != 0)[()]


def read(y_true: Any, y_pred: Any) -> tuple[Array, Array]:
    """Which targets are positive (not 0), and the predictions in float32 or float64: in what Keras compares them in, or exactly."""
    t, p = adjust_ranks(*both(y_true, y_pred))
    single = is_float(p.dtype) and p.dtype.itemsize <= 4 or p.dtype.kind == "b"
    if device_of(p) is not None:  # there the kernel reads them as they are
        return t, p
    return t != 0, p.astype(np.float32 if single else np.float64, copy=False)


class Thresholds:
    """Thresholds in any order, ready to be counted below many predictions."""

    def __init__(self, values: Array) -> None:
        self.order = np.argsort(values, kind="stable")
        ascending = values[self.order]
        self._bounds = {np.dtype(t): ascending.astype(t) for t in (np.float32, np.float64)}
        inner = ascending[np.isfinite(ascending)]
        self._unbounded = len(ascending) - len(inner)
        # Of many evenly spaced ones the place is computed, and put right by a look at both neighbours: rounding moves it by one at most.
        self._even = len(inner) > 8 and np.allclose(inner, np.linspace(inner[0], inner[-1], len(inner)), rtol=0.0, atol=1e-9)
        # nothing is below the first, and nothing above the last
        self._ends = {t: np.concatenate([[np.nan], inner.astype(t), [np.inf]]).astype(t) for t in self._bounds}

    def __len__(self) -> int:
        return len(self.order)

    def ascending(self, dtype: Any) -> Array:
        """The thresholds in that dtype, sorted."""
        return self._bounds[dtype]

    def even(self, dtype: Any) -> tuple[float, float]:
        """Where the first finite threshold stands and how many there are a unit; 0, 0 unless they are many and evenly spaced."""
        ends = self._ends[dtype]
        return (float(ends[1]), (len(ends) - 3) / (float(ends[-2]) - float(ends[1]))) if self._even else (0.0, 0.0)

    def below(self, p: Array) -> Any:
        """How many thresholds each prediction is larger than; none for NaN. The thresholds are rounded to p's dtype."""
        bounds = self._bounds[p.dtype]
        if len(bounds) == 1:
            return (p > bounds[0]).astype(np.intp)
        if not self._even:
            found = np.searchsorted(bounds, p)
            found[np.isnan(p)] = 0
            return found
        ends = self._ends[p.dtype]
        n = len(ends) - 2
        with np.errstate(over="ignore"):
            place = np.ceil((p - ends[1]) * p.dtype.type((n - 1) / (float(ends[-2]) - float(ends[1]))))
        found = np.where(place > 0, np.minimum(place, n), 0).astype(np.intp)
        found -= ends[found] >= p
        found += ends[np.minimum(found + 1, n + 1)] < p
        return found + (p > bounds[0]) if self._unbounded else found


BLOCK = 1 << 16  # predictions at a time: what is made of them stays in a cache


def count(positive: Array, p: Array, w: Array | None, thresholds: Thresholds, columns: int = 1) -> Array:
    """True positives, false positives, true negatives, false negatives for each threshold: (4, T), or (4, T, columns).

    A prediction is positive where it is larger than the threshold; NaN never is. Flat arrays; of several columns, element i belongs
    to column i % columns. Without weights the counts are exact, as float64.
    """
    size = max(1, BLOCK // columns) * columns
    histogram: Any = np.zeros(2 * (len(thresholds) + 1) * columns)
    for begin in range(0, len(p), size):
        part = slice(begin, begin + size)
        cell = _cell(positive[part], p[part], thresholds, columns)
        histogram += np.bincount(cell, None if w is None else w[part], minlength=len(histogram))
    return at_thresholds(histogram, thresholds, columns)


def _cell(positive: Array, p: Array, thresholds: Thresholds, columns: int) -> Any:
    """Where in `at_thresholds`' histogram each element counts."""
    n = len(thresholds)
    cell = thresholds.below(p)
    cell += (n + 1) * positive
    if columns > 1:
        cell += np.tile(np.arange(columns) * (2 * (n + 1)), len(cell) // columns)
    return cell


def at_thresholds(histogram: Array, thresholds: Thresholds, columns: int) -> Array:
    """The result of `count` from how many fell where: for each column the negatives, then the positives, by the thresholds below them."""
    n = len(thresholds)
    histogram = histogram.reshape(columns, 2, n + 1)
    above = histogram[..., ::-1].cumsum(axis=-1)[..., ::-1][..., 1:]
    not_above = histogram.cumsum(axis=-1)[..., :-1]
    found: Array = np.empty((columns, 4, n))
    for i, x in enumerate((above[:, 1], above[:, 0], not_above[:, 0], not_above[:, 1])):
        found[:, i, thresholds.order] = x
    return found[0] if columns == 1 else found.transpose(1, 2, 0)


def cells_by_sample(positive: Array, p: Array, w: Array | None, thresholds: Thresholds, columns: int = 1) -> Cells:
    """Where in the histogram of `at_thresholds` each sample counts."""
    places = _cell(positive.reshape(-1), p.reshape(-1), thresholds, columns).reshape(len(p), -1)
    return Cells(places, None if w is None else w.reshape(places.shape), 2 * (len(thresholds) + 1) * columns)


def counts_of(histograms: Array, thresholds: Thresholds, columns: int = 1) -> Array:
    """`count` of many histograms, (R, cells): (4, T, R, columns)."""
    found = at_thresholds(histograms, thresholds, len(histograms) * columns)
    return found.reshape(4, len(thresholds), -1, columns)


def gather(parts: list[tuple[Variable, int]], t: Array, p: Array, w: Array | None, thresholds: Thresholds, columns: int = 1,
           lowest: bool = False) -> None:  # fmt: skip
    """Add to each variable its row of `count`.

    lowest: NaN and -inf count as the lowest finite number, for a device; the host has seen to that.
    """
    device = device_of(p)
    if device is None:
        counted = count(t.reshape(-1), p.reshape(-1), w, thresholds, columns)
        for variable, i in parts:
            variable.assign_add(counted[i].reshape(variable.shape))
        return
    from . import device as on_device

    compared = np.dtype(np.float32 if is_float(p.dtype) and p.dtype.itemsize <= 4 or p.dtype.kind == "b" else np.float64)
    first = parts[0][0]
    name = "thresholds", compared.name, columns
    if first.waiting is None or not first.waiting.fits(device, name) or first.waiting.parts[0][0] is not first:
        for variable, _ in parts:
            variable.settle()

        def of_cells(i: int, variable: Variable) -> Any:
            return lambda cells: at_thresholds(cells, thresholds, columns)[i].reshape(variable.shape)

        cells = 2 * (len(thresholds) + 1) * columns
        functions = [(variable, of_cells(i, variable)) for variable, i in parts]
        pending = on_device.Cells(device, name, cells, functions, thresholds.ascending(compared))
        for variable, _ in parts:
            variable.waiting = pending
    types = on_device.TYPES[t.dtype.name], on_device.TYPES[p.dtype.name], "float" if compared == np.float32 else "double"
    begin, steps = thresholds.even(compared)
    first.waiting.count(f"ByThreshold<{', '.join(types)}>", t, p, w, columns, first=begin, steps=steps, lowest=lowest)


def best_k(p: Array, k: int) -> Array:
    """Which are the k largest of their row; of equals the first ones."""
    if k >= p.shape[-1]:
        return np.ones(p.shape, bool)
    ranked = np.where(np.isnan(p), -np.inf, p)
    smallest = np.partition(ranked, p.shape[-1] - k, axis=-1)[..., -k:].min(axis=-1, keepdims=True)
    larger, equal = ranked > smallest, ranked == smallest
    left = k - larger.sum(axis=-1, keepdims=True)
    found: Array = larger | (equal & (np.cumsum(equal, axis=-1) <= left))
    return found


class ThresholdMetric(Metric):
    """What the metrics of this module share: the counts of a batch, for all elements in one pool."""

    thresholds: Any
    top_k: int | None = None
    class_id: int | None = None
    _bounds: Thresholds
    _gathered: tuple[int, ...] = (0, 1, 2, 3)  # which of the four counts the variables hold
    sums_over_samples = True

    def _count_in(self, *names: str) -> None:
        """Variables of these names for the counts of `_gathered`."""
        for name in names:
            setattr(self, name, self.add_variable((len(self._bounds),), name=name))

    def _set_thresholds(self, thresholds: Any, default: float = 0.5) -> None:
        self.thresholds = thresholds
        given = [default] if thresholds is None else thresholds if isinstance(thresholds, (list, tuple, np.ndarray)) else [thresholds]
        try:
            self._bounds = Thresholds(np.array([x if x == -np.inf else number("thresholds", x, 0.0, 1.0) for x in given]))
        except ValueError:
            raise ValueError(f"thresholds must be a number in [0, 1] or several, got {shown(thresholds)}") from None
        if not len(self._bounds):
            raise ValueError("thresholds must be a number in [0, 1] or several, got none")

    def _set_selection(self, top_k: Any, class_id: Any) -> None:
        for name, value, low in (("top_k", top_k, 1), ("class_id", class_id, 0)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low):
                raise ValueError(f"{name} must be None or a whole number >= {low}, got {shown(value)}")
        self.top_k, self.class_id = top_k, class_id

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None, *, mask: Any = None) -> None:
        """Take in a batch; y_true other than 0 is positive. sample_weight: per sample, or of y_pred's shape."""
        t, p, w = self._elements(y_true, y_pred, sample_weight, mask)
        gather(list(zip(self.variables, self._gathered, strict=True)), t, p, w, self._bounds)

    def contributions(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Cells:
        return cells_by_sample(*self._elements(y_true, y_pred, sample_weight, None), self._bounds)

    def results(self, states: Array) -> Any:
        counts = counts_of(states, self._bounds)[list(self._gathered), :, :, 0]
        return super().results(counts.transpose(2, 0, 1).reshape(len(states), -1))

    def _elements(self, y_true: Any, y_pred: Any, sample_weight: Any, mask: Any) -> tuple[Array, Array, Array | None]:
        """The targets, the predictions that can be positive, and flat weights."""
        t, p = read(y_true, y_pred)
        w = weights_of(p.shape, sample_weight, mask_of(y_pred, mask), device_of(p))
        if p.ndim < 2 and (self.top_k is not None or self.class_id is not None):
            name = "top_k" if self.class_id is None else "class_id"
            raise ValueError(f"y_pred must have an axis of classes where {name} is given, got shape {p.shape}")
        if self.top_k is not None:
            p = np.where(best_k(p, self.top_k), p, p.dtype.type(-np.inf))
        if self.class_id is not None:
            if self.class_id >= p.shape[-1]:
                raise ValueError(f"class_id is {self.class_id}, but y_pred has classes 0 to {p.shape[-1] - 1}")
            w = None if w is None else w.reshape(p.shape)[..., self.class_id].reshape(-1)
            t, p = t[..., self.class_id], p[..., self.class_id]
        return t, p, w

    def _shaped(self, values: Any) -> Any:
        """One for each threshold; a number where there is one threshold."""
        return np.float64(values[0]) if len(self._bounds) == 1 else values


class _Count(ThresholdMetric):
    """The weight of the elements in one cell of the confusion matrix."""

    _options = ("thresholds",)
    accumulator: Variable

    def __init__(self, thresholds: float | Sequence[float] | None = None, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(dtype, name)
        self._set_thresholds(thresholds)
        self._count_in("accumulator")

    def result(self) -> Any:
        return self._shaped(self.accumulator.value)


class TruePositives(_Count):
    """The weight of the positives with y_pred > threshold: a number, or one for each of several thresholds (0.5 by default)."""

    _gathered = (0,)


class FalsePositives(_Count):
    """The weight of the negatives with y_pred > threshold: a number, or one for each of several thresholds (0.5 by default)."""

    _gathered = (1,)


class TrueNegatives(_Count):
    """The weight of the negatives with y_pred <= threshold: a number, or one for each of several thresholds (0.5 by default)."""

    _gathered = (2,)


class FalseNegatives(_Count):
    """The weight of the positives with y_pred <= threshold: a number, or one for each of several thresholds (0.5 by default)."""

    _gathered = (3,)


class _Share(ThresholdMetric):
    """TP over TP and one kind of errors."""

    _options = ("thresholds", "top_k", "class_id")
    _gathered: tuple[int, int]  # which of the counts

    def __init__(self, thresholds: float | Sequence[float] | None = None, top_k: int | None = None, class_id: int | None = None,
                 name: str | None = None, dtype: Any = None) -> None:  # fmt: skip
        super().__init__(dtype, name)
        self._set_selection(top_k, class_id)
        self._set_thresholds(thresholds, 0.5 if top_k is None else -np.inf)
        self._count_in(*(CELLS[i] for i in self._gathered))

    def result(self) -> Any:
        hits, errors = (variable.value for variable in self.variables)
        return self._shaped(divide(hits, hits + errors))


class Precision(_Share):
    """TP / (TP + FP): how many of the elements predicted positive are; 0 where none is predicted.

    thresholds: one, with a number as the result, or several; 0.5 by default. top_k: only the k largest of a row can be predicted
    positive, and without thresholds they are; of equals the first. class_id: only this column counts.
    """

    true_positives: Variable
    false_positives: Variable
    _gathered = (0, 1)


class Recall(_Share):
    """TP / (TP + FN): how many of the positives are predicted positive; 0 where there is none. Options as `Precision`'s."""

    true_positives: Variable
    false_negatives: Variable
    _gathered = (0, 3)


class _BestAt(ThresholdMetric):
    """The best of one rate over those thresholds at which another, given as an argument of its name, has at least a value."""

    _rates: tuple[str, str]  # which is wanted, which is given

    def __init__(self, value: float, num_thresholds: int, class_id: int | None, name: str | None, dtype: Any) -> None:
        super().__init__(dtype, name)
        given = self._rates[1]
        self._options = (given, "num_thresholds", "class_id")
        self._value = number(given, value, 0.0, 1.0)
        setattr(self, given, value)
        if isinstance(num_thresholds, bool) or not isinstance(num_thresholds, (int, np.integer)) or num_thresholds < 1:
            raise ValueError(f"num_thresholds must be a whole number > 0, got {shown(num_thresholds)}")
        self._set_selection(None, class_id)
        self.num_thresholds = int(num_thresholds)
        bounds = np.arange(num_thresholds) / (num_thresholds - 1) if num_thresholds > 1 else np.array([0.5])
        self.thresholds, self._bounds = bounds.tolist(), Thresholds(bounds)
        self._count_in(*CELLS)

    def result(self) -> Any:
        tp, fp, tn, fn = (variable.value for variable in self.variables)
        recall = divide(tp, tp + fn)
        rates = {"sensitivity": recall, "recall": recall, "specificity": divide(tn, tn + fp), "precision": divide(tp, tp + fp)}
        wanted, given = (rates[rate] for rate in self._rates)
        return np.float64(np.max(wanted, where=given >= self._value, initial=0.0))


class SensitivityAtSpecificity(_BestAt):
    """The highest sensitivity TP / (TP + FN) where the specificity TN / (TN + FP) is at least `specificity`; 0 if it never is."""

    specificity: float
    _rates = "sensitivity", "specificity"

    def __init__(self, specificity: float, num_thresholds: int = 200, class_id: int | None = None, name: str | None = None,
                 dtype: Any = None) -> None:  # fmt: skip
        super().__init__(specificity, num_thresholds, class_id, name, dtype)


class SpecificityAtSensitivity(_BestAt):
    """The highest specificity TN / (TN + FP) where the sensitivity TP / (TP + FN) is at least `sensitivity`; 0 if it never is."""

    sensitivity: float
    _rates = "specificity", "sensitivity"

    def __init__(self, sensitivity: float, num_thresholds: int = 200, class_id: int | None = None, name: str | None = None,
                 dtype: Any = None) -> None:  # fmt: skip
        super().__init__(sensitivity, num_thresholds, class_id, name, dtype)


class PrecisionAtRecall(_BestAt):
    """The highest precision TP / (TP + FP) where the recall TP / (TP + FN) is at least `recall`; 0 if it never is."""

    recall: float
    _rates = "precision", "recall"

    def __init__(self, recall: float, num_thresholds: int = 200, class_id: int | None = None, name: str | None = None,
                 dtype: Any = None) -> None:  # fmt: skip
        super().__init__(recall, num_thresholds, class_id, name, dtype)


class RecallAtPrecision(_BestAt):
    """The highest recall TP / (TP + FN) where the precision TP / (TP + FP) is at least `precision`; 0 if it never is."""

    precision: float
    _rates = "recall", "precision"

    def __init__(self, precision: float, num_thresholds: int = 200, class_id: int | None = None, name: str | None = None,
                 dtype: Any = None) -> None:  # fmt: skip
        super().__init__(precision, num_thresholds, class_id, name, dtype)
