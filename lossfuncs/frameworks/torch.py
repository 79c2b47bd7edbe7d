"""PyTorch: the losses as differentiable functions and modules on tensors.

    from lossfuncs.frameworks import torch as lt

    lt.huber(input, target, delta=2.0)                        torch's order of arguments, and its reduction "mean"
    lt.Huber(delta=2.0)(input, target)                        the same as a torch.nn.Module
    lossfuncs.huber(y_true, y_pred, delta=2.0)                Keras' order takes tensors too
    lt.backward_("huber", input, target)                      the gradient without a node of autograd, in input's own memory

Every loss of `lossfuncs.losses` is here as a function and, under its class name, as a module; further torch's own
mse_loss, l1_loss, huber_loss, binary_cross_entropy, binary_cross_entropy_with_logits, cross_entropy and their modules, with torch's
signatures.

When a gradient will be asked for, it is computed with the value in one pass over memory, and kept for the backward pass. The second
derivative exists for pointwise losses and for the cross-entropies from logits, where it is a torch expression that can be differentiated
further; elsewhere NotImplementedError is raised, as it is for the third. Reduced values are of input's dtype, of float32 for half data.

Without a reduction each value of circle depends on all rows; its gradient is then computed backward, and a second one refused. Tensors on
a GPU: see `torch_gpu`.

In plain eager mode the kernels are called directly. torch.compile, torch.export and torch.func see the opaque operators
lossfuncs::loss, lossfuncs::value_and_gradient, lossfuncs::gradient and lossfuncs::curvature.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import derivatives, losses
from ..call import array, same_rank
from ..losses import classes
from ..losses.loss import check_reduction
from ..problem import Array
from ..table import LOSSES
from .arrays import missing
from .bound import Bound, bind, loss_of

try:
    import torch
    from torch import Tensor
except ImportError as error:
    raise missing("torch", error) from None

# Without a way to ask, it is as if a transform were active: slower, and right.
_transformed: Callable[[], bool] = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)


def _constant(function: Callable[..., Any]) -> Callable[..., Any]:
    """What torch.compiler.assume_constant_result does, which imports the compiler: seconds that belong to who compiles."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


# Tensors and arrays


def to_numpy(x: Tensor) -> Array:
    """x's memory as a NumPy array; TypeError for a tensor that is not in the CPU's memory, or not an array of numbers."""
    if x.device.type != "cpu":
        raise TypeError(f"it is on {x.device}, and only tensors on the CPU, and for losses on an NVIDIA GPU, can be computed on")
    if x.layout is not torch.strided or x.is_quantized:
        raise TypeError("it is a sparse or quantized tensor; pass it with .to_dense() or .dequantize()")
    x = x.detach()
    if x.dtype is torch.bfloat16:
        return x.view(torch.int16).numpy().view(_bfloat16())
    return x.numpy()


_NUMBERS = {torch.float64, torch.float32, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool}


def _array(name: str, x: Any) -> Array:
    """`call.array`, by a shorter way for most tensors."""
    if isinstance(x, Tensor) and x.dtype in _NUMBERS and x.is_cpu and x.layout is torch.strided:
        return x.numpy(force=True)
    return array(name, x)


def _gpu(x: Tensor) -> Any:
    """`torch_gpu.OnGPU` for a tensor on one, else None."""
    if x.is_cuda:
        from .torch_gpu import on_gpu

        return on_gpu()
    return None


def from_numpy(x: Any) -> Tensor:
    """A tensor on an array's memory."""
    if not isinstance(x, np.ndarray):
        x = np.asarray(x)
    if x.dtype.kind == "V":
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x)


@functools.cache
def _bfloat16() -> np.dtype[Any]:
    try:
        import ml_dtypes
    except ImportError as error:
        raise ImportError('bfloat16 needs ml_dtypes: pip install "lossfuncs[torch]"') from error
    return np.dtype(ml_dtypes.bfloat16)


def _as_tensor(x: Any) -> Any:
    return x if x is None or isinstance(x, Tensor) else torch.as_tensor(x)


_SCALARS = {torch.float32: torch.float32, torch.float16: torch.float32, torch.bfloat16: torch.float32}


def _scalar_dtype(x: Tensor) -> torch.dtype:
    return _SCALARS.get(x.dtype, torch.float64)


def _tensor(value: Any, y_pred: Tensor, reduced: bool) -> Tensor:
    return torch.scalar_tensor(value, dtype=_scalar_dtype(y_pred)) if reduced else from_numpy(value)


def _check(y_true: Any, y_pred: Tensor, sample_weight: Any, upstream: Any = None, out: Any = None) -> None:
    for name, x in (("y_true", y_true), ("sample_weight", sample_weight), ("upstream", upstream), ("out", out)):
        if isinstance(x, Tensor):
            if x.requires_grad and name in ("y_true", "sample_weight") and torch.is_grad_enabled():
                raise ValueError(f"{name} requires a gradient, but losses have one by y_pred alone; pass it with .detach()")
            if x.device != y_pred.device:
                raise ValueError(f"{name} is on {x.device}, but y_pred is on {y_pred.device}")


# A loss on tensors


def _value(loss: Bound, t: Any, p: Tensor, w: Any) -> Tensor:
    gpu = _gpu(p)
    if gpu is not None:
        return _scalar(gpu.value(loss, t, p, w), p, loss)
    return _tensor(loss.value(_array("y_true", t), _array("y_pred", p), w), p, loss.reduced)


def _scalar(value: Tensor, p: Tensor, loss: Bound) -> Tensor:
    return value.to(_scalar_dtype(p)) if loss.reduced else value


def _product(loss: Bound, t: Any, p: Tensor, w: Any, upstream: Tensor) -> Tensor:
    """The gradient of sum(upstream * value)."""
    gpu = _gpu(p)
    if gpu is not None:
        return gpu.gradient(loss, t, p, w, upstream)
    return from_numpy(loss.product(_array("y_true", t), _array("y_pred", p), w, upstream))


def _value_and_gradient(loss: Bound, t: Any, p: Tensor, w: Any) -> tuple[Tensor, Tensor]:
    gpu = _gpu(p)
    if gpu is not None:
        value, gradient = gpu.value_and_gradient(loss, t, p, w)
        return _scalar(value, p, loss), gradient
    value, gradient = loss.value_and_gradient(_array("y_true", t), _array("y_pred", p), w)
    return _tensor(value, p, loss.reduced), from_numpy(gradient)


def _empty_value(loss: Bound, p: Tensor) -> Tensor:
    if loss.reduced:
        return p.new_empty((), dtype=_scalar_dtype(p))
    shape = [p.shape[a] for a in loss.kept_axes(p.ndim)]
    return p.new_empty(shape, dtype=p.dtype if p.is_floating_point() else torch.float64)


# The operators that torch.compile, torch.export and torch.func see


@torch.library.custom_op("lossfuncs::loss", mutates_args=(), device_types=("cpu", "cuda"))
def _value_op(y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None, loss: str) -> Tensor:
    return _value(loss_of(loss), y_true, y_pred, sample_weight)


@torch.library.custom_op("lossfuncs::value_and_gradient", mutates_args=(), device_types=("cpu", "cuda"))
def _gradient_op(y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None, loss: str) -> tuple[Tensor, Tensor]:
    return _value_and_gradient(loss_of(loss), y_true, y_pred, sample_weight)


@torch.library.custom_op("lossfuncs::curvature", mutates_args=(), device_types=("cpu", "cuda"))
def _curvature_op(y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None, upstream: Tensor, loss: str) -> Tensor:
    found, gpu = loss_of(loss), _gpu(y_pred)
    if gpu is not None:
        return gpu.curvature(found, y_true, y_pred, sample_weight, upstream)
    return from_numpy(found.curvature(array("y_true", y_true), array("y_pred", y_pred), sample_weight, upstream))


@torch.library.custom_op("lossfuncs::gradient", mutates_args=(), device_types=("cpu", "cuda"))
def _product_op(y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None, upstream: Tensor, loss: str) -> Tensor:
    return _product(loss_of(loss), y_true, y_pred, sample_weight, upstream)


def _no_second_derivative(ctx: Any, _: Any) -> Any:
    raise NotImplementedError(f"{loss_of(ctx.loss).function.__name__} has no second derivative with these options")


_product_op.register_autograd(_no_second_derivative, setup_context=lambda ctx, inputs, output: setattr(ctx, "loss", inputs[-1]))


@_value_op.register_fake
def _(y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None, loss: str) -> Tensor:
    return _empty_value(loss_of(loss), y_pred)


def _empty_gradient(y_pred: Tensor) -> Tensor:
    return y_pred.new_empty(y_pred.shape)


@_gradient_op.register_fake
def _(y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None, loss: str) -> tuple[Tensor, Tensor]:
    return _empty_value(loss_of(loss), y_pred), _empty_gradient(y_pred)


@_product_op.register_fake
@_curvature_op.register_fake
def _(y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None, upstream: Tensor, loss: str) -> Tensor:
    return _empty_gradient(y_pred)


def _one_after_the_other(op: Any, info: Any, in_dims: Any, *args: Any) -> Any:
    """The operator on each example of a batch."""

    def example(i: int) -> list[Any]:
        return [x if dim is None else x.select(dim, i) for x, dim in zip(args, in_dims, strict=True)]

    found = [op(*example(i)) for i in range(info.batch_size)]
    if isinstance(found[0], tuple):
        return tuple(torch.stack(x) for x in zip(*found, strict=True)), (0,) * len(found[0])
    return torch.stack(found), 0


def _together(op: Any, info: Any, in_dims: Any, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None, text: str) -> Any:
    """The operator on all examples of a batch at once, where they are rows that know nothing of others."""
    loss = loss_of(text)
    p, t = (x.unsqueeze(0) if dim is None else x.movedim(dim, 0) for x, dim in ((y_pred, in_dims[1]), (y_true, in_dims[0])))
    rows = loss.of_batch(t.shape[1:], p.shape[1:], sample_weight is not None)
    if rows is None:
        return _one_after_the_other(op, info, in_dims, y_true, y_pred, sample_weight, text)
    size = info.batch_size
    found = op(t.expand(size, *t.shape[1:]), p.expand(size, *p.shape[1:]), None, rows.text)
    values, *gradients = found if isinstance(found, tuple) else (found,)
    if loss.reduced:
        each = values.reshape(size, -1).double()
        divisor = loss.divisor(each.shape[1])
        values, gradients = (each.sum(1) / divisor).to(_scalar_dtype(p)), [g / divisor for g in gradients]
    return ((values, *gradients), (0,) * (1 + len(gradients))) if gradients else (values, 0)


for _op, _rule in ((_value_op, _together), (_gradient_op, _together), (_curvature_op, _one_after_the_other),
                    (_product_op, _one_after_the_other)):  # fmt: skip
    _op.register_vmap(functools.partial(_rule, _op))


# Derivatives


@_constant
def _upstream_axes(loss: Bound | str, rank: int) -> tuple[int, ...]:
    """The axes that upstream lacks of the gradient's."""
    loss = _of(loss)
    return () if loss.reduced else loss.derivative_axes(rank)


def _scaled(gradient: Tensor, upstream: Tensor, loss: Bound | str) -> Tensor:
    """upstream * gradient; not for float16, which holds neither the upstream that scales a loss nor the gradient that it is to save."""
    upstream = upstream.to(gradient.dtype)
    for axis in _upstream_axes(loss, gradient.ndim):
        upstream = upstream.unsqueeze(axis)
    return gradient * upstream


def _rows_factor(loss: Bound, t: Tensor, p: Tensor, w: Tensor | None, upstream: Tensor) -> Tensor:
    """What the derivative of each row's value is multiplied by, shaped as the values."""
    shape = [p.shape[a] for a in loss.kept_axes(p.ndim)]
    factor = torch.ones(shape, dtype=torch.float64, device=p.device)
    ignored = loss.all_options.get("ignore_class")
    if ignored is not None:
        factor = factor * (t.reshape(shape) != ignored)
    counted = factor
    if w is not None:
        w = w.squeeze(-1) if w.ndim == len(shape) + 1 else w
        factor = factor * w.reshape(*w.shape, *(1,) * (len(shape) - w.ndim))
    if loss.reduced and loss.reduction != "sum":
        factor = factor / (factor if loss.reduction == "mean_with_sample_weight" else counted).sum()
    return factor * upstream


def _hessian_product(loss: Bound, t: Tensor, p: Tensor, w: Tensor | None, upstream: Tensor, v: Tensor) -> Tensor:
    """The derivative by p of sum(v * gradient)."""
    if loss.is_softmax:
        (axis,) = loss.row_axes(p.ndim)
        q, y = torch.softmax(p.double(), axis), v.double()
        factor = _rows_factor(loss, t, p, w, upstream).unsqueeze(axis)
        if loss.entry.targets != "index":
            smoothing = loss.all_options["label_smoothing"]
            factor = factor * (t.double().sum(axis, keepdim=True) * (1.0 - smoothing) + smoothing)
        return (factor * (q * y - q * (q * y).sum(axis, keepdim=True))).to(p.dtype)
    loss.check_curvature()
    return v * _curvature_op(t, p, w, upstream, loss.text)


class _Gradient(torch.autograd.Function):
    """upstream * gradient, as a function of y_pred."""

    generate_vmap_rule = True

    @staticmethod
    def forward(upstream: Tensor, gradient: Tensor, t: Tensor, p: Tensor, w: Tensor | None, loss: Any) -> Tensor:
        if gradient.dtype is torch.float16:
            return _product_op(t, p, w, upstream, loss if isinstance(loss, str) else loss.text)
        return _scaled(gradient, upstream, loss)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, ctx.loss = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        upstream, gradient, t, p, w = ctx.saved_tensors
        loss = _of(ctx.loss)
        by_upstream = by_p = None
        if ctx.needs_input_grad[0]:
            product = v * _Gradient.apply(torch.ones_like(upstream), gradient, t, p, w, ctx.loss)
            axes = tuple(range(p.ndim)) if loss.reduced else loss.derivative_axes(p.ndim)
            by_upstream = (product.sum(axes) if axes else product).to(upstream.dtype)
        if ctx.needs_input_grad[3]:
            by_p = _hessian_product(loss, t, p, w, upstream, v)
        return by_upstream, None, None, by_p, None, None


class _Direct(torch.autograd.Function):
    """The loss in eager mode: its forward takes ctx, which torch.func does not know and which is a third of the time."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, t: Any, w: Any, loss: Bound) -> Tensor:
        value, gradient = _value_and_gradient(loss, t, p, w)
        ctx.loss = loss
        ctx.save_for_backward(gradient, _as_tensor(t), p, _as_tensor(w))
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        if torch.is_grad_enabled():
            return _Gradient.apply(upstream, *ctx.saved_tensors, ctx.loss), None, None, None
        gradient, t, p, w = ctx.saved_tensors
        if not ctx.loss.reduced or upstream.item() != 1.0:  # a pass over memory that is mostly saved
            half = gradient.dtype is torch.float16
            gradient = _product(ctx.loss, t, p, w, upstream) if half else _scaled(gradient, upstream, ctx.loss)
        return gradient, None, None, None


class _Later(torch.autograd.Function):
    """The same, with all of the gradient's work left to backward.

    On a GPU, where nobody knows without waiting for it whether upstream is 1, that is no more traffic than to multiply a gradient that
    is there; and for values that each depend on all rows, whose gradients can only be had together.
    """

    @staticmethod
    def forward(ctx: Any, p: Tensor, t: Any, w: Any, loss: Bound) -> Tensor:
        ctx.loss = loss
        ctx.save_for_backward(_as_tensor(t), p, _as_tensor(w))
        return _value(loss, t, p, w)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        (t, p, w), loss = ctx.saved_tensors, ctx.loss
        if not torch.is_grad_enabled():
            gradient = _product(loss, t, p, w, upstream)
        elif loss.coupled:
            gradient = _product_op(t, p, w, upstream, loss.text)
        else:
            gradient = _Gradient.apply(upstream, _value_and_gradient(loss, t, p, w)[1], t, p, w, loss)
        return gradient, None, None, None


class _Traced(torch.autograd.Function):
    """The loss as torch.compile, torch.export and torch.func see it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(p: Tensor, t: Tensor, w: Tensor | None, loss: str) -> tuple[Tensor, Tensor]:
        return _gradient_op(t, p, w, loss)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        p, t, w, ctx.loss = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1], t, p, w)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: Any) -> Any:
        return _Gradient.apply(upstream, *ctx.saved_tensors, ctx.loss), None, None, None


class _TracedLater(torch.autograd.Function):
    """`_Traced` for values that each depend on all rows."""

    generate_vmap_rule = True

    @staticmethod
    def forward(p: Tensor, t: Tensor, w: Tensor | None, loss: str) -> tuple[Tensor]:
        return (_value_op(t, p, w, loss),)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        p, t, w, ctx.loss = inputs
        ctx.save_for_backward(t, p, w)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        return _product_op(*ctx.saved_tensors, upstream, ctx.loss), None, None, None


class _GradientWithTangents(_Gradient):
    """With forward mode, which torch.compile does not take."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _Gradient.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs[:-1])

    @staticmethod
    def jvp(ctx: Any, by_upstream: Any, by_gradient: Any, by_t: Any, by_p: Any, by_w: Any, _: Any) -> Tensor:
        upstream, gradient, t, p, w = ctx.saved_tensors
        tangent = torch.zeros_like(p)
        if by_upstream is not None:
            tangent = tangent + _scaled(gradient, by_upstream, ctx.loss)
        if by_p is not None:
            tangent = tangent + _hessian_product(_of(ctx.loss), t, p, w, upstream, by_p)
        return tangent


class _TracedWithTangents(_Traced):
    """With forward mode, so that torch.func has jvp, jacfwd and hessian."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _Traced.setup_context(ctx, inputs, output)
        ctx.save_for_forward(output[1], *inputs[1::-1], inputs[2])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: Any) -> Any:
        return _GradientWithTangents.apply(upstream, *ctx.saved_tensors, ctx.loss), None, None, None

    @staticmethod
    def jvp(ctx: Any, by_p: Tensor, *_: Any) -> tuple[Tensor, None]:
        gradient, t, p, w = ctx.saved_tensors
        loss = _of(ctx.loss)
        ones = torch.ones_like(_empty_value(loss, p))
        product = _GradientWithTangents.apply(ones, gradient, t, p, w, ctx.loss) * by_p
        axes = tuple(range(p.ndim)) if loss.reduced else loss.derivative_axes(p.ndim)
        return (product.sum(axes) if axes else product).to(ones.dtype), None


def _of(loss: Any) -> Bound:
    return loss_of(loss) if isinstance(loss, str) else loss


# Calls


def call(function: Any, y_true: Any, y_pred: Tensor, options: dict[str, Any], sample_weight: Any, reduction: Any) -> Tensor:
    """A public function of lossfuncs on tensors, differentiable by y_pred."""
    if torch.compiler.is_compiling() or _transformed():
        return _call_traced(function, y_true, y_pred, options, sample_weight, reduction)
    loss = bind(function, options, reduction)
    if torch.is_grad_enabled():
        _check(y_true, y_pred, sample_weight)
    if not (torch.is_grad_enabled() and y_pred.requires_grad and loss.has_gradient):
        return _value(loss, y_true, y_pred, sample_weight)
    if not loss.reduced:
        y_true, y_pred = _aligned(loss.entry, y_true, y_pred, sample_weight)
    node = _Later if loss.coupled or _gpu(y_pred) is not None else _Direct
    return node.apply(y_pred, y_true, sample_weight, loss)


def _aligned(entry: Any, y_true: Any, y_pred: Tensor, sample_weight: Any) -> tuple[Any, Tensor]:
    """Of one rank, so that the values have y_pred's shape without the axes of a row."""
    if entry.targets == "index" or entry.shape == "own":
        return y_true, y_pred
    if not hasattr(y_true, "ndim"):
        y_true = torch.as_tensor(y_true)
    t, p = same_rank(y_true, y_pred)
    if p.ndim == 1 and sample_weight is not None and tuple(np.shape(sample_weight)) == tuple(p.shape) and entry.shape != "element":
        return t[:, None], p[:, None]
    return t, p


@_constant
def _described(function: Any, options: tuple[tuple[str, Any], ...], reduction: Any) -> tuple[str, bool, bool]:
    """The loss's text, whether it has a gradient, and whether each value depends on all rows."""
    loss = Bound(function, dict(options), reduction)
    return loss.text, loss.has_gradient, loss.coupled


def _call_traced(function: Any, y_true: Any, y_pred: Tensor, options: dict[str, Any], sample_weight: Any, reduction: Any) -> Tensor:
    _check(y_true, y_pred, sample_weight)
    text, has_gradient, coupled = _described(function, tuple(options.items()), reduction)
    t, w = _as_tensor(y_true), _as_tensor(sample_weight)
    t, p = _aligned(function.entry, t, y_pred, w)
    if has_gradient and torch.is_grad_enabled():
        node = _TracedLater if coupled else _Traced if torch.compiler.is_compiling() else _TracedWithTangents
        return node.apply(p, t, w, text)[0]
    return _value_op(t, p, w, text)


def value_and_grad(
    function: Any, y_true: Any, y_pred: Tensor, options: dict[str, Any], upstream: Any, out: Any, sample_weight: Any, reduction: Any
) -> tuple[Tensor, Tensor]:
    """As `lossfuncs.value_and_grad`, in tensors that know nothing of autograd. out may be y_pred, but for a leaf that needs a gradient."""
    _check(y_true, y_pred, sample_weight, upstream, out)
    into, gpu = None, _gpu(y_pred)
    if out is not None:
        if not isinstance(out, Tensor):
            raise ValueError(f"out must be a tensor as y_pred is, got {type(out).__name__}")
        if out.is_leaf and out.requires_grad:
            raise ValueError("out is a leaf that requires a gradient: its values cannot be overwritten")
        into = to_numpy(out) if gpu is None else None
        torch.autograd.graph.increment_version(out)
    if gpu is not None:
        loss = bind(function, options, reduction)
        value, gradient = gpu.value_and_gradient(loss, y_true, y_pred, sample_weight, upstream, out)
        return _scalar(value, y_pred, loss), gradient
    p = into if out is y_pred else array("y_pred", y_pred)
    value, gradient = derivatives.value_and_grad(
        function, y_true, p, upstream=upstream, out=into, sample_weight=sample_weight, reduction=reduction, **options
    )
    return _tensor(value, y_pred, reduction not in (None, "none")), from_numpy(gradient) if out is None else out


def backward_(
    loss: str | Callable[..., Any], input: Tensor, target: Any, *, sample_weight: Any = None, reduction: str | None = "mean", **options: Any
) -> Tensor:
    """The loss, with the backward pass from it done: as loss(input, target).backward(), but without a node of autograd and without memory.

    input's values are overwritten by its gradient, in the pass that computes the loss. ValueError if input is a leaf or needs no gradient;
    RuntimeError, by autograd, if what made input needs its values (as sigmoid does, but not linear).
    """
    if not input.requires_grad:
        raise ValueError("input requires no gradient: there is nothing to go back through")
    if input.is_leaf:
        raise ValueError("input is a leaf, whose values its gradient must not overwrite; use loss(input, target).backward()")
    function = derivatives.function_of(loss)
    value, gradient = value_and_grad(function, target, input, options, None, input, sample_weight, reduction)
    torch.autograd.backward(input, gradient.detach())
    return value


# Functions and modules with torch's order of arguments


def _in_torch_order(function: Any, input: Any, target: Any, options: dict[str, Any], sample_weight: Any, reduction: Any) -> Tensor:
    if torch.compiler.is_compiling():
        return call(function, target, input, options, sample_weight, reduction)
    if not isinstance(input, Tensor):
        raise TypeError(f"input must be a tensor, got {type(input).__name__}")
    try:
        return call(function, target, input, options, sample_weight, reduction)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise type(error)(str(error).replace("y_true", "target").replace("y_pred", "input")) from error.__cause__


class LossModule(torch.nn.Module):
    """A loss as a module: forward(input, target, sample_weight=None). The classes below are named after Keras'."""

    function: Any

    def __init__(self, *, reduction: str | None = "mean", **options: Any) -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction, self.options = reduction, options
        Bound(self.function, options, reduction).rows  # noqa: B018  # checks the options

    def forward(self, input: Tensor, target: Any, sample_weight: Any = None) -> Tensor:
        return _in_torch_order(self.function, input, target, self.options, sample_weight, self.reduction)

    def backward_(self, input: Tensor, target: Any, sample_weight: Any = None) -> Tensor:
        """The loss, with the backward pass from it done in input's own memory: see the function of this name."""
        return backward_(self.function, input, target, sample_weight=sample_weight, reduction=self.reduction, **self.options)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={x!r}" for name, x in {**self.options, "reduction": self.reduction}.items())


def _make_function(entry: Any) -> Any:
    def loss(input: Tensor, target: Any, *, sample_weight: Any = None, reduction: str | None = "mean", **options: Any) -> Tensor:
        return _in_torch_order(entry.function, input, target, options, sample_weight, reduction)

    loss.__name__ = loss.__qualname__ = entry.name
    loss.__doc__ = f"`lossfuncs.{entry.name}` on tensors, in torch's order of arguments; differentiable by input."
    inner = inspect.signature(entry.function).parameters.values()
    options = [p.replace(kind=p.KEYWORD_ONLY) for p in inner if p.name not in ("y_true", "y_pred", "sample_weight", "reduction")]
    first, second, *rest = inspect.signature(loss).parameters.values()
    loss.__signature__ = inspect.Signature([first, second, *options, *rest[:-1]], return_annotation=Tensor)  # type: ignore[attr-defined]
    return loss


def _make_module(entry: Any, name: str) -> type[LossModule]:
    function = staticmethod(entry.function)
    text = f"The module of `{entry.name}`, whose options and reduction its constructor takes: forward(input, target, sample_weight=None)."
    return type(name, (LossModule,), {"function": function, "__doc__": text, "__module__": __name__})


for _entry in LOSSES:
    globals()[_entry.name] = _make_function(_entry)
    _class = next(name for name in _entry.aliases.split() if hasattr(classes, name))
    globals()[_class] = _make_module(_entry, _class)


def __getattr__(name: str) -> Any:  # what is made above, for type checkers
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# Torch's own losses


def _elementwise(function: Any, input: Tensor, target: Tensor, options: dict[str, Any], weight: Any, reduction: str) -> Tensor:
    """A pointwise loss whose rows are single elements, as torch has it."""
    if input.shape != target.shape:
        raise ValueError(f"target must have input's shape, got {tuple(target.shape)} and {tuple(input.shape)}")
    if reduction == "mean" and weight is None and input.ndim:  # the mean of the rows' means
        return _in_torch_order(function, input, target, options, None, reduction)
    w = None if weight is None else weight.expand(input.shape).reshape(-1)
    if weight is not None and reduction == "mean" and function in (losses.mean_squared_error, losses.mean_absolute_error):
        reduction = "mean_with_sample_weight"
    values = _in_torch_order(function, input.reshape(-1, 1), target.reshape(-1, 1), options, w, reduction)
    return values.reshape(input.shape) if reduction == "none" else values


def mse_loss(input: Tensor, target: Tensor, *, reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """torch.nn.functional.mse_loss: (input - target)^2; reduction "none" gives one value an element. Shapes must be equal.

    With weights the mean is over their sum, as it is in torch for this and l1_loss, and for no other.
    """
    return _elementwise(losses.mean_squared_error, input, target, {}, weight, reduction)


def l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """torch.nn.functional.l1_loss: |input - target|."""
    return _elementwise(losses.mean_absolute_error, input, target, {}, weight, reduction)


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None) -> Tensor:
    """torch.nn.functional.huber_loss."""
    return _elementwise(losses.huber, input, target, {"delta": float(delta)}, weight, reduction)


def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "mean") -> Tensor:
    """torch.nn.functional.binary_cross_entropy, but probabilities are clipped to [1e-7, 1 - 1e-7], where torch clips logarithms at -100."""
    return _elementwise(losses.binary_crossentropy, input, target, {}, weight, reduction)


def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "mean") -> Tensor:
    """torch.nn.functional.binary_cross_entropy_with_logits, without pos_weight."""
    return _elementwise(losses.binary_crossentropy, input, target, {"from_logits": True}, weight, reduction)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """torch.nn.functional.cross_entropy of logits (C,), (N, C) or (N, C, d1, ...) and class numbers, or probabilities of input's shape.

    weight is one number a class. A class number out of range that is not ignore_index is a ValueError; where all are ignored the mean is
    0, which is NaN in torch.
    """
    axis = 0 if input.ndim == 1 else 1 if input.ndim > 2 else -1
    options: dict[str, Any] = {"from_logits": True, "axis": axis}
    if target.is_floating_point():
        if weight is not None:
            target = (target * (1.0 - label_smoothing) + label_smoothing / input.shape[axis]) * _along(weight, input, axis)
            label_smoothing = 0.0
        options["label_smoothing"] = float(label_smoothing)
        return _in_torch_order(losses.categorical_crossentropy, input, target, options, None, reduction)
    if weight is not None or label_smoothing:
        target = target.long()  # torch takes uint8 for a mask where it looks weights up, and one_hot takes nothing else
    if not label_smoothing:
        known = not (torch.compiler.is_compiling() or _transformed() or _gpu(target))
        if not known or (_array("target", target) == ignore_index).any():  # without ignored ones there is a shorter way
            options["ignore_class"] = ignore_index
        w = None if weight is None else weight[target.clamp(0, input.shape[axis] - 1)]
        how = "mean_with_sample_weight" if reduction == "mean" and w is not None else reduction
        return _in_torch_order(losses.sparse_categorical_crossentropy, input, target, options, w, how)
    if weight is not None:
        raise NotImplementedError("weight and label_smoothing together need a target of probabilities; see torch.nn.functional.one_hot")
    counted = target != ignore_index
    one_hot = torch.nn.functional.one_hot(target.where(counted, 0), input.shape[axis]).movedim(-1, axis).to(input.dtype)
    options["label_smoothing"] = float(label_smoothing)
    how = "mean_with_sample_weight" if reduction == "mean" else reduction
    return _in_torch_order(losses.categorical_crossentropy, input, one_hot, options, counted.to(input.dtype), how)


def _along(weight: Tensor, input: Tensor, axis: int) -> Tensor:
    return weight.reshape(-1, *(1,) * (input.ndim - 1 - axis % input.ndim))


class MSELoss(torch.nn.MSELoss):
    """torch.nn.MSELoss, computed by lossfuncs."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return mse_loss(input, target, reduction=self.reduction)


class L1Loss(torch.nn.L1Loss):
    """torch.nn.L1Loss, computed by lossfuncs."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return l1_loss(input, target, reduction=self.reduction)


class HuberLoss(torch.nn.HuberLoss):
    """torch.nn.HuberLoss, computed by lossfuncs."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return huber_loss(input, target, reduction=self.reduction, delta=self.delta)


class BCELoss(torch.nn.BCELoss):
    """torch.nn.BCELoss, computed by lossfuncs."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(torch.nn.BCEWithLogitsLoss):
    """torch.nn.BCEWithLogitsLoss, computed by lossfuncs; without pos_weight."""

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean") -> None:
        super().__init__(weight=weight, reduction=reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(input, target, self.weight, reduction=self.reduction)


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """torch.nn.CrossEntropyLoss, computed by lossfuncs."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(
            input, target, self.weight,
            ignore_index=self.ignore_index, reduction=self.reduction, label_smoothing=self.label_smoothing,
        )  # fmt: skip
