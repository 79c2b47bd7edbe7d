"""The metrics of `keras.metrics`: functions of a batch, and classes that gather over batches.

The functions, accuracies, correlations and the losses that double as metrics, are called as the losses are; see `lossfuncs.losses`.
cosine_similarity is plus the cosine here, minus as a loss. The classes are `Metric`s: m.update_state(y_true, y_pred, sample_weight),
m.result(), m.reset_state(), and m.merge_state(others) for parts of the data that were seen elsewhere. update_state([m, ...], y_true,
y_pred) has several take in one batch in as few passes over memory as pay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
from ..serialization import Registry
from .accuracy import (
    accuracy,
    binary_accuracy,
    categorical_accuracy,
    sparse_categorical_accuracy,
    sparse_top_k_categorical_accuracy,
    top_k_categorical_accuracy,
)
from .auc import AUC
from .averages import (
    Accuracy,
    BinaryAccuracy,
    BinaryCrossentropy,
    CategoricalAccuracy,
    CategoricalCrossentropy,
    CategoricalHinge,
    ConcordanceCorrelation,
    CosineSimilarity,
    Hinge,
    KLDivergence,
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    PearsonCorrelation,
    Poisson,
    RootMeanSquaredError,
    SparseCategoricalAccuracy,
    SparseCategoricalCrossentropy,
    SparseTopKCategoricalAccuracy,
    SquaredHinge,
    TopKCategoricalAccuracy,
)
from .confusion import (
    FalseNegatives,
    FalsePositives,
    Precision,
    PrecisionAtRecall,
    Recall,
    RecallAtPrecision,
    SensitivityAtSpecificity,
    SpecificityAtSensitivity,
    TrueNegatives,
    TruePositives,
)
from .correlation import concordance_correlation, cosine_similarity, pearson_correlation
from .fscore import F1Score, FBetaScore
from .iou import BinaryIoU, IoU, MeanIoU, OneHotIoU, OneHotMeanIoU
from .metric import Mean, MeanMetricWrapper, Metric, Sum, update_state
from .regression import R2Score

__all__ = [
    "AUC", "Accuracy", "BinaryAccuracy", "BinaryCrossentropy", "BinaryIoU", "CategoricalAccuracy", "CategoricalCrossentropy",
    "CategoricalHinge", "ConcordanceCorrelation", "CosineSimilarity", "F1Score", "FBetaScore", "FalseNegatives", "FalsePositives",
    "Hinge", "IoU", "KLDivergence", "LogCoshError", "Mean", "MeanAbsoluteError", "MeanAbsolutePercentageError", "MeanIoU",
    "MeanMetricWrapper", "MeanSquaredError", "MeanSquaredLogarithmicError", "Metric", "OneHotIoU", "OneHotMeanIoU",
    "PearsonCorrelation", "Poisson", "Precision", "PrecisionAtRecall", "R2Score", "Recall", "RecallAtPrecision",
    "RootMeanSquaredError", "SensitivityAtSpecificity", "SparseCategoricalAccuracy", "SparseCategoricalCrossentropy",
    "SparseTopKCategoricalAccuracy", "SpecificityAtSensitivity", "SquaredHinge", "Sum", "TopKCategoricalAccuracy", "TrueNegatives",
    "TruePositives", "accuracy", "binary_accuracy", "binary_crossentropy", "binary_focal_crossentropy", "categorical_accuracy",
    "categorical_crossentropy", "categorical_focal_crossentropy", "categorical_hinge", "concordance_correlation", "cosine_similarity",
    "deserialize", "get", "hinge", "huber", "kl_divergence", "log_cosh", "mean_absolute_error", "mean_absolute_percentage_error",
    "mean_squared_error", "mean_squared_logarithmic_error", "pearson_correlation", "poisson", "serialize",
    "sparse_categorical_accuracy", "sparse_categorical_crossentropy", "sparse_top_k_categorical_accuracy", "squared_hinge",
    "top_k_categorical_accuracy", "update_state",
]  # fmt: skip

_members = [globals()[name] for name in __all__ if name not in ("deserialize", "get", "serialize", "update_state")]
REGISTRY = Registry(
    "metric",
    "keras.metrics",
    [member for member in _members if isinstance(member, type)],
    [member for member in _members if not isinstance(member, type)],
)


def get(identifier: Any) -> Any:
    """The metric that a string, dict, class or function means; None for None.

    A string of Keras 3 ("mse", "binary_accuracy", "AUC") gives a new instance; one that only older generations know ("acc", "logcosh")
    gives the function it meant there. A dict is a configuration as `serialize` returns it, a class is instantiated, and any other
    callable comes back as it is. ValueError for anything else, with the nearest name for an unknown string; TypeError for a class with
    required arguments.
    """
    return REGISTRY.get(identifier)


def serialize(metric: Any) -> dict[str, Any]:
    """A metric, or metric function, as a dict for JSON, as Keras writes it."""
    return REGISTRY.serialize(metric)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The metric that `serialize` wrote; a string gives the class or function of that name. Classes of your own: {name: class}."""
    return REGISTRY.deserialize(config, custom_objects)
