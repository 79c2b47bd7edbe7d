"""What `keras.losses` holds, computed by lossfuncs; see `lossfuncs.frameworks.keras`."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import keras

from ... import losses
from . import compute

PACKAGE = "lossfuncs.losses"  # what Keras calls these by in a saved model: lossfuncs.losses>MeanSquaredError
OURS: dict[Any, Any] = {}  # Keras' class or function: ours

Loss = keras.losses.Loss
serialize = keras.losses.serialize


def make_function(theirs: Any, ours: Any, package: str) -> Any:
    """Ours in place of theirs: one value a sample, differentiable."""

    @functools.wraps(theirs)
    def function(y_true: Any, y_pred: Any, *args: Any, **options: Any) -> Any:
        if compute.delegated(y_true, y_pred):
            return theirs(y_true, y_pred, *args, **options)
        given = inspect.signature(theirs).bind(y_true, y_pred, *args, **options).arguments
        t, p = (keras.ops.convert_to_tensor(given.pop(name)) for name in ("y_true", "y_pred"))
        values = compute.loss(ours, t, p, given)
        counted = None
        if ours is losses.circle:
            counted = values > 0
        elif given.get("ignore_class") is not None:
            counted = keras.ops.reshape(t, keras.ops.shape(values)) != given["ignore_class"]
        if counted is not None:
            compute.set_mask(values, counted)  # which is how Keras' reductions know
        return values

    function.__doc__ = f"`lossfuncs.{ours.__name__}` on tensors, in place of Keras'."
    for name in [name for name in vars(function) if "api_export" in name or "keras" in name]:
        delattr(function, name)
    function.__module__ = package.replace("lossfuncs", __name__.rpartition(".")[0])
    OURS[theirs] = keras.saving.register_keras_serializable(package)(function)
    return function


class _Ours:
    """What is changed of a loss class of Keras."""

    _function: Any  # of lossfuncs

    def __call__(self: Any, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        if compute.mask_of(y_pred) is not None or compute.delegated(y_true, y_pred, sample_weight):
            return super().__call__(y_true, y_pred, sample_weight)  # type: ignore[misc]
        with keras.name_scope(self.name):
            t, p = keras.ops.convert_to_tensor(y_true), keras.ops.convert_to_tensor(y_pred, self.dtype)
            w = None if sample_weight is None else keras.ops.convert_to_tensor(sample_weight)
            value = self._reduced(t, p, w)
            return keras.ops.cast(_per_replica(value, self.reduction), self.dtype)

    def _reduced(self: Any, t: Any, p: Any, w: Any) -> Any:
        """The loss, weighed and reduced in the pass that computes it."""
        return compute.loss(self._function, t, p, self._fn_kwargs, w, self.reduction)


    def get_config(self: Any) -> dict[str, Any]:
        """All arguments of the constructor; Keras' own forgets Huber's delta, and the dtype."""
        config = {**super().get_config(), **self._fn_kwargs}  # type: ignore[misc]
        return config if self.dtype == keras.config.floatx() else {**config, "dtype": self.dtype}


class _OursOfPairs(_Ours):
    """Circle: samples whose loss is 0 leave the mean."""

    def _reduced(self: Any, t: Any, p: Any, w: Any) -> Any:
        if self.reduction in (None, "none"):
            return super()._reduced(t, p, w)
        values = compute.loss(self._function, t, keras.ops.stop_gradient(p), self._fn_kwargs)
        counted = keras.ops.cast(values > 0, self.dtype)
        weights = counted if w is None else counted * keras.ops.reshape(keras.ops.cast(w, self.dtype), keras.ops.shape(values))
        total = compute.loss(self._function, t, p, self._fn_kwargs, weights, "sum")
        if self.reduction == "sum":
            return total
        divisor = keras.ops.sum(weights if self.reduction == "mean_with_sample_weight" else counted)
        return keras.ops.divide_no_nan(total, keras.ops.cast(divisor, total.dtype))


def _per_replica(value: Any, reduction: Any) -> Any:
    """Under tf.distribute the losses of all replicas are added up."""
    if compute.BACKEND == "tensorflow" and reduction not in (None, "none", "sum"):
        import tensorflow as tf

        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return value / replicas if replicas > 1 else value
    return value


def _make_class(theirs: Any, ours: Any) -> Any:
    function = losses.REGISTRY.function(ours.__name__)

    @functools.wraps(theirs.__init__)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        theirs.__init__(self, *args, **kwargs)
        self.fn = OURS[self.fn]

    body = {"__init__": init, "_function": staticmethod(function), "__doc__": f"`lossfuncs.losses.{ours.__name__}` in Keras' place.",
            "__module__": __name__}  # fmt: skip
    OURS[theirs] = keras.saving.register_keras_serializable(PACKAGE)(
        type(theirs.__name__, (_OursOfPairs if function is losses.circle else _Ours, theirs), body)
    )
    return OURS[theirs]


for _name, _function in losses.REGISTRY.functions.items():
    if hasattr(keras.losses, _name):
        globals()[_name] = make_function(getattr(keras.losses, _name), _function, PACKAGE)
for _name, _class in losses.REGISTRY.classes.items():
    if hasattr(keras.losses, _name) and _name not in ("Loss", "LossFunctionWrapper"):
        globals()[_name] = _make_class(getattr(keras.losses, _name), _class)


def get(identifier: Any) -> Any:
    """As `keras.losses.get`, but what it would find among Keras' own is ours."""
    return swapped(keras.losses.get(identifier), identifier, OURS)


def deserialize(name: Any, custom_objects: Any = None) -> Any:
    """As `keras.losses.deserialize`, but what it would find among Keras' own is ours."""
    return swapped(keras.losses.deserialize(name, custom_objects), name, OURS)


def swapped(found: Any, asked: Any, ours: dict[Any, Any]) -> Any:
    """Ours in place of what Keras found for a string or a dict."""
    if not isinstance(asked, (str, dict)):
        return found
    if inspect.isroutine(found) or inspect.isclass(found):
        return ours.get(found, found)
    if type(found) not in ours:
        return found
    return ours[type(found)].from_config({**found.get_config(), **getattr(found, "_fn_kwargs", {})})


def __getattr__(name: str) -> Any:  # what is made above, for type checkers
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
