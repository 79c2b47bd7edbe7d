"""What `keras.metrics` holds, computed by lossfuncs; see `lossfuncs.frameworks.keras`.

The state is that of `lossfuncs.metrics`: float64, exact, whatever Keras' dtype. JAX has no float64 unless told so, and therefore its bits
are the variable, int32.
"""

from __future__ import annotations

import functools
import inspect
import threading
from typing import Any

import keras
import numpy as np

from ... import losses as our_losses
from ... import metrics
from ...problem import Array
from . import compute, losses

PACKAGE = "lossfuncs.metrics"
OURS: dict[Any, Any] = {}  # Keras' class or function: ours

Metric = keras.metrics.Metric
MeanMetricWrapper = keras.metrics.MeanMetricWrapper  # of a function of tensors, which is the user's
serialize = keras.metrics.serialize

_one_at_a_time = threading.Lock()  # JAX may ask for a result while the next batch comes in


class _Ours:
    """What is changed of a metric class of Keras: `_inner` computes, and `_bits` holds its state."""

    _arguments: tuple[str, ...]  # of update_state

    @compute.untraced
    def update_state(self: Any, *args: Any, **kwargs: Any) -> None:
        """Take in a batch; see the class of `lossfuncs.metrics`."""
        given = {**dict(zip(self._arguments, args, strict=False)), **kwargs}
        if not self._theirs and compute.delegated(*given.values()):
            self._theirs = compute.under_xla()  # and then for good, as there is where the state is
            return super().update_state(**given)  # type: ignore[misc]
        if self._theirs:
            return super().update_state(**given)  # type: ignore[misc]
        mask = compute.mask_of(given.get("y_pred"))
        tensors = {name: compute.readable(x) for name, x in {**given, "mask": mask}.items() if x is not None}
        self._make_room(tensors)
        names, inner = list(tensors), self._inner

        def update(bits: Array, *arrays: Array) -> Array:
            with _one_at_a_time:
                inner.load_state_vector(bits.view(np.float64))
                inner.update_state(**dict(zip(names, arrays, strict=True)))
                return inner.state_vector().view(np.int32)

        bits = self._bits
        bits.assign(compute.callback(update, [bits.value, *tensors.values()], tuple(bits.shape), "int32"))
        return None

    @compute.untraced
    def result(self: Any) -> Any:
        """What the metric is so far, as float32 at least."""
        if self._theirs or self._bits is None or compute.delegated(self._bits.value):
            return super().result()  # type: ignore[misc]
        wide = self.dtype in ("float32", "float64")
        inner, dtype = self._inner, self.dtype if wide else "float32"

        def read(bits: Array) -> Array:
            with _one_at_a_time:
                inner.load_state_vector(bits.view(np.float64))
                return np.asarray(inner.result(), dtype)

        return compute.callback(read, [self._bits.value], np.shape(inner.result()), dtype)

    def reset_state(self: Any) -> None:
        """Forget everything."""
        super().reset_state()  # type: ignore[misc]
        if self._bits is not None:
            self._bits.assign(keras.ops.zeros(self._bits.shape, "int32"))

    def _make_room(self: Any, tensors: dict[str, Any] | None = None) -> None:
        """The variable, as soon as its size is known: some metrics have it from the first batch's shape."""
        if self._bits is None:
            if tensors is not None:
                self._inner.update_state(**{name: np.zeros([n or 1 for n in x.shape]) for name, x in tensors.items()})
                self._inner.reset_state()
            size = self._inner.state_vector().size
            if size and (tensors is not None or not isinstance(self._inner, metrics.R2Score)):
                self._bits = self.add_variable((2 * size,), "zeros", dtype="int32", name="bits")


def _make_class(theirs: Any, ours: Any) -> Any:
    @functools.wraps(theirs.__init__)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        theirs.__init__(self, *args, **kwargs)
        self._inner = ours.from_config({**self.get_config(), "dtype": None})
        self._bits, self._theirs = None, False
        self._make_room()

    arguments = tuple(inspect.signature(theirs.update_state).parameters)[1:]
    body = {"__init__": init, "_arguments": arguments, "__doc__": f"`lossfuncs.metrics.{ours.__name__}` in Keras' place.",
            "__module__": __name__}  # fmt: skip
    OURS[theirs] = keras.saving.register_keras_serializable(PACKAGE)(type(theirs.__name__, (_Ours, theirs), body))
    return OURS[theirs]


for _name, _function in metrics.REGISTRY.functions.items():
    _theirs = getattr(keras.metrics, _name, None)
    if _theirs is not None:  # what is a loss too, is one function in Keras as well
        both = our_losses.REGISTRY.functions.get(_name) is _function and _theirs in losses.OURS
        globals()[_name] = OURS[_theirs] = losses.OURS[_theirs] if both else losses.make_function(_theirs, _function, PACKAGE)
for _name, _class in metrics.REGISTRY.classes.items():
    if hasattr(keras.metrics, _name) and _name not in ("Metric", "MeanMetricWrapper"):
        globals()[_name] = _make_class(getattr(keras.metrics, _name), _class)


def get(identifier: Any) -> Any:
    """As `keras.metrics.get`, but what it would find among Keras' own is ours."""
    return losses.swapped(keras.metrics.get(identifier), identifier, OURS)


def deserialize(config: Any, custom_objects: Any = None) -> Any:
    """As `keras.metrics.deserialize`, but what it would find among Keras' own is ours."""
    return losses.swapped(keras.metrics.deserialize(config, custom_objects), config, OURS)


def __getattr__(name: str) -> Any:  # what is made above, for type checkers
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
