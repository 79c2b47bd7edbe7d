"""Metrics of arrays in a device's memory: the numbers of the host, gathered on the device until somebody asks."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
from emulator.device import DEVICE, DeviceArray
from test_golden import METRICS, of_metric

import lossfuncs
from lossfuncs import metrics

Array = np.ndarray[Any, np.dtype[Any]]


@pytest.mark.parametrize("case", METRICS.params())
def test_keras_result_is_that_of_device_arrays(case: dict[str, Any]) -> None:
    assert of_metric(case, DEVICE.send) == []


# One of each kind of state; what fetches a batch says so: R2Score needs its moments, an exact AUC sorts.
BATCH = 40
KINDS: dict[str, Any] = {
    "mean": lambda: metrics.MeanSquaredError(),
    "root": lambda: metrics.RootMeanSquaredError(),
    "mean of a function that ignores": lambda: metrics.MeanMetricWrapper(lossfuncs.losses.mean_absolute_error),
    "accuracy": lambda: metrics.BinaryAccuracy(),
    "true positives": lambda: metrics.TruePositives([0.2, 0.7, 0.4]),
    "precision": lambda: metrics.Precision(),
    "recall of a class": lambda: metrics.Recall(class_id=1),
    "precision of the two best": lambda: metrics.Precision(top_k=2),
    "precision at recall": lambda: metrics.PrecisionAtRecall(0.6),
    "area": lambda: metrics.AUC(),
    "area of each label": lambda: metrics.AUC(multi_label=True, label_weights=[1.0, 2.0, 0.0, 3.0]),
    "area of logits": lambda: metrics.AUC(from_logits=True, thresholds=[0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.77, 0.9]),
    "F": lambda: metrics.F1Score(threshold=0.5),
    "overlap": lambda: metrics.BinaryIoU(),
}
ALL = {**KINDS, "determination": lambda: metrics.R2Score(), "exact area": lambda: metrics.AUC(exact=True)}


def batches(dtype: Any, weights: str) -> list[tuple[Array, Array, Array | None]]:
    rng = np.random.default_rng(7)
    found = []
    for count in (BATCH, 3, 4 * BATCH):
        t = rng.integers(0, 2, (count, 4))
        p = np.clip(np.round(rng.uniform(-0.1, 1.1, (count, 4)), 2), 0, 1).astype(dtype)
        w: Array | None = None
        if weights == "per sample":
            w = rng.uniform(0.0, 2.0, count) * 10.0 ** rng.integers(-3, 4, count)
        elif weights == "per element":
            w = rng.uniform(0.0, 2.0, (count, 4)).astype(np.float32)
        found.append((t, p, w))
    return found


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("weights", ["none", "per sample", "per element"])
def test_a_batch_on_the_device_counts_as_on_the_host(kind: str, weights: str) -> None:
    if weights == "per element" and kind in ("mean", "mean of a function that ignores"):
        weights = "per sample"  # their values have no axis of elements
    for dtype in (np.float32, np.float64, np.float16) if kind in ("precision", "area", "mean") else (np.float32,):
        host, there = ALL[kind](), ALL[kind]()
        for t, p, w in batches(dtype, weights):
            host.update_state(t, p, w)
            there.update_state(DEVICE.send(t), DEVICE.send(p), w if weights == "per sample" or w is None else DEVICE.send(w))
        rtol = 1e-6 if isinstance(host, (metrics.Mean, metrics.F1Score)) else 1e-13  # the device computes float32 in float32
        for mine, its in zip(host.variables, there.variables, strict=True):
            np.testing.assert_allclose(its.value, mine.value, rtol, 1e-14, err_msg=mine.name)
        np.testing.assert_allclose(there.result(), host.result(), rtol)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_waited_for_before_a_variable_is_read(kind: str) -> None:
    metric = KINDS[kind]()
    on_device = [tuple(None if x is None else DEVICE.send(x) for x in batch) for batch in batches(np.float32, "per sample")]
    before = DeviceArray.waits
    for batch in on_device:
        metric.update_state(*batch)
    assert DeviceArray.waits == before
    metric.result()
    assert DeviceArray.waits > before


def test_counts_are_the_same_bits_in_any_order_of_threads() -> None:
    from emulator.program import SCHEDULES, Schedule

    t, p, w = batches(np.float32, "per element")[2]
    found = []
    try:
        for schedule in SCHEDULES:
            DEVICE.schedule = Schedule(schedule, 5)
            metric = metrics.AUC(num_thresholds=7)
            metric.update_state(*(DEVICE.send(x) for x in (t, p, w)))
            found.append(metric.state_vector().tobytes())
    finally:
        DEVICE.schedule = Schedule("in order")
    assert len(set(found)) == 1


def test_sums_of_weights_are_exact() -> None:
    """As exact as a double can say it: however small some of the weights are."""
    rng = np.random.default_rng(8)
    w = rng.normal(size=5000) * 2.0 ** rng.integers(-40, 40, 5000)
    t, p = np.ones(5000), np.full(5000, 0.7)
    metric = metrics.TruePositives()
    for part in (slice(0, 1000), slice(1000, 5000)):
        metric.update_state(*(DEVICE.send(x[part]) for x in (t, p, w)))
    assert metric.result() == math.fsum(w)


@pytest.mark.parametrize(("weight", "result"), [(math.inf, math.inf), (-math.inf, -math.inf), (math.nan, math.nan)])
def test_a_weight_that_is_not_finite_stays_in_its_cell(weight: float, result: float) -> None:
    metric = metrics.TruePositives([0.1, 0.5])
    t, p, w = np.ones(4), np.array([0.3, 0.7, 0.7, 0.05]), np.array([weight, 1.0, 2.0, 5.0])
    metric.update_state(*(DEVICE.send(x) for x in (t, p, w)))
    np.testing.assert_array_equal(metric.result(), [result, 3.0])


@pytest.mark.parametrize("scores", [np.array([math.nan, -math.inf, math.inf, 0.5, 1.0, 0.0]), np.array([-3e38, 3e38, 1e-30], np.float32)])
@pytest.mark.parametrize("make", [lambda: metrics.AUC(num_thresholds=12), lambda: metrics.FalsePositives([0.0, 0.5, 1.0])])
def test_odd_scores_fall_where_they_do_on_the_host(make: Any, scores: Array) -> None:
    host, there = make(), make()
    t = np.arange(len(scores)) % 2
    host.update_state(t, scores)
    there.update_state(DEVICE.send(t), DEVICE.send(scores))
    np.testing.assert_array_equal(there.state_vector(), host.state_vector())


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int32", "int64", "uint64", "float16", "bfloat16", "float64"])
def test_targets_and_predictions_may_be_of_any_type(dtype: str) -> None:
    import ml_dtypes

    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    t, p = np.array([0, 1, 1, 0, 1]).astype(kind), np.array([0, 1, 0, 1, 1]).astype(kind)
    host, there = metrics.Precision([0.0, 0.5]), metrics.Precision([0.0, 0.5])
    host.update_state(t, p)
    there.update_state(DEVICE.send(t), DEVICE.send(p))
    np.testing.assert_array_equal(there.state_vector(), host.state_vector())


def test_many_thresholds_and_classes_need_no_shared_memory() -> None:
    rng = np.random.default_rng(9)
    t, p = rng.integers(0, 2, 500), rng.uniform(size=500)
    for make in (lambda: metrics.AUC(num_thresholds=9000), lambda: metrics.TruePositives(sorted(rng.beta(2, 5, 7000)))):
        host, there = make(), make()
        if isinstance(host, metrics.TruePositives):
            there = copy.deepcopy(host)
        host.update_state(t, p)
        there.update_state(DEVICE.send(t), DEVICE.send(p))
        np.testing.assert_array_equal(there.state_vector(), host.state_vector())
    t, p = rng.integers(-1, 205, (2, 600))
    host, there = metrics.MeanIoU(200, ignore_class=3), metrics.MeanIoU(200, ignore_class=3)
    host.update_state(t, p)
    there.update_state(DEVICE.send(t), DEVICE.send(p))
    np.testing.assert_array_equal(there.state_vector(), host.state_vector())


def test_states_copy_pickle_merge_and_reset_with_what_is_on_the_device() -> None:
    t, p, w = (DEVICE.send(x) for x in batches(np.float32, "per sample")[0])
    metric = metrics.AUC(num_thresholds=5)
    metric.update_state(t, p, w)
    state = copy.deepcopy(metric).state_vector()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(metric)).state_vector(), state)
    metric.update_state(t, p, w)
    metric.true_positives.assign(np.zeros(5))
    assert not metric.true_positives.value.any() and metric.false_negatives.value.any()
    np.testing.assert_allclose(metric.false_negatives.value, 2.0 * state[15:20], 1e-15)
    other = metrics.AUC(num_thresholds=5)
    other.update_state(t, p, w)
    other.merge_state(copy.deepcopy(other))
    np.testing.assert_allclose(other.state_vector()[:20], 2.0 * state[:20], 1e-15)
    other.update_state(t, p, w)
    other.reset_state()
    assert not other.state_vector().any()


def test_host_and_device_batches_add_up() -> None:
    t, p, w = batches(np.float32, "per sample")[0]
    for make in KINDS.values():
        both, alone = make(), make()
        for arrays in ((t, p, w), tuple(DEVICE.send(x) for x in (t, p, w)), (t, p, w)):
            both.update_state(*arrays)
            alone.update_state(t, p, w)
        np.testing.assert_allclose(both.result(), alone.result(), 1e-6)


def test_ignored_labels_leave_the_mean_and_bad_ones_are_told() -> None:
    labels, p = np.array([0, 2, 1, 2]), np.random.default_rng(3).dirichlet(np.ones(3), 4)
    host, there = (metrics.SparseCategoricalCrossentropy(ignore_class=2) for _ in range(2))
    host.update_state(labels, p)
    there.update_state(DEVICE.send(labels), DEVICE.send(p))
    assert there.result() == pytest.approx(host.result(), rel=1e-14)
    scores = metrics.F1Score()
    scores.update_state(DEVICE.send(np.array([0, 5, 1, 2])), DEVICE.send(p))
    assert np.isnan(scores.result()).all()
    assert lossfuncs.gpu.bad_row(DEVICE) == 1


def test_one_array_on_the_host_is_an_error_that_says_so() -> None:
    t, p, w = batches(np.float32, "per sample")[0]
    for metric in (metrics.AUC(), metrics.MeanSquaredError(), metrics.BinaryIoU(), metrics.F1Score(threshold=0.5), metrics.R2Score()):
        with pytest.raises(TypeError, match="^y_true is .* but y_pred is not: move one of them$"):
            metric.update_state(DEVICE.send(t), p)
        with pytest.raises(TypeError, match="^sample_weight is .* but y_pred is not: move one of them$"):
            metric.update_state(t, p, DEVICE.send(w))
