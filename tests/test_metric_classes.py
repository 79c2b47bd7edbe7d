"""The stateful metrics: the laws that every metric keeps, exact counts and areas, configurations, subclasses."""

from __future__ import annotations

import copy
import functools
import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lossfuncs
from lossfuncs import losses, metrics
from lossfuncs.cli import main

Array = np.ndarray[Any, np.dtype[Any]]
# Errors

X, Y = np.array([0.1, 0.6, 0.9], np.float32), np.array([0.0, 1.0, 1.0], np.float32)
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.Precision(thresholds=[0.1, 1.5]), r"thresholds must be a number in \[0, 1\] or several, got \[0.1, 1.5\]"),
        (lambda: metrics.Precision(top_k=0), "top_k must be None or a whole number >= 1, got 0"),
        (lambda: metrics.Precision(top_k=2)(Y, X), "y_pred must have an axis of classes where top_k is given"),
        (lambda: metrics.Recall(class_id=2)(np.eye(2), np.eye(2)), "class_id is 2, but y_pred has classes 0 to 1"),
        (lambda: metrics.Recall()(np.eye(2), np.eye(3)), "must have the same shape"),
        (lambda: metrics.Recall()(Y, X, [1.0, 2.0]), r"sample_weight of shape \(2,\) does not fit"),
        (lambda: metrics.MeanSquaredError()(np.eye(2), np.eye(2), mask=[True]*3), r"mask of shape \(3,\) does not fit"),
        (lambda: metrics.CategoricalCrossentropy()(Y, X), "needs several numbers for each sample"),
        (lambda: metrics.MeanIoU(3)([0, 1], [0.9, 0.2]), "y_pred must hold whole numbers of 64 bits, got 0.9"),
        (lambda: metrics.MeanIoU(3)([0, 1], [0, 1, 1]), "must have the same shape"),
        (lambda: metrics.F1Score()([0, 3], np.eye(3)[:2]), r"y_true\[1\] is 3, but y_pred has classes 0 to 2"),
        (lambda: metrics.AUC(label_weights=[1.0, 2.0])(np.eye(3), np.eye(3)), "label_weights must be one for each column"),
        (lambda: metrics.AUC().error_bound, "error_bound is known with exact=True only"),
        (lambda: metrics.Mean(dtype="foo"), "dtype must be the name of a dtype"),
        (lambda: metrics.MeanMetricWrapper(lossfuncs.losses.huber, delt=2.0), "did you mean 'delta'"),
        (lambda: metrics.AUC().merge_state([metrics.AUC(curve="PR")]), "must be AUC metrics with the options of this one"),
        (lambda: metrics.AUC().load_state_vector(np.zeros(3)), "vector must be a state of 1600 numbers"),
        (lambda: metrics.Sum().total.assign([1.0, 2.0]), r"total has shape \(\)"),
        (lambda: metrics.Sum().total.assign_add([1.0]), r"total is a number, so that a value of shape \(1,\) cannot be added"),
        (lambda: metrics.R2Score()(np.ones((2, 0)), np.ones((2, 0))), r"y_pred must have shape \(samples, columns\)"),
        (lambda: metrics.OneHotMeanIoU(3)([], np.eye(3)), r"y_true must have classes along axis -1, got shape \(0,\)"),
        (lambda: metrics.OneHotMeanIoU(3, axis=2)(np.eye(3), np.eye(3)), r"y_true must have classes along axis 2, got shape \(3, 3\)"),
        (lambda: metrics.Mean().load_state_vector("state"), "vector must hold real numbers, got dtype <U5"),
        (lambda: metrics.AUC(exact=True).load_state_vector("state"), "vector must hold real numbers, got dtype <U5"),
        (lambda: metrics.Metric().update_state(), "Metric does not define update_state"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_told_what_is_wrong(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError, NotImplementedError), match=message):
        call()


def test_a_bad_batch_leaves_nothing_behind() -> None:
    for metric, good, bad in (
        (metrics.SparseCategoricalAccuracy(), ([0, 1], np.eye(2)), ([0, 2], np.eye(2))),
        (metrics.F1Score(), (np.eye(3), np.eye(3)), (np.eye(2), np.eye(2))),
        (metrics.R2Score(), (np.eye(3), np.eye(3)), (np.eye(2), np.eye(2))),
        (metrics.AUC(multi_label=True), (np.eye(3), np.eye(3)), (np.eye(2), np.eye(2))),
    ):
        metric.update_state(*good)
        before = metric.state_vector()
        with pytest.raises(ValueError):
            metric.update_state(*bad)
        assert np.array_equal(before, metric.state_vector())


# Laws. For each kind of data: targets and predictions of n samples.


def _one_hot(n: int, rng: np.random.Generator) -> Array:
    return np.eye(5)[rng.integers(0, 5, n)].astype(np.float32)


def _real(n: int, rng: np.random.Generator) -> Array:
    return rng.normal(size=(n, 5)).astype(np.float32)


def _chances(n: int, rng: np.random.Generator) -> Array:
    x = rng.gamma(1.0, 1.0, (n, 5))
    return (x / x.sum(axis=1, keepdims=True)).astype(np.float32)


DATA: dict[str, Callable[[int, np.random.Generator], tuple[Any, ...]]] = {
    "values": lambda n, rng: (_real(n, rng),),
    "real": lambda n, rng: (_real(n, rng), _real(n, rng)),
    "positive": lambda n, rng: (rng.gamma(2.0, 1.0, (n, 5)), rng.gamma(2.0, 1.0, (n, 5)).astype(np.float32)),
    "sign": lambda n, rng: (2.0 * rng.integers(0, 2, (n, 5)) - 1.0, _real(n, rng)),
    "binary": lambda n, rng: (rng.integers(0, 2, (n, 5)), rng.uniform(size=(n, 5)).astype(np.float32)),
    "flat": lambda n, rng: (rng.integers(0, 2, n), rng.uniform(size=n).astype(np.float32)),
    "one-hot": lambda n, rng: (_one_hot(n, rng), _chances(n, rng)),
    "index": lambda n, rng: (rng.integers(0, 5, n), _chances(n, rng)),
    "classes": lambda n, rng: (rng.integers(0, 5, n), rng.integers(0, 5, n)),
    "scores": lambda n, rng: (_one_hot(n, rng), _real(n, rng)),
}
# Class, options, data, and whether all that is gathered are counts: then all is equal to the bit.
METRICS: list[tuple[Any, dict[str, Any], str, bool]] = [
    (metrics.Mean, {}, "values", False),
    (metrics.Sum, {}, "values", False),
    (metrics.MeanMetricWrapper, {"fn": lossfuncs.losses.huber, "delta": 0.5}, "real", False),
    (metrics.MeanMetricWrapper, {"fn": lambda t, p: np.abs(t - p).max(axis=-1)}, "real", False),
    (metrics.Accuracy, {}, "classes", True),
    (metrics.BinaryAccuracy, {}, "flat", True),
    (metrics.CategoricalAccuracy, {}, "one-hot", True),
    (metrics.SparseCategoricalAccuracy, {}, "index", True),
    (metrics.TopKCategoricalAccuracy, {"k": 2}, "one-hot", True),
    (metrics.SparseTopKCategoricalAccuracy, {"k": 2}, "index", True),
    (metrics.MeanSquaredError, {}, "real", False),
    (metrics.MeanSquaredError, {}, "flat", False),
    (metrics.RootMeanSquaredError, {}, "real", False),
    (metrics.MeanAbsoluteError, {}, "real", False),
    (metrics.MeanAbsolutePercentageError, {}, "real", False),
    (metrics.MeanSquaredLogarithmicError, {}, "positive", False),
    (metrics.LogCoshError, {}, "real", False),
    (metrics.CosineSimilarity, {}, "real", False),
    (metrics.PearsonCorrelation, {}, "real", False),
    (metrics.ConcordanceCorrelation, {}, "real", False),
    (metrics.Poisson, {}, "positive", False),
    (metrics.KLDivergence, {}, "one-hot", False),
    (metrics.Hinge, {}, "sign", False),
    (metrics.SquaredHinge, {}, "sign", False),
    (metrics.CategoricalHinge, {}, "one-hot", False),
    (metrics.BinaryCrossentropy, {}, "binary", False),
    (metrics.CategoricalCrossentropy, {}, "one-hot", False),
    (metrics.SparseCategoricalCrossentropy, {"ignore_class": 1}, "index", False),
    (metrics.TruePositives, {}, "binary", True),
    (metrics.FalsePositives, {"thresholds": [0.9, 0.2]}, "flat", True),
    (metrics.TrueNegatives, {}, "binary", True),
    (metrics.FalseNegatives, {}, "flat", True),
    (metrics.Precision, {"top_k": 2}, "one-hot", True),
    (metrics.Recall, {"class_id": 3}, "binary", True),
    (metrics.SensitivityAtSpecificity, {"specificity": 0.7}, "flat", True),
    (metrics.SpecificityAtSensitivity, {"sensitivity": 0.7}, "binary", True),
    (metrics.PrecisionAtRecall, {"recall": 0.7}, "flat", True),
    (metrics.RecallAtPrecision, {"precision": 0.5}, "binary", True),
    (metrics.AUC, {}, "flat", True),
    (metrics.AUC, {"curve": "PR", "multi_label": True}, "binary", True),
    (metrics.AUC, {"exact": True}, "scores", True),
    (metrics.AUC, {"exact": True, "multi_label": True, "capacity": 20}, "binary", True),
    (metrics.FBetaScore, {"beta": 2.0, "average": "weighted"}, "one-hot", True),
    (metrics.F1Score, {"threshold": 0.5, "average": "micro"}, "binary", True),
    (metrics.F1Score, {}, "index", True),
    (metrics.IoU, {"num_classes": 5, "target_class_ids": [0, 3]}, "classes", True),
    (metrics.BinaryIoU, {}, "flat", True),
    (metrics.MeanIoU, {"num_classes": 4, "ignore_class": 2}, "classes", True),
    (metrics.OneHotIoU, {"num_classes": 5, "target_class_ids": [1]}, "one-hot", True),
    (metrics.OneHotMeanIoU, {"num_classes": 5}, "one-hot", True),
    (metrics.R2Score, {}, "real", False),
    (metrics.R2Score, {"class_aggregation": "variance_weighted_average"}, "flat", False),
]
EVERY_METRIC = pytest.mark.parametrize(
    ("cls", "options", "kind", "exact"), METRICS, ids=[f"{cls.__name__}-{i}" for i, (cls, *_) in enumerate(METRICS)]
)
N = 61


def batch(kind: str, seed: int = 0, n: int = N) -> tuple[Any, ...]:
    return DATA[kind](n, np.random.default_rng(seed))


def seen(metric: metrics.Metric, inputs: tuple[Any, ...], sample_weight: Any = None) -> metrics.Metric:
    metric.update_state(*inputs, sample_weight=sample_weight)
    return metric


def assert_same(got: metrics.Metric, wanted: metrics.Metric, exact: bool) -> None:
    """One state, to the bit for counts and to 1e-14 of what was added for totals, and one result.

    Elements that share a logarithm and single ones differ within what float32 data's exponentials and logarithms are right to, 2^-35.
    """
    digits = 2.0**-35 if isinstance(wanted, metrics.LogCoshError | metrics.BinaryCrossentropy) else 1e-14
    assert not isinstance(wanted, metrics.AUC) or wanted.result() > 0
    for mine, its in zip(got.variables, wanted.variables, strict=True):
        if exact:
            np.testing.assert_array_equal(mine.value, its.value)
        else:
            np.testing.assert_allclose(mine.value, its.value, rtol=digits, atol=digits * N)
    if exact and isinstance(wanted, metrics.AUC):
        np.testing.assert_array_equal(got.state_vector(), wanted.state_vector())
    np.testing.assert_allclose(got.result(), wanted.result(), rtol=10 * digits, atol=10 * digits)


def test_every_class_is_under_the_laws() -> None:
    assert {cls.__name__ for cls, *_ in METRICS} == metrics.REGISTRY.classes.keys() - {"Metric"}


@EVERY_METRIC
def test_the_order_of_the_samples_does_not_matter(cls: Any, options: Any, kind: str, exact: bool) -> None:
    inputs, order = batch(kind), np.random.default_rng(1).permutation(N)
    assert_same(seen(cls(**options), tuple(x[order] for x in inputs)), seen(cls(**options), inputs), exact)


@EVERY_METRIC
def test_weight_two_is_the_sample_twice(cls: Any, options: Any, kind: str, exact: bool) -> None:
    inputs = batch(kind)
    times = np.random.default_rng(2).integers(1, 4, N)
    got, wanted = seen(cls(**options), inputs, times), seen(cls(**options), tuple(np.repeat(x, times, axis=0) for x in inputs))
    if cls is metrics.R2Score:  # its num_samples counts samples, not weights
        np.testing.assert_allclose(got.result(), wanted.result(), rtol=1e-13)
    else:
        assert_same(got, wanted, exact)


@EVERY_METRIC
def test_weight_zero_is_the_sample_removed(cls: Any, options: Any, kind: str, exact: bool) -> None:
    inputs = batch(kind)
    kept = np.random.default_rng(3).uniform(size=N) < 0.6
    wanted = seen(cls(**options), tuple(x[kept] for x in inputs))
    assert_same(seen(cls(**options), inputs, kept.astype(np.float32)), wanted, exact)
    masked = cls(**options)
    masked.update_state(*inputs, mask=kept)
    assert_same(masked, wanted, exact)


@pytest.mark.parametrize("parts", [1, 7, N])
@EVERY_METRIC
def test_the_batches_do_not_matter(cls: Any, options: Any, kind: str, exact: bool, parts: int) -> None:
    inputs, metric = batch(kind), cls(**options)
    for part in np.array_split(np.arange(N), parts):
        metric.update_state(*(x[part] for x in inputs))
    assert_same(metric, seen(cls(**options), inputs), exact)


@EVERY_METRIC
def test_inputs_are_read_in_any_layout_and_never_written_to(cls: Any, options: Any, kind: str, exact: bool) -> None:
    inputs, weights = batch(kind), np.random.default_rng(6).integers(0, 3, N)
    wanted = seen(cls(**options), inputs, weights)
    for change in (_read_only, lambda x: np.repeat(x, 2, axis=0)[::2], lambda x: x[::-1].copy()[::-1], np.asfortranarray,
                   lambda x: x.astype(x.dtype.newbyteorder(">"))):  # fmt: skip
        changed = tuple(change(x) for x in inputs)
        before = [x.copy() for x in changed]
        assert_same(seen(cls(**options), changed, _read_only(weights)), wanted, exact)
        assert all(np.array_equal(x, y) for x, y in zip(changed, before, strict=True))
    if "fn" not in options:
        got = seen(cls(**options), tuple(x.astype(np.float64).tolist() for x in inputs), weights.tolist())
        np.testing.assert_allclose(got.result(), wanted.result(), rtol=1e-6)


def _read_only(x: Array) -> Array:
    x = x.copy()
    x.flags.writeable = False
    return x


@EVERY_METRIC
def test_an_empty_batch_changes_nothing(cls: Any, options: Any, kind: str, exact: bool) -> None:
    metric, inputs = cls(**options), batch(kind)
    metric.update_state(*(x[:0] for x in inputs))
    assert not np.any(metric.result())
    metric.update_state(*inputs)
    metric.update_state(*(x[:0] for x in inputs), sample_weight=np.ones(0))
    assert_same(metric, seen(cls(**options), inputs), exact)


@EVERY_METRIC
def test_states_of_seven_unequal_parts_merge_to_that_of_one_pass(cls: Any, options: Any, kind: str, exact: bool) -> None:
    inputs = batch(kind)
    weights = np.random.default_rng(4).integers(0, 5, N)
    bounds = [0, 1, 3, 4, 17, 17, 40, N]  # one of them has seen nothing
    parts = [cls(**options) for _ in bounds[1:]]
    for metric, begin, end in zip(parts, bounds[:-1], bounds[1:], strict=True):
        if begin < end:
            metric.update_state(*(x[begin:end] for x in inputs), sample_weight=weights[begin:end])
    total = cls(**options)
    total.merge_state(parts)
    assert_same(total, seen(cls(**options), inputs, weights), exact)
    moved = cls(**options)
    moved.load_state_vector(total.state_vector())
    np.testing.assert_array_equal(moved.state_vector(), total.state_vector())
    assert_same(moved, total, True)


@EVERY_METRIC
def test_a_state_is_one_flat_vector_and_results_are_copies(cls: Any, options: Any, kind: str, exact: bool) -> None:
    metric = seen(cls(**options), batch(kind))
    vector, result = metric.state_vector(), metric.result()
    assert vector.ndim == 1 and vector.dtype == np.float64
    before = np.array(result)
    metric.update_state(*batch(kind, seed=9))
    vector[...] = -1.0
    np.testing.assert_array_equal(result, before)
    assert type(result) in (np.float64, np.ndarray)
    metric.reset_states()
    assert not metric.state_vector().any()
    assert not np.any(metric.result())


@EVERY_METRIC
def test_a_configuration_and_a_pickle_make_the_same_metric(cls: Any, options: Any, kind: str, exact: bool) -> None:
    metric = seen(cls(**options), batch(kind))
    own = cls is metrics.MeanMetricWrapper and "delta" not in options
    for again in (copy.deepcopy(metric), *([] if own else [pickle.loads(pickle.dumps(metric))])):
        assert_same(again, metric, True)
        again.update_state(*batch(kind))
    if own:
        return  # a lambda has no name to be found by
    for again in (metrics.deserialize(json.loads(json.dumps(metrics.serialize(metric)))), cls.from_config(metric.get_config())):
        assert type(again) is cls and again.get_config() == metric.get_config() and again.name == metric.name
        assert_same(seen(again, batch(kind)), metric, True)


def test_weights_of_every_element_count_apart() -> None:
    t, p = batch("real")
    w = np.random.default_rng(5).uniform(size=t.shape)
    squares = (t.astype(float) - p) ** 2
    assert seen(metrics.RootMeanSquaredError(), (t, p), w).result() == pytest.approx(np.sqrt(np.average(squares, weights=w)), rel=1e-12)
    elements = t[..., None], p[..., None]
    assert seen(metrics.MeanSquaredError(), elements, w).result() == pytest.approx(np.average(squares, weights=w), rel=1e-12)
    y, q = batch("binary")
    assert seen(metrics.TruePositives(), (y, q), w).result() == pytest.approx(w[(y == 1) & (q > 0.5)].sum())
    assert seen(metrics.BinaryAccuracy(), (y, q), w).result() == pytest.approx(np.average(y == (q > 0.5), weights=w))


def test_an_attached_mask_counts_like_a_given_one() -> None:
    class Masked(np.ndarray):
        _keras_mask: Any

    for cls, kind in (("MeanSquaredError", "real"), ("AUC", "binary"), ("RootMeanSquaredError", "real"), ("R2Score", "real")):
        make: Any = getattr(metrics, cls)
        t, p = batch(kind)
        kept, w = np.arange(N) % 3 > 0, np.linspace(0.0, 2.0, N)
        with_mask = p.view(Masked)
        with_mask._keras_mask = kept
        wanted = seen(make(), (t[kept], p[kept]), w[kept])
        np.testing.assert_allclose(seen(make(), (t, with_mask), w).result(), wanted.result(), rtol=1e-12)


def test_what_is_masked_may_be_nan(backend: str) -> None:
    t, p = batch("real")
    p[3] = np.nan
    kept = np.arange(N) != 3
    for cls in (metrics.Mean, metrics.R2Score, metrics.MeanSquaredError, metrics.RootMeanSquaredError, metrics.CosineSimilarity):
        inputs = (p,) if cls is metrics.Mean else (t, p)
        wanted = pytest.approx(seen(cls(), tuple(x[kept] for x in inputs)).result())
        for weights in ({"mask": kept}, {"sample_weight": kept.astype(float)}):
            got = cls()
            got.update_state(*inputs, **weights)
            assert got.result() == wanted
    labels, p = batch("index")
    entropy = metrics.SparseCategoricalCrossentropy()
    entropy.update_state(np.where(kept, labels, 9), p, mask=kept)
    assert entropy.result() == pytest.approx(seen(metrics.SparseCategoricalCrossentropy(), (labels[kept], p[kept])).result())
    with pytest.raises(ValueError, match=r"y_true\[5\] is 9"):
        entropy.update_state(np.where(np.arange(N) == 5, 9, labels), p, mask=kept)


# Exact


def test_counts_are_exact_beyond_what_float32_and_float64_hold() -> None:
    for start in (2.0**24, 2.0**53):
        metric = seen(metrics.TruePositives(), ([1], [0.9]))
        vector = metric.state_vector()
        vector[0] = start
        metric.load_state_vector(vector)
        for _ in range(3):
            metric.update_state([1], [0.9])
        metric.accumulator.assign_sub([start])
        assert metric.result() == 3
        large = metrics.SparseCategoricalAccuracy()
        for total in (large.total, large.count):
            total.assign(start)
        parts = [seen(metrics.SparseCategoricalAccuracy(), ([0], [[0.9, 0.1]])) for _ in range(5)]
        large.merge_state(parts)
        for total in (large.total, large.count):
            assert total.assign_sub(start).value == 5


def test_a_total_of_many_small_values_keeps_its_digits() -> None:
    values = np.random.default_rng(0).uniform(size=100_000).tolist()
    metric = metrics.Sum()
    for x in values:
        metric.total.assign_add(x)
    assert metric.result() == pytest.approx(math.fsum(values), rel=2.3e-16)
    assert np.cumsum(values)[-1] != pytest.approx(math.fsum(values), rel=2.3e-16)  # added one by one as they come


def test_r2_of_targets_far_from_zero_is_right() -> None:
    rng = np.random.default_rng(0)
    t = rng.normal(size=1000)
    p = t + 0.3 * rng.normal(size=1000)
    wanted = 1 - np.sum((t - p) ** 2) / np.sum((t - t.mean()) ** 2)
    metric = metrics.R2Score()
    for part in np.array_split(np.arange(1000), 13):
        metric.update_state(t[part] + 1e6, p[part] + 1e6)
    assert metric.result() == pytest.approx(wanted, rel=1e-9)


def test_r2_of_a_constant_column_is_one_if_it_is_predicted_and_else_zero() -> None:
    t = np.array([[1.0, 2.0, 0.0], [1.0, 2.0, 1.0]])
    p = np.array([[1.0, 2.5, 0.0], [1.0, 2.0, 1.0]])
    np.testing.assert_array_equal(metrics.R2Score(class_aggregation=None)(t, p), [1.0, 0.0, 1.0])
    for n in (3, 10, 24):  # whose mean is rounded: 0.1 added up n times is not n / 10
        assert metrics.R2Score()(np.full(n, 0.1), np.full(n, 0.2)) == 0.0
        assert metrics.R2Score()(np.full(n, 0.1), np.full(n, 0.1), np.full(n, 0.3)) == 1.0


@pytest.mark.parametrize("what", ["t", "p", "w"])
def test_r2_of_what_is_nan_is_never_a_score(what: str) -> None:
    data = {"t": np.array([0.0, 1.0, 2.0]), "p": np.array([0.0, 1.0, 2.0]), "w": np.ones(3)}
    data[what][1] = np.nan
    assert np.isnan(metrics.R2Score()(*data.values()))


def test_r2_does_not_depend_on_the_scale_of_the_weights_or_on_their_sign() -> None:
    t, p = np.array([0.0, 1.0, 2.0]), np.array([0.1, 1.0, 2.5])
    for factor in (1.0, 1e-300, -1.0):
        assert metrics.R2Score()(t, p, factor * np.ones(3)) == pytest.approx(1 - 0.26 / 2)


def test_a_perfect_prediction_has_an_f_score_of_one() -> None:
    np.testing.assert_array_equal(metrics.F1Score()(np.eye(4), np.eye(4)), np.ones(4))
    assert metrics.F1Score(threshold=0.5)([0, 1, 1], [0.1, 0.9, 0.8]) == 1.0


def mann_whitney(y: Array, s: Array, w: Array) -> float:
    pairs = (w[y == 1][:, None] * w[y == 0]).sum()
    above = np.sign(s[y == 1][:, None] - s[y == 0]) / 2 + 0.5
    return float((w[y == 1][:, None] * w[y == 0] * above).sum() / pairs)


def average_precision(y: Array, s: Array, w: Array) -> float:
    found, total = 0.0, w[y == 1].sum()
    for score in np.unique(s):
        positives, here = w[(s >= score) & (y == 1)].sum(), w[(s == score) & (y == 1)].sum()
        found += here / total * positives / w[s >= score].sum()
    return found


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e20, -1.0])
def test_exact_areas_are_those_over_all_pairs(ties: bool, scale: float) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    s = rng.normal(size=400) + 0.7 * y
    s, w = (np.round(s * 4) / 4 if ties else s) * scale, rng.uniform(size=400)
    for weights in (w, np.ones(400)):
        given = None if weights is not w else w
        assert metrics.AUC(exact=True)(y, s, given) == pytest.approx(mann_whitney(y, s, weights), rel=1e-13)
        step = metrics.AUC(exact=True, curve="PR", summation_method="step")
        assert step(y, s, given) == pytest.approx(average_precision(y, s, weights), rel=1e-13)
    columns = metrics.AUC(exact=True, multi_label=True)(np.stack([y, 1 - y], 1), np.stack([s, s], 1))
    assert columns == pytest.approx(0.5)


def test_the_exact_area_sees_scores_that_crowd_between_two_thresholds() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 300)
    s = 1e-3 / (1 + np.exp(-rng.normal(size=300) - 2 * y))
    assert metrics.AUC()(y, s) == pytest.approx(0.5, abs=0.01)
    assert metrics.AUC(exact=True)(y, s) == pytest.approx(mann_whitney(y, s, np.ones(300)), rel=1e-13)
    assert metrics.AUC(exact=True)(y, s) > 0.8


def test_a_full_ranking_rounds_no_more_than_it_must_whatever_the_order_and_the_batches() -> None:
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 5000)
    s = rng.normal(size=5000) + y
    wanted = metrics.AUC(exact=True)(y, s)
    whole = seen(metrics.AUC(exact=True, capacity=300), (y, s))
    assert 150 < len(whole.state_vector()) // 3 <= 300
    assert 0 < abs(whole.result() - wanted) <= whole.error_bound < 5e-3
    order = rng.permutation(5000)
    parts = [seen(metrics.AUC(exact=True, capacity=300), (y[part], s[part])) for part in np.array_split(order, 7)]
    parts[0].merge_state(parts[1:])
    np.testing.assert_array_equal(parts[0].state_vector(), whole.state_vector())
    assert metrics.AUC(exact=True).error_bound == 0


def test_predictions_on_a_threshold_are_not_above_it() -> None:
    p = np.array([0.2, 0.5, 0.7, np.nan], np.float32)
    np.testing.assert_array_equal(metrics.TruePositives(thresholds=[0.7, 0.2, 0.5])(np.ones(4), p), [0.0, 2.0, 1.0])
    assert metrics.BinaryIoU(target_class_ids=[1])([1, 0], [0.5, 0.4]) == 1.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [2, 5, 9, 50, 199, 200, 1000])
def test_many_even_thresholds_are_counted_as_if_one_by_one(n: int, dtype: Any) -> None:
    bounds = (np.arange(n) / (n - 1)).astype(dtype)
    wide = np.array([-np.inf, -3.0, -0.0, 1.5, np.inf, np.nan, 1e300 if dtype is np.float64 else 1e30], dtype)
    p = np.concatenate([bounds, np.nextafter(bounds, dtype(2)), np.nextafter(bounds, dtype(-1)), wide])
    y = np.arange(len(p)) % 2
    above = p[:, None] > bounds
    found = [cls(thresholds=(np.arange(n) / (n - 1)).tolist())(y, p) for cls in (metrics.TruePositives, metrics.FalsePositives)]
    np.testing.assert_array_equal(found, [above[y == 1].sum(axis=0), above[y == 0].sum(axis=0)])


@pytest.mark.parametrize("k", [1, 2, 4, 5, 9])
def test_the_top_k_are_the_first_k_of_a_stable_sort(k: int) -> None:
    rng = np.random.default_rng(k)
    y, p = rng.integers(0, 2, (300, 5)), rng.integers(0, 4, (300, 5)) / 4
    best = np.zeros(p.shape, bool)
    np.put_along_axis(best, np.argsort(-p, axis=1, kind="stable")[:, :k], True, axis=1)
    assert metrics.Recall(top_k=k)(y, p) == (best & (y == 1)).sum() / y.sum()
    assert metrics.Precision(top_k=k, class_id=3)(y, p) == (best & (y == 1))[:, 3].sum() / best[:, 3].sum()
    assert metrics.Recall(top_k=k, thresholds=0.5)(y, p) == (best & (y == 1) & (p > 0.5)).sum() / y.sum()


def test_of_equal_scores_the_first_are_the_top_k() -> None:
    y = np.array([[1, 0, 0, 0], [0, 0, 0, 1]])
    assert metrics.Precision(top_k=1)(y, np.zeros((2, 4))) == 0.5
    assert metrics.Recall(top_k=4)(y, np.zeros((2, 4))) == 1.0


def test_one_dimensional_data_are_one_number_a_sample() -> None:
    metric = metrics.MeanSquaredError()
    metric.update_state([0.0, 0.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0])
    metric.update_state([0.0], [0.0])
    assert metric.result() == 3.2
    column = np.array([[1.0], [-1.0], [1.0]])
    assert metrics.Hinge()(column[:, 0], column) == metrics.Hinge()(column, column) == 0.0


# Subclasses, names, get


class BinaryTruePositives(metrics.Metric):
    def __init__(self, name: str = "binary_true_positives", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.true_positives = self.add_weight(shape=(), initializer="zeros", name="true_positives")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        values = ((np.asarray(y_true) == 1) & (np.asarray(y_pred) == 1)).astype(self.dtype)
        if sample_weight is not None:
            values = values * sample_weight
        self.true_positives.assign(self.true_positives + np.sum(values))

    def result(self) -> Any:
        return self.true_positives


class Largest(metrics.Metric):
    def __init__(self, name: str | None = None) -> None:
        super().__init__(name=name)
        self.mean = metrics.Mean()
        self.largest = self.add_variable((2,), name="largest")

    def update_state(self, values: Any) -> None:
        self.mean.update_state(values)
        self.largest.assign(np.maximum(self.largest, np.max(values, axis=0)))

    def result(self) -> Any:
        return {"mean": self.mean.result(), "largest": self.largest.value}

    def merge_state(self, others: Any) -> None:
        for other in others:
            self.mean.merge_state(other.mean)
            self.largest.assign(np.maximum(self.largest, other.largest))


def test_a_metric_is_written_as_the_keras_documentation_shows() -> None:
    metric = BinaryTruePositives()
    metric.update_state([0, 1, 1, 1], [0, 1, 0, 1])
    first = metric.result()
    assert first == 2 and isinstance(first, np.float64)
    assert metric([1, 1], [1, 1], sample_weight=[0.5, 1.0]) == 3.5 and first == 2
    other = BinaryTruePositives(dtype="float32")
    assert BinaryTruePositives(dtype="mixed_float16").dtype == "float16"
    assert other.dtype == "float32" and other([1], [1]) == 1
    metric.merge_state([other])
    assert metric.result() == 4.5
    assert pickle.loads(pickle.dumps(metric)).result() == 4.5
    config = metrics.serialize(metric)
    assert metrics.deserialize(config, custom_objects={"BinaryTruePositives": BinaryTruePositives}).name == "binary_true_positives"
    metric.reset_state()
    assert metric.result() == 0
    t, p = np.array([0, 1, 1, 1]), np.array([0, 1, 0, 1])
    assert lossfuncs.evaluate(t, p, metrics=[BinaryTruePositives()], batch_size=3) == {"binary_true_positives": 2.0}


def test_a_metric_may_hold_metrics_and_merge_in_its_own_way() -> None:
    parts = [seen_values(Largest(), x) for x in (np.eye(2), 3 * np.eye(2), np.full((4, 2), 2.0))]
    assert [v.name for v in parts[0].variables] == ["largest", "total", "count"]
    parts[0].merge_state(parts[1:])
    result = parts[0].result()
    np.testing.assert_array_equal(result["largest"], [3.0, 3.0])
    assert result["mean"] == pytest.approx((0.5 * 2 + 1.5 * 2 + 2 * 4) / 8)


def seen_values(metric: Any, values: Any) -> Any:
    metric.update_state(values)
    return metric


def test_forgetting_the_base_class_is_an_error() -> None:
    class Forgetful(metrics.Metric):
        def __init__(self) -> None:
            self.total = self.add_variable(name="total")

    with pytest.raises(RuntimeError, match="super"):
        Forgetful()


def test_a_stateless_update_leaves_the_metric_alone() -> None:
    metric = seen(metrics.MeanSquaredError(), ([[1.0]], [[3.0]]))
    before = metric.state_vector()
    variables = metric.stateless_reset_state()
    variables = metric.stateless_update_state(variables, [[1.0]], [[2.0]])
    assert metric.stateless_result(variables) == 1.0
    assert np.array_equal(metric.state_vector(), before) and metric.result() == 4.0
    with pytest.raises(ValueError, match="2 values"):
        metric.stateless_result([1.0])
    r2 = metrics.R2Score()  # makes its variables with the first batch
    assert len(r2.stateless_update_state(r2.stateless_reset_state(), [0.0, 1.0], [0.0, 1.0])) == 5 and len(r2.variables) == 1


def test_a_loss_object_is_a_metric_too() -> None:
    t, p = batch("real")
    huber = metrics.MeanMetricWrapper(lossfuncs.losses.huber, name="h", delta=0.5)
    assert huber(t, p) == pytest.approx(float(lossfuncs.losses.huber(t, p, delta=0.5, reduction="mean")), rel=1e-12)
    assert huber.name == "h"


class Apart:
    """A callable of a user's, with state."""

    def __init__(self, power: float) -> None:
        self.power, self.scale = power, np.ones(2)

    def __call__(self, t: Any, p: Any) -> Any:
        return self.scale * np.abs(np.asarray(t) - p) ** self.power


def closure(power: float) -> Callable[..., Any]:
    return lambda t, p: np.abs(np.asarray(t) - p) ** power


def power(t: Any, p: Any, q: float) -> Any:
    return closure(q)(t, p)


@pytest.mark.parametrize("make", [Apart, closure, losses.Huber, lambda q: losses.LossFunctionWrapper(losses.huber, delta=q),
                                  lambda q: functools.partial(power, q=q)])  # fmt: skip
def test_means_of_copies_of_one_function_merge_and_those_of_others_do_not(make: Callable[[float], Any]) -> None:
    t, p = np.zeros((3, 2)), np.full((3, 2), 2.0)
    one = metrics.MeanMetricWrapper(make(1.5))
    one.update_state(t, p)
    twins = [metrics.MeanMetricWrapper(make(1.5)), copy.deepcopy(one)]
    if make is not closure:
        twins.append(pickle.loads(pickle.dumps(one)))
    value, count = one.result(), float(one.count)
    one.merge_state(twins)
    assert one.result() == pytest.approx(value) and one.count == count * len(twins)
    with pytest.raises(ValueError, match="with the options of this one"):
        one.merge_state(metrics.MeanMetricWrapper(make(2.5)))


def test_names_are_keras_names_numbered_from_the_second_on() -> None:
    first, second = (int(metrics.MeanIoU(2).name.removeprefix("mean_io_u").strip("_") or 0) for _ in range(2))
    assert second == first + 1
    assert metrics.LogCoshError().name == "logcosh" and metrics.FBetaScore().name == "fbeta_score"
    assert metrics.AUC(name="roc").name == "roc"


def test_get_gives_instances_functions_and_what_it_is_given() -> None:
    for name, cls in (("mse", metrics.MeanSquaredError), ("AUC", metrics.AUC), ("accuracy", metrics.Accuracy), ("io_u", None)):
        if cls is None:
            with pytest.raises(TypeError, match="num_classes"):
                metrics.get(name)
        else:
            assert type(metrics.get(name)) is cls and metrics.get(name) is not metrics.get(name)
    assert metrics.get("logcosh") is metrics.log_cosh and metrics.get("acc") is metrics.accuracy
    assert metrics.get(None) is None and metrics.get(metrics.binary_accuracy) is metrics.binary_accuracy
    metric = metrics.Mean()
    assert metrics.get(metric) is metric and type(metrics.get(metrics.Mean)) is metrics.Mean
    config = {"class_name": "BinaryAccuracy", "config": {"threshold": 0.7}}
    assert metrics.get(config).get_config()["threshold"] == 0.7
    assert type(metrics.get({"class_name": "mse", "config": {}})) is metrics.MeanSquaredError
    function = metrics.serialize(metrics.cosine_similarity)
    assert metrics.deserialize(json.loads(json.dumps(function))) is metrics.cosine_similarity
    with pytest.raises(ValueError, match="older generations"):
        metrics.get("MeanTensor")


# evaluate


@pytest.mark.parametrize("name", sorted(metrics.REGISTRY.classes.keys() - {"Mean", "Sum", "Metric", "MeanMetricWrapper"}))
def test_evaluate_takes_every_class_by_name_and_as_an_object(name: str) -> None:
    cls, options, kind, _ = next(line for line in METRICS if line[0].__name__ == name)
    t, p = batch(kind)
    wanted = seen(cls(**options), (t, p)).result()
    for asked in ((name, options), cls(name="object", **options), (cls, options)):
        if name == "Accuracy" and not isinstance(asked, metrics.Metric):
            continue  # the string means what suits the shapes
        (got,) = lossfuncs.evaluate(t, p, metrics=[asked], batch_size=7).values()
        np.testing.assert_allclose(got, wanted, rtol=1e-12)
    weights = np.arange(N) % 3
    (got,) = lossfuncs.evaluate(t, p, metrics=[cls(**options)], sample_weight=weights, batch_size=7).values()
    np.testing.assert_allclose(got, seen(cls(**options), (t, p), weights).result(), rtol=1e-12)


def test_evaluate_refuses_what_is_no_metric_of_labels_and_predictions() -> None:
    for metric in ("Mean", metrics.Sum(), "MeanMetricWrapper", "metric"):
        with pytest.raises(ValueError, match="is not a metric of labels and predictions"):
            lossfuncs.evaluate(Y, X, metrics=[metric])
    with pytest.raises(TypeError, match="missing required argument: 'num_classes'"):
        lossfuncs.evaluate(Y, X, metrics="IoU")


def test_the_command_line_evaluates_metric_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    t, p = batch("flat")
    np.save(tmp_path / "t.npy", t)
    np.save(tmp_path / "p.npy", p)
    arguments = ["evaluate", str(tmp_path / "t.npy"), str(tmp_path / "p.npy"), "--metric", "AUC", "--metric", "Recall:thresholds=[0.2,0.7]"]
    assert main([*arguments, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)["values"]
    assert values["AUC"] == metrics.AUC()(t, p)
    assert values["Recall(thresholds=[0.2, 0.7])"] == metrics.Recall(thresholds=[0.2, 0.7])(t, p).tolist()
    assert main(arguments) == 0
    assert "of 61 samples" in capsys.readouterr().out
    np.save(tmp_path / "p.npy", 10 * p - 5)
    assert main(arguments) == 0
    assert "AUC, Recall expects probabilities" in capsys.readouterr().err
    assert main([*arguments[:3], "--metric", "AUC:exact=true"]) == 0
    assert capsys.readouterr().err == ""
