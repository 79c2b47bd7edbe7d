"""The base of the stateful metrics: variables that add up without loss, `Metric` to subclass, and the means of values."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import numpy as np

from ..bootstrap import Cells
from ..call import Call, RowsCall, array, by_sample, complete, needed, spread, totals
from ..devices import device_of, home_of
from ..dispatch import current_backend, prepare
from ..losses.loss import mask_of as mask_of
from ..options import shown
from ..problem import Array, Task
from ..serialization import automatic_name, identity

DTYPES = frozenset({"bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bfloat16", "float16", "float32",
                    "float64"})  # fmt: skip

MOST = 1000  # batches that wait: each is some hundred bytes of Python's


class Variable(np.lib.mixins.NDArrayOperatorsMixin):
    """A float64 number or array that a metric adds to; arithmetic with it gives NumPy numbers and arrays.

    What rounding takes from an addition is kept and added in when the value is read: a total of 1e9 terms has all its digits, and a count
    goes on beyond 2^53. So counts are no worse off than in int64, may be of fractional weights, and merge as totals do.
    """

    __slots__ = ("name", "shape", "_sum", "_rest", "waiting")

    def __init__(self, initial: Any, name: str) -> None:
        self.name = name
        self.shape: tuple[int, ...] = np.shape(initial)
        self._sum: Any  # a float, or an array
        self._rest: Any  # what rounding took from it
        self.waiting: Any = None  # `Scattered`, or `device.Pending`: what was gathered and is not in the sum yet
        self.assign(initial)

    def settle(self) -> None:
        """Add what waits."""
        pending, self.waiting = self.waiting, None
        if pending is not None:
            pending.settle()

    @property
    def _high(self) -> Any:
        self.settle()
        return self._sum

    @property
    def _low(self) -> Any:
        self.settle()
        return self._rest

    def __getstate__(self) -> tuple[Any, ...]:
        return self.name, self.shape, self._high, self._low

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.name, self.shape, self._sum, self._rest = state
        self.waiting = None

    def kept(self) -> tuple[Any, Any, Any]:
        """What `restore` puts back. What waits on a device is fetched: it goes on growing there."""
        if not isinstance(self.waiting, Scattered):
            self.settle()
        return self._sum, self._rest, self.waiting

    def restore(self, total: Any, rest: Any, waiting: Any) -> None:
        """Hold what it held when `kept` gave this."""
        self._sum, self._rest, self.waiting = total, rest, waiting

    @property
    def value(self) -> Any:
        """A copy of what it holds."""
        return np.float64(self._high + self._low) if self.shape == () else self._high + self._low

    @property
    def dtype(self) -> str:
        """ "float64", whatever is added."""
        return "float64"

    def assign(self, value: Any) -> Self:
        """Replace what it holds. ValueError for another shape."""
        new = np.array(value, np.float64)
        if new.shape != self.shape:
            raise ValueError(f"{self.name} has shape {self.shape}, so that it cannot be assigned a value of shape {new.shape}")
        self.settle()  # other variables may wait for it too
        self._sum, self._rest = (new, np.zeros(self.shape)) if self.shape else (float(new), 0.0)
        return self

    def assign_add(self, value: Any, rest: Any = 0.0) -> Self:
        """Add value, and `rest`, what rounding took from it before; an array of a device is added there. ValueError for another shape."""
        device = None if isinstance(value, float) else device_of(value)
        if device is not None:
            return self._add_on(device, value)
        high = self._sum
        if self.shape == ():
            if not isinstance(value, (float, int)) and np.shape(value) != ():
                raise ValueError(f"{self.name} is a number, so that a value of shape {np.shape(value)} cannot be added")
            x = float(value)
            total = high + x
            if math.isfinite(total):
                large, small = (high, x) if abs(high) >= abs(x) else (x, high)
                self._rest += (large - total) + small + rest
            self._sum = total
            return self
        more = np.asarray(value, np.float64)
        if more.shape not in (self.shape, ()):
            raise ValueError(f"{self.name} has shape {self.shape}, so that a value of shape {more.shape} cannot be added")
        with np.errstate(invalid="ignore", over="ignore"):
            self._sum = high + more
            second = self._sum - high
            lost = (high - (self._sum - second)) + (more - second) + rest
            self._rest = self._rest + np.where(np.isfinite(self._sum), lost, 0.0)
        return self

    def _add_on(self, device: Any, value: Any) -> Self:
        from .device import Sum

        if value.shape not in (self.shape, ()):
            raise ValueError(f"{self.name} has shape {self.shape}, so that a value of shape {value.shape} cannot be added")
        if self.waiting is None or not self.waiting.fits(device, "sum"):
            self.settle()
            self.waiting = Sum(device, self)
        self.waiting.add(value)
        return self

    def add_at(self, places: Array, numbers: Array | None) -> Self:
        """Add numbers, or else 1, to the elements at these places of the flat array; a place may come again."""
        if not isinstance(self.waiting, Scattered):
            self.settle()
        self.waiting = Scattered(self, places, numbers, self.waiting)
        if self.waiting.count >= math.prod(self.shape) or self.waiting.parts >= MOST:
            self.settle()
        return self

    def assign_sub(self, value: Any) -> Self:
        """Take value from it."""
        return self.assign_add(-value if device_of(value) is not None else -np.asarray(value, np.float64))

    def numpy(self) -> Any:
        """A copy of what it holds."""
        return self.value

    def __iadd__(self, value: Any) -> Self:
        return self.assign_add(value)

    def __isub__(self, value: Any) -> Self:
        return self.assign_sub(value)

    def __float__(self) -> float:
        return float(self.value)

    def __getitem__(self, index: Any) -> Any:
        return np.asarray(self.value)[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self.value, dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return getattr(ufunc, method)(*(x.value if isinstance(x, Variable) else x for x in inputs), **kwargs)

    def __repr__(self) -> str:
        return f"<Variable {self.name}={self.value!r}>"


class Scattered:
    """Numbers for places of a large array, which wait until they are as many as it has: one batch need not walk over all of it."""

    def __init__(self, variable: Variable, places: Array, numbers: Array | None, before: Scattered | None) -> None:
        self.variable, self.places, self.numbers, self.before = variable, places, numbers, before
        self.count, self.parts = len(places), 1
        if before is not None:
            self.count, self.parts = self.count + before.count, self.parts + before.parts

    def fits(self, device: Any, name: Any) -> bool:
        """Whether what is gathered on a device can be added here: never."""
        return False

    def settle(self) -> None:
        """Add them to the variable."""
        parts: list[Scattered] = []
        last: Scattered | None = self
        while last is not None:
            parts.append(last)
            last = last.before
        parts.reverse()
        numbers = None
        if any(part.numbers is not None for part in parts):
            numbers = np.concatenate([np.ones(len(part.places)) if part.numbers is None else part.numbers for part in parts])
        shape = self.variable.shape
        found = np.bincount(np.concatenate([part.places for part in parts]), numbers, math.prod(shape))
        self.variable.assign_add(found.reshape(shape))


class Metric:
    """A number gathered over batches: `update_state` takes one in, `result` says what it is so far, `reset_state` forgets.

    To write one, make its variables in `__init__` with `add_variable`, after `super().__init__`, and define `update_state` and `result`:

        class Bias(Metric):
            def __init__(self, name="bias", dtype=None):
                super().__init__(dtype, name)
                self.total = self.add_variable(name="total")
                self.count = self.add_variable(name="count")

            def update_state(self, y_true, y_pred, sample_weight=None):
                self.total.assign_add(np.sum(y_pred - y_true))
                self.count.assign_add(np.size(y_true))

            def result(self):
                return self.total / self.count

    States merge by addition; where that is not right, as for a maximum, define `merge_state` too. Variables, and the results of the
    metrics here, are float64 whatever dtype says: it is kept as an attribute and in the configuration. name: by default that of the
    class, numbered from the second on. Threads that update at once need a metric each, to be merged.
    """

    _options: tuple[str, ...] = ()  # arguments of the constructor that are attributes of the same names, beside name and dtype
    sums_over_samples = False  # whether `contributions` is there

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "result" in cls.__dict__:
            cls.result = _never_live(cls.result)  # type: ignore[method-assign,assignment]

    def __init__(self, dtype: Any = None, name: str | None = None) -> None:
        if name is not None and not isinstance(name, str):
            raise ValueError(f"name must be a string, got {shown(name)}")
        self.name = automatic_name(type(self)) if name is None else name
        self.dtype = _dtype_name(dtype)
        self._variables: list[Variable] = []

    def add_variable(self, shape: Any = (), initializer: Any = None, dtype: Any = None, aggregation: str = "sum", name: str | None = None
                     ) -> Variable:  # fmt: skip
        """A new variable of the state, of zeros.

        initializer: None, "zeros", "ones", or a function of the shape; `reset_state` makes it zeros in any case, as Keras does. dtype and
        aggregation are Keras' and change nothing: all state is float64 and merges by addition.
        """
        own = self._own_variables()
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if initializer is None or initializer in ("zeros", "zero"):
            initial = np.zeros(shape)
        elif initializer in ("ones", "one"):
            initial = np.ones(shape)
        elif callable(initializer):
            initial = np.broadcast_to(np.asarray(initializer(shape), np.float64), shape)
        else:
            raise ValueError(f"initializer must be None, 'zeros', 'ones' or a function of the shape, got {shown(initializer)}")
        own.append(Variable(initial, f"variable_{len(own)}" if name is None else name))
        return own[-1]

    def add_weight(self, shape: Any = (), initializer: Any = None, dtype: Any = None, name: str | None = None) -> Variable:
        """The same as `add_variable`."""
        return self.add_variable(shape, initializer, dtype, name=name)

    def _own_variables(self) -> list[Variable]:
        try:
            return self._variables
        except AttributeError:
            raise RuntimeError(f"{type(self).__name__}.__init__ must call super().__init__() before anything else") from None

    def _members(self) -> list[Metric]:
        return [member for member in vars(self).values() if isinstance(member, Metric)]

    @property
    def variables(self) -> list[Variable]:
        """The state: its variables in the order in which they were made, those of metrics that are attributes last."""
        return [*self._own_variables(), *(v for member in self._members() for v in member.variables)]

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Take in a batch."""
        raise NotImplementedError(f"{type(self).__name__} does not define update_state")

    def result(self) -> Any:
        """What the metric is so far: a number or an array of its own, which later updates leave alone."""
        raise NotImplementedError(f"{type(self).__name__} does not define result")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.update_state(*args, **kwargs)
        return self.result()

    def reset_state(self) -> None:
        """Forget everything."""
        for variable in self.variables:
            variable.assign(np.zeros(variable.shape))

    def reset_states(self) -> None:
        """The same as `reset_state`, as tf.keras called it."""
        self.reset_state()

    def state_vector(self) -> Array:
        """The state as one flat float64 array: all variables, and then what rounding took from each of them.

        The sum of the vectors of several metrics is that of all their data, where `merge_state` adds.
        """
        variables = self.variables
        parts = [np.ravel(v._high) for v in variables] + [np.ravel(v._low) for v in variables]
        return np.concatenate(parts) if parts else np.empty(0)

    def load_state_vector(self, vector: Any) -> None:
        """Put the state of a `state_vector` in place of this one. ValueError if it does not fit."""
        vector = array("vector", vector).astype(np.float64, copy=False)
        if vector.size == 0:
            self.reset_state()
            return
        if vector.ndim == 1 and vector.size % 2 == 0:
            self._make_room(vector.size // 2)
        sizes = [math.prod(v.shape) for v in self.variables]
        if vector.shape != (2 * sum(sizes),):
            raise ValueError(f"vector must be a state of {2 * sum(sizes)} numbers, got shape {vector.shape}")
        highs, lows = (np.split(half, np.cumsum(sizes)[:-1]) for half in np.split(vector, 2))
        for variable, high, low in zip(self.variables, highs, lows, strict=True):
            variable.assign(high.reshape(variable.shape))
            variable.assign_add(np.zeros(variable.shape), low.reshape(variable.shape)[()])

    def checkpoint(self) -> Callable[[], None]:
        """A function that puts the variables back to what they are now."""
        kept = [(v, v.kept()) for v in self.variables]

        def restore() -> None:
            for variable, held in kept:
                variable.restore(*held)

        return restore

    def merge_state(self, others: Metric | Iterable[Metric]) -> None:
        """Take in all that the others, of the same class and options, have seen. ValueError for any other."""
        others = [others] if isinstance(others, Metric) else list(others)
        for other in others:
            if type(other) is not type(self) or self._identity() != other._identity():
                raise ValueError(f"others must be {type(self).__name__} metrics with the options of this one, got {shown(other)}")
        for other in others:
            self._absorb(other)

    def _identity(self) -> Any:
        return identity([getattr(self, name) for name in self._options])

    def _absorb(self, other: Metric) -> None:
        theirs = [(v._high, v._low) for v in other.variables]
        if not theirs:
            return
        self._make_room(sum(np.size(high) for high, _ in theirs))
        mine = self.variables
        if [v.shape for v in mine] != [np.shape(high) for high, _ in theirs]:
            raise ValueError(f"a {type(self).__name__} with a state of another shape cannot be merged into this one")
        for variable, (high, low) in zip(mine, theirs, strict=True):
            variable.assign_add(high, low)

    def _make_room(self, size: int) -> None:
        """Make the variables that wait for the first batch, for a state of so many numbers."""

    def wanted_total(self, y_true: Array, y_pred: Array, sample_weight: Any, mask: Any) -> Call | None:
        """The call whose total is all that `take_total` wants of a batch, if there is one: totals of one batch are added up together."""
        return None

    def take_total(self, call: Call, total: float, y_true: Array, y_pred: Array) -> None:
        """Take in the batch of a `wanted_total`."""
        raise AssertionError("a metric that wants a total can take it in")

    def contributions(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Array | Cells:
        """What each sample adds to sums that `results` knows: (N, numbers), or the cells in which it counts.

        By default the sums are the state: all variables, one after the other. NotImplementedError where it is no sum over the samples.
        """
        raise NotImplementedError(f"the state of {type(self).__name__} is not a sum over samples")

    def results(self, states: Array) -> Any:
        """The result of each of these sums of `contributions`: (R, numbers) -> (R,), or (R, ...) where a result is an array."""
        twin = copy.deepcopy(self)
        twin._make_room(states.shape[1])
        variables = twin.variables
        ends = np.cumsum([math.prod(v.shape) for v in variables])
        found = []
        for state in states:
            for variable, part in zip(variables, np.split(state, ends[:-1]), strict=True):
                variable.assign(part.reshape(variable.shape))
            found.append(twin.result())
        return np.array(found)

    def stateless_update_state(self, metric_variables: Iterable[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """The values of the variables after an update of these values; the metric itself stays as it is."""
        twin = self._twin(metric_variables)
        twin.update_state(*args, **kwargs)
        return [variable.value for variable in twin.variables]

    def stateless_result(self, metric_variables: Iterable[Any]) -> Any:
        """The result that these values of the variables have."""
        return self._twin(metric_variables).result()

    def stateless_reset_state(self) -> list[Any]:
        """The values that `reset_state` gives the variables."""
        return [np.zeros(v.shape)[()] for v in self.variables]

    def _twin(self, values: Iterable[Any]) -> Self:
        """A copy with these values of the variables."""
        twin, values = copy.deepcopy(self), list(values)
        if len(values) != len(twin.variables):
            raise ValueError(f"metric_variables must be {len(twin.variables)} values, got {len(values)}")
        for variable, value in zip(twin.variables, values, strict=True):
            variable.assign(value)
        return twin

    def get_config(self) -> dict[str, Any]:
        """The arguments that make such a metric, for `from_config` and for JSON."""
        return {"name": self.name, "dtype": self.dtype, **{name: getattr(self, name) for name in self._options}}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """A metric with these arguments."""
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


def _never_live(result: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A `result` that returns a variable returns its value instead."""

    @functools.wraps(result)
    def detached(self: Any) -> Any:
        found = result(self)
        return found.value if isinstance(found, Variable) else found

    return detached


def _dtype_name(dtype: Any) -> str:
    if dtype is None:
        return "float64"
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or getattr(dtype, "__name__", None)
    name = str(name).removeprefix("mixed_")  # Keras' policies: what they compute in
    if name not in DTYPES:
        raise ValueError(f"dtype must be the name of a dtype, as 'float32', got {shown(dtype)}")
    return name


def both(y_true: Any, y_pred: Any) -> tuple[Array, Array]:
    """The two as arrays, which are in one memory."""
    home_of(y_true, y_pred)
    return array("y_true", y_true), array("y_pred", y_pred)


def weights_of(shape: tuple[int, ...], sample_weight: Any, mask: Any, device: Any = None) -> Any:
    """Flat float64 weights of values of that shape, 0 where the mask is false; None where every value counts once. For a device: on it."""
    if mask is None:
        w = None if sample_weight is None else spread("sample_weight", sample_weight, shape, device)
        return w if device is None or w is None else w.astype(np.float64, copy=False)
    kept = (spread("mask", mask, shape, device) != 0).astype(np.float64)
    return kept if sample_weight is None else np.where(kept != 0, spread("sample_weight", sample_weight, shape, device), 0.0)


def sum_of(x: Any) -> Any:
    """The sum as a float; on a device as an array of one number there."""
    with np.errstate(all="ignore"):
        found = np.sum(x)
    return float(found) if device_of(x) is None else found


class Mean(Metric):
    """sum(weight * value) / sum(weight) over everything seen, 0 where the weights sum to 0.

    A sample of several values, along the axes after the first, counts once, with the mean of its values.
    """

    def __init__(self, name: str | None = "mean", dtype: Any = None) -> None:
        super().__init__(dtype, name)
        self.total = self.add_variable(name="total")
        self.count = self.add_variable(name="count")

    def update_state(self, values: Any, sample_weight: Any = None, *, mask: Any = None) -> None:
        """Take in values (N, ...) or a number. sample_weight and mask: of their shape, or without axes at the end."""
        v = array("values", values)
        if v.size:
            w = weights_of(v.shape, sample_weight, mask_of(values, mask), device_of(v))
            samples = v.shape[0] if v.ndim else 1
            per_sample = v.size / samples
            flat = v.astype(np.float64).reshape(-1)
            self._add(sum_of(flat) if w is None else weighted_sum(flat, w), v.size if w is None else sum_of(w), per_sample)

    def _add(self, total: Any, count: Any, per_sample: float) -> None:
        self.total.assign_add(total / per_sample)
        self.count.assign_add(count / per_sample)

    def result(self) -> Any:
        count = float(self.count)
        return np.float64(float(self.total) / count if count else 0.0)


def weighted_sum(values: Array, weights: Array) -> Any:
    """sum(weight * value); what has no weight does not count, not even NaN."""
    with np.errstate(all="ignore"):
        return sum_of(np.where(weights != 0, values * weights, 0.0))


class Sum(Metric):
    """sum(weight * value) over everything seen."""

    def __init__(self, name: str | None = "sum", dtype: Any = None) -> None:
        super().__init__(dtype, name)
        self.total = self.add_variable(name="total")

    def update_state(self, values: Any, sample_weight: Any = None, *, mask: Any = None) -> None:
        """Take in values of any shape. sample_weight and mask: of their shape, or without axes at the end."""
        v = array("values", values).astype(np.float64)
        w = weights_of(v.shape, sample_weight, mask_of(values, mask), device_of(v))
        self.total.assign_add(sum_of(v) if w is None else weighted_sum(v.reshape(-1), w))

    def result(self) -> Any:
        return self.total


class MeanMetricWrapper(Mean):
    """The mean of fn(y_true, y_pred, **kwargs) over all samples: `Mean` of what fn returns.

    fn is a function or loss object of two arrays. The functions of lossfuncs are computed and added up in one pass over memory; of
    one-dimensional data each number is a sample, and samples of their `ignore_class` do not count. TypeError for unknown kwargs.
    """

    def __init__(self, fn: Callable[..., Any], name: str | None = None, dtype: Any = None, **kwargs: Any) -> None:
        if not callable(fn):
            raise TypeError(f"fn must be a function of y_true and y_pred, got {shown(fn)}")
        super().__init__(name, dtype)
        self._fn: Any = fn
        self._kwargs = kwargs
        self._fused = self.sums_over_samples = hasattr(fn, "defaults")
        if self._fused:
            complete(fn, kwargs)
            self._needed = needed(fn, kwargs)
        self._seen: dict[Any, tuple[tuple[int, ...], float]] = {}  # shapes: those of their values, and how many of these a sample has

    def update_state(  # type: ignore[override]  # as in Keras
        self, y_true: Any, y_pred: Any, sample_weight: Any = None, *, mask: Any = None
    ) -> None:
        """Take in a batch. sample_weight and mask: of the shape of fn's values, or without axes at the end; (N,) is per sample."""
        mask = mask_of(y_pred, mask)
        if not self._fused:
            super().update_state(self._fn(y_true, y_pred, **self._kwargs), sample_weight, mask=mask)
            return
        if mask is None and type(y_true) is np.ndarray and type(y_pred) is np.ndarray:
            known = self._seen.get((y_true.shape, y_pred.shape))
            if known is not None and self._updated(y_true, y_pred, sample_weight, *known):
                return
        self._update(*both(y_true, y_pred), sample_weight, mask)

    def _updated(self, t: Array, p: Array, w: Any, shape: tuple[int, ...], per_sample: float) -> bool:
        """Take in a batch of shapes seen before; False for one that must go the long way."""
        if p.ndim == 1:
            t, p = t.reshape(-1, 1), p.reshape(-1, 1)
        if w is None:
            self._add(self._fn(t, p, reduction="sum", **self._needed), math.prod(shape), per_sample)
            return True
        if type(w) is np.ndarray and w.shape == shape:
            with contextlib.suppress(ValueError):
                total = self._fn(t, p, sample_weight=w, reduction="sum", **self._needed)
                if math.isfinite(total):
                    self._add(total, float(np.sum(w.astype(np.float64, copy=False).reshape(-1))), per_sample)
                    return True
        return False

    def _update(self, y_true: Array, y_pred: Array, sample_weight: Any, mask: Any) -> None:
        call = self._prepare(y_true, y_pred, sample_weight, mask)
        if call is not None and call.device is not None:
            from .device import total_and_count

            self._add(*total_and_count(self._without_ignored(call)), call.m / call.samples)
        elif call is not None:
            self.take_total(call, self._total(call), y_true, y_pred)

    def _prepare(self, y_true: Array, y_pred: Array, sample_weight: Any, mask: Any) -> Call | None:
        """The call whose total is to be taken in; None where there are no values."""
        entry, t, p = self._fn.entry, y_true, y_pred
        in_row = p.ndim == 1 and entry.targets != "index"
        if in_row:
            t, p = (x.reshape(-1, 1) if x.ndim == 1 else x for x in (t, p))
        call = prepare(self._fn, t, p, self._kwargs, None, "sum")
        if in_row and isinstance(call, RowsCall) and not call.problem.rows.pointwise and entry.shape != "element":
            raise ValueError(f"{self.name} needs several numbers for each sample, but y_pred has one: its shape is {y_pred.shape}")
        if not call.m:
            return None
        call.weights = weights_of(call.shape, sample_weight, mask, call.device)
        return call

    def wanted_total(self, y_true: Array, y_pred: Array, sample_weight: Any, mask: Any) -> Call | None:
        if not self._fused or type(self).update_state is not MeanMetricWrapper.update_state:
            return None
        call = self._prepare(y_true, y_pred, sample_weight, mask)
        return None if call is None or call.weights is not None and not call.weights.all() else call

    def take_total(self, call: Call, total: float, y_true: Array, y_pred: Array) -> None:
        per_sample, w = call.m / call.samples, call.weights
        if w is not None:
            count = float(np.sum(w if call.valid is None else w[call.valid]))
        elif call.valid is not None:
            count = float(np.count_nonzero(call.valid))
        else:
            count = float(call.m)
        if call.valid is None and (y_pred.ndim > 1 or self._fn.entry.targets != "index"):
            if len(self._seen) >= 64:
                self._seen.clear()
            self._seen[y_true.shape, y_pred.shape] = call.shape, per_sample
        self._add(total, count, per_sample)

    def _without_ignored(self, call: Call) -> Call:
        """On a device, which is not waited for: what weighs 0 is always replaced."""
        if call.weights is None or not isinstance(call, RowsCall):
            return call
        again = prepare(self._fn, *call.harmless(call.y_true, call.y_pred, call.weights == 0.0), self._kwargs, None, "sum")
        again.weights, again.host_labels = call.weights, call.host_labels
        return again

    def _total(self, call: Call) -> float:
        """The call's total, in which what weighs 0 has no part, whatever it is: a weight undoes neither NaN nor a label out of range."""
        w = call.weights
        if w is None or w.all() or not isinstance(call, RowsCall):
            return float(call.run(current_backend(), Task(True, w)))
        with contextlib.suppress(ValueError):
            total = float(call.run(current_backend(), Task(True, w)))
            if math.isfinite(total):
                return total
        again = prepare(self._fn, *call.harmless(call.y_true, call.y_pred, w == 0.0), self._kwargs, None, "sum")
        return float(again.run(current_backend(), Task(True, w)))

    def contributions(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Array:
        call = self._prepare(array("y_true", y_true), array("y_pred", y_pred), sample_weight, None)
        return np.zeros((len(y_pred), 2)) if call is None else by_sample(call, current_backend()) / (call.m / call.samples)

    def _identity(self) -> Any:
        return identity([self._fn, sorted(self._kwargs.items())])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_seen": {}}

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {"name": self.name, "dtype": self.dtype}
        if type(self) is MeanMetricWrapper:
            from . import serialize

            config["fn"] = serialize(self._fn)
        return {**config, **self._kwargs}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        arguments = dict(config)
        if isinstance(arguments.get("fn"), Mapping):
            from . import deserialize

            arguments["fn"] = deserialize(arguments["fn"])
        return cls(**arguments)


SHARED = 1 << 19  # numbers from which one pass for several metrics is worth a kernel of its own: less than that a cache holds


def update_state(metrics: Iterable[Metric], y_true: Any, y_pred: Any, sample_weight: Any = None, *, mask: Any = None) -> None:
    """Have several metrics take in one batch, as metric.update_state(...) of each does, but in as few passes over memory as pay.

    The means of functions of the same rows, as accuracies and cross-entropies, are added up together where the batch is large and every
    sample counts. If one of those finds fault with the data, none of them has taken them in.
    """
    left = list(metrics)
    if math.prod(np.shape(y_pred)) >= SHARED and current_backend() == "numba" and device_of(y_pred) is None:
        t, p, kept = array("y_true", y_true), array("y_pred", y_pred), mask_of(y_pred, mask)
        ready = [(metric, metric.wanted_total(t, p, sample_weight, kept)) for metric in left]
        calls = [(metric, call) for metric, call in ready if call is not None]
        for (metric, call), total in zip(calls, totals([call for _, call in calls]), strict=True):
            metric.take_total(call, total, t, p)
        left = [metric for metric, call in ready if call is None]
    given = {name: x for name, x in (("sample_weight", sample_weight), ("mask", mask)) if x is not None}
    for one in left:
        one.update_state(y_true, y_pred, **given)
