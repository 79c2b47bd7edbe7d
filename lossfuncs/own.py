"""The calls that are not rows of y_true and y_pred: circle, a row loss over products of embeddings, and ctc, a dynamic programme."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from . import plain
from .call import Call, array, device_labels, is_float, plan, whole_numbers
from .devices import device_of
from .losses.circle import EXCLUDED, OTHER, SAME
from .losses.ctc import BLANK, forward_backward
from .options import flag
from .problem import NO_CLASS, Array, Problem, Task, exact_sum

BLOCK = 1 << 21  # similarities that are held at a time


class CircleCall(Call):
    """The circle loss: similarities = y_pred @ references.T, and a row of them for each sample."""

    def __init__(self, function: Any, entry: Any, options: dict[str, Any], y_true: Any, y_pred: Any, sample_weight: Any) -> None:
        self.function, self.entry, self.options = function, entry, options
        device = self.device = device_of(y_pred)
        p = self.y_pred = array("y_pred", y_pred)
        if p.ndim != 2:
            raise ValueError(f"y_pred must be embeddings of shape (N, D), got shape {p.shape}")
        self.dtype = p.dtype if is_float(p.dtype) else np.dtype(np.float64)
        self.shape = p.shape[:1]
        self.y_true = array("y_true", y_true)
        self.labels = _sample_labels("y_true", self.y_true, len(p), device)
        self.p = p if device is not None and is_float(p.dtype) else p.astype(np.float64, order="C")
        self.references = self.p
        given = options["ref_embeddings"]
        if given is not None:
            references = _beside("ref_embeddings", array("ref_embeddings", given), device)
            if references.ndim != 2 or references.shape[1] != p.shape[1]:
                raise ValueError(f"ref_embeddings must have shape (M, {p.shape[1]}), got {references.shape}")
            self.references = references if device is not None and is_float(references.dtype) else references.astype(np.float64, order="C")
        labels = options["ref_labels"]
        self.ref_labels = self.labels if labels is None else _sample_labels("ref_labels", labels, len(self.references), device)
        if len(self.ref_labels) != len(self.references):
            raise ValueError(f"ref_embeddings has {len(self.references)} rows; ref_labels must be given with as many labels")
        self.remove_diagonal = flag("remove_diagonal", options["remove_diagonal"])
        self.rows, self.parameters = plan(entry, len(self.references), {"gamma": options["gamma"], "margin": options["margin"]})

    def check_order(self, order: int) -> None:
        if order == 2:
            raise ValueError("circle has no second derivative")

    def run(self, backend: str, task: Task) -> float:
        m, n = len(self.p), len(self.references)
        own = self.options["ref_embeddings"] is None
        if self.device is not None:
            from . import gpu_own

            return gpu_own.circle(  # type: ignore[no-any-return]
                self.device, self.rows, self.parameters, self.p, self.references, self.labels, self.ref_labels,
                self.remove_diagonal, own, task,
            )  # fmt: skip
        values = np.zeros(m)
        w = np.ones(m) if task.weights is None else task.weights
        gradient = np.zeros_like(self.p) if task.derivatives else None
        block = max(1, BLOCK // max(n, 1))
        product = np.matmul if backend == "numpy" else _product
        if backend == "numpy" and not task.derivatives and m:
            gamma, margin = self.options["gamma"], self.options["margin"]
            with np.errstate(all="ignore"):
                values = self.function.reference(
                    self.labels, self.p, self.ref_labels, self.references, self.remove_diagonal, gamma, margin
                )
            m = 0
        for lo in range(0, m, block):
            hi = min(m, lo + block)
            similarity = product(self.p[lo:hi], np.ascontiguousarray(self.references.T))
            kind = np.where(self.labels[lo:hi, None] == self.ref_labels, SAME, OTHER)
            if self.remove_diagonal:
                kind[np.arange(lo, min(hi, n)) - lo, np.arange(lo, min(hi, n))] = EXCLUDED
            by_similarity = np.empty_like(similarity) if task.derivatives else None
            values[lo:hi] = self._block(backend, kind, similarity, w[lo:hi] * task.scale, by_similarity)
            if gradient is not None and by_similarity is not None:
                gradient[lo:hi] += product(by_similarity, self.references)
                if own:
                    gradient += product(np.ascontiguousarray(by_similarity.T), self.p[lo:hi])
        with np.errstate(all="ignore"):
            if task.values is not None:
                task.values[...] = values
            for into in task.derivatives:
                into[...] = gradient
            return exact_sum(values * w) if task.total else 0.0

    def _block(self, backend: str, kind: Array, similarity: Array, w: Array, into: Array | None) -> Array:
        m, n = similarity.shape
        if not n:
            return np.zeros(m)
        if backend == "numpy":
            if into is not None and self.rows.slope is not None:
                into[...] = w[:, None] * plain.derivative(self.rows, self.rows.slope, kind, similarity, self.parameters)
            return plain.values(self.rows, kind, similarity, self.parameters)
        from . import cpu

        values = np.empty(m)
        problem = Problem(self.rows, self.parameters, kind, similarity, m, n, False, NO_CLASS, np.dtype(np.float64))
        cpu.run(problem, Task(False, w, 1.0, values, () if into is None else (into,)))
        return values


def _beside(name: str, x: Array, device: Any) -> Any:
    """x, in the memory where y_pred is. TypeError for what is on another device."""
    home = device_of(x)
    if home is device:
        return x
    if home is not None:
        raise TypeError(f"{name} is on a GPU, but y_pred is not: move one of them")
    return device.send(x)


def _sample_labels(name: str, x: Any, count: int, device: Any) -> Any:
    t = array(name, x)
    if t.shape == (count, 1):
        t = t[:, 0]
    if t.shape != (count,):
        raise ValueError(f"{name} must hold one label a sample, shape ({count},), got {t.shape}")
    if device_of(t) is None:
        t = whole_numbers(name, t)
    t = _beside(name, t, device)
    if device is None:
        return t
    xp = device.xp
    if is_float(t.dtype):  # a device is not waited for: what is not whole is a label by its bits
        t = t.astype(np.float64)
        whole = (t == xp.floor(t)) & (abs(t) < 2.0**62)
        t = xp.where(whole, xp.where(whole, t, 0.0).astype(np.int64), t.view(np.int64))
    return xp.ascontiguousarray(t.astype(np.int64, copy=False))


def _product(a: Array, b: Array) -> Array:
    """a @ b with sums in the order of the inner axis, so that it has the same bits for any number of threads and on any CPU."""
    from . import threads

    out = np.zeros((a.shape[0], b.shape[1]))
    rows = max(1, -(-a.shape[0] // (4 * threads.get_num_threads())))
    kernel = _product_kernel()

    def part(i: int) -> None:
        kernel(a[i * rows : (i + 1) * rows], b, out[i * rows : (i + 1) * rows])

    threads.run(part, -(-a.shape[0] // rows) if a.size else 0)
    return out


@functools.cache
def _product_kernel() -> Any:
    from numba import types

    from . import cache

    matrix = types.Array(types.float64, 2, "C")

    def product(a: Any, b: Any, out: Any) -> int:
        for i in range(a.shape[0]):
            for k in range(a.shape[1]):
                x = a[i, k]
                for j in range(b.shape[1]):
                    out[i, j] += x * b[k, j]
        return 0

    return cache.compile(product, types.int64(matrix, matrix, matrix))


class SequenceCall(Call):
    """Connectionist temporal classification: one dynamic programme a sample."""

    def __init__(self, function: Any, entry: Any, options: dict[str, Any], y_true: Any, y_pred: Any, sample_weight: Any) -> None:
        self.function = function
        device = self.device = device_of(y_pred)
        p = self.y_pred = array("y_pred", y_pred)
        t = self.y_true = array("y_true", y_true)
        if p.ndim != 3 or t.ndim != 2 or len(t) != len(p):
            raise ValueError(f"ctc takes y_true of shape (B, L) and y_pred of shape (B, T, C), got {t.shape} and {p.shape}")
        self.dtype = p.dtype if is_float(p.dtype) else np.dtype(np.float64)
        self.shape = p.shape[:1]
        if not p.shape[2]:
            raise ValueError(f"y_pred of shape {p.shape} has no classes")
        if device is not None:  # the kernel checks
            self.labels = device.xp.ascontiguousarray(device_labels(device, t).astype(np.int64, copy=False))
            return
        self.labels = np.array(whole_numbers("y_true", t), order="C")  # a copy: it is checked here, and used later
        bad = (self.labels < 0) | (self.labels >= p.shape[2])
        if bad.any():
            i, j = np.argwhere(bad)[0]
            raise self._out_of_range(i, j, self.labels[i, j])
        self.lengths = np.count_nonzero(self.labels != BLANK, axis=1)

    def _out_of_range(self, i: int, j: int, label: int) -> ValueError:
        return ValueError(f"y_true[{i}, {j}] is {label}, but y_pred has classes 0 to {self.y_pred.shape[2] - 1}, and 0 is the blank")

    def bad_label(self, row: int, label: Any) -> ValueError:
        assert self.host_labels is not None
        labels = self.host_labels[row]
        j = int(np.argmax((labels < 0) | (labels >= self.y_pred.shape[2])))
        return self._out_of_range(row, j, labels[j])

    def check_order(self, order: int) -> None:
        if order == 2:
            raise ValueError("ctc has no second derivative")

    def run(self, backend: str, task: Task) -> float:
        m = self.m
        if self.device is not None:
            from . import gpu_own

            logits = self.y_pred if is_float(self.y_pred.dtype) else self.y_pred.astype(np.float64)
            return gpu_own.ctc(self.device, self.labels, logits, task)  # type: ignore[no-any-return]
        values = np.zeros(m)
        w = np.ones(m) if task.weights is None else task.weights
        if backend == "numpy" and not task.derivatives:
            with np.errstate(all="ignore"):
                values[...] = self.function.reference(self.labels, self.y_pred.astype(np.float64))
        else:
            self._programme(forward_backward if backend == "numpy" else _sequence_kernel(), values, w * task.scale, task.derivatives)
        with np.errstate(all="ignore"):
            if task.values is not None:
                task.values[...] = values
            return exact_sum(values * w) if task.total else 0.0

    def _programme(self, one: Any, values: Array, w: Array, into: tuple[Array, ...]) -> None:
        from . import threads

        frames, classes = self.y_pred.shape[1:]

        def sample(i: int) -> None:
            logits = np.ascontiguousarray(self.y_pred[i], np.float64)
            alpha, beta, norm = (np.empty((frames, k)) for k in (2 * self.labels.shape[1] + 1, 2 * self.labels.shape[1] + 1, 2))
            gradient = np.empty((frames, classes) if into else (0, 0))
            values[i] = one(logits, self.labels[i], int(self.lengths[i]), alpha, beta, norm, gradient)
            with np.errstate(all="ignore"):
                for d in into:
                    d[i] = gradient * w[i]

        threads.run(sample, len(values))


@functools.cache
def _sequence_kernel() -> Any:
    from numba import types

    from . import cache
    from .fold import ELEMENTS

    matrix, labels = types.Array(types.float64, 2, "C"), types.Array(types.int64, 1, "C")
    bound = ELEMENTS["float64"].bind(forward_backward)

    def sequence(logits: Any, labels: Any, length: int, alpha: Any, beta: Any, norm: Any, gradient: Any) -> float:
        return float(bound(logits, labels, length, alpha, beta, norm, gradient))

    return cache.compile(sequence, types.float64(matrix, labels, types.int64, matrix, matrix, matrix, matrix))
