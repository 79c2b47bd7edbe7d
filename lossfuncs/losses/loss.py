"""What a loss class does around its function: masks, sample weights, reductions, dtype and configuration."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np

from .. import derivatives, dispatch
from ..call import Call, array, complete, is_float, needed, same_rank, spread
from ..devices import device_of
from ..frameworks.arrays import adapter
from ..options import shown
from ..problem import Array
from ..serialization import REGISTRIES, automatic_name, identity
from ..structures import each, leaves, like

Reduction: TypeAlias = Literal["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none"] | None


class Loss:
    """A loss to subclass: call(y_true, y_pred) gives the values, and the instance weighs and reduces them.

        class SmallErrors(lossfuncs.losses.Loss):
            def call(self, y_true, y_pred):
                return np.mean(np.minimum((y_pred - y_true) ** 2, 1.0), axis=-1)

        SmallErrors()(y_true, y_pred, sample_weight)

    reduction: "sum_over_batch_size" or "mean", the sum over the number of values; "sum"; "mean_with_sample_weight", the sum over the
    sum of the weights; None or "none", the values. Where nothing counts, 0 / 0 is 0; for an empty batch it is NaN. Reduced values are
    added up, and returned, in float64.

    dtype is what y_pred and a y_true of floating point are rounded to before, and the result after. None keeps the precision of the
    data, where Keras cuts to float32. Keras' names are accepted ("mixed_float16" means float16).

    name: None gives one from the class's name, numbered within the process: my_loss, my_loss_1, ...

    ValueError for another reduction or dtype.
    """

    def __init__(self, name: str | None = None, reduction: Reduction = "sum_over_batch_size", dtype: Any = None) -> None:
        check_reduction(reduction)
        self.name = automatic_name(type(self)) if name is None else name
        self.reduction = reduction
        self._dtype = None if dtype is None else float_dtype(dtype)

    @property
    def dtype(self) -> str | None:
        """The name of the dtype that was asked for."""
        return None if self._dtype is None else self._dtype.name

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The values, of any shape. y_true and y_pred come as arrays of floating point, in the dicts, lists and tuples they came in."""
        raise NotImplementedError(f"{type(self).__name__} must implement call(y_true, y_pred)")

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None, *, mask: Any = None) -> Any:
        """The loss of a batch.

        sample_weight has the values' shape, or leaves out axes at the end, so that (N,) is one weight a sample; it is never changed.
        mask, shaped likewise, is true where values count; the others leave the mean, and may come from NaN or labels out of range. By
        default it is y_pred's attribute _keras_mask, if there is one. ValueError for shapes that do not fit.
        """
        return self._result(self._values(y_true, y_pred, sample_weight, mask).result())

    def sum_and_count(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None, *, mask: Any = None, nonzero: bool = False
    ) -> tuple[float, float]:
        """The sum of a batch's weighted values, and the number that a mean divides it by: over batches both add up.

        With the reduction "sum" that number is 1. Where `call` returns one number for the batch, it counts as often as there are samples;
        of one-dimensional data each number is a sample. nonzero counts the values whose weight is not 0, as Keras 2.2.4 does.
        """
        ready = self._values(y_true, y_pred, sample_weight, mask)
        samples = 1 if ready.shape else len(leaves(y_pred)[0][1])
        return samples * ready.total(), samples * _divisor(ready, nonzero)

    def value_and_grad(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None, upstream: Any = None, out: Any = None, *, mask: Any = None
    ) -> tuple[Any, Array]:
        """The loss and the gradient of sum(upstream * loss) by y_pred, from one pass over memory; out receives it if given.

        upstream is a number, or without a reduction an array of the values' shape, and 1 by default. NotImplementedError for a loss
        whose call is the user's own.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no gradient: override value_and_grad, or make the loss with lossfuncs.pointwise"
        )

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, for `from_config`; dtype only where one was given, as Keras knows none here."""
        config = {"name": self.name, "reduction": self.reduction}
        return config if self.dtype is None else {**config, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Loss:
        """A new instance from what `get_config` gave."""
        return cls(**config)

    def _identity(self) -> Any:
        return identity({name: x for name, x in self.get_config().items() if name != "name"})

    def _leaf(self, x: Any) -> Array:
        """An array as `call` gets it: integers would wrap around, and become the smallest type from float32 on that holds them all."""
        x = array("y_true and y_pred", x)
        dtype = self._dtype or (x.dtype if is_float(x.dtype) else np.result_type(x.dtype, np.float32))
        return _round(x, dtype)

    def _values(self, y_true: Any, y_pred: Any, sample_weight: Any, mask: Any) -> _Values:
        """What `call` returns, weighed and ready to be reduced."""
        values = self.call(each(self._leaf, y_true), each(self._leaf, y_pred))
        return self._weighed(values, sample_weight, mask_of(y_pred, mask))

    def _weighed(self, values: Any, sample_weight: Any, *masks: Any) -> _Values:
        ready = _Values(values)
        _weigh(ready, self.reduction, sample_weight, *masks, getattr(values, "_keras_mask", None))
        return ready

    def _result(self, value: Any) -> Any:
        if self._dtype is None:
            return value
        return _round(np.asarray(value) if device_of(value) is None else value, self._dtype)[()]


class LossFunctionWrapper(Loss):
    """The loss that fn(y_true, y_pred, **kwargs) computes: a function of lossfuncs, in one pass over memory, or one of your own.

    A function of your own gets arrays as `Loss.call` does, with their ranks adjusted: where one has an axis of one element more than
    the other, at the end, that is dropped, or given to the other if that has rank 1. TypeError for an option that a function of
    lossfuncs does not know.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        reduction: Reduction = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, reduction, dtype)
        if not callable(fn):
            raise TypeError(f"fn must be a function of (y_true, y_pred), got {shown(fn)}")
        self.fn: Any = fn
        self.options = kwargs
        known = hasattr(fn, "defaults")
        if known:
            complete(fn, kwargs)
            self._needed = needed(fn, kwargs)
        self._fused = known and type(self).call is LossFunctionWrapper.call
        self._counts: dict[Any, float] = {}  # shapes of batches without weights, and how many values they make

    def call(self, y_true: Any, y_pred: Any) -> Any:
        if not hasattr(self.fn, "defaults"):
            y_true, y_pred = _same_ranks(y_true, y_pred)
        return self.fn(y_true, y_pred, **self.options)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None, *, mask: Any = None) -> Any:
        if not self._fused:
            return super().__call__(y_true, y_pred, sample_weight, mask=mask)
        mask = mask_of(y_pred, mask)
        if (mask is not None or self._dtype is not None) and adapter(y_pred) is not None:
            raise TypeError(
                f"y_pred must be an array of NumPy for a loss with a mask or a dtype, got {type(y_pred).__name__}: "
                f"pass sample_weight, or convert it before"
            )
        t, p = self._arrays(y_true, y_pred)
        return self._result(self._reduced(t, p, sample_weight, mask, self.reduction))

    def sum_and_count(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None, *, mask: Any = None, nonzero: bool = False
    ) -> tuple[float, float]:
        if not self._fused:
            return super().sum_and_count(y_true, y_pred, sample_weight, mask=mask, nonzero=nonzero)
        mask = mask_of(y_pred, mask)
        t, p = (array("y_true and y_pred", x) for x in self._arrays(y_true, y_pred))
        shapes = (t.shape, p.shape) if sample_weight is None and mask is None else None
        count = self._counts.get(shapes)
        if count is None:
            call = self._weighed_call(t, p, sample_weight, mask)
            count = self._count(call, call.y_true, call.y_pred, nonzero)
            if not call.shape:
                return len(p) * float(self._reduced(t, p, sample_weight, mask, "sum")), len(p) * count
            if shapes and call.valid is None:
                if len(self._counts) >= 64:
                    self._counts.clear()
                self._counts[shapes] = count
        return float(self._reduced(*self._samples(t, p), sample_weight, mask, "sum")), count

    def wanted_total(self, y_true: Array, y_pred: Array, sample_weight: Any) -> Call | None:
        """The call whose total is the sum of `sum_and_count`, if one pass over rows gives it; `count_of` has the count."""
        if not self._fused or self._dtype is not None or type(self).sum_and_count is not LossFunctionWrapper.sum_and_count:
            return None
        call = self._weighed_call(y_true, y_pred, sample_weight, None)
        return call if call.m and call.shape else None

    def count_of(self, call: Call, nonzero: bool) -> float:
        """The count of `sum_and_count` for a `wanted_total`, once that is computed."""
        return self._count(call, call.y_true, call.y_pred, nonzero)

    def _samples(self, t: Array, p: Array) -> tuple[Array, Array]:
        """Of one-dimensional data each number is a sample, unless a row of them has a label."""
        if p.ndim == 1 and self.fn.entry.targets not in ("index", "label"):
            t, p = (x.reshape(-1, 1) if x.ndim == 1 else x for x in (t, p))
        return t, p

    def _weighed_call(self, y_true: Array, y_pred: Array, sample_weight: Any, mask: Any) -> Call:
        t, p = self._samples(y_true, y_pred)
        call = dispatch.prepare(self.fn, t, p, self.options, None, None)
        if p.ndim > y_pred.ndim and not call.pointwise:
            raise ValueError(f"{self.name} needs several numbers for each sample, but y_pred has one: its shape is {y_pred.shape}")
        _weigh(call, self.reduction, sample_weight, mask)
        return call

    def _count(self, call: Call, y_true: Array, y_pred: Array, nonzero: bool) -> float:
        return _divisor(call, nonzero)

    def _reduced(self, t: Any, p: Any, sample_weight: Any, mask: Any, reduction: Any) -> Any:
        """fn of the batch, reduced in this way."""
        if mask is None:
            return self.fn(t, p, sample_weight=sample_weight, reduction=reduction, **self._needed)

        def compute(t: Any, p: Any, weights: Array, reduction: Any, divisor: float) -> tuple[Any, None]:
            return _over(self.fn(t, p, sample_weight=weights, reduction=reduction, **self.options), divisor), None

        return self._masked(compute, t, p, sample_weight, mask, reduction)[0]

    def value_and_grad(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None, upstream: Any = None, out: Any = None, *, mask: Any = None
    ) -> tuple[Any, Array]:
        if not self._fused:
            return super().value_and_grad(y_true, y_pred)
        mask = mask_of(y_pred, mask)
        t, p = self._arrays(y_true, y_pred)

        def compute(t: Any, p: Any, weights: Any, reduction: Any, divisor: float) -> tuple[Any, Array]:
            seed = upstream if isinstance(divisor, float) and divisor == 1.0 else _seed(upstream) / divisor
            value, gradient = derivatives.value_and_grad(
                self.fn, t, p, upstream=seed, out=out, sample_weight=weights, reduction=reduction, **self._needed
            )
            return _over(value, divisor), gradient

        if mask is None:
            value, gradient = compute(t, p, sample_weight, self.reduction, 1.0)
        else:
            t, p = (np.array(x) if isinstance(out, np.ndarray) and np.may_share_memory(x, out) else x for x in (t, p))
            value, gradient = self._masked(compute, t, p, sample_weight, mask, self.reduction)
        return self._result(value), gradient

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "fn": REGISTRIES["loss"].serialize(self.fn), **self.options}

    def _identity(self) -> Any:
        return identity([self.fn, self.options, self.reduction, self.dtype])

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Loss:
        fn = config.get("fn")
        return cls(**{**config, "fn": REGISTRIES["loss"].deserialize(fn)} if isinstance(fn, dict) else config)

    def _arrays(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        """In the dtype that was asked for; but class numbers stay whole."""
        if self._dtype is None:
            return y_true, y_pred
        t, p = array("y_true", y_true), array("y_pred", y_pred)
        if is_float(t.dtype) and self.fn.entry.targets not in ("index", "label", "sequence", "decision"):
            t = _round(t, self._dtype)
        return t, _round(p, self._dtype)

    def _masked(self, compute: Callable[..., Any], t: Any, p: Any, sample_weight: Any, mask: Any, reduction: Any) -> Any:
        """compute(y_true, y_pred, weights, reduction, divisor), so that what the mask leaves out has no part in it."""
        if sample_weight is None and np.ndim(p) == 1 and np.shape(mask) == np.shape(p):
            sample_weight = np.ones(np.shape(p))  # each element is a sample, as it is with weights
        with dispatch.backend("numpy"):  # what is on the host stays there: only shapes and weights are wanted
            call = dispatch.prepare(self.fn, t, p, self.options, None if np.ndim(p) > 1 else sample_weight, None)
        _weigh(call, reduction, sample_weight, mask)
        call.balance()
        if call.device is not None:
            return self._masked_on(call, compute, t, p)
        valid = np.asarray(call.valid)
        weights = np.where(valid, 1.0 if call.weights is None else call.weights, 0.0).reshape(call.shape)
        how = (weights, None, 1.0) if call.reduction is None else (weights, "sum", call.divisor())
        targets = self.fn.entry.targets
        if targets == "label" or valid.all():  # samples that are compared with one another cannot be taken out
            return compute(t, p, *how)
        with contextlib.suppress(ValueError):
            found = compute(t, p, *how)
            if np.isfinite(found[0]).all():
                return found
        # A weight of 0 undoes neither NaN nor a label out of range: put something harmless in the place of what does not count.
        return compute(*call.harmless(t, p, ~valid), *how)

    def _masked_on(self, call: Call, compute: Callable[..., Any], t: Any, p: Any) -> Any:
        """The same on a device, which is not waited for: what does not count is always replaced."""
        xp = call.device.xp
        valid: Any = call.valid
        weights = xp.where(valid, 1.0 if call.weights is None else call.weights, 0.0).reshape(call.shape)
        how = (weights, None, 1.0) if call.reduction is None else (weights, "sum", _divisor_there(call))
        if self.fn.entry.targets != "label":
            t, p = call.harmless(t, p, ~valid)
        return compute(t, p, *how)


class _Values(Call):
    """Values that are there already."""

    def __init__(self, values: Any) -> None:
        found = array("what call returns", values)
        self.device = device_of(found)
        self.dtype = found.dtype if is_float(found.dtype) else np.dtype(np.float64)
        self.shape = found.shape
        self.values = found.reshape(-1).astype(np.float64)

    def result(self) -> Any:
        if self.reduction is None:
            return self.weighted(self._counted()).astype(self.dtype)
        self.balance()
        with np.errstate(all="ignore"):
            total = self._sum()
            return np.float64(total / self.divisor()) if self.device is None else total / _divisor_there(self)

    def total(self) -> float:
        with np.errstate(all="ignore"):
            return float(self._sum())

    def _sum(self) -> Any:
        return np.sum(self._counted() if self.weights is None else self._counted() * self.weights)

    def _counted(self) -> Array:
        return self.values if self.valid is None else np.where(self.valid, self.values, 0.0)


def _divisor(call: Call, nonzero: bool = False) -> float:
    """What a mean divides by, 0 where nothing counts."""
    if nonzero and call.weights is not None:
        call.reduction, call.weights = "mean_with_sample_weight", (call.weights != 0.0).astype(np.float64)
    divisor = call.divisor() if call.device is None else float(_divisor_there(call))
    return divisor if math.isfinite(divisor) else 0.0


def _divisor_there(call: Call) -> Any:
    """`Call.divisor` for a device: an array of one number there, where it depends on data."""
    m, weighted = call.m, call.reduction == "mean_with_sample_weight" and call.weights is not None
    if call.reduction == "sum" or not m or not (weighted or call.valid is not None):
        return 1.0 if call.reduction == "sum" else float(m) or math.nan
    xp = call.device.xp
    counted = call.weights if weighted else 1.0
    total = xp.sum(counted if call.valid is None else xp.where(call.valid, counted, 0.0))
    return xp.where(total != 0.0, total, math.inf)


def _over(x: Any, divisor: Any) -> Any:
    return x if isinstance(divisor, float) and divisor == 1.0 else x / divisor  # bfloat16 / 1.0 would be a float32


def _seed(upstream: Any) -> Any:
    if upstream is None:
        return 1.0
    found = array("upstream", upstream)
    return found if found.ndim or device_of(found) is not None else float(found)


def _weigh(call: Call, reduction: Any, sample_weight: Any, *masks: Any) -> None:
    """Let the call count what all of the masks let count."""
    call.reduce(reduction, sample_weight)
    for mask in masks:
        if mask is not None:
            counted = spread("mask", mask, call.shape, call.device) != 0.0
            call.valid = counted if call.valid is None else call.valid & counted


def mask_of(y_pred: Any, mask: Any) -> Any:
    """The mask that was given, or else Keras' own."""
    return getattr(y_pred, "_keras_mask", None) if mask is None else mask


def check_reduction(reduction: Any) -> None:
    if reduction == "auto":
        raise ValueError("reduction 'auto' of tf.keras means 'sum_over_batch_size', its only name since Keras 3")
    Call().reduce(reduction, None)


def float_dtype(dtype: Any) -> np.dtype[Any]:
    """A dtype of floating point from its name, or from a policy of Keras; ValueError for anything else."""
    name = getattr(dtype, "compute_dtype", dtype)
    if isinstance(name, str):
        name = name.removeprefix("mixed_")
    try:
        if name == "bfloat16":
            import ml_dtypes

            name = ml_dtypes.bfloat16
        found: np.dtype[Any] = np.dtype(name)
    except (TypeError, ImportError) as error:
        raise ValueError(f"dtype must be float16, bfloat16, float32 or float64, got {shown(dtype)}: {error}") from None
    if not is_float(found) or found.itemsize > 8:
        raise ValueError(f"dtype must be float16, bfloat16, float32 or float64, got {shown(dtype)}")
    return found


def _round(x: Array, dtype: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore"):
        return x.astype(dtype, copy=False)


def _same_ranks(t: Any, p: Any) -> tuple[Any, Any]:
    """Targets and predictions, adjusted in pairs."""
    if isinstance(p, dict):
        if not isinstance(t, dict) or t.keys() != p.keys():
            raise ValueError(f"y_true must have the keys of y_pred, {shown(list(p))}, got {shown(list(t) if isinstance(t, dict) else t)}")
        pairs = {key: _same_ranks(t[key], p[key]) for key in p}
        return {key: pair[0] for key, pair in pairs.items()}, {key: pair[1] for key, pair in pairs.items()}
    if isinstance(p, (list, tuple)):
        if not isinstance(t, (list, tuple)) or len(t) != len(p):
            raise ValueError(f"y_true must be {len(p)} arrays, as y_pred is, got {shown(t)}")
        both = [_same_ranks(a, b) for a, b in zip(t, p, strict=True)]
        return like(t, [pair[0] for pair in both]), like(p, [pair[1] for pair in both])
    return same_rank(t, p)
