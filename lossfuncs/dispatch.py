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

from .call import REQUIRED, Call, RowsCall, array, complete, spread
from .options import shown
from .problem import Array, Task

F = TypeVar("F", bound=Callable[..., Any])

BACKENDS = ("numpy", "numba")

FLAT = 0x101  # of numpy's flags: C-contiguous and aligned

_chosen: ContextVar[str | None] = ContextVar("lossfuncs_backend", default=None)


@contextlib.contextmanager
def backend(name: str) -> Iterator[None]:
    """Compute with this backend inside the `with`: "numpy" (the reference) or "numba" (the CPU kernels, the default).

    It holds for this thread and its asyncio tasks. Outside, the environment variable LOSSFUNCS_BACKEND decides. ValueError for any
    other name, ImportError if Numba is asked for and not installed.
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
    if value not in BACKENDS:
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
        if type(y_true) is np.ndarray and type(y_pred) is np.ndarray and sample_weight is None and not args:
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
        backend = current_backend()
        if ready.reduction is None:
            values = np.empty(ready.m, ready.dtype)
            ready.run(backend, Task(values=values))
            result = ready.weighted(values)
        else:
            result = np.float64(ready.run(backend, Task(True, ready.weights)) / ready.divisor())
        if key is not None and backend == "numba" and key not in shortcuts:
            again = ready.shortcut()
            if again is not None:
                if len(shortcuts) >= 256:
                    shortcuts.clear()
                shortcuts[key] = again
        return result

    call.reference = function  # type: ignore[attr-defined]
    call.defaults = defaults  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


loss = metric = public


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
    """The call, checked."""
    entry = entry_of(function)
    call = _kind(entry)(function, entry, complete(function, options), y_true, y_pred, sample_weight)
    call.reduce(reduction, sample_weight)
    return call


def _kind(entry: Any) -> Callable[..., Call]:
    if entry.shape != "own":
        return RowsCall
    from . import own

    return own.CircleCall if entry.name == "circle" else own.SequenceCall


def entry_of(function: Any) -> Any:
    """The table's line for a public function."""
    own = getattr(function, "entry", None)
    return own if own is not None else _entries()[function]


@functools.cache
def _entries() -> dict[Any, Any]:
    from .table import LOSSES, METRICS

    return {entry.function: entry for entry in (*METRICS, *LOSSES)}


def value_and_grad(
    loss: str | Callable[..., Any],
    y_true: Any,
    y_pred: Any,
    *,
    upstream: Any = None,
    out: Any = None,
    sample_weight: Any = None,
    reduction: str | None = None,
    **options: Any,
) -> tuple[Any, Array]:
    """The value of a loss and its gradient by y_pred, from one pass over memory.

    loss is a function of `lossfuncs.losses`, one made by `lossfuncs.pointwise`, or a string that names one. The
    gradient is that of sum(upstream * value), of y_pred's shape and dtype (float64 if that holds integers); upstream is a number or,
    without a reduction, an array of the values' shape, and 1 by default. out receives the gradient if given. The rest is as in the
    loss itself. ValueError for a function without a derivative (accuracies), and what the loss raises.
    """
    value, (gradient,) = _derive(1, loss, y_true, y_pred, upstream, (out,), sample_weight, reduction, options)
    return value, gradient


def grad_and_hess(
    loss: str | Callable[..., Any],
    y_true: Any,
    y_pred: Any,
    *,
    upstream: Any = None,
    out: tuple[Array, Array] | None = None,
    sample_weight: Any = None,
    reduction: str | None = None,
    **options: Any,
) -> tuple[Array, Array]:
    """The gradient by y_pred as `value_and_grad` gives it, and the second derivative by each element of y_pred.

    The second derivative is the diagonal of the Hessian of sum(upstream * value), as Newton's method and gradient boosting use it. It
    exists for the pointwise losses and for the cross-entropies from logits; ValueError for others. out: a pair of arrays.
    """
    outs = (None, None) if out is None else out
    if not isinstance(outs, (tuple, list)) or len(outs) != 2:
        got = f"{len(outs)} of them" if isinstance(outs, (tuple, list)) else type(outs).__name__
        raise ValueError(f"out must be a pair of arrays, got {got}")
    _, (gradient, hessian) = _derive(2, loss, y_true, y_pred, upstream, outs, sample_weight, reduction, options)
    return gradient, hessian


def _derive(order: int, loss: Any, y_true: Any, y_pred: Any, upstream: Any, outs: tuple[Any, ...], sample_weight: Any,
            reduction: str | None, options: dict[str, Any]) -> tuple[Any, list[Array]]:  # fmt: skip
    call = prepare(_function(loss), y_true, y_pred, options, sample_weight, reduction)
    call.check_order(order)
    derivatives = [_result(call, out) for out in outs]
    if _overlap(derivatives, y_true, y_pred):
        value, apart = _derive(order, loss, y_true, y_pred, upstream, (None,) * order, sample_weight, reduction, options)
        for d, x in zip(derivatives, apart, strict=True):
            d[...] = x
        return value, derivatives
    into = tuple(call.view(np.asarray(d)) for d in derivatives)
    if call.reduction is not None:
        seed = array("upstream", 1.0 if upstream is None else upstream)
        if seed.ndim:
            raise ValueError(f"upstream must be a number where there is a reduction, got shape {seed.shape}")
        divisor = call.divisor()
        total = call.run(current_backend(), Task(True, call.weights, float(seed) / divisor, None, into))
        return np.float64(total / divisor), derivatives
    weights = call.weights
    if upstream is not None:
        weights = spread("upstream", upstream, call.shape) * (1.0 if weights is None else weights)
    values = np.empty(call.m, call.dtype)
    call.run(current_backend(), Task(False, weights, 1.0, values, into))
    return call.weighted(values), derivatives


def _result(call: Call, out: Any) -> Array:
    shape = call.y_pred.shape
    if out is None:
        return np.empty(shape, call.dtype)
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        got = type(out).__name__
    elif out.shape != shape or out.dtype != call.dtype or not out.flags.writeable:
        got = f"{'' if out.flags.writeable else 'a read-only '}{out.dtype} of shape {out.shape}"
    elif any(step == 0 and size > 1 for step, size in zip(out.strides, shape, strict=True)):
        got = f"strides {out.strides}, by which elements share memory"
    else:
        return out
    raise ValueError(f"out must be a writable {call.dtype} array of y_pred's shape {shape}, got {got}")


def _overlap(derivatives: list[Array], y_true: Any, y_pred: Any) -> bool:
    """Whether writing a derivative could change what is still to be read. A gradient may take the place of y_pred itself."""
    if len(derivatives) == 1 and derivatives[0] is y_pred:
        return isinstance(y_true, np.ndarray) and np.may_share_memory(y_true, y_pred)
    inputs = [x for x in (y_true, y_pred) if isinstance(x, np.ndarray)]
    return any(np.may_share_memory(d, x) for i, d in enumerate(derivatives) for x in (*inputs, *derivatives[:i]))


def _function(loss: Any) -> Any:
    if isinstance(loss, str):
        from . import losses

        return losses.REGISTRY.function(loss)
    if not hasattr(loss, "defaults"):
        raise TypeError(f"loss must be a string or a function of lossfuncs, got {shown(loss)}")
    return loss
