"""Keras' own results, signatures and errors, and ours.

`golden/` holds what Keras 3.15.1 (torch on a CPU, and in float64 with its 32-bit cap lifted), tf_keras 2.21, Keras 2.3.1 and 2.2.4
return for the same calls: inputs, values, gradients of the sum of the values, states and results of metrics after each batch, what
`compile` makes of strings, and which calls raise what.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lossfuncs
from lossfuncs import losses, metrics, names

GOLDEN = Path(__file__).parent / "golden"
README = (Path(__file__).parents[1] / "README.md").read_text().partition("## Where it differs from Keras")[2].partition("\n## ")[0]

# The cases that we differ in on purpose, under words of the README that say how and why.
ON_PURPOSE = {
    "shapes that differ broadcast": """
        loss-mean_squared_error-023 loss-mean_squared_error-024 loss-mean_absolute_error-023
        loss-mean_absolute_error-024 loss-mean_absolute_percentage_error-023 loss-mean_absolute_percentage_error-024
        loss-mean_squared_logarithmic_error-023 loss-mean_squared_logarithmic_error-024 loss-log_cosh-023
        loss-log_cosh-024 loss-hinge-029 loss-hinge-030 loss-squared_hinge-029 loss-squared_hinge-030
    """,
    "log_cosh(-inf), bce from logits of a certain right answer, a -inf logit where the target is 0: NaN": """
        loss-log_cosh-029 loss-log_cosh-030 loss-binary_crossentropy-052 loss-binary_crossentropy-053
        loss-categorical_crossentropy-067 loss-categorical_crossentropy-068
    """,
    "a row of zero probabilities: NaN; a zero vector's cosine gradient: NaN": """
        loss-cosine_similarity-023 loss-cosine_similarity-024 loss-categorical_crossentropy-063 loss-categorical_crossentropy-064
        loss-categorical_generalized_cross_entropy-019 loss-categorical_generalized_cross_entropy-020
        loss-binary_focal_crossentropy-043 loss-binary_focal_crossentropy-044
    """,
    "focal losses from logits stop at 16.1 with a vanishing gradient": """
        loss-binary_focal_crossentropy-041 loss-binary_focal_crossentropy-042
    """,
    "label smoothing divides by `shape[-1]`": """
        loss-categorical_crossentropy-053 loss-categorical_crossentropy-054
    """,
    "NaN at the place of the label can count as right": """
        metric-categorical_accuracy-007
    """,
    "a label out of range: an error, 0 or 1/q": """
        loss-categorical_generalized_cross_entropy-021 loss-categorical_generalized_cross_entropy-022
        metric-sparse_categorical_accuracy-008
    """,
    "an infeasible CTC sequence: inf with NaN gradient": """
        loss-ctc-008
    """,
    "(N, 1) labels in `sparse_top_k_categorical_accuracy` give (N, 1)": """
        metric-sparse_top_k_categorical_accuracy-020
    """,
    "hinge reads 0/1 labels as -1/1 when the whole tensor is 0/1": """
        k224-loss-hinge-002 k224-loss-hinge-004 k224-loss-hinge-006 k224-loss-hinge-008 k224-loss-squared_hinge-002
        k224-loss-squared_hinge-004 k224-loss-squared_hinge-006 k224-loss-squared_hinge-008
    """,
    "`huber_loss` is averaged": """
        k231-loss-huber_loss-001 k231-loss-huber_loss-002 k231-loss-huber_loss-003 k231-loss-huber_loss-004
    """,
    "`cosine_proximity` as a metric is plus the cosine": """
        k224-metric-cosine_proximity-001 k224-metric-cosine_proximity-002 k224-metric-cosine_proximity-003
        k224-metric-cosine_proximity-004
    """,
    "`binary_accuracy` is per element": """
        k224-metric-binary_accuracy-001 k224-metric-binary_accuracy-002 k224-metric-binary_accuracy-003
        k224-metric-binary_accuracy-004 tf_keras-metric-binary_accuracy-001 tf_keras-metric-binary_accuracy-002
        tf_keras-metric-binary_accuracy-003 tf_keras-metric-binary_accuracy-004
    """,
    "top-k accuracies are per sample": """
        k224-metric-top_k_categorical_accuracy-001 k224-metric-top_k_categorical_accuracy-002
        k224-metric-sparse_top_k_categorical_accuracy-001 k224-metric-sparse_top_k_categorical_accuracy-002
    """,
    "tf.keras' other places for its epsilon": """
        tf_keras-loss-binary_crossentropy-001 tf_keras-loss-binary_crossentropy-002
        tf_keras-loss-binary_crossentropy-003 tf_keras-loss-binary_crossentropy-006
        tf_keras-loss-sparse_categorical_crossentropy-001 tf_keras-loss-sparse_categorical_crossentropy-002
        tf_keras-loss-sparse_categorical_crossentropy-003 tf_keras-loss-sparse_categorical_crossentropy-004
        tf_keras-loss-cosine_similarity-003 tf_keras-loss-cosine_similarity-006
    """,
    "probabilities are clipped at 1 - 1.19e-7 in float32": """
        k224-loss-binary_crossentropy-006
    """,
    "`sample_weight` (N,) on values (N, T) is matched to T": """
        loss_class-MeanAbsoluteError-015 loss_class-MeanAbsoluteError-016 loss_class-MeanAbsoluteError-021
        loss_class-MeanAbsoluteError-022 loss_class-MeanAbsoluteError-027 loss_class-MeanAbsoluteError-028
        loss_class-MeanAbsoluteError-033 loss_class-MeanAbsoluteError-034 loss_class-MeanAbsoluteError-039
        loss_class-MeanAbsoluteError-040
    """,
    "`mean_with_sample_weight` divides by the weights as they came": """
        loss_class-MeanSquaredError-063 loss_class-MeanSquaredError-064 loss_class-MeanAbsoluteError-031
        loss_class-MeanAbsoluteError-032
    """,
    "weights (N, 1) make values (N,) to (N, 1)": """
        loss_class-MeanSquaredError-077 loss_class-MeanSquaredError-078
    """,
    'The reduction "auto" of tf.keras': """
        tf_keras-loss_class-MeanSquaredError-001 tf_keras-loss_class-MeanSquaredError-002
    """,
    "`ignore_class` leaves ignored samples in a metric's mean": """
        metric_class-SparseCategoricalCrossentropy-007 metric_class-SparseCategoricalCrossentropy-009
    """,
    "1-D data in a mean-type metric is one number a batch": """
        metric_class-MeanSquaredError-006
    """,
    "IoU truncates weights and probabilities; adjusted R2 counts elements": """
        metric_class-MeanIoU-013 metric_class-R2Score-007 metric_class-R2Score-008
    """,
}
WHY = {case: words for words, cases in ON_PURPOSE.items() for case in cases.split()}


class Cases:
    """The cases of one file, by their names, and their arrays."""

    def __init__(self, name: str) -> None:
        self.by_id = {case["id"]: case for case in json.loads((GOLDEN / f"{name}.json").read_text())}
        with np.load(GOLDEN / f"{name}.npz") as stored:
            self._numbers = dict(stored)

    def params(self, differing: bool = False) -> list[Any]:
        return [pytest.param(case, id=name) for name, case in self.by_id.items() if (name in WHY) is differing]

    def arrays(self, case: dict[str, Any]) -> dict[str, Any]:
        return {role: self._array(*where) for role, where in case["arrays"].items()}

    def _array(self, dtype: str, shape: list[int], stored_as: str, begin: int) -> Any:
        with np.errstate(over="ignore"):  # a float16 case may hold inf where the float64 one does not
            return self._numbers[stored_as][begin : begin + math.prod(shape)].astype(dtype).reshape(shape)


FUNCTIONS, LOSSES, METRICS = Cases("functions"), Cases("loss_classes"), Cases("metric_classes")
SIGNATURES = json.loads((GOLDEN / "signatures.json").read_text())


def differing(got: dict[str, Any], arrays: dict[str, Any], rtol: float, atol: float) -> list[str]:
    """The roles in which we are close to neither of the results that Keras has."""
    return [
        role
        for role, result in got.items()
        if not any(
            np.shape(result) == arrays[r].shape and np.allclose(result, arrays[r], rtol, atol, equal_nan=True)
            for r in (role, f"{role}_ref64")
            if r in arrays
        )
    ]


def of_function(case: dict[str, Any]) -> list[str]:
    arrays = FUNCTIONS.arrays(case)
    module = losses if case["kind"] == "loss" else metrics
    function = getattr(module, names.find(case["kind"], case["name"]))
    options = {**case["kwargs"], **{role: arrays[role] for role in ("ref_labels", "ref_embeddings") if role in arrays}}
    t, p = arrays["y_true"], arrays["y_pred"]
    rtol, atol = case["tol"]
    if "grad" not in arrays:
        return differing({"out": function(t, p, **options)}, arrays, rtol, atol)
    value, gradient = lossfuncs.value_and_grad(function, t, p, **options)
    # torch's softplus is the identity above 20: an error of 2e-9, times gamma in circle's gradient
    gradient_atol = 1e-6 if case["name"] == "circle" else atol
    return differing({"out": value}, arrays, rtol, atol) + differing({"grad": gradient}, arrays, rtol, gradient_atol)


def of_loss(case: dict[str, Any]) -> list[str]:
    arrays = LOSSES.arrays(case)
    loss = getattr(losses, case["name"])(**case["kwargs"])
    arguments, mask = (arrays["y_true"], arrays["y_pred"], arrays.get("sample_weight")), arrays.get("mask")
    got = {"out": loss(*arguments, mask=mask)}
    if "grad" in arrays:
        value, got["grad"] = loss.value_and_grad(*arguments, mask=mask)
        # the reference of ctc takes another way to the value when there is a gradient to it
        assert np.allclose(value, got["out"], 16.0 * np.finfo(value.dtype).eps, 0.0, equal_nan=True)
    return differing(got, arrays, *case["tol"])


def steps(case: dict[str, Any], sent: Callable[[Any], Any] = np.asarray) -> Iterator[tuple[int, metrics.Metric, dict[str, Any]]]:
    """The metric after each step of a case, with the arrays of the case, which are sent elsewhere before it gets them."""
    arrays = METRICS.arrays(case)
    metric = getattr(metrics, case["name"])(**case["kwargs"])
    for k, step in enumerate(case["steps"]):
        if step == "reset":
            metric.reset_state()
        else:
            inputs = [sent(arrays[f"{role}{step}"]) for role in ("values", "y_true", "y_pred") if f"{role}{step}" in arrays]
            metric.update_state(*inputs, sample_weight=arrays.get(f"sample_weight{step}"))
        yield k, metric, arrays


def of_metric(case: dict[str, Any], sent: Callable[[Any], Any] = np.asarray) -> list[str]:
    return [role for k, metric, arrays in steps(case, sent) for role in differing({f"result{k}": metric.result()}, arrays, *case["tol"])]


def test_every_difference_is_in_the_readme() -> None:
    assert [words for words in (*ON_PURPOSE, *set(ERRORS_HERE.values())) if words not in README] == []
    assert WHY.keys() <= {*FUNCTIONS.by_id, *LOSSES.by_id, *METRICS.by_id}


@pytest.mark.parametrize("case", FUNCTIONS.params())
def test_a_functions_result_is_keras(case: dict[str, Any], backend: str) -> None:
    assert of_function(case) == []


@pytest.mark.parametrize("case", LOSSES.params())
def test_a_loss_objects_result_is_keras(case: dict[str, Any], backend: str) -> None:
    assert of_loss(case) == []


@pytest.mark.parametrize("case", METRICS.params())
def test_a_metrics_result_is_keras(case: dict[str, Any], backend: str) -> None:
    assert of_metric(case) == []


@pytest.mark.parametrize(
    ("of_one", "case"),
    [
        pytest.param(of_one, *param.values, id=param.id)
        for of_one, cases in ((of_function, FUNCTIONS), (of_loss, LOSSES), (of_metric, METRICS))
        for param in cases.params(differing=True)
    ],
)
def test_a_difference_is_one(of_one: Callable[[dict[str, Any]], list[str]], case: dict[str, Any], backend: str) -> None:
    try:
        found = of_one(case)
    except ValueError:
        return
    assert found


@pytest.mark.parametrize("name", sorted({case["name"] for case in METRICS.by_id.values()} - {"R2Score"}))
def test_variables_are_keras_variables(name: str) -> None:
    """Names, shapes and values, after every step. (R2Score sums about the mean instead of 0.)"""
    for case in METRICS.by_id.values():
        if case["name"] != name or case["id"] in WHY:
            continue
        for k, metric, arrays in steps(case):
            wanted = {role.partition(".")[2]: x for role, x in arrays.items() if role.startswith(f"state{k}.")}
            assert [v.name for v in metric.variables] == list(wanted), case["id"]
            for variable, x in zip(metric.variables, wanted.values(), strict=True):
                assert variable.shape == x.shape
                np.testing.assert_allclose(variable.value, x, case["tol"][0], 1e-5, err_msg=f"{case['id']} {variable.name}")


def test_everything_has_cases() -> None:
    for kind, entries in (("loss", lossfuncs.table.LOSSES), ("metric", lossfuncs.table.METRICS)):
        covered = {names.find(case["kind"], case["name"]) for case in FUNCTIONS.by_id.values() if case["kind"] in (kind, "loss")}
        assert {entry.name for entry in entries} <= covered
    assert {case["name"] for case in LOSSES.by_id.values()} == {cls.__name__ for cls in losses.CLASSES}
    assert {case["name"] for case in METRICS.by_id.values()} == SIGNATURES["metric_classes"].keys() - {"Metric", "MeanMetricWrapper"}


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module in (losses, metrics) for name in SIGNATURES[f"{module.REGISTRY.kind}_classes"]]
)
def test_a_constructor_is_keras_constructor(module: Any, name: str) -> None:
    """Keras' arguments and defaults in Keras' order; AUC takes two of ours after them."""
    parameters = inspect.signature(getattr(module, name)).parameters
    got = [(key, "<required>" if p.default is p.empty else p.default) for key, p in parameters.items()]
    ours = [("exact", False), ("capacity", 1 << 22)] if name == "AUC" else []
    wanted = SIGNATURES[f"{module.REGISTRY.kind}_classes"][name]
    assert got == [(key, tuple(x) if isinstance(x, list) else x) for key, x in wanted.items()] + ours


# What raises


def zeros(*shape: int) -> Any:
    return np.zeros(shape)


X, Y = np.array([0.1, 0.6, 0.9], np.float32), np.array([0.0, 1.0, 1.0], np.float32)
CALLS: dict[str, Callable[[], Any]] = {  # where what is written is not Python
    "Loss()(y,y)": lambda: losses.Loss()(zeros(3, 1), zeros(3, 1)),
    "binary_crossentropy((3,),(3,1))": lambda: losses.binary_crossentropy(zeros(3), zeros(3, 1)),
    "binary_crossentropy((3,2),(3,3))": lambda: losses.binary_crossentropy(zeros(3, 2), zeros(3, 3)),
    "categorical_crossentropy((3,),(3,1))": lambda: losses.categorical_crossentropy(zeros(3), zeros(3, 1)),
    "categorical_crossentropy((3,2),(3,3))": lambda: losses.categorical_crossentropy(zeros(3, 2), zeros(3, 3)),
    "categorical_crossentropy(axis=True)": lambda: losses.categorical_crossentropy(zeros(3, 2), zeros(3, 2), axis=True),
    "sparse_categorical_crossentropy((2,2),(2,3))": lambda: losses.sparse_categorical_crossentropy(zeros(2, 2), zeros(2, 3)),
    "sparse_categorical_crossentropy(label 3 of 3 classes)": lambda: losses.sparse_categorical_crossentropy(np.array([3]), zeros(1, 3)),
    "sparse_categorical_crossentropy(list labels)": lambda: losses.sparse_categorical_crossentropy([1], np.ones((1, 3))),
    "mean_squared_error((2,3),(2,2))": lambda: losses.mean_squared_error(zeros(2, 3), zeros(2, 2)),
    "mean_squared_error((2,),(2,3))": lambda: losses.mean_squared_error(zeros(2), zeros(2, 3)),
    "dice((2,2),(2,3))": lambda: losses.dice(zeros(2, 2), zeros(2, 3)),
    "binary_crossentropy(target 2.0)": lambda: losses.binary_crossentropy(np.full((1, 1), 2.0), np.full((1, 1), 0.5)),
    "binary_crossentropy(nan prediction)": lambda: losses.binary_crossentropy(zeros(1, 1), np.full((1, 1), np.nan)),
    "ctc(y_true rank 1)": lambda: losses.ctc(np.ones(2, int), zeros(2, 4, 3)),
    "ctc(y_pred rank 2)": lambda: losses.ctc(np.ones((4, 1), int), zeros(4, 3)),
    "MeanSquaredError()(sample_weight wrong length)": lambda: losses.MeanSquaredError()(zeros(3, 2), zeros(3, 2), zeros(2)),
    "MeanAbsoluteError()(3-D (2,4,3), sample_weight (2,))": lambda: losses.MeanAbsoluteError()(zeros(2, 4, 3), zeros(2, 4, 3), zeros(2)),
    "metrics.MeanSquaredError 1-D with sample_weight": lambda: metrics.MeanSquaredError()(Y, X, [1.0, 2.0, 3.0]),
    "AUC(multi_label=True) with rank 1": lambda: metrics.AUC(multi_label=True)(Y, X),
    "F1Score with rank 1": lambda: metrics.F1Score()(Y, X),
    "F1Score().result() before any update": lambda: metrics.F1Score().result(),
    "R2Score().result() before any update": lambda: metrics.R2Score().result(),
    "R2Score with rank 1": lambda: metrics.R2Score()(Y, X),
    "Precision(class_id=0) with rank 1": lambda: metrics.Precision(class_id=0)(Y, X),
    "sparse_top_k k > classes": lambda: metrics.sparse_top_k_categorical_accuracy([1], zeros(1, 3)),
    "compile metrics='accuracy' (string)": lambda: lossfuncs.compile(metrics="accuracy"),
    "compile loss_weights=2 (int)": lambda: lossfuncs.compile("mse", loss_weights=2),
}
SHAPES, BEFORE_DATA = "shapes that differ broadcast", "`result()` may be live state, and F1Score's raises before any data"
FRAMEWORK, OLDER = "errors of the framework below", "Strings of older generations get Keras 3's formula"
ERRORS_HERE = {  # calls that are fine, or raise a ValueError where Keras has the framework's exception
    "losses.get('CategoricalGeneralizedCrossEntropy')": "`CategoricalGeneralizedCrossEntropy` is no string",
    "binary_crossentropy((3,),(3,1))": SHAPES,
    "categorical_crossentropy((3,),(3,1))": SHAPES,
    "mean_squared_error((2,3),(2,2))": SHAPES,
    "mean_squared_error((2,),(2,3))": SHAPES,
    "dice((2,2),(2,3))": SHAPES,
    "sparse_categorical_crossentropy(label 3 of 3 classes)": "a label out of range: an error, 0 or 1/q",
    "sparse_categorical_crossentropy(list labels)": FRAMEWORK,
    "binary_crossentropy(target 2.0)": FRAMEWORK,
    "binary_crossentropy(nan prediction)": FRAMEWORK,
    "MeanSquaredError()(sample_weight wrong length)": FRAMEWORK,
    "sparse_top_k k > classes": FRAMEWORK,
    "MeanAbsoluteError()(3-D (2,4,3), sample_weight (2,))": "`sample_weight` (N,) on values (N, T) is matched to T",
    "metrics.get('acc')": OLDER,
    "metrics.get('logcosh')": OLDER,
    "metrics.MeanSquaredError 1-D with sample_weight": "1-D data in a mean-type metric is one number a batch",
    "R2Score with rank 1": "1-D data in a mean-type metric is one number a batch",
    "F1Score().result() before any update": BEFORE_DATA,
    "R2Score().result() before any update": BEFORE_DATA,
    "compile loss_weights=2 (int)": "`loss_weights=2` is refused, 2.0 is not",
}
ERRORS = [pytest.param(*error, id=error[0]) for error in json.loads((GOLDEN / "errors.json").read_text())]


def keras_call(call: str) -> Any:
    """The call that is written; of a metric class, its name and a dict of its arguments."""
    if call in CALLS:
        return CALLS[call]()
    if call.startswith("metrics.") and call.endswith("})") and not call.startswith("metrics.get("):
        name, _, arguments = call.removeprefix("metrics.").partition("(")
        return getattr(metrics, name)(**eval(arguments[:-1]))  # a literal of our own file
    return eval(call, {"losses": losses, "metrics": metrics, **vars(losses)})


@pytest.mark.parametrize(("call", "raises", "message"), ERRORS)
def test_what_keras_refuses_is_refused_in_a_sentence_of_the_same_sense(call: str, raises: str, message: str) -> None:
    try:
        assert keras_call(call) is not None
    except Exception as error:
        raised = error
    else:
        assert call in ERRORS_HERE
        return
    if call in ERRORS_HERE:
        assert raises != "ValueError"
        raises = "ValueError"
    assert type(raised).__name__ == raises
    text = str(raised)
    assert len(text) > 20 and "\n" not in text
    begins = re.match(r"Could not interpret \w+ identifier|Unknown `config`|\S+\(\) missing", message)
    assert begins is None or text.startswith(begins[0])
    arguments = [{"target": "y_true", "output": "y_pred"}.get(name, name) for name in re.findall(r"`(\w+)`", message)]
    assert not arguments or any(name in text for name in arguments)
