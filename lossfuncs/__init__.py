"""Keras' losses and metrics on arrays, exact and at the memory's speed.

    lossfuncs.mean_squared_error(y_true, y_pred)                        one value a sample
    lossfuncs.binary_crossentropy(y_true, y_pred, reduction="mean")     one number
    lossfuncs.value_and_grad("mse", y_true, y_pred, reduction="mean")   with the gradient by y_pred

Losses and metrics of one name live in `lossfuncs.losses` and `lossfuncs.metrics`.
"""

from __future__ import annotations

from . import losses, metrics
from .custom import check, pointwise, register
from .derivatives import grad_and_hess, value_and_grad
from .dispatch import backend, current_backend
from .evaluate import evaluate
from .losses import *  # noqa: F403
from .losses import cosine_similarity
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
    *(name for name in losses.__all__ if name != "get"),
    "accuracy", "backend", "binary_accuracy", "categorical_accuracy", "check", "concordance_correlation", "cosine_similarity", "evaluate",
    "current_backend", "get_num_threads", "grad_and_hess", "losses", "metrics", "pearson_correlation", "pointwise", "register",
    "set_num_threads", "sparse_categorical_accuracy", "sparse_top_k_categorical_accuracy", "top_k_categorical_accuracy",
    "value_and_grad",
]  # fmt: skip
