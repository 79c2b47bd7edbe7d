"""How Keras' backends call lossfuncs: functions that are differentiated, and callbacks that are not."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ...problem import Array

try:
    import keras
    from keras.src.backend import get_keras_mask, set_keras_mask  # which know those of tracers too, that can have no attributes
except ImportError as error:
    raise ImportError(f'Keras is not installed: pip install "lossfuncs[keras]" ({error})') from None

BACKEND = keras.backend.backend()
if BACKEND not in ("torch", "jax", "tensorflow"):
    raise ImportError(f"in Keras lossfuncs runs on the backends torch, jax and tensorflow, and this is {BACKEND}")


mask_of, set_mask = get_keras_mask, set_keras_mask


def delegated(*tensors: Any) -> bool:
    """Whether Keras' own formula has to compute: of tensors without numbers, and under TensorFlow's XLA."""
    if any(isinstance(x, keras.KerasTensor) for x in tensors):
        return True
    if BACKEND == "torch":
        return any(getattr(getattr(x, "device", None), "type", "") == "meta" for x in tensors)
    return under_xla()


def under_xla() -> bool:
    """Whether this is TensorFlow, tracing for XLA; warns of it the first time."""
    if BACKEND != "tensorflow":
        return False
    from .. import tensorflow

    if not tensorflow.under_xla():
        return False
    _warn_of_xla()
    return True


@functools.cache
def _warn_of_xla() -> None:
    warnings.warn(
        "XLA under TensorFlow cannot call lossfuncs: Keras' own losses and metrics compute instead; compile(jit_compile=False) has ours",
        stacklevel=2,
    )


def loss(function: Any, y_true: Any, y_pred: Any, options: dict[str, Any], sample_weight: Any = None, reduction: Any = None) -> Any:
    """A function of lossfuncs on tensors of the backend, differentiable by y_pred."""
    if BACKEND == "tensorflow":
        from .. import tensorflow

        return tensorflow.call(function, y_true, y_pred, options, sample_weight, reduction)
    return function(y_true, y_pred, sample_weight=sample_weight, reduction=reduction, **options)


def untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; torch.compile would else read the work of NumPy in it as a program of its own."""
    if BACKEND != "torch":
        return function
    untraced: Callable[..., Any] = importlib.import_module("torch").compiler.disable(function)
    return untraced


def callback(function: Callable[..., Array], tensors: list[Any], shape: tuple[int, ...], dtype: str) -> Any:
    """function(*arrays), of that shape and dtype, as a tensor: NumPy's work in the midst of the backend's."""
    if BACKEND == "jax":
        jax: Any = importlib.import_module("jax")
        return jax.pure_callback(lambda *x: function(*map(np.asarray, x)), jax.ShapeDtypeStruct(shape, dtype), *tensors)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        found = tf.numpy_function(function, tensors, dtype, stateful=False)
        found.set_shape(shape)
        return found
    return keras.ops.convert_to_tensor(function(*(x.numpy(force=True) for x in tensors)), dtype)


def readable(x: Any) -> Any:
    """A tensor that NumPy knows too."""
    x = keras.ops.convert_to_tensor(x)
    return keras.ops.cast(x, "float32") if keras.backend.standardize_dtype(x.dtype) == "bfloat16" else x
