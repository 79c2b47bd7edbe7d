"""The metric functions of `keras.metrics`: accuracies, correlations, and the losses that double as metrics.

They are called as the losses are; see `lossfuncs.losses`. cosine_similarity is plus the cosine here, minus as a loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import names
from ..losses.hinge import categorical_hinge, hinge, squared_hinge
from ..losses.probabilistic import (
    binary_crossentropy,
    binary_focal_crossentropy,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    kl_divergence,
    sparse_categorical_crossentropy,
)
from ..losses.regression import (
    huber,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    poisson,
)
from .accuracy import (
    accuracy,
    binary_accuracy,
    categorical_accuracy,
    sparse_categorical_accuracy,
    sparse_top_k_categorical_accuracy,
    top_k_categorical_accuracy,
)
from .correlation import concordance_correlation, cosine_similarity, pearson_correlation

__all__ = [
    "accuracy", "binary_accuracy", "binary_crossentropy", "binary_focal_crossentropy", "categorical_accuracy",
    "categorical_crossentropy", "categorical_focal_crossentropy", "categorical_hinge", "concordance_correlation", "cosine_similarity",
    "get", "hinge", "huber", "kl_divergence", "log_cosh", "mean_absolute_error", "mean_absolute_percentage_error", "mean_squared_error",
    "mean_squared_logarithmic_error", "pearson_correlation", "poisson", "sparse_categorical_accuracy",
    "sparse_categorical_crossentropy", "sparse_top_k_categorical_accuracy", "squared_hinge", "top_k_categorical_accuracy",
]  # fmt: skip


def get(identifier: str | Callable[..., Any] | None) -> Any:
    """The metric function that a string of any Keras generation names ("acc", "top_k_categorical_accuracy", "mse").

    A callable comes back as it is, and None as None. ValueError for anything else, with the nearest name for an unknown string.
    """
    if identifier is None or callable(identifier):
        return identifier
    if not isinstance(identifier, str):
        raise ValueError(f"Could not interpret metric identifier: {identifier!r}")
    from .. import table

    name = names.find("metric", identifier)
    for entry in table.METRICS:
        if entry.name == name:
            return entry.function
    raise ValueError(f"{identifier!r} is a metric that has no form as a function of two arrays")
