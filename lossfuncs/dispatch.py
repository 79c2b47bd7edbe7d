"""From a call to the backend that answers it.

A public function's body is its NumPy reference; `@loss` and `@metric` put the front end before it: `call.py` makes the call ready, and
the chosen backend runs its rows. Reductions and sample weights are applied here, for all functions alike.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np
from numpy import ndarray

from . import devices
from .call import REQUIRED, Call, array, complete, gpu_backend, whole_numbers
from .devices import DEVICES, MET, at_once, work_on
from .frameworks.arrays import adapter
from .options import with_options
from .problem import Array, Task

F = TypeVar("F", bound=Callable[..., Any])


class Ways(dict[Any, Callable[..., Any] | None]):
    """`Call.shortcut`s, of a function and an order. They stay where they are when a function is sent to another process."""

    def __reduce__(self) -> tuple[type[Ways], tuple[()]]:
        return Ways, ()


FLAT = 0x101  # of numpy's flags: C-contiguous and aligned

BACKENDS = ("numpy", "numba", "cupy")

_chosen: ContextVar[str | None] = ContextVar("lossfuncs_backend", default=None)
_chosen_here = _chosen.get  # each look at an attribute is 10 ns of the 600 that a small loss takes


@contextlib.contextmanager
def backend(name: str) -> Iterator[None]:
    """Compute with this backend inside the `with`: "numpy" (the reference), "numba" (the CPU kernels, the default) or "cupy" (the GPU's).

    It holds for this thread and its asyncio tasks. Outside, the environment variable LOSSFUNCS_BACKEND decides. CuPy's arrays are always
    computed on their GPU. ValueError for any other name; ImportError if what is asked for is not installed, or finds no GPU.
    """
    token = _chosen.set(_known_backend("backend", name))
    try:
        yield
    finally:
        _chosen.reset(token)


def current_backend() -> str:
    """The backend that a call made here would use."""
    return _chosen_here() or _default_backend()


@functools.cache
def _default_backend() -> str:
    wanted = os.environ.get("LOSSFUNCS_BACKEND")
    if wanted:
        return _known_backend("LOSSFUNCS_BACKEND", wanted)
    return "numba" if importlib.util.find_spec("numba") else "numpy"


def _known_backend(name: str, value: Any) -> str:
    if value in DEVICES:
        DEVICES[value]()  # says what is missing
    elif value not in BACKENDS:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, BACKENDS))}, got {value!r}")
    if value == "numba" and not importlib.util.find_spec("numba"):
        raise ImportError(f"{name} is 'numba', but Numba is not installed: install it, or use 'numpy'")
    return str(value)


def public(function: F) -> F:
    """The public function whose NumPy reference is `function`: its signature and text, with the front end before its body."""
    defaults = {
        name: REQUIRED if parameter.default is parameter.empty else parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in ("y_true", "y_pred", "sample_weight", "reduction")
    }

    ways = Ways()

    @functools.wraps(function)
    def call(y_true: Any, y_pred: Any, *args: Any, sample_weight: Any = None, reduction: str | None = None, **options: Any) -> Any:
        if args:
            options = _named(call, args, options)
        if type(y_pred) is ndarray:
            result = short_way(ways, y_true, y_pred, sample_weight, reduction, options)
            if result is not None:
                return result
        else:
            if type(y_pred) in MET and sample_weight is None:
                result = at_once(call, 0, y_true, y_pred, reduction, options)
                if result is not None:
                    return result
            home = adapter(y_pred)
            if home is not None:
                return home.call(call, y_true, y_pred, options, sample_weight, reduction)
        ready = prepare(call, y_true, y_pred, options, sample_weight, reduction)
        if ready.device is not None:
            gpu = gpu_backend()
            result = gpu.result(ready)
            again = gpu.shortcut(ready, 0) if sample_weight is None and ready.host_labels is None else None
            if again is not None:
                devices.remember(call, 0, y_true, y_pred, reduction, options, again)
            return result
        backend = current_backend()
        if ready.reduction is None:
            values = np.empty(ready.m, ready.dtype)
            ready.run(backend, Task(values=values))
            result = ready.weighted(values)
        else:
            result = np.float64(ready.run(backend, Task(True, ready.weights)) / ready.divisor())
        if backend == "numba":
            remember(ways, ready, y_true, y_pred, sample_weight, reduction, options)
        return result

    call.reference = function  # type: ignore[attr-defined]
    call.defaults = defaults  # type: ignore[attr-defined]
    call.derivatives = {1: Ways(), 2: Ways()}  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


loss = metric = public


def short_way(ways: Ways, y_true: Any, y_pred: Any, sample_weight: Any, reduction: Any, options: dict[str, Any],
              memory: Sequence[Array] = ()) -> Any:  # fmt: skip
    """The result of a call that is like an earlier one, or None: by the way of the latest that asked for the same, or that of the shapes.

    A way finds out by itself what arrays are not its own. Memory for derivatives is flat, fits, and is none of the others'.
    """
    how: Any = (reduction, _chosen_here(), sample_weight is None)
    if options:
        how = with_options(how, options)
    try:
        latest = ways.get(how)
        if latest is None:
            return None
        result = latest(y_true, y_pred, sample_weight, *memory) if memory else latest(y_true, y_pred, sample_weight)
        if result is not None:
            return result
        again = ways.get(_of_these(how, y_true, y_pred, sample_weight))
    except (TypeError, AttributeError):  # an option that cannot be a key; what is no array
        return None
    if again is None or again is latest:
        return None
    ways[how] = again
    return again(y_true, y_pred, sample_weight, *memory)


def remember(
    ways: Ways, ready: Call, y_true: Any, y_pred: Any, sample_weight: Any, reduction: Any, options: dict[str, Any], order: int = 0
) -> None:
    """Keep a call's short way, if there is one."""
    if type(y_true) is not np.ndarray or type(y_pred) is not np.ndarray:
        return
    try:
        how = with_options((reduction, _chosen_here(), sample_weight is None), options)
        these = _of_these(how, y_true, y_pred, sample_weight)
        if these in ways:
            return
    except (TypeError, AttributeError):
        return
    again = ready.shortcut(sample_weight, order)
    if len(ways) >= 512:
        ways.clear()
    if again is not None:
        ways[how] = ways[these] = again
    elif y_pred.flags.num & FLAT == FLAT:  # otherwise it may be for that alone
        ways[these] = None


def _of_these(how: Any, t: Any, p: Any, w: Any) -> tuple[Any, ...]:
    """A key for arrays of these shapes and very dtypes, which a way keeps alive."""
    return how, t.shape, p.shape, None if w is None else w.shape, id(t.dtype), id(p.dtype), None if w is None else id(w.dtype)


def _named(function: Any, args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    """Options given by position, by name."""
    names = tuple(function.defaults)
    if len(args) > len(names):
        raise TypeError(f"{function.__name__}() takes {2 + len(names)} positional arguments, got {2 + len(args)}")
    for name in names[: len(args)]:
        if name in options:
            raise TypeError(f"{function.__name__}() got multiple values for argument {name!r}")
    return {**dict(zip(names, args, strict=False)), **options}


def prepare(function: Any, y_true: Any, y_pred: Any, options: dict[str, Any], sample_weight: Any, reduction: Any) -> Call:
    """The call of a public function, checked."""
    entry = function.entry
    device, came_from_host = work_on(current_backend(), y_true, y_pred)
    if came_from_host:
        y_pred, labels = array("y_pred", y_pred), array("y_true", y_true)
        if entry.targets in ("label", "sequence"):
            labels = whole_numbers("y_true", labels)
        y_true, y_pred = (device.send(x.astype(x.dtype.newbyteorder("="), copy=False)) for x in (labels, y_pred))
    call: Call = entry.call(function, entry, complete(function, options), y_true, y_pred, sample_weight)
    call.reduce(reduction, sample_weight)
    call.balance()
    if came_from_host:
        if entry.targets == "index":
            whole_numbers("y_true", labels)
        call.host_labels = labels
    return call
