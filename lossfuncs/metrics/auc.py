"""The area under a curve of true and false positives: at given thresholds, or exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..bootstrap import Cells
from ..call import array
from ..devices import device_of
from ..options import flag, number, shown
from ..problem import Array
from .confusion import CELLS, Thresholds, cells_by_sample, counts_of, divide, gather, read
from .metric import Metric, Variable, mask_of, weights_of

CURVES = ("ROC", "PR", "PRGAIN")
METHODS = ("interpolation", "minoring", "majoring", "step")


class AUC(Metric):
    """The area under the ROC, PR or PRGAIN curve; 0 where there are no positives or no negatives.

    By default Keras' curve, through its points at the thresholds 0, 1 / (num_thresholds - 1), ..., 1, or at `thresholds` of your own.
    It collapses where scores crowd between two thresholds. With exact=True every distinct score is a threshold: the ROC area is the
    Mann-Whitney statistic, whatever the scores, and logits serve as well as probabilities. All scores are kept then, in 24 bytes for each
    distinct one; when there are more than `capacity`, so few of their last bits are dropped that there are not, for all scores alike, and
    `error_bound` tells how much the ROC area may be off.

    summation_method: the height between two points is their mean ("interpolation"; for PR the true curve between them, after Davis and
    Goadrich 2006), the lower ("minoring") or the higher one ("majoring"), or that of the point with more positives predicted ("step":
    with curve="PR" and exact=True that is the average precision).
    multi_label: one area for each column of y_pred, and their mean, by label_weights if given. Otherwise all elements are one pool, and
    label_weights weigh the columns. from_logits: y_pred holds logits. ValueError for options outside of these.
    """

    _options = ("num_thresholds", "curve", "summation_method", "thresholds", "multi_label", "num_labels", "label_weights", "from_logits",
                "exact", "capacity")  # fmt: skip

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: Any = None,
        thresholds: Sequence[float] | None = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Sequence[float] | None = None,
        from_logits: bool = False,
        exact: bool = False,
        capacity: int = 1 << 22,
    ) -> None:
        super().__init__(dtype, name)
        self.curve = curve.upper() if isinstance(curve, str) else curve
        if self.curve not in CURVES:
            raise ValueError(f"curve must be one of {', '.join(map(repr, CURVES))}, got {shown(curve)}")
        self.summation_method = summation_method.lower() if isinstance(summation_method, str) else summation_method
        if self.summation_method not in METHODS:
            raise ValueError(f"summation_method must be one of {', '.join(map(repr, METHODS))}, got {shown(summation_method)}")
        self.multi_label, self.exact = flag("multi_label", multi_label), flag("exact", exact)
        self.sums_over_samples = not exact
        self.from_logits = flag("from_logits", from_logits)
        self.num_thresholds, self.thresholds = num_thresholds, None
        if thresholds is not None:
            self.thresholds = sorted(number("thresholds", x, 0.0, 1.0) for x in thresholds)
            self.num_thresholds = len(self.thresholds) + 2
        for option, value, low in (("num_thresholds", self.num_thresholds, 2), ("capacity", capacity, 2), ("num_labels", num_labels, 1)):
            if option == "num_labels" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
                raise ValueError(f"{option} must be a whole number >= {low}, got {shown(value)}")
        if num_labels is not None and not multi_label:
            raise ValueError(f"num_labels is for multi_label=True only, got {num_labels}")
        self.capacity, self.num_labels = capacity, num_labels
        self.label_weights = None if label_weights is None else [number("label_weights", x, 0.0) for x in label_weights]
        inner = np.arange(1, self.num_thresholds - 1) / (self.num_thresholds - 1) if self.thresholds is None else self.thresholds
        self._bounds = Thresholds(np.array([-np.inf, *inner, np.inf]))
        self._cells: list[Variable] = []
        self._rankings: list[Ranking] = []
        if not multi_label:
            self._build(None)
        elif num_labels is not None:
            self._build(num_labels)

    def _build(self, labels: int | None) -> None:
        """State for so many labels, or for the pool of all."""
        if self.label_weights is not None and labels is not None and len(self.label_weights) != labels:
            raise ValueError(f"label_weights must be one for each of the {labels} labels, got {len(self.label_weights)}")
        if self.exact:
            self._rankings = [Ranking(self.capacity) for _ in range(labels or 1)]
        else:
            shape = (self.num_thresholds,) if labels is None else (self.num_thresholds, labels)
            self._cells = [self.add_variable(shape, name=cell) for cell in CELLS]
            self.true_positives, self.false_positives, self.true_negatives, self.false_negatives = self._cells

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None, *, mask: Any = None) -> None:
        """Take in a batch; y_true other than 0 is positive. sample_weight: per sample, or of y_pred's shape. NaN is the lowest score."""
        positive, p, w = self._elements(y_true, y_pred, sample_weight, mask_of(y_pred, mask))
        if self.exact:
            scores = p.astype(np.float64).reshape(-1)  # logits are ordered as their probabilities
            for i, ranking in enumerate(self._rankings):
                part = slice(i, None, len(self._rankings))
                ranking.add(scores[part], positive.reshape(-1)[part], None if w is None else w[part])
            return
        columns = p.shape[-1] if self.multi_label else 1
        gather([(cell, i) for i, cell in enumerate(self._cells)], positive, p, w, self._bounds, columns, lowest=True)

    def contributions(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Cells:
        positive, p, w = self._elements(y_true, y_pred, sample_weight, None)
        return cells_by_sample(positive, p, w, self._bounds, p.shape[-1] if self.multi_label else 1)

    def results(self, states: Array) -> Any:
        columns = states.shape[1] // (2 * (self.num_thresholds + 1))
        areas = self.area(*counts_of(states, self._bounds, columns)).T
        return self.combined(areas) if self.multi_label else areas[0]

    def _elements(self, y_true: Any, y_pred: Any, sample_weight: Any, mask: Any) -> tuple[Array, Array, Array | None]:
        """Which targets are positive, the scores as they are compared with the thresholds, and flat weights."""
        positive, p = read(y_true, y_pred)
        device = device_of(p)
        w = weights_of(p.shape, sample_weight, mask, device)
        labels = p.shape[-1] if p.ndim else 1
        if self.multi_label:
            if p.ndim != 2:
                raise ValueError(f"y_pred must have two axes where multi_label=True, got shape {p.shape}")
            if not self._cells and not self._rankings:
                self._build(labels)
            if labels != (len(self._rankings) if self.exact else self._cells[0].shape[1]):
                raise ValueError(f"y_pred must have as many columns as the batches before it, or num_labels, got shape {p.shape}")
        elif self.label_weights is not None:
            if p.ndim < 2 or len(self.label_weights) != labels:
                raise ValueError(f"label_weights must be one for each column of y_pred, got {len(self.label_weights)} for shape {p.shape}")
            by_label = np.array(self.label_weights)
            by_column = np.broadcast_to(by_label if device is None else device.send(by_label), p.shape).reshape(-1)
            w = by_column if w is None else w * by_column
        if self.exact and device is not None:  # sorted on the host
            positive, p = read(device.fetch(positive), device.fetch(p))
            w, device = None if w is None else device.fetch(w), None
        if device is None:
            p = np.where(p >= np.finfo(p.dtype).min, p, np.finfo(p.dtype).min)
        elif self.from_logits and p.dtype.itemsize < 4:
            p = p.astype(np.float32)
        if self.from_logits and not self.exact:
            with np.errstate(over="ignore"):
                p = 1.0 / (1.0 + np.exp(-p))
        return positive, p, w

    def scores(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tuple[Array, Array, Array]:
        """The scores, which are of positives, and their weights: (N, elements, columns), with one column unless multi_label."""
        positive, p, w = self._elements(y_true, y_pred, sample_weight, None)
        shape = (len(p), -1, p.shape[-1] if self.multi_label else 1)
        w = np.ones(p.size) if w is None else w
        return p.astype(np.float64).reshape(shape), positive.reshape(shape), w.reshape(shape)

    def combined(self, areas: Array) -> Array:
        """The results for areas (columns, ...) of several sets of weights."""
        if not self.multi_label or self.label_weights is None:
            return np.asarray(np.mean(areas, axis=0))
        return np.asarray(divide(np.tensordot(self.label_weights, areas, 1), sum(self.label_weights)))

    def result(self) -> Any:
        if self.exact:
            areas = np.array([self.area(*ranking.cells()) for ranking in self._rankings])
            if not self.multi_label:
                return np.float64(areas[0])
        else:
            if not self._cells:
                return np.float64(0.0)
            areas = self.area(*(cell.value for cell in self._cells))
        if not self.multi_label:
            return np.float64(areas)
        if not len(areas):
            return np.float64(0.0)
        return np.float64(self.combined(areas))

    @property
    def error_bound(self) -> float:
        """How far the ROC area may be from the exact one; 0 where no score had to be rounded. ValueError without exact=True."""
        if not self.exact:
            raise ValueError("error_bound is known with exact=True only")
        return max((ranking.error_bound() for ranking in self._rankings), default=0.0)

    def area(self, tp: Array, fp: Array, tn: Array, fn: Array) -> Any:
        """The area for counts that decrease along the first axis."""
        if self.curve == "PR" and self.summation_method == "interpolation":
            return _interpolated_precision(tp, fp, fn)
        recall = divide(tp, tp + fn)
        if self.curve == "ROC":
            x, y = divide(fp, fp + tn), recall
        elif self.curve == "PR":
            x, y = recall, divide(tp, tp + fp)
        else:
            odds = divide(tp + fn, tn + fp)
            x = np.where(tp > 0, np.maximum(1.0 - odds * divide(fn, tp), 0.0), 0.0)
            y = np.where(tp > 0, 1.0 - odds * divide(fp, tp), 1.0)
        left, right = y[:-1], y[1:]
        heights = {"interpolation": lambda: (left + right) / 2.0, "minoring": lambda: np.minimum(left, right),
                   "majoring": lambda: np.maximum(left, right), "step": lambda: left}  # fmt: skip
        return np.sum((x[:-1] - x[1:]) * heights[self.summation_method](), axis=0)

    # Rankings are not variables: their size is that of the data.

    def reset_state(self) -> None:
        super().reset_state()
        self._rankings = [Ranking(self.capacity) for _ in self._rankings]

    def checkpoint(self) -> Callable[[], None]:
        restore, rankings = super().checkpoint(), [ranking.copy() for ranking in self._rankings]

        def restore_all() -> None:
            restore()
            self._rankings = rankings

        return restore_all

    def state_vector(self) -> Array:
        """The state as one flat float64 array; with exact=True of any length, and without a sum that means anything."""
        if not self.exact:
            return super().state_vector()
        return np.concatenate([np.empty(0), *(ranking.state() for ranking in self._rankings)])

    def load_state_vector(self, vector: Any) -> None:
        if not self.exact:
            super().load_state_vector(vector)
            return
        rest, found = array("vector", vector).astype(np.float64, copy=False), []
        while rest.size:
            size = 2 + 3 * int(rest[0]) if rest.ndim == 1 and rest.size > 1 and rest[0] >= 0 else 0
            if not 2 <= size <= rest.size:
                raise ValueError("vector must be the state of an AUC with exact=True")
            found.append(Ranking.of_state(rest[:size], self.capacity))
            rest = rest[size:]
        if self._rankings and found and len(found) != len(self._rankings):
            raise ValueError(f"vector must hold {len(self._rankings)} rankings, got {len(found)}")
        self._rankings = found or [Ranking(self.capacity) for _ in self._rankings]

    def _absorb(self, other: Metric) -> None:
        assert isinstance(other, AUC)
        if not self.exact:
            super()._absorb(other)
            return
        if not self._rankings:
            self._rankings = [Ranking(self.capacity) for _ in other._rankings]
        for mine, its in zip(self._rankings, other._rankings or [Ranking(self.capacity) for _ in self._rankings], strict=True):
            mine.merge(its)

    def _make_room(self, size: int) -> None:
        labels, rest = divmod(size, 4 * self.num_thresholds)
        if self.multi_label and not self._cells and labels and not rest:
            self._build(labels)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if not self.exact:  # Keras knows neither
            del config["exact"], config["capacity"]
        return config


def _interpolated_precision(tp: Array, fp: Array, fn: Array) -> Any:
    """The area under the PR curve, where true and false positives grow in proportion between its points."""
    predicted = tp + fp
    gained = tp[:-1] - tp[1:]
    slope = divide(gained, np.maximum(predicted[:-1] - predicted[1:], 0.0))
    offset = tp[1:] - slope * predicted[1:]
    both = (predicted[:-1] > 0) & (predicted[1:] > 0)
    ratio = np.where(both, divide(predicted[:-1], predicted[1:]), 1.0)
    return np.sum(divide(slope * (gained + offset * np.log(np.where(both, ratio, 1.0))), tp[1:] + fn[1:]), axis=0)


class Ranking:
    """The distinct scores, with the weight of the positives and of the negatives at each.

    A score is a 64-bit integer in the order of the scores. Where there are more than `capacity`, their last `shift` bits are dropped: as
    few as it takes for all that was seen, so that the state depends on the data, and not on their order or how they were batched.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.shift = capacity, 0
        self.keys = np.empty(0, np.int64)
        self.weights = np.empty((2, 0))  # of the negatives, of the positives
        self._waiting: list[tuple[Array, Array]] = []
        self._held = 0

    def copy(self) -> Ranking:
        """One that has seen the same."""
        twin = copy.copy(self)
        twin._waiting = list(self._waiting)
        return twin

    def add(self, scores: Array, positive: Array, w: Array | None) -> None:
        """Take in scores, and whether each is of a positive."""
        if w is None:
            w = np.ones(len(scores))
        elif not w.all():
            kept = w != 0
            scores, positive, w = scores[kept], positive[kept], w[kept]
        self._wait((scores + 0.0).view(np.int64), np.stack([np.where(positive, 0.0, w), np.where(positive, w, 0.0)]))

    def _wait(self, bits: Array, weights: Array) -> None:
        keys = bits ^ ((bits >> 63) & np.int64(2**63 - 1))  # negative floats have the order of their bits reversed
        self._hold(keys >> self.shift, weights)

    def _hold(self, keys: Array, weights: Array) -> None:
        self._waiting.append((keys, weights))
        self._held += len(keys)
        if self._held > max(len(self.keys), 1 << 18):
            self._settle()

    def merge(self, other: Ranking) -> None:
        """Take in all that the other has seen."""
        other._settle()
        more = max(other.shift - self.shift, 0)
        if more:
            self.keys = self.keys >> more
            self._waiting = [(keys >> more, weights) for keys, weights in self._waiting]
            self.shift += more
        self._hold(other.keys >> (self.shift - other.shift), other.weights.copy())

    def _settle(self) -> None:
        """Sort what waits into the rest."""
        if not self._waiting and len(self.keys) <= self.capacity:
            return
        keys = np.concatenate([self.keys, *(keys for keys, _ in self._waiting)])
        weights = np.concatenate([self.weights, *(w for _, w in self._waiting)], axis=1)
        order = np.argsort(keys)
        keys, weights = keys[order], weights[:, order]
        shift = 0
        while True:
            first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.empty(0, np.intp)
            if len(first) <= self.capacity:
                break
            keys >>= 1
            shift += 1
        self.keys, self.shift = keys[first], self.shift + shift
        self.weights = np.add.reduceat(weights, first, axis=1) if len(first) else np.empty((2, 0))
        self._waiting, self._held = [], 0

    def cells(self) -> tuple[Array, Array, Array, Array]:
        """True positives, false positives, true negatives, false negatives, at thresholds from below all scores to above them."""
        self._settle()
        below = np.concatenate([np.zeros((2, 1)), np.cumsum(self.weights, axis=1)], axis=1)
        above = np.concatenate([np.cumsum(self.weights[:, ::-1], axis=1)[:, ::-1], np.zeros((2, 1))], axis=1)
        return above[1], above[0], below[0], below[1]

    def error_bound(self) -> float:
        """Scores that were rounded to one count as ties: half a pair each. In the exact area it may be none, or a whole one."""
        self._settle()
        if not self.shift:
            return 0.0
        negatives, positives = self.weights
        return float(divide(np.sum(negatives * positives) / 2.0, np.sum(negatives) * np.sum(positives)))

    def state(self) -> Array:
        """The number of scores, the shift, the scores as float64, the weights."""
        self._settle()
        keys = self.keys << self.shift
        scores = (keys ^ ((keys >> 63) & np.int64(2**63 - 1))).view(np.float64)
        return np.concatenate([[len(keys), self.shift], scores, *self.weights])

    @classmethod
    def of_state(cls, state: Array, capacity: int) -> Ranking:
        """A ranking with the state that `state` gave."""
        new, n = cls(capacity), int(state[0])
        scores, negatives, positives = state[2:].reshape(3, n)
        new.shift = int(state[1])
        new._wait(np.ascontiguousarray(scores).view(np.int64), np.stack([negatives, positives]))
        new._settle()
        return new
