"""Intersection over union of classes, from a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..bootstrap import Cells
from ..call import adjust_ranks, class_number, cpu_backend, device_labels, whole_numbers
from ..devices import device_of
from ..dispatch import current_backend
from ..options import flag, number, shown
from ..problem import NO_CLASS, Array, Problem, Task
from ..rows import Label, Rows
from .confusion import divide
from .metric import Metric, both, mask_of, weights_of

SHORTEST = 64  # classes up to which a kernel finds the largest of a row sooner than NumPy


class _Matrix(Metric):
    """The confusion matrix, and the mean of TP / (TP + FP + FN) over those target classes that occur."""

    sums_over_samples = True

    def _begin(self, name: str | None, dtype: Any, num_classes: Any, targets: Any, ignore_class: Any) -> None:
        super().__init__(dtype, name)
        if isinstance(num_classes, bool) or not isinstance(num_classes, (int, np.integer)) or num_classes < 1:
            raise ValueError(f"num_classes must be a whole number >= 1, got {shown(num_classes)}")
        self.num_classes = int(num_classes)
        given = range(self.num_classes) if targets is None else targets
        self.target_class_ids = [class_number("target_class_ids", x) for x in given]
        for x in self.target_class_ids:
            if not 0 <= x < self.num_classes:
                raise ValueError(f"target_class_ids must be in [0, {self.num_classes}), got {x}")
        self.ignore_class = None if ignore_class is None else class_number("ignore_class", ignore_class)
        self.total_confusion_matrix = self.add_variable((self.num_classes, self.num_classes), name="total_confusion_matrix")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None, *, mask: Any = None) -> None:
        """Take in a batch. sample_weight: of the shape of the class numbers, or per sample."""
        t, p = adjust_ranks(*self._classes(y_true, y_pred))
        device = device_of(p)
        w = weights_of(t.shape, sample_weight, mask_of(y_pred, mask), device)
        if device is None:
            cells, counted = self._cells(t.reshape(-1), p.reshape(-1))
            self.total_confusion_matrix.add_at(cells[counted], None if w is None else w[counted])
        else:
            self._count_on(device, t, p, w)

    def contributions(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Cells:
        t, p = adjust_ranks(*self._classes(y_true, y_pred))
        w = weights_of(t.shape, sample_weight, None)
        cells, counted = self._cells(t.reshape(len(t), -1), p.reshape(len(t), -1))
        if w is not None or not counted.all():
            w = np.where(counted, 1.0 if w is None else w.reshape(cells.shape), 0.0)
        return Cells(np.where(counted, cells, 0), w, self.num_classes**2)

    def _classes(self, y_true: Any, y_pred: Any) -> tuple[Array, Array]:
        """The class numbers of targets and predictions."""
        raise NotImplementedError

    def _cells(self, t: Array, p: Array) -> tuple[Array, Array]:
        """Where in the flat matrix each element counts, and which of them do."""
        k = self.num_classes
        counted = (t >= 0) & (t < k) & (p >= 0) & (p < k)
        if self.ignore_class is not None:
            counted &= t != self.ignore_class
        return k * t + p, counted

    def _count_on(self, device: Any, t: Any, p: Any, w: Any) -> None:
        from .device import Cells

        k, matrix = self.num_classes, self.total_confusion_matrix
        if matrix.waiting is None or not matrix.waiting.fits(device, ("classes", k)):
            matrix.settle()
            matrix.waiting = Cells(device, ("classes", k), k * k, [(matrix, lambda cells: cells.reshape(k, k))])
        ignore = NO_CLASS if self.ignore_class is None else self.ignore_class
        t, p = (x.astype(np.int64, copy=False) for x in (t, p))
        matrix.waiting.count("ByClasses", t, p, w, classes=k, ignore=ignore)

    def result(self) -> Any:
        matrix = self.total_confusion_matrix.value
        both = np.diag(matrix)
        with np.errstate(invalid="ignore"):  # of weights that are not finite
            union = matrix.sum(axis=0) + matrix.sum(axis=1) - both
        present = np.array(self.target_class_ids, np.intp)
        present = present[union[present] != 0]
        return np.float64(np.mean(divide(both, union)[present]) if len(present) else 0.0)


def _class_numbers(name: str, x: Array) -> Any:
    device = device_of(x)
    return whole_numbers(name, x) if device is None else device_labels(device, x)


def _first(s: Any, n: float) -> Any:
    return s[0]


LARGEST = Rows("largest", (Label(),), _first)


def _largest(x: Array) -> Array:
    """np.argmax along the last axis; short rows, for which it is slow, by a kernel."""
    n = x.shape[-1]
    if n > SHORTEST or x.dtype not in (np.float32, np.float64) or device_of(x) is not None or current_backend() != "numba" or not x.size:
        return np.argmax(x, axis=-1)  # type: ignore[no-any-return]
    m = x.size // n
    found = np.empty(m, x.dtype)
    cpu_backend().run(Problem(LARGEST, (), x, x, m, n, False, NO_CLASS, x.dtype), Task(values=found))
    return found.astype(np.int64).reshape(x.shape[:-1])


class IoU(_Matrix):
    """The mean over target_class_ids of TP / (TP + FP + FN), leaving out classes that neither occur nor are predicted; 0 without data.

    Both sides hold class numbers, or scores along `axis` whose largest is meant, where sparse_y_true or sparse_y_pred is False. Elements
    with a number outside of 0 to num_classes - 1 on either side, or whose target is ignore_class, do not count. Weights are taken as they
    are, fractions too. ValueError for class numbers that are not whole, where Keras would cut them off.
    """

    _options: tuple[str, ...] = ("num_classes", "target_class_ids", "ignore_class", "sparse_y_true", "sparse_y_pred", "axis")

    def __init__(self, num_classes: int, target_class_ids: Sequence[int], name: str | None = None, dtype: Any = None,
                 ignore_class: int | None = None, sparse_y_true: bool = True, sparse_y_pred: bool = True,
                 axis: int = -1) -> None:  # fmt: skip
        self._begin(name, dtype, num_classes, target_class_ids, ignore_class)
        self.sparse_y_true, self.sparse_y_pred = flag("sparse_y_true", sparse_y_true), flag("sparse_y_pred", sparse_y_pred)
        self.axis = class_number("axis", axis)

    def _classes(self, y_true: Any, y_pred: Any) -> tuple[Array, Array]:
        t, p = both(y_true, y_pred)
        return self._ids("y_true", t, self.sparse_y_true), self._ids("y_pred", p, self.sparse_y_pred)

    def _ids(self, name: str, x: Array, sparse: bool) -> Array:
        if sparse:
            return _class_numbers(name, x)  # type: ignore[no-any-return]
        if not -x.ndim <= self.axis < x.ndim or not x.shape[self.axis]:
            raise ValueError(f"{name} must have classes along axis {self.axis}, got shape {x.shape}")
        return _largest(x) if self.axis in (-1, x.ndim - 1) else np.argmax(x, axis=self.axis)


class BinaryIoU(_Matrix):
    """The mean of TP / (TP + FP + FN) over the classes 0 and 1, or one of them; y_pred >= threshold is class 1."""

    _options = ("target_class_ids", "threshold")

    def __init__(self, target_class_ids: Sequence[int] = (0, 1), threshold: float = 0.5, name: str | None = None, dtype: Any = None
                 ) -> None:  # fmt: skip
        self._begin(name, dtype, 2, target_class_ids, None)
        self.threshold = number("threshold", threshold)

    def _classes(self, y_true: Any, y_pred: Any) -> tuple[Array, Array]:
        t, p = both(y_true, y_pred)
        return _class_numbers("y_true", t), (p >= self.threshold).astype(np.int64)


class MeanIoU(IoU):
    """`IoU` of all classes."""

    _options: tuple[str, ...] = ("num_classes", "ignore_class", "sparse_y_true", "sparse_y_pred", "axis")

    def __init__(self, num_classes: int, name: str | None = None, dtype: Any = None, ignore_class: int | None = None,
                 sparse_y_true: bool = True, sparse_y_pred: bool = True, axis: int = -1) -> None:  # fmt: skip
        super().__init__(num_classes, None, name, dtype, ignore_class, sparse_y_true, sparse_y_pred, axis)  # type: ignore[arg-type]


class OneHotIoU(IoU):
    """`IoU` of one-hot targets, and of scores or, with sparse_y_pred, of class numbers."""

    _options = ("num_classes", "target_class_ids", "ignore_class", "sparse_y_pred", "axis")

    def __init__(self, num_classes: int, target_class_ids: Sequence[int], name: str | None = None, dtype: Any = None,
                 ignore_class: int | None = None, sparse_y_pred: bool = False, axis: int = -1) -> None:  # fmt: skip
        super().__init__(num_classes, target_class_ids, name, dtype, ignore_class, False, sparse_y_pred, axis)


class OneHotMeanIoU(MeanIoU):
    """`MeanIoU` of one-hot targets, and of scores or, with sparse_y_pred, of class numbers."""

    _options = ("num_classes", "ignore_class", "sparse_y_pred", "axis")

    def __init__(self, num_classes: int, name: str | None = None, dtype: Any = None, ignore_class: int | None = None,
                 sparse_y_pred: bool = False, axis: int = -1) -> None:  # fmt: skip
        super().__init__(num_classes, name, dtype, ignore_class, False, sparse_y_pred, axis)
