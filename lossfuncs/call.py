"""A call made ready: arrays checked and brought to one shape, options validated, rows found, weights spread, the result shaped.

Everything that a user can get wrong is found here, or by the label check of the kernels, and named in one sentence.
"""

from __future__ import annotations

import difflib
import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import plain
from .devices import device_of
from .frameworks.arrays import adapter, read
from .options import number, shown
from .problem import NO_CLASS, STRUCTURAL, Array, BadLabel, Problem, Task, divides, is_flat, sum_of_weights, take
from .rows import Rows, joint

REDUCTIONS = {None: None, "none": None, "sum": "sum", "mean": "mean", "sum_over_batch_size": "mean",
              "mean_with_sample_weight": "mean_with_sample_weight"}  # fmt: skip

_LABELS = np.dtype(np.int64)


class Call:
    """m rows with one value each. Subclasses say how they are computed."""

    function: Any
    shape: tuple[int, ...]  # of the values
    y_pred: Array  # as it came, but an array
    y_true: Array  # likewise
    dtype: np.dtype[Any]  # of the values and of the gradient
    reduction: str | None = None
    weights: Array | None = None  # float64, (m,)
    exponent = 0  # the weights are those that were given, divided by 2^exponent
    valid: Array | None = None  # with ignore_class: which rows count, (m,)
    device: Any = None  # `gpu.Device` whose arrays all of them are, or None for the host
    grouped: int = 1  # how many values along the first axis are of one sample
    host_labels: Array | None = None  # y_true as it came, where the host's arrays are computed on a device

    @property
    def m(self) -> int:
        return math.prod(self.shape)

    @property
    def samples(self) -> int:
        """How many samples the values are of."""
        return (self.shape[0] if self.shape else 1) // self.grouped

    @property
    def pointwise(self) -> bool:
        """Whether a row of one number has a value that means anything."""
        return True

    def run(self, backend: str, task: Task) -> Any:
        """Do the task, on that backend; returns the total, a float or a device's array of one number."""
        raise AssertionError("each kind of call runs itself")

    def view(self, derivative: Array) -> Array:
        """A derivative, shaped as y_pred, as the rows see it."""
        return derivative

    def harmless(self, y_true: Any, y_pred: Any, ignored: Array) -> tuple[Array, Array]:
        """Copies of the call's arrays with something that has a value in the ignored rows, (m,), whatever stood there."""
        xp, shape = np if self.device is None else self.device.xp, self.shape
        t, p = (np.array(x) if self.device is None else x.copy() for x in (y_true, y_pred))
        targets = self.function.entry.targets
        label = 0 if targets in ("index", "sequence") else 1  # an error of 0 has a value of 0 even where errors are relative
        for x, value in ((self.view(p), 1), (t.reshape(shape) if targets == "index" else self.view(t), label)):
            x[...] = xp.where(ignored.reshape(shape + (1,) * (x.ndim - len(shape))), value, x)
        return t, p

    def bad_label(self, row: int, label: Any) -> ValueError:
        """The error for a label out of range in that row."""
        raise AssertionError("only calls with labels have one")

    def check_order(self, order: int) -> None:
        """ValueError unless the first (second) derivative exists."""

    def shortcut(self, sample_weight: Any, order: int = 0) -> Any:
        """A function of y_true, y_pred and sample_weight that gives this call's result for others like these, or None; or None itself.

        For order 1 and 2 it gives the derivatives too, in memory that follows, if any. It finds out what is not like these.
        """
        return None

    def counted(self) -> float:
        """How many values there are, or what they weigh where a mean is taken by weights."""
        if self.reduction == "mean_with_sample_weight" and self.weights is not None:
            return sum_of_weights(self.weights if self.valid is None else self.weights[self.valid])
        return float(self.m if self.valid is None else np.count_nonzero(self.valid))

    def divisor(self) -> float:
        """What a total is divided by. Where weights or ignored classes leave nothing, 0 / 0 is 0; for an empty batch it is NaN."""
        return 1.0 if self.reduction == "sum" else self.counted() or (math.inf if self.m else math.nan)

    def reduce(self, reduction: Any, sample_weight: Any) -> None:
        """Validate the reduction and the weights."""
        try:
            self.reduction = REDUCTIONS[reduction]
        except (KeyError, TypeError):
            raise ValueError(f"reduction must be one of {', '.join(map(repr, REDUCTIONS))}, got {shown(reduction)}") from None
        if sample_weight is not None:
            self.weights = spread("sample_weight", sample_weight, self.shape, self.device)

    def balance(self) -> None:
        """Bring weights whose sum a mean is divided by near 1, where they are too large or small: only their ratios count."""
        if self.reduction != "mean_with_sample_weight" or self.weights is None or self.device is not None:
            return
        w = self.weights if self.valid is None else np.where(self.valid, self.weights, 0.0)
        if not divides(sum_of_weights(w)):
            self.exponent = math.frexp(np.max(np.abs(w)))[1]
            with np.errstate(all="ignore"):
                self.weights = np.ldexp(w, -self.exponent)

    def weighted(self, values: Array) -> Any:
        """Values (m,) as the user gets them without a reduction."""
        if self.weights is not None:
            with np.errstate(all="ignore"):
                values = (values * self.weights).astype(self.dtype)
        return values.reshape(self.shape)[()]


class RowsCall(Call):
    """A call on the row contract."""

    def __init__(self, function: Any, entry: Any, options: dict[str, Any], y_true: Any, y_pred: Any, sample_weight: Any) -> None:
        self.function = function
        self.device = device_of(y_pred)
        p = self.y_pred = array("y_pred", y_pred)
        self.dtype = p.dtype if is_float(p.dtype) else np.dtype(np.float64)
        self.options = options
        labelled = entry.targets == "index"
        self.free_labels = options.get("from_sorted_ids", False) is True  # ids are compared, not used
        if p.ndim == 0:
            raise ValueError("y_pred must have at least one axis, got a number")
        t = self.y_true = array("y_true", y_true)
        alpha = options.get("alpha")
        self.by_class = entry.targets == "one-hot" and (isinstance(alpha, (list, tuple)) or getattr(alpha, "ndim", 0) > 0)
        self.depends_on_data = entry.labels01 or self.by_class
        if labelled:
            axes = self._axes(entry, p)
            t = self._labels(t, p, axes[0])
        else:
            t, p = adjust_ranks(t, p)
            axes = self._axes(entry, p)
            if self._per_element(entry, p, sample_weight):
                t, p = t[:, None], p[:, None]
                axes = (1,)
        self.t, self.p = t, p
        self._lay_out(entry, axes, labelled)

    def _axes(self, entry: Any, p: Array) -> tuple[int, ...]:
        """The axes of p that make up a row."""
        if entry.shape == "element":
            return ()
        axis: Any = self.options["axis"] if entry.shape == "axis" else -1
        one = entry.targets in ("index", "one-hot") or entry.name == "cosine_similarity" or "correlation" in entry.name
        if axis is None and not one:
            return tuple(range(p.ndim))
        several = isinstance(axis, (list, tuple)) and not one
        try:
            if isinstance(axis, bool) or any(isinstance(a, bool) for a in (axis if several else ())):
                raise TypeError
            wanted = [operator.index(a) for a in (axis if several else (axis,))]
        except TypeError:
            raise ValueError(f"axis must be {'an integer' if one else 'an integer, several, or None'}, got {shown(axis)}") from None
        for a in wanted:
            if not -p.ndim <= a < p.ndim:
                raise ValueError(f"axis {a} does not exist in y_pred of shape {p.shape}")
        axes = tuple(a % p.ndim for a in wanted)
        if len(set(axes)) != len(axes):
            raise ValueError(f"axis names one axis twice: {shown(axis)}")
        return axes

    def _labels(self, t: Array, p: Array, axis: int) -> Array:
        """Class numbers as int64, shaped as p without the class axis."""
        wanted = p.shape[:axis] + p.shape[axis + 1 :]
        if t.shape == (*p.shape[:axis], 1, *p.shape[axis + 1 :]):
            t = t.reshape(wanted)
        if t.shape != wanted:
            raise ValueError(f"y_true of shape {t.shape} does not fit y_pred of shape {p.shape}: labels must have shape {wanted}")
        if self.device is not None:
            return self.device.xp.ascontiguousarray(device_labels(self.device, t))  # type: ignore[no-any-return]
        return np.ascontiguousarray(whole_numbers("y_true", t)).reshape(wanted)  # which a number is not by itself

    def _per_element(self, entry: Any, p: Array, sample_weight: Any) -> bool:
        """1-D data with 1-D weights: each element is a sample, a row of its own."""
        if sample_weight is None or p.ndim != 1 or entry.shape == "element" or p.size == 1:
            return False
        if array("sample_weight", sample_weight).shape != p.shape:
            return False
        rows, _ = plan(entry, 1, self._maths_options())
        return rows.pointwise and self.options.get("axis", -1) in (-1, 0)

    def _maths_options(self) -> dict[str, Any]:
        return {name: value for name, value in self.options.items() if name not in STRUCTURAL}

    def _lay_out(self, entry: Any, axes: tuple[int, ...], labelled: bool) -> None:
        p, t = self.p, self.t
        kept = [a for a in range(p.ndim) if a not in axes]
        self.shape = tuple(p.shape[a] for a in kept)
        self.order = (*kept, *axes) if (*kept, *axes) != tuple(range(p.ndim)) else None
        n = math.prod(p.shape[a] for a in axes)
        if labelled and n == 0:
            raise ValueError(f"y_pred of shape {p.shape} has no classes")
        options = self._maths_options()
        if entry.labels01:
            options["converted"] = self.device is None and zeros_and_ones(t)  # a device finds out by itself
        self.labels01 = entry.labels01
        if self.by_class:
            t = by_class(t, options, n, axes[0])
            options |= {"alpha": 1.0, "label_smoothing": 0.0}
        rows, parameters = plan(entry, n, options)
        ignore = self.options.get("ignore_class")
        ignore = NO_CLASS if ignore is None else class_number("ignore_class", ignore)
        if self.free_labels:
            p = p[..., : self.options["k"]]
            n = p.shape[-1]
        moved = self._moved(p)
        if labelled:
            t = t.reshape(-1)
            if ignore != NO_CLASS and self.device is None:
                self.valid = t != ignore
        dtype = moved.dtype.newbyteorder("=") if labelled and is_float(p.dtype) else exact_dtype(t.dtype, p.dtype)
        if self.device is not None and t.dtype.kind in "biu" and entry.targets in ("binary", "sign", "one-hot") and is_float(p.dtype):
            dtype = p.dtype  # small whole numbers: worth no wider arithmetic, which would have both arrays copied
        t = t if labelled else self._moved(t)
        self.problem = Problem(rows, parameters, t, moved, self.m, n, labelled, ignore, dtype, self.free_labels)

    def _moved(self, x: Array) -> Array:
        return x if self.order is None else x.transpose(self.order)

    def view(self, derivative: Array) -> Array:
        shape = self.p.shape
        if derivative.shape != shape:  # the ranks were adjusted by an axis of one element, at the end
            derivative = derivative[..., 0] if derivative.ndim > len(shape) else derivative[..., None]
        return self._moved(derivative)

    @property
    def pointwise(self) -> bool:
        return self.problem.rows.pointwise or self.function.entry.shape == "element"

    def bad_label(self, row: int, label: Any) -> ValueError:
        where = np.unravel_index(row, self.shape)
        at = f"[{', '.join(map(str, where))}]" if where else ""
        return ValueError(f"y_true{at} is {label}, but y_pred has classes 0 to {self.problem.n - 1}")

    def check_order(self, order: int) -> None:
        rows = self.problem.rows
        if rows.slope is None or (order == 2 and rows.curve is None):
            raise ValueError(f"{self.function.__name__} has no {'second ' if order == 2 else ''}derivative with these options")

    def run(self, backend: str, task: Task) -> Any:
        problem = self.problem
        if problem.m * problem.n == 0:
            return self._of_nothing(task)
        if self.device is not None:
            return gpu_backend().run_rows(self, task)
        try:
            if backend == "numpy":
                return self._reference(task)
            return float(cpu_backend().run(problem, task))
        except BadLabel as bad:
            raise self.bad_label(bad.row, problem.t[bad.row]) from None

    def shortcut(self, sample_weight: Any, order: int = 0) -> Any:
        problem = self.problem
        as_given = self.order is None and not self.depends_on_data and self.valid is None and self.y_pred.size == problem.p.size
        if not as_given or not is_flat(problem.p, problem.dtype) or problem.m * problem.n == 0:
            return None
        wanted = [_LABELS if problem.labelled else problem.dtype, problem.dtype]
        given = [self.y_true, self.y_pred]
        if sample_weight is not None:
            if type(sample_weight) is not np.ndarray or sample_weight.size != problem.m:
                return None
            wanted.append(np.dtype(np.float64))
            given.append(sample_weight)
        if not all(kind is _LABELS or np.can_cast(x.dtype, kind, "safe") for x, kind in zip(given, wanted, strict=True)):
            return None  # not every value of such a type is one of the wanted type
        kinds = [(x.dtype if x.dtype == kind else kind, x.shape) for x, kind in zip(given, wanted, strict=True)]
        again = cpu_backend().shortcut(problem, kinds, self.shape, self.dtype, self.reduction, order)
        if again is None or all(x.dtype == kind for x, kind in zip(given, wanted, strict=True)):
            return again
        return _converting(again, given[0].dtype, wanted[0], None if sample_weight is None else sample_weight.dtype)

    def _of_nothing(self, task: Task) -> Any:
        """No rows, or rows of nothing: those have no mean, but no label is found among them."""
        value = 0.0 if self.free_labels else math.nan
        if task.values is not None:
            task.values[...] = value
        total: Any = value if task.total and self.m else 0.0
        return total if self.device is None else self.device.zeros((), np.float64) + total / task.divisor

    def _reference(self, task: Task) -> float:
        """The NumPy backend: the reference's body, and derivatives by the NumPy schedule."""
        problem = self.problem
        t, p = self.t, self.p.astype(np.float64)
        if problem.labelled:
            bad = (problem.t < 0) | (problem.t >= problem.n)
            if self.valid is not None:
                bad &= self.valid
            if bad.any() and not self.free_labels:
                raise BadLabel(int(np.argmax(bad)))
            if self.valid is not None:
                t = np.where(self.valid.reshape(t.shape), t, 0)
        else:
            t = t.astype(np.float64)
        with np.errstate(all="ignore"):
            values = np.asarray(self.function.reference(t, p, **self.options), np.float64).reshape(-1)
            if self.valid is not None:
                values = np.where(self.valid, values, 0.0)
            if task.values is not None:
                task.values[...] = values
            w = np.ones(1) if task.weights is None else task.weights
            u = (w if self.valid is None else w * self.valid) * task.scale
            if task.derivatives:
                rows_p = problem.p.astype(np.float64).reshape(problem.m, problem.n)
                rows_t = t.reshape(-1) if problem.labelled else problem.t.astype(np.float64).reshape(rows_p.shape)
            for into, which in zip(task.derivatives, (problem.rows.slope, problem.rows.curve), strict=False):
                assert which is not None
                d = plain.derivative(problem.rows, which, rows_t, rows_p, problem.parameters)
                d = d * u[:, None] if self.valid is None else np.where(self.valid[:, None], d * u[:, None], 0.0)
                into[...] = d.reshape(into.shape)
            return float(np.sum(values * w)) if task.total else 0.0


def _converting(again: Any, t_given: np.dtype[Any], t_wanted: np.dtype[Any], w_given: np.dtype[Any] | None) -> Any:
    """A `shortcut` for targets and weights of the given dtypes from one for targets of the wanted and float64 weights."""

    def converted(t: Any, p: Any, w: Any, *memory: Array) -> Any:
        if type(t) is not np.ndarray or t.dtype != t_given:
            return None
        if w_given is not None:
            if type(w) is not np.ndarray or w.dtype != w_given:
                return None
            w = w.astype(np.float64, copy=False)
        return again(whole_numbers("y_true", t) if t_wanted is _LABELS else t.astype(t_wanted, copy=False), p, w, *memory)

    return converted


def totals(calls: Sequence[Call]) -> list[float]:
    """The total of each call, on the compiled kernels; those of the same rows and weights in one pass."""
    alike: dict[Any, list[int]] = {}
    for i, call in enumerate(calls):
        alike.setdefault(_same_rows(call) or i, []).append(i)
    found = [0.0] * len(calls)
    for group in alike.values():
        if len(group) == 1:
            found[group[0]] = calls[group[0]].run("numba", Task(True, calls[group[0]].weights))
            continue
        members = [calls[i].problem for i in group]  # type: ignore[attr-defined]
        rows = joint(tuple((one.rows, len(one.parameters)) for one in members))
        parameters = tuple(x for one in members for x in one.parameters)
        first = calls[group[0]]
        assert isinstance(first, RowsCall)
        try:
            each = cpu_backend().totals(members[0]._replace(rows=rows, parameters=parameters), first.weights)
        except BadLabel as bad:
            raise first.bad_label(bad.row, first.problem.t[bad.row]) from None
        for i, total in zip(group, each, strict=True):
            found[i] = total
    return found


def by_sample(call: Call, backend: str) -> Array:
    """For each sample the sum of weight * value, and of the weights: (N, 2), float64."""
    values = np.empty(call.m)
    call.run(backend, Task(values=values))
    w = np.ones(call.m) if call.weights is None else np.ldexp(call.weights, call.exponent)
    if call.valid is not None:
        w = np.where(call.valid, w, 0.0)
    with np.errstate(all="ignore"):
        weighted = np.where(w != 0, values * w, 0.0)
        return np.stack([x.reshape(call.samples, -1).sum(axis=1) for x in (weighted, w)], axis=1)


def _same_rows(call: Call) -> Any:
    """What calls of one batch have in common that can share a pass; None for one that cannot."""
    if not isinstance(call, RowsCall) or call.by_class or call.free_labels or call.problem.n > cpu_backend().LONGEST:
        return None
    one = call.problem
    if one.m * one.n == 0:
        return None
    p = one.p.__array_interface__
    return one.labelled, one.ignore, one.m, one.n, one.dtype, one.t.shape, p["data"], p["shape"], one.p.strides


@functools.cache
def cpu_backend() -> Any:
    """The Numba backend, imported when the first array needs it."""
    from . import cpu

    return cpu


@functools.cache
def gpu_backend() -> Any:
    """The GPU backend, likewise."""
    from . import gpu

    return gpu


@functools.lru_cache(maxsize=1024)
def _cached_plan(rows: Any, n: int, options: tuple[tuple[str, Any], ...]) -> tuple[Rows, tuple[float, ...]]:
    found: tuple[Rows, tuple[float, ...]] = rows(n, **dict(options))
    return found


def plan(entry: Any, n: int, options: dict[str, Any]) -> tuple[Rows, tuple[float, ...]]:
    """The row maths of an entry with these options, and its parameters."""
    if isinstance(entry.rows, Rows):
        return entry.rows, ()
    if all(type(value) in (bool, float) for value in options.values()):  # 1, 1.0 and True are one key, but not one option
        return _cached_plan(entry.rows, n, tuple(options.items()))
    return entry.rows(n, **options)  # type: ignore[no-any-return]


def array(name: str, x: Any) -> Array:
    """x as a NumPy array of numbers; a clear error for anything else."""
    if type(x) is not np.ndarray and device_of(x) is None:
        if isinstance(x, np.ma.MaskedArray):
            raise TypeError(f"{name} is a masked array; pass its data, and sample_weight 0 where it is masked")
        home = adapter(x)
        try:
            x = read(x) if home is None else home.to_numpy(x)
        except Exception as error:
            raise TypeError(f"{name} cannot be read as an array of numbers: {error}") from None
    if x.dtype.kind not in "biuf" and not is_float(x.dtype):
        raise TypeError(f"{name} must hold real numbers, got dtype {x.dtype}")
    if x.dtype.kind == "f" and x.dtype.itemsize > 8:
        raise TypeError(f"{name} has dtype {x.dtype}; the most precise that is supported is float64")
    return x  # type: ignore[no-any-return]


def is_float(dtype: np.dtype[Any]) -> bool:
    """float16, float32, float64, or ml_dtypes' bfloat16."""
    return dtype.kind == "f" or dtype.kind == "V" and dtype.name == "bfloat16"


def exact_dtype(t: np.dtype[Any], p: np.dtype[Any]) -> np.dtype[Any]:
    """The smallest of float16, bfloat16, float32 and float64 that holds every value of both exactly."""
    if not is_float(p):
        return np.dtype(np.float64)
    p = p.newbyteorder("=")
    if t == p:
        return p
    if t.kind == "b" or (t.kind in "iu" and t.itemsize == 1):
        return p  # 8 bits fit into the significand of every one of them; bfloat16 has just 8
    if p.itemsize <= 4 and t.itemsize <= (4 if is_float(t) else 2):
        return np.dtype(np.float32)
    return np.dtype(np.float64)


def same_rank(t: Array, p: Array) -> tuple[Array, Array]:
    """Keras' rule: an axis of one element at the end of either is dropped, or given to the other if that has rank 1."""
    if t.ndim == p.ndim + 1 and t.shape[-1] == 1:
        return (t, p[:, None]) if p.ndim == 1 else (t[..., 0], p)
    if p.ndim == t.ndim + 1 and p.shape[-1] == 1:
        return (t[..., None], p) if t.ndim < 2 else (t, p[..., 0])
    return t, p


def host_result(call: Call, out: Any) -> Array:
    """out, or a new array, for a derivative of a call; ValueError if out does not fit."""
    shape = call.y_pred.shape
    if out is None:
        return np.empty(shape, call.dtype)
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        got = type(out).__name__
    elif out.shape != shape or out.dtype != call.dtype or not out.flags.writeable:
        got = f"{'' if out.flags.writeable else 'a read-only '}{out.dtype} of shape {out.shape}"
    elif out.size and any(step == 0 and size > 1 for step, size in zip(out.strides, shape, strict=True)):
        got = f"strides {out.strides}, by which elements share memory"
    else:
        return out
    raise ValueError(f"out must be a writable {call.dtype} array of y_pred's shape {shape}, got {got}")


def adjust_ranks(t: Array, p: Array) -> tuple[Array, Array]:
    """Of one rank, and then of one shape."""
    t, p = same_rank(t, p)
    if t.shape != p.shape:
        raise ValueError(f"y_true and y_pred must have the same shape, got {t.shape} and {p.shape}")
    return t, p


def spread(name: str, x: Any, shape: tuple[int, ...], device: Any = None) -> Array:
    """Weights for values of that shape, flat, as float64: of the same rank, or one a sample for the axes that are missing.

    For a device, and then on it, where they may stay float32.
    """
    w = array(name, x)
    if device is None and device_of(x) is not None:
        raise TypeError(f"{name} is on a GPU, but y_pred is not: move one of them")
    if device is not None and device_of(x) is None:
        w = device.send(w.astype(np.float64))
    if device is None or w.dtype != np.float32:
        w = w.astype(np.float64, copy=False)
    xp: Any = np if device is None else device.xp
    if w.ndim == len(shape) + 1 and w.shape[-1] == 1:
        w = w[..., 0]
    if w.size == 1:
        return xp.ascontiguousarray(xp.broadcast_to(w.reshape(-1), (math.prod(shape),)))  # type: ignore[no-any-return]
    if w.ndim <= len(shape):
        w = w.reshape(w.shape + (1,) * (len(shape) - w.ndim))
        if all(w.shape[i] in (1, shape[i]) for i in range(w.ndim)):
            return xp.ascontiguousarray(xp.broadcast_to(w, shape)).reshape(-1)  # type: ignore[no-any-return]
    raise ValueError(f"{name} of shape {w.shape} does not fit: the values have shape {shape}")


def class_number(name: str, value: Any) -> int:
    """value as an int that may be a label."""
    try:
        number = NO_CLASS if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = NO_CLASS
    if not NO_CLASS < number < 2**63:
        raise ValueError(f"{name} must be a whole number of 64 bits, got {shown(value)}")
    return number


def whole_numbers(name: str, x: Array) -> Array:
    """x as int64."""
    if is_float(x.dtype):
        x = x.astype(np.float64)
        right = (x == np.floor(x)) & (np.abs(x) < 2.0**63)
    elif x.dtype == np.uint64:
        right = x < 2**63
    else:
        return x.astype(np.int64, copy=False)
    if not right.all():
        raise ValueError(f"{name} must hold whole numbers of 64 bits, got {x[~right].flat[0]}")
    return x.astype(np.int64)


def device_labels(device: Any, x: Any) -> Any:
    """x, on a device, as int32 or int64; what is no whole number becomes a label that is out of any range."""
    if is_float(x.dtype):
        x = x.astype(np.float64)
        return device.xp.where((x == device.xp.floor(x)) & (abs(x) < 2.0**62), x, -(2.0**62)).astype(np.int64)
    return x if x.dtype in (np.int32, np.int64) else x.astype(np.int64)


def zeros_and_ones(t: Array) -> bool:
    """Whether t holds nothing but 0 and 1."""
    step = 1 << 16
    for begin in range(0, t.size, step):
        x = take(t, begin, min(t.size, begin + step), t.dtype)
        if not ((x == 0) | (x == 1)).all():
            return False
    return True


def by_class(t: Array, options: dict[str, Any], n: int, axis: int) -> Array:
    """Targets times alpha, one number a class: a loss that is linear in its targets needs no more."""
    alpha = array("alpha", options["alpha"]).astype(np.float64)
    device = device_of(t)
    if device_of(alpha) is None:
        if not np.isfinite(alpha).all():
            raise ValueError(f"alpha must be finite for each class, got {alpha[~np.isfinite(alpha)][0]}")
        alpha = alpha if device is None else device.send(alpha)
    if alpha.shape not in ((n,), (1,)):
        raise ValueError(f"alpha must be a number or one for each of the {n} classes, got shape {alpha.shape}")
    smoothing = number("label_smoothing", options["label_smoothing"], 0.0, 1.0)
    smooth = t.astype(np.float64) * (1.0 - smoothing) + smoothing / n
    with np.errstate(invalid="ignore"):
        return smooth * alpha.reshape(-1, *(1,) * (t.ndim - 1 - axis))


def complete(function: Any, given: dict[str, Any]) -> dict[str, Any]:
    """All options of a call; TypeError for one that is unknown, or missing."""
    options = {**function.defaults, **given}
    if len(options) != len(function.defaults):
        unknown = next(name for name in given if name not in function.defaults)
        close = difflib.get_close_matches(unknown, [*function.defaults, "sample_weight", "reduction"], 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise TypeError(f"{function.__name__}() got an unexpected keyword argument {unknown!r}{hint}")
    for name, value in options.items():
        if value is REQUIRED:
            raise TypeError(f"{function.__name__}() missing required argument: {name!r}")
    return options


def needed(function: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Without those that are the defaults anyway: fewer are sooner found to be those of an earlier call."""

    def is_default(x: Any, default: Any) -> bool:
        return (type(x) is type(default) or type(x) is int and type(default) is float) and bool(x == default)

    return {name: x for name, x in options.items() if not is_default(x, function.defaults[name])}


REQUIRED = object()
