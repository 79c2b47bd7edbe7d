"""The losses of `keras.losses` as classes: a function of this package, its options, and a reduction.

Constructors are Keras', and so are names, defaults and the order of arguments. What an option means, its function tells.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from ..call import Call, array, spread
from ..devices import device_of
from ..options import number
from ..problem import Array
from .circle import circle
from .ctc import ctc
from .hinge import categorical_hinge, hinge, squared_hinge
from .loss import Loss, LossFunctionWrapper, Reduction, mask_of
from .overlap import dice, tversky
from .probabilistic import (
    binary_crossentropy,
    binary_focal_crossentropy,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    categorical_generalized_cross_entropy,
    kl_divergence,
    sparse_categorical_crossentropy,
)
from .regression import (
    cosine_similarity,
    huber,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    poisson,
)

Axes: TypeAlias = int | tuple[int, ...] | None
MEAN: Reduction = "sum_over_batch_size"


class _OfKeras(LossFunctionWrapper):
    """A class whose function goes without saying."""

    def get_config(self) -> dict[str, Any]:
        return {**Loss.get_config(self), **self.options}


class MeanSquaredError(_OfKeras):
    """mean(e^2), e = y_pred - y_true; see `mean_squared_error`."""

    def __init__(self, reduction: Reduction = MEAN, name: str | None = "mean_squared_error", dtype: Any = None) -> None:
        super().__init__(mean_squared_error, reduction, name, dtype)


class MeanAbsoluteError(_OfKeras):
    """mean(|e|); see `mean_absolute_error`."""

    def __init__(self, reduction: Reduction = MEAN, name: str | None = "mean_absolute_error", dtype: Any = None) -> None:
        super().__init__(mean_absolute_error, reduction, name, dtype)


class MeanAbsolutePercentageError(_OfKeras):
    """100 mean(|e| / |y_true|); see `mean_absolute_percentage_error`."""

    def __init__(self, reduction: Reduction = MEAN, name: str | None = "mean_absolute_percentage_error", dtype: Any = None) -> None:
        super().__init__(mean_absolute_percentage_error, reduction, name, dtype)


class MeanSquaredLogarithmicError(_OfKeras):
    """mean((log(1 + y_pred) - log(1 + y_true))^2); see `mean_squared_logarithmic_error`."""

    def __init__(self, reduction: Reduction = MEAN, name: str | None = "mean_squared_logarithmic_error", dtype: Any = None) -> None:
        super().__init__(mean_squared_logarithmic_error, reduction, name, dtype)


class Huber(_OfKeras):
    """mean(e^2 / 2 as far as delta, linear beyond); see `huber`. Its name is huber_loss, as in Keras."""

    def __init__(self, delta: float = 1.0, reduction: Reduction = MEAN, name: str | None = "huber_loss", dtype: Any = None) -> None:
        super().__init__(huber, reduction, name, dtype, delta=delta)


class LogCosh(_OfKeras):
    """mean(log(cosh(e))); see `log_cosh`."""

    def __init__(self, reduction: Reduction = MEAN, name: str | None = "log_cosh", dtype: Any = None) -> None:
        super().__init__(log_cosh, reduction, name, dtype)


class Poisson(_OfKeras):
    """mean(y_pred - y_true log(y_pred)); see `poisson`."""

    def __init__(self, reduction: Reduction = MEAN, name: str | None = "poisson", dtype: Any = None) -> None:
        super().__init__(poisson, reduction, name, dtype)


class CosineSimilarity(_OfKeras):
    """MINUS the cosine along `axis`: -1 is best; see `cosine_similarity`."""

    def __init__(self, axis: int = -1, reduction: Reduction = MEAN, name: str | None = "cosine_similarity", dtype: Any = None) -> None:
        super().__init__(cosine_similarity, reduction, name, dtype, axis=axis)


class Hinge(_OfKeras):
    """mean(max(1 - y_true y_pred, 0)), labels -1 and 1, or 0 and 1; see `hinge`."""

    def __init__(self, reduction: Reduction = MEAN, name: str | None = "hinge", dtype: Any = None) -> None:
        super().__init__(hinge, reduction, name, dtype)


class SquaredHinge(_OfKeras):
    """mean(max(1 - y_true y_pred, 0)^2), labels -1 and 1, or 0 and 1; see `squared_hinge`."""

    def __init__(self, reduction: Reduction = MEAN, name: str | None = "squared_hinge", dtype: Any = None) -> None:
        super().__init__(squared_hinge, reduction, name, dtype)


class CategoricalHinge(_OfKeras):
    """max(1 + the best wrong score - the right one, 0), one-hot targets; see `categorical_hinge`."""

    def __init__(self, reduction: Reduction = MEAN, name: str | None = "categorical_hinge", dtype: Any = None) -> None:
        super().__init__(categorical_hinge, reduction, name, dtype)


class BinaryCrossentropy(_OfKeras):
    """-t log(p) - (1 - t) log(1 - p), averaged over `axis`; see `binary_crossentropy`."""

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: Axes = -1,
        reduction: Reduction = MEAN,
        name: str | None = "binary_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(binary_crossentropy, reduction, name, dtype, from_logits=from_logits, label_smoothing=label_smoothing, axis=axis)


class BinaryFocalCrossentropy(_OfKeras):
    """Binary cross-entropy that weighs what is known well less; see `binary_focal_crossentropy`."""

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: Axes = -1,
        reduction: Reduction = MEAN,
        name: str | None = "binary_focal_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(
            binary_focal_crossentropy,
            reduction,
            name,
            dtype,
            apply_class_balancing=apply_class_balancing,
            alpha=alpha,
            gamma=gamma,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


class CategoricalCrossentropy(_OfKeras):
    """-sum(t log p) over the classes, one-hot or soft targets; see `categorical_crossentropy`."""

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: Reduction = MEAN,
        name: str | None = "categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(
            categorical_crossentropy,
            reduction,
            name,
            dtype,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


class CategoricalFocalCrossentropy(_OfKeras):
    """Categorical cross-entropy that weighs what is known well less; see `categorical_focal_crossentropy`."""

    def __init__(
        self,
        alpha: Any = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: Reduction = MEAN,
        name: str | None = "categorical_focal_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(
            categorical_focal_crossentropy,
            reduction,
            name,
            dtype,
            alpha=alpha,
            gamma=gamma,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


class SparseCategoricalCrossentropy(_OfKeras):
    """-log p of the class that y_true numbers; ignored classes leave the mean; see `sparse_categorical_crossentropy`."""

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: Reduction = MEAN,
        axis: int = -1,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(
            sparse_categorical_crossentropy,
            reduction,
            name,
            dtype,
            from_logits=from_logits,
            ignore_class=ignore_class,
            axis=axis,
        )


class CategoricalGeneralizedCrossEntropy(_OfKeras):
    """(1 - p^q) / q of the class that y_true numbers; see `categorical_generalized_cross_entropy`.

    ValueError unless 0 < q < 1.
    """

    def __init__(
        self,
        q: float = 0.5,
        reduction: Reduction = MEAN,
        name: str | None = "categorical_generalized_cross_entropy",
        dtype: Any = None,
    ) -> None:
        if not 0.0 < number("q", q) < 1.0:
            raise ValueError(f"q must be between 0 and 1, got {q}")
        super().__init__(categorical_generalized_cross_entropy, reduction, name, dtype, q=q)


class KLDivergence(_OfKeras):
    """sum(t log(t / p)) over the last axis; see `kl_divergence`."""

    def __init__(self, reduction: Reduction = MEAN, name: str | None = "kl_divergence", dtype: Any = None) -> None:
        super().__init__(kl_divergence, reduction, name, dtype)


class Dice(_OfKeras):
    """1 - 2 |common| / (|y_true| + |y_pred|) over `axis`, by default one number for the batch; see `dice`."""

    def __init__(self, reduction: Reduction = MEAN, name: str | None = "dice", axis: Axes = None, dtype: Any = None) -> None:
        super().__init__(dice, reduction, name, dtype, axis=axis)


class Tversky(_OfKeras):
    """1 - common / (common + alpha missed + beta falsely found) over `axis`; see `tversky`."""

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        reduction: Reduction = MEAN,
        name: str | None = "tversky",
        axis: Axes = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(tversky, reduction, name, dtype, alpha=alpha, beta=beta, axis=axis)


class CTC(_OfKeras):
    """-log of the probability that the frames read the labels; see `ctc`."""

    def __init__(self, reduction: Reduction = MEAN, name: str | None = "ctc", dtype: Any = None) -> None:
        super().__init__(ctc, reduction, name, dtype)


class Circle(_OfKeras):
    """The circle loss between the embeddings of a batch; samples whose loss is 0 leave the mean; see `circle`."""

    def __init__(
        self,
        gamma: float = 80.0,
        margin: float = 0.4,
        remove_diagonal: bool = True,
        reduction: Reduction = MEAN,
        name: str | None = "circle",
        dtype: Any = None,
    ) -> None:
        super().__init__(circle, reduction, name, dtype, gamma=gamma, margin=margin, remove_diagonal=remove_diagonal)

    def _reduced(self, t: Any, p: Any, sample_weight: Any, mask: Any, reduction: Any) -> Any:
        if reduction in (None, "none", "sum"):
            return super()._reduced(t, p, sample_weight, mask, reduction)
        values = self.call(t, array("y_pred", p).astype(np.float64))
        return self._weighed(values, sample_weight, mask, values != 0.0).result()

    def _count(self, call: Call, y_true: Array, y_pred: Array, nonzero: bool) -> float:
        if self.reduction in (None, "none", "sum"):
            return super()._count(call, y_true, y_pred, nonzero)
        counted = self.call(y_true, y_pred.astype(np.float64)) != 0.0
        call.valid = counted if call.valid is None else counted & call.valid
        return super()._count(call, y_true, y_pred, nonzero)

    def value_and_grad(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None, upstream: Any = None, out: Any = None, *, mask: Any = None
    ) -> tuple[Any, Array]:
        if self._fused and self.reduction not in (None, "none", "sum"):
            mask = mask_of(y_pred, mask)
            counted = self.call(*self._arrays(y_true, y_pred)) != 0.0  # how many they are scales the gradient: it must be known before
            mask = counted if mask is None else counted & (spread("mask", mask, counted.shape, device_of(counted)) != 0.0)
        return super().value_and_grad(y_true, y_pred, sample_weight, upstream, out, mask=mask)
