"""One loss with its options, as the adapters of frameworks know it."""

from __future__ import annotations

import functools
import importlib
import json
from typing import Any

import numpy as np

from .. import derivatives
from ..call import RowsCall, complete, plan
from ..dispatch import short_way
from ..losses.probabilistic import CROSS_ENTROPY_FROM_LOGITS, SMOOTHED_CROSS_ENTROPY_FROM_LOGITS
from ..options import shown, with_options
from ..problem import STRUCTURAL, Array

_SOFTMAX = (CROSS_ENTROPY_FROM_LOGITS, SMOOTHED_CROSS_ENTROPY_FROM_LOGITS)


class Bound:
    """A function of lossfuncs with its options and its reduction."""

    def __init__(self, function: Any, options: dict[str, Any], reduction: Any) -> None:
        self.function, self.options, self.reduction = function, options, reduction
        self.reduced = reduction not in (None, "none")
        self.entry = function.entry
        self.coupled = self.entry.name == "circle" and not self.reduced  # each value depends on all rows
        self.shortcuts: dict[Any, Any] = {}  # an adapter's own

    # What it computes, on NumPy arrays

    def value(self, t: Array, p: Array, w: Any) -> Any:
        return self.function(t, p, sample_weight=w, reduction=self.reduction, **self.options)

    def value_and_gradient(self, t: Array, p: Array, w: Any, out: Array | None = None) -> tuple[Any, Array]:
        """out, if given, is flat, fits, and is neither of the others."""
        memory = () if out is None else (out,)
        found: Any = short_way(self.function.derivatives[1], t, p, w, self.reduction, self.options, memory)
        if found is not None:
            return found
        return derivatives.value_and_grad(self.function, t, p, out=out, sample_weight=w, reduction=self.reduction, **self.options)

    def product(self, t: Array, p: Array, w: Any, upstream: Any) -> Array:
        """The gradient of sum(upstream * value)."""
        return derivatives.value_and_grad(
            self.function, t, p, upstream=upstream, sample_weight=w, reduction=self.reduction, **self.options
        )[1]

    def curvature(self, t: Array, p: Array, w: Any, upstream: Any) -> Array:
        """The second derivative by each element of p, times upstream."""
        _, found = derivatives.grad_and_hess(
            self.function, t, p, upstream=upstream, sample_weight=w, reduction=self.reduction, **self.options
        )
        return found

    # What is known of it beforehand

    @functools.cached_property
    def all_options(self) -> dict[str, Any]:
        return complete(self.function, self.options)

    @functools.cached_property
    def rows(self) -> Any:
        """The row maths, or None for a loss that has none. ValueError for a bad option."""
        if not issubclass(self.entry.call, RowsCall):
            return None
        options = {name: x for name, x in self.all_options.items() if name not in STRUCTURAL}
        if self.entry.labels01:
            options["converted"] = False
        if isinstance(options.get("alpha"), (list, tuple, np.ndarray)):
            options["alpha"] = 1.0
        return plan(self.entry, 2, options)[0]

    @functools.cached_property
    def has_gradient(self) -> bool:
        return self.rows is None or self.rows.slope is not None

    @property
    def is_softmax(self) -> bool:
        """Whether it is a cross-entropy of a softmax, whose second derivative frameworks write in their own functions."""
        return self.rows in _SOFTMAX

    def check_curvature(self) -> None:
        """NotImplementedError unless the Hessian is diagonal and the kernels have it."""
        if self.rows is None or not self.rows.pointwise or self.rows.curve is None:
            raise NotImplementedError(f"{self.function.__name__} has no second derivative with these options")

    def row_axes(self, rank: int) -> tuple[int, ...]:
        """The axes that make up a row in a y_pred of that rank, ascending."""
        if self.entry.shape == "own":
            return tuple(range(1, rank))
        if self.entry.shape == "element":
            return ()
        axis = self.all_options["axis"] if self.entry.shape == "axis" else -1
        axes = range(rank) if axis is None else axis if isinstance(axis, (list, tuple)) else (axis,)
        return tuple(sorted(a % rank for a in axes))

    def derivative_axes(self, rank: int) -> tuple[int, ...]:
        """The axes that one value's derivative is spread over. ValueError where it is spread over other samples too."""
        if self.coupled:
            raise ValueError("each value of circle depends on all samples, so that they have no gradients of their own: "
                             "differentiate it with reduction='sum' or 'mean'")  # fmt: skip
        return self.row_axes(rank)

    def kept_axes(self, rank: int) -> tuple[int, ...]:
        """The axes that y_pred's values have without a reduction."""
        return tuple(a for a in range(rank) if a not in self.row_axes(rank))

    def of_batch(self, t_shape: tuple[int, ...], p_shape: tuple[int, ...], weighted: bool) -> Bound | None:
        """The loss, without reduction, of a batch of examples of these shapes: rows that know nothing of others. Else None."""
        options, entry = self.all_options, self.entry
        axis = options.get("axis", -1)
        if entry.shape not in ("last", "axis") or type(axis) is not int or entry.labels01 or weighted:
            return None
        if options.get("ignore_class") is not None or isinstance(options.get("alpha"), (list, tuple)):
            return None
        axis %= len(p_shape)
        if tuple(t_shape) != (p_shape[:axis] + p_shape[axis + 1 :] if entry.targets == "index" else p_shape):
            return None
        return Bound(self.function, {**self.options, "axis": axis + 1} if "axis" in options else self.options, None)

    def divisor(self, values: int) -> int:
        """Of a total of so many values without weights."""
        return 1 if self.reduction == "sum" else values

    @functools.cached_property
    def text(self) -> str:
        """What `loss_of` makes this loss from, in another process too, but for losses of the user's own."""
        try:
            return json.dumps([_key(self.function), self.options, self.reduction])
        except TypeError:
            raise TypeError(
                f"{self.function.__name__} cannot be compiled or transformed with options that are arrays, got {shown(self.options)}"
            ) from None


_bounds: dict[Any, Bound] = {}


def bind(function: Any, options: dict[str, Any], reduction: Any) -> Bound:
    """A loss with its options: one object for all calls alike."""
    key = with_options((function, reduction), options)
    try:
        return _bounds[key]
    except TypeError:  # an option that cannot be a key
        return Bound(function, options, reduction)
    except KeyError:
        if len(_bounds) >= 256:
            _bounds.clear()
        found = _bounds[key] = Bound(function, options, reduction)
        return found


_own: dict[str, Any] = {}  # functions that no module holds, by key


def _key(function: Any) -> str:
    key = f"{function.__module__}:{function.__name__}"
    if getattr(importlib.import_module(function.__module__), function.__name__, None) is function:
        return key
    key = next((k for k, f in _own.items() if f is function), f"own:{len(_own)}")
    _own[key] = function
    return key


@functools.lru_cache(maxsize=256)
def loss_of(text: str) -> Bound:
    """The loss that a `Bound.text` describes."""
    key, options, reduction = json.loads(text)
    if key in _own:
        return Bound(_own[key], options, reduction)
    module, _, name = key.partition(":")
    return Bound(getattr(importlib.import_module(module), name), options, reduction)


