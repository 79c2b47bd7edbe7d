"""The losses of `keras.losses`, as functions of arrays and as classes.

Each function is called as loss(y_true, y_pred, <Keras' options>, *, sample_weight=None, reduction=None). reduction None (or "none") gives
one value a sample, of y_pred's dtype; "sum", "mean" (also "sum_over_batch_size": the sum over the number of values) and
"mean_with_sample_weight" (over the sum of the weights) give a float64, added up in float64 in the same pass over memory.
sample_weight has the values' shape, or leaves out axes at the end: (N,) is per sample.

A class holds a function's options and a reduction, by default "sum_over_batch_size"; see `Loss` for what its instances are called with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..serialization import Registry
from .circle import circle
from .classes import (
    CTC,
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    CategoricalGeneralizedCrossEntropy,
    CategoricalHinge,
    Circle,
    CosineSimilarity,
    Dice,
    Hinge,
    Huber,
    KLDivergence,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    SparseCategoricalCrossentropy,
    SquaredHinge,
    Tversky,
)
from .ctc import ctc
from .hinge import categorical_hinge, hinge, squared_hinge
from .loss import Loss, LossFunctionWrapper
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

FUNCTIONS = (
    binary_crossentropy, binary_focal_crossentropy, categorical_crossentropy, categorical_focal_crossentropy,
    categorical_generalized_cross_entropy, categorical_hinge, circle, cosine_similarity, ctc, dice, hinge, huber, kl_divergence,
    log_cosh, mean_absolute_error, mean_absolute_percentage_error, mean_squared_error, mean_squared_logarithmic_error, poisson,
    sparse_categorical_crossentropy, squared_hinge, tversky,
)  # fmt: skip
CLASSES = (
    BinaryCrossentropy, BinaryFocalCrossentropy, CategoricalCrossentropy, CategoricalFocalCrossentropy,
    CategoricalGeneralizedCrossEntropy, CategoricalHinge, Circle, CosineSimilarity, CTC, Dice, Hinge, Huber, KLDivergence, LogCosh,
    MeanAbsoluteError, MeanAbsolutePercentageError, MeanSquaredError, MeanSquaredLogarithmicError, Poisson,
    SparseCategoricalCrossentropy, SquaredHinge, Tversky,
)  # fmt: skip
REGISTRY = Registry("loss", "keras.losses", (Loss, LossFunctionWrapper, *CLASSES), FUNCTIONS)

__all__ = [
    "BinaryCrossentropy", "BinaryFocalCrossentropy", "CTC", "CategoricalCrossentropy", "CategoricalFocalCrossentropy",
    "CategoricalGeneralizedCrossEntropy", "CategoricalHinge", "Circle", "CosineSimilarity", "Dice", "Hinge", "Huber", "KLDivergence",
    "LogCosh", "Loss", "LossFunctionWrapper", "MeanAbsoluteError", "MeanAbsolutePercentageError", "MeanSquaredError",
    "MeanSquaredLogarithmicError", "Poisson", "SparseCategoricalCrossentropy", "SquaredHinge", "Tversky",
    "binary_crossentropy", "binary_focal_crossentropy", "categorical_crossentropy", "categorical_focal_crossentropy",
    "categorical_generalized_cross_entropy", "categorical_hinge", "circle", "cosine_similarity", "ctc", "deserialize", "dice", "get",
    "hinge", "huber", "kl_divergence", "log_cosh", "mean_absolute_error", "mean_absolute_percentage_error", "mean_squared_error",
    "mean_squared_logarithmic_error", "poisson", "serialize", "sparse_categorical_crossentropy", "squared_hinge", "tversky",
]  # fmt: skip


def get(identifier: Any) -> Any:
    """The loss that an identifier means.

    A function's name of any Keras generation ("mse", "cosine_proximity") or of a registered loss of your own gives the function; a
    class's name ("Huber"), a class, or the dict that `serialize` made, a new instance; a function or an instance itself; None, None.
    ValueError for anything else, with the nearest name for an unknown string; TypeError for a class that needs arguments.
    """
    return REGISTRY.get(identifier)


def serialize(loss: Any) -> dict[str, Any]:
    """A loss as a dict that JSON can hold, in Keras' form. Of a function of your own there is only the name."""
    return REGISTRY.serialize(loss)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The loss from what `serialize`, here or in Keras, made; a name gives the class or function itself.

    custom_objects: classes and functions of your own by their names. ValueError for a name that is in none of these places.
    """
    return REGISTRY.deserialize(config, custom_objects)
