"""Keras' losses and metrics on arrays, exact and at the memory's speed.

    lossfuncs.mean_squared_error(y_true, y_pred)                        one value a sample
    lossfuncs.binary_crossentropy(y_true, y_pred, reduction="mean")     one number
    lossfuncs.value_and_grad("mse", y_true, y_pred, reduction="mean")   with the gradient by y_pred

Losses and metrics of one name live in `lossfuncs.losses` and `lossfuncs.metrics`.
"""

from __future__ import annotations

from . import losses, metrics
from .compile import compile
from .custom import check, pointwise, register
from .derivatives import grad_and_hess, value_and_grad
from .dispatch import backend, current_backend
from .evaluate import evaluate
from .losses import (
    binary_crossentropy,
    binary_focal_crossentropy,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    categorical_generalized_cross_entropy,
    categorical_hinge,
    circle,
    cosine_similarity,
    ctc,
    dice,
    hinge,
    huber,
    kl_divergence,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    poisson,
    sparse_categorical_crossentropy,
    squared_hinge,
    tversky,
)
from .metrics import (
    accuracy,
    binary_accuracy,
    categorical_accuracy,
    concordance_correlation,
    pearson_correlation,
    sparse_categorical_accuracy,
    sparse_top_k_categorical_accuracy,
    top_k_categorical_accuracy,
)
from .threads import get_num_threads, set_num_threads

__version__ = "0.1.0"

__all__ = [
    "accuracy", "backend", "binary_accuracy", "binary_crossentropy", "binary_focal_crossentropy", "categorical_accuracy",
    "categorical_crossentropy", "categorical_focal_crossentropy", "categorical_generalized_cross_entropy", "categorical_hinge", "check",
    "circle", "compile", "concordance_correlation", "cosine_similarity", "ctc", "current_backend", "dice", "evaluate", "get_num_threads",
    "grad_and_hess", "hinge", "huber", "kl_divergence", "log_cosh", "losses", "mean_absolute_error", "mean_absolute_percentage_error",
    "mean_squared_error", "mean_squared_logarithmic_error", "metrics", "pearson_correlation", "pointwise", "poisson", "register",
    "set_num_threads", "sparse_categorical_accuracy", "sparse_categorical_crossentropy", "sparse_top_k_categorical_accuracy",
    "squared_hinge", "top_k_categorical_accuracy", "tversky", "value_and_grad",
]  # fmt: skip
