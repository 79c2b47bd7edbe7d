"""JAX: the losses on its arrays, under jit, grad, vmap and shard_map.

    lossfuncs.huber(y_true, y_pred, delta=2.0, reduction="mean")
    jax.jit(jax.value_and_grad(lambda p: lossfuncs.huber(y_true, p, reduction="mean")))(y_pred)

Arrays outside of any transformation go to the kernels as they lie in memory. Under one, XLA calls the kernels on the CPU through its
foreign function interface, or through `jax.pure_callback` where that interface has changed. The gradient is computed with the value in
one pass over memory. The second derivative exists for pointwise losses and for the cross-entropies from logits, where it is a JAX
expression that can be differentiated further; elsewhere NotImplementedError is raised, as it is for the third. Reduced values are of
y_pred's dtype, float32 for half data. A label out of range is a ValueError, arrays on a GPU are a TypeError, or either is what JAX makes
of an error that XLA reports.
"""

from __future__ import annotations

import ctypes
import functools
import math
from typing import Any

import numpy as np

from .. import derivatives
from ..call import array, same_rank
from ..dispatch import current_backend, prepare
from ..problem import Array
from . import xla
from .arrays import missing
from .bound import Bound, bind, loss_of

try:
    import jax
    import jax.numpy as jnp
    from jax.custom_derivatives import SymbolicZero
except ImportError as error:
    raise missing("jax", error) from None


def to_numpy(x: Any) -> Array:
    """x's memory as a NumPy array; TypeError for a value that is only known when a transformed function runs."""
    if isinstance(x, jax.core.Tracer):
        raise TypeError("it is traced by a transformation of JAX, and here numbers are needed")
    if any(device.platform != "cpu" for device in x.devices()):
        raise TypeError(f"{ELSEWHERE}; use jax.device_put, or jax.default_device")
    return np.asarray(x)


ELSEWHERE = "it is on an accelerator, and JAX's arrays are computed on the CPU alone"


# The calls that XLA makes

SMALL = 1 << 15  # elements; for more, the kernels' threads are worth a call of Python


def _compute(attribute: str, arguments: list[Array], results: list[Array]) -> None:
    """What the attribute asks for, of the loss in the rest of it.

    v the value, g the gradient with it, c the second derivative, u the gradient of sum(upstream * value), upstream being the last argument.
    """
    loss, (t, p, *w) = loss_of(attribute[1:]), arguments
    upstream = w.pop() if attribute[0] == "u" else None
    weight = w[0] if w else None
    if loss.entry.targets == "index":
        t = t.astype(np.int64)  # for which there is a short way
    if attribute[0] == "v":
        results[0][...] = loss.value(t, p, weight)
    elif attribute[0] == "g":
        value, gradient = loss.value_and_gradient(t, p, weight, results[1] if p.size > SMALL else None)
        results[0][...] = value
        if gradient is not results[1]:
            results[1][...] = gradient
    elif attribute[0] == "u":
        results[0][...] = loss.product(t, p, weight, upstream)
    else:
        results[0][...] = loss.curvature(t, p, weight, None)


_handler = xla.handler(_compute)


_refusal = xla.refusal(f"y_pred cannot be computed on: {ELSEWHERE}")


def _register(name: str, function: Any) -> None:
    """Let XLA know a handler, and one that says that there is none where JAX's GPUs are."""
    for platform, one in (("cpu", function), ("CUDA", _refusal)):
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(one), platform=platform, api_version=1)


@functools.cache
def _has_ffi() -> bool:
    """Whether XLA's foreign functions are as they are known here."""
    try:
        _register("lossfuncs", _handler)
    except Exception:
        return False
    return True


@functools.cache
def _target(address: int) -> str:
    """The name under which XLA knows the handler at an address."""
    name = f"lossfuncs_{address:x}"
    _register(name, ctypes.c_void_p(address))
    return name


def _small(what: str, loss: Bound, t: Any, p: Any) -> Any:
    """A compiled handler for such arrays, or None where Python costs little beside the numbers, or has to look at them."""
    if what in "cu" or loss.rows is None or math.prod(p.shape) > SMALL or current_backend() != "numba":
        return None
    from .xla_kernels import small

    t, p = np.zeros(t.shape, t.dtype), np.zeros(p.shape, p.dtype)
    return small(prepare(loss.function, t, p, loss.options, None, loss.reduction), t.dtype, int(what == "g"))


def _foreign(what: str, text: str, results: list[Any], *arguments: Any) -> Any:
    """The call as XLA sees it."""
    if not _has_ffi():

        def callback(*given: Any) -> list[Array]:
            found = [np.empty(x.shape, x.dtype) for x in results]
            _compute(what + text, [np.asarray(x) for x in given], found)
            return found

        return jax.pure_callback(callback, results, *arguments, vmap_method="sequential")
    small = _small(what, loss_of(text), *arguments) if len(arguments) == 2 else None
    if small is not None:
        return jax.ffi.ffi_call(_target(small.address), results, vmap_method="sequential")(*arguments, **small.attributes)
    return jax.ffi.ffi_call("lossfuncs", results, vmap_method="sequential")(*arguments, a=what + text)


def _value_dtype(loss: Bound, dtype: Any) -> Any:
    if not jnp.issubdtype(dtype, jnp.floating):
        return jnp.zeros(0, float).dtype
    return jnp.promote_types(dtype, np.float32) if loss.reduced else dtype


def _varying(x: Any) -> dict[str, Any]:
    """Inside shard_map, what makes a type vary over the axes of the mesh that x varies over."""
    kind = jax.typeof(x)
    if getattr(kind, "vma", None):  # as it was called before JAX 0.10
        return {"vma": kind.vma}
    axes = getattr(kind, "manual_axis_type", None)
    if not getattr(axes, "varying", None):
        return {}
    return {"manual_axis_type": axes, "sharding": jax.sharding.NamedSharding(kind.sharding.mesh, jax.sharding.PartitionSpec())}


def _results(what: str, loss: Bound, p: Any) -> list[Any]:
    shape = () if loss.reduced else tuple(p.shape[a] for a in loss.kept_axes(p.ndim))
    where = _varying(p)
    value = jax.ShapeDtypeStruct(shape, _value_dtype(loss, p.dtype), **where)
    gradient = jax.ShapeDtypeStruct(p.shape, p.dtype, **where)
    return {"v": [value], "g": [value, gradient], "c": [gradient], "u": [gradient]}[what]


def _run(what: str, text: str, t: Any, p: Any, w: Any, upstream: Any = None) -> Any:
    """The results, of a batch under vmap."""
    loss = loss_of(text)
    results = _results(what, loss, p)
    given = [x for x in (t, p, w, upstream) if x is not None]
    if _varying(p):  # in shard_map, whose types a rule for batches would lose
        return _foreign(what, text, results, *given)

    @jax.custom_batching.custom_vmap
    def run(*arguments: Any) -> Any:
        return _foreign(what, text, results, *arguments)

    @run.def_vmap
    def batch(size: int, batched: list[bool], *arguments: Any) -> Any:
        t, p = (x if b else jnp.broadcast_to(x, (size, *x.shape)) for x, b in zip(arguments[:2], batched, strict=False))
        rows = None if what in "cu" else loss.of_batch(t.shape[1:], p.shape[1:], w is not None)
        if rows is None:
            found = jax.lax.map(lambda given: run(*_filled(given, arguments, batched)), _picked(arguments, batched))
            return found, [True] * len(found)
        value, *gradient = _run(what, rows.text, t, p, None)
        if loss.reduced:
            value = value.reshape(size, -1).astype(_value_dtype(loss, p.dtype))
            divisor = loss.divisor(value.shape[1])
            value, gradient = value.sum(1) / divisor, [g / divisor for g in gradient]
        return [value, *gradient], [True] * (1 + len(gradient))

    return run(*given)


def _picked(arguments: Any, batched: list[bool]) -> list[Any]:
    return [x for x, b in zip(arguments, batched, strict=True) if b]


def _filled(given: list[Any], arguments: Any, batched: list[bool]) -> list[Any]:
    one = iter(given)
    return [next(one) if b else x for x, b in zip(arguments, batched, strict=True)]


# Derivatives


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value(text: str, t: Any, p: Any, w: Any) -> Any:
    return _run("v", text, t, p, w)[0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value_and_gradient(text: str, t: Any, p: Any, w: Any) -> Any:
    return tuple(_run("g", text, t, p, w))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _curvature(text: str, t: Any, p: Any, w: Any) -> Any:
    return _run("c", text, t, p, w)[0]


def _by_p_alone(tangents: Any) -> Any:
    by_t, by_p, by_w = tangents
    for name, tangent in (("y_true", by_t), ("sample_weight", by_w)):
        if not (tangent is None or isinstance(tangent, SymbolicZero)):
            raise _not_by(name)
    return by_p


def _not_by(name: str) -> ValueError:
    return ValueError(f"losses have a derivative by y_pred alone, and {name} is differentiated; use jax.lax.stop_gradient({name})")


def _along_rows(loss: Bound, gradient: Any, by_p: Any) -> Any:
    dtype = _value_dtype(loss, gradient.dtype)
    axes = None if loss.reduced else loss.derivative_axes(gradient.ndim)
    return jnp.sum(gradient.astype(dtype) * by_p.astype(dtype), axes)


@functools.partial(_value.defjvp, symbolic_zeros=True)
def _(text: str, primals: Any, tangents: Any) -> Any:
    by_p, (t, p, w) = _by_p_alone(tangents), primals
    if p.dtype == np.float16 and loss_of(text).reduced:  # which may not hold the gradient before it is multiplied by what scales the loss
        p = p.astype(np.float32)
    value, gradient = _value_and_gradient(text, t, p, w)
    return value, jnp.zeros_like(value) if isinstance(by_p, SymbolicZero) else _along_rows(loss_of(text), gradient, by_p)


@functools.partial(_value_and_gradient.defjvp, symbolic_zeros=True)
def _(text: str, primals: Any, tangents: Any) -> Any:
    by_p, loss = _by_p_alone(tangents), loss_of(text)
    value, gradient = _value_and_gradient(text, *primals)
    if isinstance(by_p, SymbolicZero):
        return (value, gradient), (jnp.zeros_like(value), jnp.zeros_like(gradient))
    return (value, gradient), (_along_rows(loss, gradient, by_p), _hessian_product(text, primals, by_p))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _coupled_values(text: str, t: Any, p: Any, w: Any) -> Any:
    """Values that each depend on all rows: they have a derivative backward, and none forward."""
    return _run("v", text, t, p, w)[0]


def _forward(text: str, t: Any, p: Any, w: Any) -> Any:
    for name, x in (("y_true", t), ("sample_weight", w)):
        if x is not None and x.perturbed:
            raise _not_by(name)
    given = t.value, p.value, None if w is None else w.value
    return _coupled_values(text, *given), given


def _backward(text: str, given: Any, upstream: Any) -> Any:
    p = given[1]
    return None, jnp.zeros_like(p) if isinstance(upstream, SymbolicZero) else _product(text, *given, upstream), None


_coupled_values.defvjp(_forward, _backward, symbolic_zeros=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _product(text: str, t: Any, p: Any, w: Any, upstream: Any) -> Any:
    return _run("u", text, t, p, w, upstream)[0]


@_product.defjvp
def _(text: str, primals: Any, tangents: Any) -> Any:
    raise NotImplementedError(f"{loss_of(text).function.__name__} has no second derivative with these options")


@functools.partial(_curvature.defjvp, symbolic_zeros=True)
def _(text: str, primals: Any, tangents: Any) -> Any:
    raise NotImplementedError(f"{loss_of(text).function.__name__} has no third derivative")


def _hessian_product(text: str, primals: Any, v: Any) -> Any:
    loss, (t, p, w) = loss_of(text), primals
    if not loss.is_softmax:
        loss.check_curvature()
        return _curvature(text, t, p, w) * v
    (axis,) = loss.row_axes(p.ndim)
    dtype = jnp.promote_types(p.dtype, np.float32)
    q, y = jax.nn.softmax(p.astype(dtype), axis), v.astype(dtype)
    factor = jnp.expand_dims(_rows_factor(loss, t, p, w), axis)
    if loss.entry.targets != "index":
        smoothing = loss.all_options["label_smoothing"]
        factor = factor * (t.astype(dtype).sum(axis, keepdims=True) * (1.0 - smoothing) + smoothing)
    return (factor * (q * y - q * (q * y).sum(axis, keepdims=True))).astype(p.dtype)


def _rows_factor(loss: Bound, t: Any, p: Any, w: Any) -> Any:
    """What the derivative of each row's value is multiplied by, shaped as the values."""
    shape = tuple(p.shape[a] for a in loss.kept_axes(p.ndim))
    counted = factor = jnp.ones(shape, jnp.promote_types(p.dtype, np.float32))
    ignored = loss.all_options.get("ignore_class")
    if ignored is not None:
        counted = factor = factor * (t.reshape(shape) != ignored)
    if w is not None:
        w = w.squeeze(-1) if w.ndim == len(shape) + 1 else w
        factor = factor * w.reshape(*w.shape, *(1,) * (len(shape) - w.ndim))
    if loss.reduced and loss.reduction != "sum":
        factor = factor / (factor if loss.reduction == "mean_with_sample_weight" else counted).sum()
    return factor


# Calls


def _concrete(*arrays: Any) -> bool:
    return not any(isinstance(x, jax.core.Tracer) for x in arrays)


def call(function: Any, y_true: Any, y_pred: Any, options: dict[str, Any], sample_weight: Any, reduction: Any) -> Any:
    """A public function of lossfuncs on arrays of JAX, differentiable by y_pred."""
    loss = bind(function, options, reduction)
    if _concrete(y_true, y_pred, sample_weight):
        value = loss.value(array("y_true", y_true), array("y_pred", y_pred), sample_weight)
        return jnp.asarray(value, _value_dtype(loss, y_pred.dtype))
    t, p, w = _traced(loss, y_true, y_pred, sample_weight)
    if loss.coupled:
        return _coupled_values(loss.text, t, p, w)
    return _value(loss.text, t, p, w) if loss.has_gradient else _value(loss.text, t, jax.lax.stop_gradient(p), w)


def value_and_grad(
    function: Any, y_true: Any, y_pred: Any, options: dict[str, Any], upstream: Any, out: Any, sample_weight: Any, reduction: Any
) -> tuple[Any, Any]:
    """As `lossfuncs.value_and_grad`, on arrays of JAX, which cannot be overwritten: out must be None."""
    if out is not None:
        raise ValueError("out must be None for arrays of JAX: they cannot be overwritten")
    loss = bind(function, options, reduction)
    if _concrete(y_true, y_pred, sample_weight, upstream):
        value, gradient = derivatives.value_and_grad(
            function, array("y_true", y_true), array("y_pred", y_pred), upstream=upstream,
            sample_weight=sample_weight, reduction=reduction, **options,
        )  # fmt: skip
        return jnp.asarray(value, _value_dtype(loss, y_pred.dtype)), jnp.asarray(gradient)
    given = _traced(loss, y_true, y_pred, sample_weight)
    if loss.coupled and upstream is not None:
        seed = jnp.broadcast_to(jnp.asarray(upstream, y_pred.dtype), y_pred.shape[:1])
        return _coupled_values(loss.text, *given), _product(loss.text, *given, seed)
    value, gradient = _value_and_gradient(loss.text, *given)
    if upstream is not None:
        upstream = jnp.asarray(upstream, gradient.dtype)
        gradient = gradient * (upstream if loss.reduced else jnp.expand_dims(upstream, loss.derivative_axes(gradient.ndim)))
    return value, gradient.reshape(y_pred.shape)


def _traced(loss: Bound, y_true: Any, y_pred: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    """What the calls of XLA take: arrays of one rank, so that the values have y_pred's shape without the axes of a row."""
    t, p = jnp.asarray(y_true), y_pred
    w = None if sample_weight is None else jnp.asarray(sample_weight)
    if loss.entry.targets != "index" and loss.entry.shape != "own":
        t, p = same_rank(t, p)
        if p.ndim == 1 and w is not None and w.shape == p.shape and loss.entry.shape != "element":
            t, p = t[:, None], p[:, None]
    if loss.entry.shape != "own":  # the errors for shapes and options, while the function is traced
        zeros = [np.broadcast_to(np.zeros((), x.dtype), x.shape) for x in (t, p)]
        prepare(loss.function, zeros[0], zeros[1], loss.options, None if w is None else np.zeros(w.shape), loss.reduction)
    return t, p, w
