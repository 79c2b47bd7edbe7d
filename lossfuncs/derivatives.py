"""Gradients and second derivatives of any loss, in the same pass over memory as its value."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .call import array, gpu_backend, host_result, spread
from .devices import MET, at_once, remember
from .dispatch import current_backend, prepare, short_way
from .dispatch import remember as remember_way
from .frameworks.arrays import adapter
from .options import shown
from .problem import Array, Task

WRITABLE = 0x501  # of numpy's flags: C-contiguous, aligned and writable
OWN = 0x4  # likewise: its memory is its own


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
    loss = function_of(loss)
    home = adapter(y_pred)
    if home is not None:
        found = home.value_and_grad(loss, y_true, y_pred, options, upstream, out, sample_weight, reduction)
        return found  # type: ignore[no-any-return]
    if upstream is None:
        found = None
        if type(y_pred) is np.ndarray:
            found = _by_short_way(1, loss, y_true, y_pred, (out,), sample_weight, reduction, options)
        elif out is None and sample_weight is None and type(y_pred) in MET:
            found = at_once(loss, 1, y_true, y_pred, reduction, options)
        if found is not None:
            return found  # type: ignore[no-any-return]
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
    loss = function_of(loss)
    if upstream is None and type(y_pred) is np.ndarray:
        found = _by_short_way(2, loss, y_true, y_pred, outs, sample_weight, reduction, options)
        if found is not None:
            return found[1], found[2]
    _, (gradient, hessian) = _derive(2, loss, y_true, y_pred, upstream, outs, sample_weight, reduction, options)
    return gradient, hessian


def _by_short_way(order: int, function: Any, y_true: Any, y_pred: Array, outs: Sequence[Any], sample_weight: Any, reduction: Any,
                  options: dict[str, Any]) -> Any:  # fmt: skip
    """The value and the derivatives, or None."""
    ways = function.derivatives[order]
    if outs[0] is None and outs[-1] is None:
        return short_way(ways, y_true, y_pred, sample_weight, reduction, options)
    for out in outs:
        if not _as_flat_as(y_pred, out):
            return None
    if _overlap(outs, y_true, y_pred, sample_weight):
        return None
    return short_way(ways, y_true, y_pred, sample_weight, reduction, options, outs)


def _derive(order: int, function: Any, y_true: Any, y_pred: Any, upstream: Any, outs: tuple[Any, ...], sample_weight: Any,
            reduction: str | None, options: dict[str, Any]) -> tuple[Any, list[Array]]:  # fmt: skip
    call = prepare(function, y_true, y_pred, options, sample_weight, reduction)
    call.check_order(order)
    if call.device is not None:
        gpu = gpu_backend()
        found = gpu.derive(call, upstream, outs)
        simple = order == 1 and outs[0] is None and upstream is None and sample_weight is None
        again = gpu.shortcut(call, 1) if simple and call.host_labels is None else None
        if again is not None:
            remember(function, 1, y_true, y_pred, reduction, options, again)
        return found  # type: ignore[no-any-return]
    derivatives = [host_result(call, out) for out in outs]
    if _overlap(derivatives, y_true, y_pred, sample_weight, upstream):
        value, apart = _derive(order, function, y_true, y_pred, upstream, (None,) * order, sample_weight, reduction, options)
        for d, x in zip(derivatives, apart, strict=True):
            d[...] = x
        return value, derivatives
    if upstream is None and current_backend() == "numba":
        remember_way(function.derivatives[order], call, y_true, y_pred, sample_weight, reduction, options, order)
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


def _as_flat_as(y_pred: Array, out: Any) -> bool:
    """Whether out is an array like y_pred, writable and in C order."""
    if type(out) is not np.ndarray or out.shape != y_pred.shape or out.dtype != y_pred.dtype:
        return False
    return out.flags.num & WRITABLE == WRITABLE


def _overlap(derivatives: Sequence[Array], y_true: Any, y_pred: Any, *others: Any) -> bool:
    """Whether writing a derivative could change what is still to be read. A gradient may take the place of y_pred itself."""
    inputs = (y_true, *others)
    if len(derivatives) > 1 or derivatives[0] is not y_pred:
        inputs += (y_pred,)
    for d in derivatives:
        own = d.flags.num & OWN
        for x in inputs:
            if not isinstance(x, np.ndarray):
                continue
            if x is d or not (own and x.flags.num & OWN) and np.may_share_memory(d, x):  # to ask NumPy takes 0.5 us
                return True
        inputs += (d,)
    return False


def function_of(loss: Any) -> Any:
    """The function of lossfuncs that a string names, or loss itself."""
    if isinstance(loss, str):
        return _registry().function(loss)
    if not hasattr(loss, "defaults"):
        raise TypeError(f"loss must be a string or a function of lossfuncs, got {shown(loss)}")
    return loss


@functools.cache
def _registry() -> Any:
    from . import losses  # which needs this module

    return losses.REGISTRY
