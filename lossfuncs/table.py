"""THE TABLE: every loss and every metric function, one entry each.

name         the function's name, Keras 3's
aliases      every other string of any generation that means it, class names included; see `names.py`
function     the public function: its body is the NumPy reference
rows         its row maths: a `Rows`, or a function (n, **options) -> (Rows, parameters) of the row's length and of
             those options that are not `STRUCTURAL`; it raises ValueError for a bad option
targets      what y_true holds
                 real        any number
                 positive    numbers >= 0
                 count       whole numbers >= 0
                 binary      0 or 1, or a number between
                 sign        -1 or 1
                 one-hot     along the class axis one 1, or a distribution
                 index       class numbers, one axis less than y_pred
                 label       class numbers, one a sample: equal or not is all that counts
                 decision    class numbers, of y_pred's shape
                 sequence    class numbers >= 1, padded with 0
predictions  what y_pred holds
                 real, positive
                 probability   each in [0, 1]; logits with from_logits=True
                 distribution  >= 0, with sum 1 along the class axis; logits with from_logits=True
                 logits
                 scores        only their order counts
                 decision      class numbers
                 embedding     vectors of norm 1
shape        how the rows lie
                 last     the last axis is the row
                 axis     the option `axis` says: one axis, several, or None for all of them
                 element  every element is a row of its own
                 own      the family module says
labels01     a y_true of nothing but 0 and 1 is read as -1 and 1: the row maths takes the option `converted`
note         what a user should know, in a sentence
call         how a call is made ready and run
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .call import Call, RowsCall
from .losses.circle import circle, circle_rows
from .losses.ctc import ctc
from .losses.hinge import (
    CATEGORICAL_MARGIN,
    categorical_hinge,
    hinge,
    margin_loss_rows,
    squared_hinge,
    squared_margin_loss_rows,
)
from .losses.overlap import DICE, dice, tversky, tversky_rows
from .losses.probabilistic import (
    RELATIVE_ENTROPY,
    binary_crossentropy,
    binary_entropy_rows,
    binary_focal_crossentropy,
    binary_focal_rows,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    categorical_generalized_cross_entropy,
    cross_entropy_rows,
    focal_cross_entropy_rows,
    generalized_cross_entropy_rows,
    kl_divergence,
    sparse_categorical_crossentropy,
    sparse_cross_entropy_rows,
)
from .losses.regression import (
    ABSOLUTE_ERROR,
    LOG_COSH_ERROR,
    PERCENTAGE_ERROR,
    POISSON_DEVIATION,
    SQUARED_ERROR,
    SQUARED_LOG_ERROR,
    cosine_rows,
    cosine_similarity,
    huber,
    huber_rows,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    poisson,
)
from .metrics.accuracy import (
    EQUALITY,
    TOP_CLASS,
    accuracy,
    binary_accuracy,
    categorical_accuracy,
    decision_rows,
    sparse_categorical_accuracy,
    sparse_top_k_categorical_accuracy,
    sparse_top_k_rows,
    top_k_categorical_accuracy,
    top_k_rows,
)
from .metrics.correlation import (
    concordance_correlation,
    concordance_rows,
    pearson_correlation,
    pearson_rows,
)
from .metrics.correlation import cosine_rows as cosine_metric_rows
from .metrics.correlation import cosine_similarity as cosine_metric
from .own import CircleCall, SequenceCall
from .problem import STRUCTURAL as STRUCTURAL
from .rows import Rows


class Entry(NamedTuple):
    """One line of the table; see the module's text."""

    name: str
    aliases: str
    function: Callable[..., Any]
    rows: Rows | Callable[..., tuple[Rows, tuple[float, ...]]] | None
    targets: str
    predictions: str
    shape: str
    labels01: bool = False
    note: str = ""
    call: type[Call] = RowsCall


# fmt: off
LOSSES = (
    Entry("mean_squared_error", "MeanSquaredError mse MSE",
          mean_squared_error, SQUARED_ERROR, "real", "real", "last"),
    Entry("mean_absolute_error", "MeanAbsoluteError mae MAE",
          mean_absolute_error, ABSOLUTE_ERROR, "real", "real", "last"),
    Entry("mean_absolute_percentage_error", "MeanAbsolutePercentageError mape MAPE",
          mean_absolute_percentage_error, PERCENTAGE_ERROR, "real", "real", "last"),
    Entry("mean_squared_logarithmic_error", "MeanSquaredLogarithmicError msle MSLE",
          mean_squared_logarithmic_error, SQUARED_LOG_ERROR, "positive", "positive", "last"),
    Entry("huber", "Huber huber_loss",
          huber, huber_rows, "real", "real", "last"),
    Entry("log_cosh", "LogCosh logcosh",
          log_cosh, LOG_COSH_ERROR, "real", "real", "last"),
    Entry("poisson", "Poisson",
          poisson, POISSON_DEVIATION, "count", "positive", "last"),
    Entry("cosine_similarity", "CosineSimilarity cosine cosine_proximity",
          cosine_similarity, cosine_rows, "real", "real", "axis",
          note="minus the cosine: -1 is best"),
    Entry("hinge", "Hinge",
          hinge, margin_loss_rows, "sign", "real", "last", labels01=True),
    Entry("squared_hinge", "SquaredHinge",
          squared_hinge, squared_margin_loss_rows, "sign", "real", "last", labels01=True),
    Entry("categorical_hinge", "CategoricalHinge",
          categorical_hinge, CATEGORICAL_MARGIN, "one-hot", "real", "last"),
    Entry("binary_crossentropy", "BinaryCrossentropy bce BCE",
          binary_crossentropy, binary_entropy_rows, "binary", "probability", "axis"),
    Entry("binary_focal_crossentropy", "BinaryFocalCrossentropy",
          binary_focal_crossentropy, binary_focal_rows, "binary", "probability", "axis"),
    Entry("categorical_crossentropy", "CategoricalCrossentropy",
          categorical_crossentropy, cross_entropy_rows, "one-hot", "distribution", "axis"),
    Entry("categorical_focal_crossentropy", "CategoricalFocalCrossentropy",
          categorical_focal_crossentropy, focal_cross_entropy_rows,
          "one-hot", "distribution", "axis"),
    Entry("sparse_categorical_crossentropy", "SparseCategoricalCrossentropy",
          sparse_categorical_crossentropy, sparse_cross_entropy_rows,
          "index", "distribution", "axis"),
    Entry("categorical_generalized_cross_entropy", "CategoricalGeneralizedCrossEntropy",
          categorical_generalized_cross_entropy, generalized_cross_entropy_rows,
          "index", "distribution", "last", note="y_true holds class numbers, whatever the name says"),
    Entry("kl_divergence", "KLDivergence kld KLD kullback_leibler_divergence",
          kl_divergence, RELATIVE_ENTROPY, "one-hot", "distribution", "last"),
    Entry("dice", "Dice",
          dice, DICE, "binary", "probability", "axis",
          note="one value for the whole batch unless axis says otherwise"),
    Entry("tversky", "Tversky",
          tversky, tversky_rows, "binary", "probability", "axis",
          note="alpha weighs what was missed, as in Keras 3.15.1; its next release swaps alpha and beta"),
    Entry("circle", "Circle",
          circle, circle_rows, "label", "embedding", "own", call=CircleCall),
    Entry("ctc", "CTC",
          ctc, None, "sequence", "logits", "own", call=SequenceCall),
)

_LOSS = {entry.name: entry for entry in LOSSES}

METRICS = (
    Entry("accuracy", "Accuracy acc ACC",
          accuracy, EQUALITY, "decision", "decision", "element"),
    Entry("binary_accuracy", "BinaryAccuracy",
          binary_accuracy, decision_rows, "binary", "probability", "element"),
    Entry("categorical_accuracy", "CategoricalAccuracy",
          categorical_accuracy, TOP_CLASS, "one-hot", "scores", "last"),
    Entry("sparse_categorical_accuracy", "SparseCategoricalAccuracy",
          sparse_categorical_accuracy, TOP_CLASS, "index", "scores", "last"),
    Entry("top_k_categorical_accuracy", "TopKCategoricalAccuracy",
          top_k_categorical_accuracy, top_k_rows, "one-hot", "scores", "last"),
    Entry("sparse_top_k_categorical_accuracy", "SparseTopKCategoricalAccuracy",
          sparse_top_k_categorical_accuracy, sparse_top_k_rows, "index", "scores", "last",
          note="from_sorted_ids: y_pred holds class numbers, best first; the rows are the first k of them"),
    Entry("cosine_similarity", "CosineSimilarity cosine cosine_proximity",
          cosine_metric, cosine_metric_rows, "real", "real", "axis",
          note="plus the cosine: 1 is best (Keras 2.2.4: minus)"),
    Entry("pearson_correlation", "PearsonCorrelation",
          pearson_correlation, pearson_rows, "real", "real", "axis",
          note="one for each row, not over the data set"),
    Entry("concordance_correlation", "ConcordanceCorrelation",
          concordance_correlation, concordance_rows, "real", "real", "axis",
          note="one for each row, not over the data set"),
    _LOSS["mean_squared_error"],
    _LOSS["mean_absolute_error"],
    _LOSS["mean_absolute_percentage_error"],
    _LOSS["mean_squared_logarithmic_error"],
    _LOSS["poisson"],
    _LOSS["hinge"],
    _LOSS["squared_hinge"],
    _LOSS["categorical_hinge"],
    _LOSS["binary_crossentropy"],
    _LOSS["categorical_crossentropy"],
    _LOSS["sparse_categorical_crossentropy"],
    _LOSS["log_cosh"]._replace(aliases="LogCoshError log_cosh_error logcosh"),
    _LOSS["kl_divergence"]._replace(aliases="KLDivergence kullback_leibler_divergence"),
)
# fmt: on

# A public function knows its line; one that is both a loss and a metric has its line among the losses.
for _entry in (*METRICS, *LOSSES):
    vars(_entry.function)["entry"] = _entry
