"""The losses of `keras.losses`, as functions of arrays.

Each is called as loss(y_true, y_pred, <Keras' options>, *, sample_weight=None, reduction=None). reduction None (or "none") gives one
value a sample, of y_pred's dtype; "sum", "mean" (also "sum_over_batch_size": the sum over the number of values) and
"mean_with_sample_weight" (over the sum of the weights) give a float64, added up in float64 in the same pass over memory.
sample_weight has the values' shape, or leaves out axes at the end: (N,) is per sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import names
from .circle import circle
from .ctc import ctc
from .hinge import categorical_hinge, hinge, squared_hinge
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

__all__ = [
    "binary_crossentropy", "binary_focal_crossentropy", "categorical_crossentropy", "categorical_focal_crossentropy",
    "categorical_generalized_cross_entropy", "categorical_hinge", "circle", "cosine_similarity", "ctc", "dice", "get", "hinge", "huber",
    "kl_divergence", "log_cosh", "mean_absolute_error", "mean_absolute_percentage_error", "mean_squared_error",
    "mean_squared_logarithmic_error", "poisson", "sparse_categorical_crossentropy", "squared_hinge", "tversky",
]  # fmt: skip


def get(identifier: str | Callable[..., Any] | None) -> Any:
    """The loss that a string of any Keras generation names ("mse", "cosine_proximity", "KLDivergence"); a registered one of your own.

    A callable comes back as it is, and None as None. ValueError for anything else, with the nearest name for an unknown string.
    """
    if identifier is None or callable(identifier):
        return identifier
    if not isinstance(identifier, str):
        raise ValueError(f"Could not interpret loss identifier: {identifier!r}")
    from .. import custom, table

    if identifier in custom.REGISTERED:
        return custom.REGISTERED[identifier]
    name = names.find("loss", identifier)
    return next(entry.function for entry in table.LOSSES if entry.name == name)
