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
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np

from . import devices
from .call import REQUIRED, Call, array, complete, gpu_backend, whole_numbers
from .devices import DEVICES, MET, at_once, work_on
from .frameworks.arrays import adapter
from .problem import Array, Task

F = TypeVar("F", bound=Callable[..., Any])

BACKENDS = ("numpy", "numba", "cupy")

FLAT = 0x101  # of numpy's flags: C-contiguous and aligned

_chosen: ContextVar[str | None] = ContextVar("lossfuncs_backend", default=None)


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
    return _chosen.get() or _default_backend()


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

    shortcuts: dict[Any, Callable[[Array, Array], Any]] = {}

    @functools.wraps(function)
    def call(y_true: Any, y_pred: Any, *args: Any, sample_weight: Any = None, reduction: str | None = None, **options: Any) -> Any:
        key = None
        if type(y_pred) is not np.ndarray:
            if type(y_pred) in MET and sample_weight is None and not args:
                result = at_once(call, 0, y_true, y_pred, reduction, options)
                if result is not None:
                    return result
            home = adapter(y_pred)
            if home is not None:
                given = _named(call, args, options)
                return home.call(call, y_true, y_pred, given, sample_weight, reduction)
        elif type(y_true) is np.ndarray and sample_weight is None and not args:
            kinds = tuple((name, type(value), value) for name, value in options.items()) if options else ()
            key = (y_true.shape, y_pred.shape, y_true.dtype, y_pred.dtype, reduction, _chosen.get(), kinds)
            try:
                again = shortcuts.get(key)
            except TypeError:  # an option that cannot be a key
                key = again = None
            if again is not None and y_true.flags.num & y_pred.flags.num & FLAT == FLAT:
                result = again(y_true, y_pred)
                if result is not None:
                    return result
        if args:
            options = _named(call, args, options)
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
        if key is not None and backend == "numba":
            remember(shortcuts, key, ready)
        return result

    call.reference = function  # type: ignore[attr-defined]
    call.defaults = defaults  # type: ignore[attr-defined]
    call.gradients = {}  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


loss = metric = public


def remember(shortcuts: dict[Any, Any], key: Any, ready: Call, order: int = 0) -> None:
    """Keep a call's shortcut, if there is one, for those that have its key."""
    again = None if key in shortcuts else ready.shortcut(order)
    if again is not None:
        if len(shortcuts) >= 256:
            shortcuts.clear()
        shortcuts[key] = again


def value_and_gradient(
    function: Any, y_true: Any, y_pred: Any, reduction: str | None, options: dict[str, Any], out: Array | None = None
) -> Any:
    """The value and the gradient of a call that was seen before, on flat arrays of these shapes and dtypes; or None.

    None as well for the first such call, after which it is known. out, flat as well, receives the gradient and is neither of the others.
    """
    if type(y_true) is not np.ndarray or type(y_pred) is not np.ndarray or y_true.flags.num & y_pred.flags.num & FLAT != FLAT:
        return None
    kinds = tuple((name, type(value), value) for name, value in options.items()) if options else ()
    key = (y_true.shape, y_pred.shape, y_true.dtype, y_pred.dtype, reduction, _chosen.get(), kinds)
    try:
        again = function.gradients.get(key)
    except TypeError:  # an option that cannot be a key
        return None
    if again is not None:
        return again(y_true, y_pred, out)
    if current_backend() == "numba":
        ready = prepare(function, y_true, y_pred, options, None, reduction)
        ready.check_order(1)
        remember(function.gradients, key, ready, 1)
    return None


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
    if came_from_host:
        if entry.targets == "index":
            whole_numbers("y_true", labels)
        call.host_labels = labels
    return call
