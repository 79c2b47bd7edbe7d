"""The strings: which generation of Keras accepts which, and what it gives for it.

A line is a canonical name and its spellings, each with one letter for every generation: f, the string gives a
function; c, an instance of a class; C, a class with required arguments, so that the bare string is an error there; -,
not accepted. Canonical is the function's name, or the class's where there is no function of one batch to speak of.
Strings are case sensitive.
"""

from __future__ import annotations

import difflib
from typing import NamedTuple

GENERATIONS = ("keras 2.2.4", "keras 2.3.1", "tf.keras 2.6", "tf_keras 2.21", "keras 3.15")

LOSSES = {
    "binary_crossentropy": "bce:--fff binary_crossentropy:fffff BCE:--fff BinaryCrossentropy:-cccc",
    "binary_focal_crossentropy": "binary_focal_crossentropy:---ff BinaryFocalCrossentropy:---cc",
    "categorical_crossentropy": "categorical_crossentropy:fffff CategoricalCrossentropy:-cccc",
    "categorical_focal_crossentropy": "categorical_focal_crossentropy:---ff CategoricalFocalCrossentropy:---cc",
    "categorical_hinge": "categorical_hinge:fffff CategoricalHinge:-cccc",
    "circle": "circle:----f Circle:----c",
    "cosine_similarity": "cosine:ff--- cosine_proximity:ff--- cosine_similarity:-ffff CosineSimilarity:--ccc",
    "ctc": "ctc:----f CTC:----c",
    "dice": "dice:----f Dice:----c",
    "hinge": "hinge:fffff Hinge:-cccc",
    "huber": "huber:--fff huber_loss:-fff- Huber:-cccc",
    "kl_divergence": "kld:fffff kl_divergence:--fff kullback_leibler_divergence:ffff- KLD:fffff KLDivergence:-cccc",
    "log_cosh": "logcosh:ffff- log_cosh:--fff LogCosh:-cccc",
    "Loss": "Loss:-cccc",
    "LossFunctionWrapper": "LossFunctionWrapper:-ccCC",
    "mean_absolute_error": "mae:fffff mean_absolute_error:fffff MAE:fffff MeanAbsoluteError:-cccc",
    "mean_absolute_percentage_error": ("mape:fffff mean_absolute_percentage_error:fffff MAPE:fffff MeanAbsolutePercentageError:-cccc"),
    "mean_squared_error": "mse:fffff mean_squared_error:fffff MSE:fffff MeanSquaredError:-cccc",
    "mean_squared_logarithmic_error": ("msle:fffff mean_squared_logarithmic_error:fffff MSLE:fffff MeanSquaredLogarithmicError:-cccc"),
    "poisson": "poisson:fffff Poisson:-cccc",
    "sparse_categorical_crossentropy": "sparse_categorical_crossentropy:fffff SparseCategoricalCrossentropy:-cccc",
    "squared_hinge": "squared_hinge:fffff SquaredHinge:-cccc",
    "tversky": "tversky:----f Tversky:----c",
    "categorical_generalized_cross_entropy": ("CategoricalGeneralizedCrossEntropy:----- categorical_generalized_cross_entropy:----- "),
}

METRICS = {
    "accuracy": "acc:--ff- accuracy:-fffc ACC:--ff- Accuracy:-cccc",
    "AUC": "auc:----c AUC:-cccc",
    "binary_accuracy": "binary_accuracy:ffffc BinaryAccuracy:-cccc",
    "binary_crossentropy": "bce:--f-c binary_crossentropy:ffffc BCE:--f-c BinaryCrossentropy:-cccc",
    "BinaryIoU": "binary_io_u:----c BinaryIoU:---cc",
    "categorical_accuracy": "categorical_accuracy:ffffc CategoricalAccuracy:-cccc",
    "categorical_crossentropy": "categorical_crossentropy:ffffc CategoricalCrossentropy:-cccc",
    "categorical_hinge": "categorical_hinge:-fffc CategoricalHinge:-cccc",
    "concordance_correlation": "concordance_correlation:----c ConcordanceCorrelation:----c",
    "cosine_similarity": "cosine:ff--- cosine_proximity:ffff- cosine_similarity:-fffc CosineSimilarity:-cccc",
    "F1Score": "f1_score:----c F1Score:---cc",
    "FalseNegatives": "false_negatives:----c FalseNegatives:-cccc",
    "FalsePositives": "false_positives:----c FalsePositives:-cccc",
    "FBetaScore": "f_beta_score:----c FBetaScore:---cc",
    "hinge": "hinge:ffffc Hinge:-cccc",
    "IoU": "io_u:----C IoU:---CC",
    "kl_divergence": "kl_divergence:----c kullback_leibler_divergence:ffff- KLDivergence:-cccc",
    "log_cosh": "logcosh:ffff- log_cosh:--ff- log_cosh_error:----c LogCoshError:-cccc",
    "Mean": "mean:----c Mean:-cccc",
    "mean_absolute_error": "mae:ffffc mean_absolute_error:ffffc MAE:ffffc MeanAbsoluteError:-cccc",
    "mean_absolute_percentage_error": ("mape:ffffc mean_absolute_percentage_error:ffffc MAPE:ffffc MeanAbsolutePercentageError:-cccc"),
    "MeanIoU": "mean_io_u:----C MeanIoU:-ccCC",
    "MeanMetricWrapper": "mean_metric_wrapper:----C MeanMetricWrapper:-ccCC",
    "MeanRelativeError": "MeanRelativeError:--cC-",
    "mean_squared_error": "mse:ffffc mean_squared_error:ffffc MSE:ffffc MeanSquaredError:-cccc",
    "mean_squared_logarithmic_error": ("msle:ffffc mean_squared_logarithmic_error:ffffc MSLE:ffffc MeanSquaredLogarithmicError:-cccc"),
    "MeanTensor": "MeanTensor:--cc-",
    "Metric": "metric:----c Metric:-cc-c",
    "OneHotIoU": "one_hot_io_u:----C OneHotIoU:---CC",
    "OneHotMeanIoU": "one_hot_mean_io_u:----C OneHotMeanIoU:---CC",
    "pearson_correlation": "pearson_correlation:----c PearsonCorrelation:----c",
    "poisson": "poisson:ffffc Poisson:-cccc",
    "Precision": "precision:----c Precision:-cccc",
    "PrecisionAtRecall": "precision_at_recall:----C PrecisionAtRecall:--cCC",
    "R2Score": "r2_score:----c R2Score:---cc",
    "Recall": "recall:----c Recall:-cccc",
    "RecallAtPrecision": "recall_at_precision:----C RecallAtPrecision:--cCC",
    "RootMeanSquaredError": "root_mean_squared_error:----c RootMeanSquaredError:-cccc",
    "SensitivityAtSpecificity": "sensitivity_at_specificity:----C SensitivityAtSpecificity:-ccCC",
    "sparse_categorical_accuracy": "sparse_categorical_accuracy:ffffc SparseCategoricalAccuracy:-cccc",
    "sparse_categorical_crossentropy": "sparse_categorical_crossentropy:ffffc SparseCategoricalCrossentropy:-cccc",
    "sparse_top_k_categorical_accuracy": ("sparse_top_k_categorical_accuracy:ffffc SparseTopKCategoricalAccuracy:-cccc "),
    "SpecificityAtSensitivity": "specificity_at_sensitivity:----C SpecificityAtSensitivity:-ccCC",
    "squared_hinge": "squared_hinge:ffffc SquaredHinge:-cccc",
    "Sum": "sum:----c Sum:-cccc",
    "SumOverBatchSize": "SumOverBatchSize:--cc-",
    "top_k_categorical_accuracy": "top_k_categorical_accuracy:ffffc TopKCategoricalAccuracy:-cccc",
    "TrueNegatives": "true_negatives:----c TrueNegatives:-cccc",
    "TruePositives": "true_positives:----c TruePositives:-cccc",
}


class Spelling(NamedTuple):
    """What one string means: the canonical name, and a letter for each of `GENERATIONS`."""

    name: str
    forms: str


SPELLINGS = {
    kind: {
        string: Spelling(name, forms)
        for name, spellings in lines.items()
        for string, forms in (spelling.split(":") for spelling in spellings.split())
    }
    for kind, lines in (("loss", LOSSES), ("metric", METRICS))
}

_FORMS = {"f": "function", "c": "class", "C": "class with required arguments"}


def find(kind: str, string: str) -> str:
    """The canonical name behind a loss or metric string of any generation; kind is "loss" or "metric".

    ValueError, with the nearest spelling, for a string that none of them knows.
    """
    return _spelling(kind, string).name


def accepted(kind: str, string: str) -> dict[str, str]:
    """What the string is for each generation that accepts it: function, class, or class with required arguments."""
    forms = zip(GENERATIONS, _spelling(kind, string).forms, strict=True)
    return {generation: _FORMS[form] for generation, form in forms if form != "-"}


def _spelling(kind: str, string: str) -> Spelling:
    known = SPELLINGS[kind]
    if string in known:
        return known[string]
    nearest = difflib.get_close_matches(str(string), known, n=1)
    hint = f". Did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"Could not interpret {kind} identifier: {string!r}{hint}")
