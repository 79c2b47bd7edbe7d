"""Several losses and metrics of the same rows, computed in one pass."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import lossfuncs
from lossfuncs import call, losses, metrics, plain
from lossfuncs.call import REQUIRED, plan
from lossfuncs.domains import draw
from lossfuncs.metrics import iou
from lossfuncs.metrics import metric as module
from lossfuncs.rows import joint
from lossfuncs.table import LOSSES, METRICS, STRUCTURAL, Entry

ROWS = {entry.name: entry for entry in (*LOSSES, *METRICS) if entry.rows is not None and entry.shape != "own"}
SPARSE = ("sparse_categorical_accuracy", "sparse_top_k_categorical_accuracy", "sparse_categorical_crossentropy")


def maths(entry: Entry) -> Any:
    """The row maths with the default options."""
    given = {name: 0.7 if value is REQUIRED else value for name, value in entry.function.defaults.items()}  # type: ignore[attr-defined]
    return plan(entry, 6, {name: value for name, value in given.items() if name not in STRUCTURAL})


@pytest.mark.parametrize("entry", ROWS.values(), ids=lambda entry: entry.name)
def test_joint_rows_have_the_values_of_each(entry: Entry) -> None:
    t, p = draw(entry, (5, 6), np.random.default_rng(0))
    t, p = np.asarray(t, np.float64 if np.ndim(t) == 2 else np.int64), np.asarray(p, np.float64)
    beside = plan(ROWS["sparse_top_k_categorical_accuracy"], 6, {"k": 2, "from_sorted_ids": False}), plan(ROWS["huber"], 6, {"delta": 0.3})
    own = maths(entry)
    members = (beside[0], own, beside[1], own, (ROWS["sparse_categorical_accuracy"].rows, ()))
    rows = joint(tuple((rows, len(parameters)) for rows, parameters in members))
    a = tuple(x for _, parameters in members for x in parameters)
    with np.errstate(all="ignore"):
        s = plain.totals(rows, t, p, a)
        for value, (alone, parameters) in zip((rows.value, *rows.more), members, strict=True):
            found = np.broadcast_to(plain.on_arrays(value)(s, 6.0, *a), (5, 1))[:, 0]
            np.testing.assert_array_equal(found, plain.values(alone, t, p, parameters))


@pytest.mark.parametrize("weighted", (False, True))
@pytest.mark.parametrize(("names", "n"), [(SPARSE, 70), (("mean_squared_error", "categorical_accuracy"), 5)])
def test_metrics_updated_together_hold_what_each_holds_alone(
    names: tuple[str, ...], n: int, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARED", 1)
    rng = np.random.default_rng(1)
    entries = [ROWS[name] for name in names]
    t, p = draw(entries[-1], (300, n), rng)
    p = p.astype(np.float32)
    w = rng.uniform(0, 2, 300) if weighted else None
    p = np.asfortranarray(p) if weighted else p  # read in chunks, through copies
    together, alone = ([metrics.MeanMetricWrapper(entry.function) for entry in entries] for _ in range(2))
    extra = metrics.AUC() if n == 5 else metrics.MeanIoU(n, sparse_y_pred=False)
    metrics.update_state([*together, extra], t, p, w)
    for one, other in zip(together, alone, strict=True):
        other.update_state(t, p, w)
        assert one.result() == pytest.approx(other.result(), rel=1e-15)
    assert extra.result() > 0


def test_a_bad_batch_leaves_metrics_that_share_a_pass_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARED", 1)
    some = [metrics.SparseCategoricalAccuracy(), metrics.SparseTopKCategoricalAccuracy(), metrics.SparseCategoricalCrossentropy()]
    t = np.zeros(300, np.int64)
    t[7] = 70
    with pytest.raises(ValueError, match=r"^y_true\[7\] is 70, but y_pred has classes 0 to 69$"):
        metrics.update_state(some, t, np.full((300, 70), 1 / 70, np.float32))
    assert [float(one.count) for one in some] == [0, 0, 0]


def test_samples_that_weigh_nothing_are_left_to_each_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARED", 1)
    some = [metrics.MeanSquaredError(), metrics.MeanAbsoluteError()]
    metrics.update_state(some, np.zeros((3, 2)), np.array([[1.0, 1], [2, 2], [3, 3]]), mask=np.array([True, True, False]))
    assert [one.result() for one in some] == [2.5, 1.5]


def test_a_metric_that_updates_in_its_own_way_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    class Halved(metrics.MeanSquaredError):
        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            super().update_state(y_true, np.asarray(y_pred) / 2, sample_weight)

    monkeypatch.setattr(module, "SHARED", 1)
    some = [Halved(), metrics.MeanSquaredError()]
    metrics.update_state(some, np.zeros((3, 2)), np.ones((3, 2)))
    assert [one.result() for one in some] == [0.25, 1]

    class Doubled(losses.MeanSquaredError):
        def sum_and_count(self, *args: Any, **kwargs: Any) -> tuple[float, float]:
            total, count = super().sum_and_count(*args, **kwargs)
            return 2 * total, count

    model = lossfuncs.compile(Doubled(), [Halved(), "mae"])
    assert model.evaluate(np.zeros((3, 2)), np.ones((3, 2))) == {"loss": 2, "mean_squared_error": 0.25, "mae": 1}


@pytest.mark.parametrize("weighted", (False, True))
def test_compile_adds_up_loss_and_metrics_of_an_output_in_one_pass(weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    t, p = draw(ROWS[SPARSE[0]], (300, 70), rng)
    p, w = p.astype(np.float32), rng.uniform(0.5, 2, 300) if weighted else None
    made: Any = {"loss": "ce", "metrics": ["acc", metrics.MeanIoU(70, sparse_y_pred=False)],
                 "weighted_metrics": [metrics.SparseTopKCategoricalAccuracy(3)]}  # fmt: skip
    alone = lossfuncs.compile(**made)
    alone.update(t, p, w)
    monkeypatch.setattr(module, "SHARED", 1)
    groups: list[int] = []
    monkeypatch.setattr(module, "totals", lambda calls: groups.append(len(calls)) or call.totals(calls))
    together = lossfuncs.compile(**made)
    together.update(t, p, w)
    assert groups == ([2, 1] if weighted else [3])
    assert together.result() == pytest.approx(alone.result(), rel=1e-15)
    before = together.result()
    with pytest.raises(ValueError, match=r"^y_true\[7\] is 70"):
        together.update(np.where(np.arange(300) == 7, 70, t), p, w)
    assert together.result() == before


@pytest.mark.parametrize("n", [2, 7, 64, 65, 200])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, ">f4", np.float64])
def test_the_largest_score_is_the_first_of_equals_and_nan_counts_as_larger(n: int, dtype: Any) -> None:
    rng = np.random.default_rng(n)
    p = rng.integers(0, 4, (90, n)).astype(dtype)
    p[rng.random(p.shape) < 0.02] = np.nan
    p[0], p[1], p[2, -1] = -np.inf, np.nan, np.inf
    for x in (p, np.asfortranarray(p), p[::-2], p.reshape(3, 30, n)):
        np.testing.assert_array_equal(iou._largest(x), np.argmax(x, axis=-1))


def test_a_matrix_of_many_classes_is_that_of_all_batches_whoever_reads_it_between() -> None:
    rng, k = np.random.default_rng(5), 40
    t, p, w = rng.integers(0, k, 5000), rng.integers(0, k, 5000), rng.integers(1, 9, 5000) / 8
    for weights in (None, w):
        metric, wanted = metrics.MeanIoU(k), np.zeros((k, k))
        for i, part in enumerate(np.array_split(np.arange(5000), 37)):
            metric.update_state(t[part], p[part], None if weights is None or i % 2 else weights[part])
            np.add.at(wanted, (t[part], p[part]), 1.0 if weights is None or i % 2 else weights[part])
            if i == 20:
                restore = metric.checkpoint()
                metric.update_state(t, p)
                restore()
            if i in (9, 30):
                np.testing.assert_array_equal(metric.total_confusion_matrix.value, wanted)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(metric)).total_confusion_matrix.value, wanted)


def test_the_reference_updates_them_one_by_one() -> None:
    some = [metrics.MeanSquaredError(), metrics.MeanAbsoluteError()]
    with lossfuncs.backend("numpy"):
        metrics.update_state(some, np.zeros((3, 2)), np.ones((3, 2)))
    assert [one.result() for one in some] == [1, 1]


def test_evaluate_gives_large_batches_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    t, p = draw(ROWS[SPARSE[0]], (300, 70), np.random.default_rng(2))
    p, w = p.astype(np.float32), np.random.default_rng(3).uniform(0, 2, 300)
    wanted: Any = {"loss": [SPARSE[2]], "metrics": list(SPARSE[:2]), "sample_weight": w}
    alone = lossfuncs.evaluate(t, p, **wanted)
    monkeypatch.setattr(module, "SHARED", 1)
    assert lossfuncs.evaluate(t, p, **wanted) == pytest.approx(alone, rel=1e-15)
    with pytest.raises(ValueError, match=r"^y_true\[250\] is 70"):
        lossfuncs.evaluate(np.where(np.arange(300) == 250, 70, t), p, **wanted, batch_size=200)
