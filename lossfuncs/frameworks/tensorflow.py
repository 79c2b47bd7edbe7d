"""TensorFlow: the losses on its tensors, differentiable, in eager mode and inside tf.function.

A call leaves TensorFlow's graph by tf.numpy_function, which XLA does not know: under `tf.function(jit_compile=True)`, and so under Keras'
`compile(jit_compile=True)`, NotImplementedError is raised. Tensors on a GPU are copied to the CPU, and results back.

Under a tf.GradientTape the gradient of a reduced loss is computed with its value, in one pass over memory. A derivative of the gradient
is not there: LookupError is TensorFlow's word for that.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import derivatives
from ..dispatch import prepare
from ..problem import Array
from ..table import LOSSES

try:
    import tensorflow as tf
except ImportError as error:
    raise ImportError(f'TensorFlow is not installed: pip install "lossfuncs[tensorflow]" ({error})') from None

_LOSSES = {entry.function for entry in LOSSES}

UNKNOWN = 7919  # stands for a size that is not known yet; a prime, so that no known size is like it


def to_numpy(x: Any) -> Array:
    """A tensor's values as a NumPy array, on its own memory where that is in the CPU's."""
    if not hasattr(x, "numpy"):
        raise TypeError("it is a symbolic tensor of TensorFlow, which has no values; y_pred must be a tensor too")
    found: Array = np.asarray(x)
    return found


def under_xla() -> bool:
    """Whether what is called now is being traced for XLA."""
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    while graph is not None:
        context = graph._get_control_flow_context()
        while context is not None:
            if context.IsXLAContext():
                return True
            context = context.outer_context
        graph = getattr(graph, "outer_graph", None)
    return False


def call(function: Any, y_true: Any, y_pred: Any, options: dict[str, Any], sample_weight: Any, reduction: Any) -> Any:
    """A public function of lossfuncs on tensors, differentiable by y_pred."""
    t, p, w = _tensors(y_true, y_pred, sample_weight)
    if not p.dtype.is_floating or not _has_gradient(function):
        return _value(function, t, p, w, options, reduction)

    @tf.custom_gradient
    def differentiable(p: Any) -> Any:
        gradient = None
        if _reduced(reduction) and _recording():
            value, gradient = _both(function, t, p, w, options, reduction, None)
        else:
            value = _value(function, t, p, w, options, reduction)

        def backward(upstream: Any) -> Any:
            if gradient is None:
                return _both(function, t, p, w, options, reduction, upstream)[1]
            return gradient * tf.cast(upstream, gradient.dtype)

        return value, backward

    return differentiable(p)


def value_and_grad(
    function: Any, y_true: Any, y_pred: Any, options: dict[str, Any], upstream: Any, out: Any, sample_weight: Any, reduction: Any
) -> tuple[Any, Any]:
    """As `lossfuncs.value_and_grad`, in tensors."""
    if out is not None:
        raise ValueError("out cannot be given with tensors of TensorFlow, which never change")
    return _both(function, *_tensors(y_true, y_pred, sample_weight), options, reduction, upstream)


def _tensors(y_true: Any, y_pred: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    if under_xla():
        raise NotImplementedError("XLA cannot call lossfuncs: leave out jit_compile=True, or use TensorFlow's own loss")
    t, p = tf.convert_to_tensor(y_true), tf.convert_to_tensor(y_pred)
    return t, p, None if sample_weight is None else tf.convert_to_tensor(sample_weight)


def _value(function: Any, t: Any, p: Any, w: Any, options: dict[str, Any], reduction: Any) -> Any:
    reduced, dtype = _reduced(reduction), _dtype(p)

    def compute(t: Array, p: Array, *w: Array) -> Array:
        value = function(t, p, sample_weight=w[0] if w else None, reduction=reduction, **options)
        return np.asarray(value, None if not reduced else dtype.as_numpy_dtype)

    given = [t, p] if w is None else [t, p, w]
    value = tf.numpy_function(compute, given, dtype, stateful=False)
    return _shaped(value, () if reduced else _shape(function, t, p, w, options))


def _both(function: Any, t: Any, p: Any, w: Any, options: dict[str, Any], reduction: Any, upstream: Any) -> Any:
    reduced, dtype = _reduced(reduction), _dtype(p)
    weighted, seeded = w is not None, upstream is not None

    def compute(t: Array, p: Array, *more: Array) -> tuple[Array, Array]:
        value, gradient = derivatives.value_and_grad(
            function, t, p, upstream=more[-1] if seeded else None, sample_weight=more[0] if weighted else None, reduction=reduction,
            **options,
        )  # fmt: skip
        return np.asarray(value, None if not reduced else dtype.as_numpy_dtype), gradient

    given = [t, p, *([w] if weighted else []), *([tf.convert_to_tensor(upstream)] if seeded else [])]
    value, gradient = tf.numpy_function(compute, given, (dtype, p.dtype if p.dtype.is_floating else tf.float64), stateful=False)
    return _shaped(value, () if reduced else _shape(function, t, p, w, options)), _shaped(gradient, p.shape)


def _reduced(reduction: Any) -> bool:
    return reduction not in (None, "none")


def _dtype(p: Any) -> Any:
    """Of the values: y_pred's, as TensorFlow's own losses have it."""
    return p.dtype if p.dtype.is_floating else tf.float64


def _shaped(x: Any, shape: Any) -> Any:
    if not tf.executing_eagerly():
        x.set_shape(shape)
    return x


def _shape(function: Any, t: Any, p: Any, w: Any, options: dict[str, Any]) -> Any:
    """Of the values: known as far as the arguments' are."""
    if tf.executing_eagerly() or any(x is not None and x.shape.rank is None for x in (t, p, w)):
        return tf.TensorShape(None)

    def like(x: Any) -> Any:
        shape = [UNKNOWN if n is None else n for n in x.shape]
        return np.broadcast_to(np.zeros((), np.float64 if math.prod(shape) and x.dtype.is_floating else np.int64), shape)

    ready = prepare(function, like(t), like(p), options, None if w is None else like(w), None)
    return [None if n % UNKNOWN == 0 and n else n for n in ready.shape]


def _has_gradient(function: Any) -> bool:
    """Whether the function is a loss: accuracies are metrics alone."""
    scalars = getattr(function, "scalars", None)  # of a loss of the user's own
    return function in _LOSSES if scalars is None else scalars[1] is not None


def _recording() -> bool:
    """Whether a tape is watching; True where TensorFlow does not say."""
    try:
        from tensorflow.python.eager.tape import could_possibly_record
    except ImportError:
        return True
    return bool(could_possibly_record())
