"""The bootstrap: replicates are the metric with counts for weights, whatever the batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import lossfuncs
from lossfuncs import metrics
from lossfuncs.bootstrap import Cells, Draws, interval, times
from lossfuncs.cli import main
from lossfuncs.evaluate import Estimate, Evaluation, evaluate

N, C = 41, 5
SOME_METRICS: dict[str, Any] = {
    name: getattr(metrics, name)
    for name in ("AUC", "BinaryAccuracy", "BinaryIoU", "CategoricalAccuracy", "CategoricalCrossentropy", "CosineSimilarity", "F1Score",
                 "FalseNegatives", "FalsePositives", "KLDivergence", "MeanSquaredError", "Precision", "R2Score", "Recall",
                 "RootMeanSquaredError", "TopKCategoricalAccuracy", "TrueNegatives", "TruePositives")
} | {
    "AUC of each label": lambda: metrics.AUC(50, multi_label=True),
    "AUC, exact": lambda: metrics.AUC(exact=True),
    "AUC, exact, of each label": lambda: metrics.AUC(exact=True, multi_label=True, label_weights=[1.0, 2, 0, 1, 1], curve="PR"),
    "FBetaScore, micro": lambda: metrics.FBetaScore("micro", 2.0, 0.3),
    "OneHotMeanIoU": lambda: metrics.OneHotMeanIoU(C),
    "OneHotMeanIoU without a class": lambda: metrics.OneHotMeanIoU(C, ignore_class=2),
    "R2Score of each column, adjusted": lambda: metrics.R2Score(None, 3),
    "R2Score by variance": lambda: metrics.R2Score("variance_weighted_average"),
    "AUC of each label, weighed": lambda: metrics.AUC(50, multi_label=True, label_weights=[1.0, 2, 0, 1, 1], curve="PR"),
    "Precision of a class": lambda: metrics.Precision([0.2, 0.3], class_id=1),
    "PrecisionAtRecall": lambda: metrics.PrecisionAtRecall(0.5),
    "Recall of the best": lambda: metrics.Recall(top_k=2),
    "a class of the user's": lambda: Largest(),
}  # fmt: skip


class Largest(metrics.Metric):
    """The largest weighted prediction: no sum."""

    def __init__(self) -> None:
        super().__init__()
        self.found = self.add_variable(name="found")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        w = np.ones(len(y_pred)) if sample_weight is None else sample_weight
        self.found.assign(max(float(self.found), np.max(w[:, None] * y_pred)))

    def merge_state(self, others: Any) -> None:
        self.found.assign(max(float(self.found), float(others.found)))

    def result(self) -> Any:
        return self.found


@pytest.fixture(autouse=True)
def reference() -> Iterator[None]:
    with lossfuncs.backend("numpy"):
        yield


def drawn(n: int = N) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    return np.eye(C)[rng.integers(0, C, n)], rng.dirichlet(np.ones(C), n), rng.uniform(0, 2, n)


@pytest.mark.parametrize("weighted", (False, True))
@pytest.mark.parametrize("name", SOME_METRICS)
def test_a_replicate_is_the_metric_with_counts_for_weights(name: str, weighted: bool) -> None:
    t, p, w = drawn()
    fold = Evaluation(metrics=SOME_METRICS[name](), bootstrap=6, seed=3)
    for part in (slice(0, 7), slice(7, 8), slice(8, N)):
        fold.update(t[part], p[part], w[part] if weighted else None)
    (replicates,) = fold.replicates.values()
    wanted = []
    for often in times(3, np.arange(N), 6).T:
        metric = SOME_METRICS[name]()
        metric.update_state(t, p, sample_weight=often * w if weighted else often)
        wanted.append(metric.result())
    np.testing.assert_allclose(replicates.results(), wanted, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:r2 is not adjusted")
def test_what_is_not_finite_or_constant_is_so_in_the_replicates_that_draw_it() -> None:
    rng = np.random.default_rng(0)
    t, p = rng.normal(size=(40, 4)), rng.normal(size=(40, 4))
    t[:, 1], p[:, 1] = 0.1, np.where(np.arange(40) == 5, 0.2, 0.1)  # constant; predicted but for one sample
    t[7, 2], t[0, 3], p[9, 3] = np.nan, np.inf, np.inf
    fold = Evaluation(metrics=metrics.R2Score(None, 1), bootstrap=30)
    for part in np.array_split(np.arange(40), 3):
        fold.update(t[part], p[part])
    (replicates,) = fold.replicates.values()
    wanted = []
    for often in times(0, np.arange(40), 30).T:
        metric = metrics.R2Score(None, 1)
        metric.update_state(t, p, often)
        wanted.append(metric.result())
    np.testing.assert_allclose(replicates.results(), wanted, rtol=1e-12)
    assert {tuple(row[2:]) for row in np.isnan(wanted)} == {(False, False), (False, True), (True, False), (True, True)}


def test_a_state_of_many_cells_is_resampled_as_one_of_few_whatever_the_elements() -> None:
    rng = np.random.default_rng(1)
    places, w = rng.integers(0, 50, (20, 7)), rng.uniform(0, 1, (20, 7))
    for weights in (None, w):
        found = []
        for size in (50, 5000):  # by a matrix product; cell by cell
            sums = np.zeros((9, size))
            Draws(3, 0, 20, 9).add(Cells(places, weights, size), sums)
            found.append(sums[:, :50])
            assert not sums[:, 50:].any()
        np.testing.assert_allclose(*found, rtol=1e-12)
        assert found[0].sum() > 0


@pytest.mark.parametrize("weighted", (False, True))
@pytest.mark.parametrize("name", ("dice", "categorical_crossentropy"))
def test_a_function_is_resampled_by_samples(name: str, weighted: bool) -> None:
    t, p, w = (x.reshape(6, -1, *x.shape[1:]) for x in drawn(42))
    if name == "dice" and weighted:
        return_none = pytest.raises(ValueError, match="nothing to weigh")
        with return_none:
            evaluate(t, p, loss=name, sample_weight=w, bootstrap=5)
        return
    found = Evaluation(name, bootstrap=5)
    for i in (0, 2, 4):
        found.update(t[i : i + 2], p[i : i + 2], w[i : i + 2] if weighted else None)
    wanted = []
    for often in times(0, np.arange(6), 5).T.astype(int):
        rows = np.repeat(np.arange(6), often)
        wanted.append(evaluate(t[rows], p[rows], loss=name, sample_weight=w[rows] if weighted else None)[name])
    np.testing.assert_allclose(found.replicates[name].results(), wanted, rtol=1e-12)


def test_kernels_resample_as_the_reference_does() -> None:
    t, p, _ = drawn(3000)
    wanted: Any = {"loss": "mse", "metrics": metrics.BinaryAccuracy(name="accuracy"), "bootstrap": 20}
    reference = evaluate(t.astype(np.float32), p.astype(np.float32), **wanted)
    with lossfuncs.backend("numba"):
        found = evaluate(t.astype(np.float32), p.astype(np.float32), **wanted)
    assert found["mse"] == pytest.approx(reference["mse"], rel=1e-7)
    assert found["accuracy"] == pytest.approx(reference["accuracy"], rel=1e-14)


def test_counts_are_poisson_and_depend_on_seed_replicate_and_place_alone() -> None:
    k = times(0, np.arange(4000), 250)
    for value, probability in enumerate((0.36788, 0.36788, 0.18394, 0.06131, 0.01533, 0.00307)):
        assert np.mean(k == value) == pytest.approx(probability, abs=5 * (probability / k.size) ** 0.5)
    assert np.abs(np.corrcoef(k.T) - np.eye(250)).max() < 5.5 / 4000**0.5  # of replicates
    assert np.abs(np.corrcoef(k[:250]) - np.eye(250)).max() < 5.5 / 250**0.5  # of samples
    np.testing.assert_array_equal(times(0, np.arange(1234, 1239), 7, 4), k[1234:1239, 4:7])
    assert (times(1, np.arange(4000), 250) != k).mean() > 0.6


def test_neither_batches_nor_the_order_of_merging_change_an_interval() -> None:
    t, p, w = drawn(300)
    wanted: Any = {"loss": "ce", "metrics": ["accuracy", metrics.AUC()], "bootstrap": 40, "seed": 11}
    whole = evaluate(t, p, **wanted)
    for size in (1, 64):
        for name, found in evaluate(t, p, batch_size=size, **wanted).items():
            assert found == pytest.approx(whole[name], rel=1e-13)
    cuts = (0, 3, 50, 51, 120, 200, 299, 300)
    parts = []
    for begin, end in zip(cuts, cuts[1:], strict=False):
        parts.append(Evaluation(**wanted, first_row=begin))
        parts[-1].update(t[begin:end], p[begin:end])
    merged = Evaluation(**wanted)
    for i in (4, 0, 6, 2, 1, 5, 3):
        merged.merge(parts[i])
    assert merged.result()["accuracy"] == whole["accuracy"]  # counts are exact
    for name, found in merged.result().items():
        assert found == pytest.approx(whole[name], rel=1e-13)
    with pytest.raises(ValueError, match="first_row"):
        merged.merge(parts[1])


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    rng = np.random.default_rng(5)
    errors = rng.exponential(1.0, 4000)
    found = evaluate(np.zeros(4000), errors, loss="mae", bootstrap=2000)["mae"]
    error = np.std(errors) / 4000**0.5
    assert isinstance(found, Estimate)
    assert found.value == pytest.approx(errors.mean())
    assert (found.low, found.high) == pytest.approx((found.value - 1.96 * error, found.value + 1.96 * error), abs=0.2 * error)
    narrow = evaluate(np.zeros(4000), errors, loss="mae", bootstrap=2000, confidence=0.5)["mae"]
    assert narrow.high - narrow.low == pytest.approx(2 * 0.674 * error, rel=0.1)


def test_a_sample_of_infinite_loss_is_missing_from_replicates_that_leave_it_out() -> None:
    p = np.ones(30)
    p[3] = np.inf
    fold = Evaluation("mae", bootstrap=50)
    fold.update(np.zeros(30), p)
    np.testing.assert_array_equal(np.isinf(fold.replicates["mae"].results()), times(0, np.array([3]), 50)[0] > 0)
    assert interval(1.0, [1.0, np.inf, np.inf], 0.95).high == np.inf


@pytest.mark.parametrize("largest", (3, 2**23 - 1))
def test_counts_are_added_up_exactly_however_many(largest: int) -> None:
    numbers = np.random.default_rng(1).integers(0, largest, (1000, 3), endpoint=True)
    draws = Draws(0, 0, 1000, 8)
    total: Any = 0.0
    for _ in range(9):
        total = total + draws.sums(numbers.astype(np.float32))
    assert total.dtype == np.float64
    np.testing.assert_array_equal(total, 9 * (draws.often.T.astype(np.int64) @ numbers))


def test_bad_input_is_named() -> None:
    t, p, _ = drawn()
    for options, message in (({"bootstrap": -1}, "bootstrap must be a whole number >= 0"), ({"bootstrap": 3, "seed": 0.5}, "seed must be"),
                             ({"bootstrap": 3, "confidence": 2}, r"confidence must be a number in \[0, 1\]")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            evaluate(t, p, loss="ce", **options)
    with pytest.raises(ValueError, match="bootstrap of auc with exact=True keeps every score, and there are more than its capacity, 200"):
        evaluate(t, p, metrics=metrics.AUC(exact=True, capacity=200, name="auc"), bootstrap=3)
    with pytest.raises(ValueError, match=r"bootstrap=1000 is too many for mean_io_u, whose state is 1,000,000 numbers: at most 134"):
        evaluate(np.zeros(3), np.zeros(3), metrics=metrics.MeanIoU(1000, name="mean_io_u"), bootstrap=1000)


def test_the_command_prints_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", "--backend", "numpy", "--bootstrap", "30", "--metric", "accuracy", "--json"]
    outputs = []
    for seed in ("0", "0", "1"):
        assert main([*command, "--seed", seed]) == 0
        outputs.append(json.loads(capsys.readouterr().out))
    for found in outputs:
        low, high = found["intervals"]["accuracy"]
        assert 0.94 < low < found["values"]["accuracy"] < high < 1
    assert outputs[0]["intervals"] == outputs[1]["intervals"] != outputs[2]["intervals"]
    assert main(["evaluate", "--bootstrap", "-1"]) == 2
    assert capsys.readouterr().err == "lossfuncs evaluate: bootstrap must be a whole number >= 0, got -1\n"


def test_an_interval_of_several_results_is_of_each() -> None:
    t, p, _ = drawn()
    found = evaluate(t, p, metrics=metrics.Precision([0.2, 0.3], name="precision"), bootstrap=30)["precision"]
    assert found.value.shape == found.low.shape == found.high.shape == (2,)
    assert (found.low <= found.value).all() and (found.value <= found.high).all()
