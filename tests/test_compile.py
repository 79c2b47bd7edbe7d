"""Keras' compile: its own results and names, and laws of an evaluation of several outputs."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lossfuncs
from lossfuncs import losses, metrics

GOLDEN = Path(__file__).parent / "golden"
README = (GOLDEN.parents[1] / "README.md").read_text()
STORED = json.loads((GOLDEN / "compile.json").read_text())
ARRAYS = {name: np.array(x, np.float32 if isinstance(np.ravel(x)[0], float) else np.int64) for name, x in STORED["arrays"].items()}
RESOLUTION = json.loads((GOLDEN / "compile_resolution.json").read_text())

# What we give instead of Keras' result or error, by what the README says of it.
WRONG_KEYS = "`compile`: of several losses for one output the first counts"
CROSSENTROPY = '`compile`: "crossentropy" is no metric; dicts of metrics in nested outputs must be complete'
WEIGHTS = "`compile`: `loss_weights=2` is refused, 2.0 is not; one number for several losses crashes"
FRAMEWORK = "errors of the framework below"
INSTEAD: dict[str, tuple[str, Any]] = {
    '{"loss": ["ce", "sparse_categorical_crossentropy"]}': (WRONG_KEYS, ValueError),
    '{"loss": "ce", "metrics": {"z": ["acc"], "o": "acc"}}': (WRONG_KEYS, ValueError),
    '{"loss": "ce", "loss_weights": 2}': (WEIGHTS, {"loss": 1.85504}),
    '{"loss": ["mse", "ce"], "loss_weights": 0.5}': (WEIGHTS, {"loss": 0.6414925, "b_loss": 0.355465, "a_loss": 0.92752}),
    '{"loss": ["mse", "ce"], "loss_weights": {"b": 0.25, "a": 4.0}}': (
        "a dict of loss weights beside a list of losses goes by its sorted keys",
        {"loss": 3.798946, "b_loss": 0.355465, "a_loss": 0.92752}),
    '{"loss": "ce", "metrics": ["ce"]}': (CROSSENTROPY, {"loss": 0.92752, "ce": 0.92752}),
    '{"loss": {"z": "mse"}, "metrics": {"c": {"d": ["mae"]}}}': (CROSSENTROPY, {"loss": 0.355465, "dd_mae": 0.5058833}),
    '{"loss": "ce", "metrics": [["acc"], ["sparse_top_k_categorical_accuracy"]]}': (
        FRAMEWORK, {"loss": 0.92752, "acc": 1 / 3, "sparse_top_k_categorical_accuracy": 1.0}),
    '{"loss": ["mse", "ce", "mse"]}': (FRAMEWORK, ValueError),
    '{"loss": {"a": "ce", "b": "mse"}, "loss_weights": {"a": 2.0}}': (FRAMEWORK, ValueError),
    '{"loss": {"q": "mse"}}': (FRAMEWORK, ValueError),
    '{"loss": {"z": "mse", "c": {"x": "mse"}}}': (FRAMEWORK, ValueError),
}  # fmt: skip


def filled(structure: Any) -> Any:
    """A structure of names as one of arrays."""
    if isinstance(structure, dict):
        return {key: filled(x) for key, x in structure.items()}
    return [filled(x) for x in structure] if isinstance(structure, list) else ARRAYS[structure]


def written(case: dict[str, Any]) -> str:
    return json.dumps(case["compile"])


@pytest.mark.parametrize("case", STORED["cases"], ids=written)
def test_results_names_and_errors_are_keras(case: dict[str, Any]) -> None:
    """With any batches."""
    how, wanted = case["compile"], case.get("result")
    if written(case) in INSTEAD:
        words, ours = INSTEAD[written(case)]
        assert words in README and wanted != ours and (ours is not ValueError or case.get("raises") != "ValueError")
        wanted = None if ours is ValueError else ours
    else:
        assert case.get("raises", "ValueError") == "ValueError"
    data = filled(case["y_true"]), filled(case["y_pred"]), filled(case["sample_weight"]) if "sample_weight" in case else None
    for batch_size in (100, 4, 1):
        if wanted is None:
            with pytest.raises(ValueError) as raised:
                lossfuncs.compile(**how, output_names=case["output_names"]).evaluate(*data, batch_size=batch_size)
            assert len(str(raised.value)) > 20 and "\n" not in str(raised.value)
            continue
        got = lossfuncs.compile(**how, output_names=case["output_names"]).evaluate(*data, batch_size=batch_size)
        assert got.keys() == wanted.keys() and next(iter(got)) == "loss"
        for name, value in wanted.items():
            np.testing.assert_allclose(got[name], value, rtol=3e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize(("t", "p", "accuracy", "crossentropy"), RESOLUTION["resolution"])
def test_accuracy_and_crossentropy_mean_what_keras_says(t: list[int], p: list[int], accuracy: str, crossentropy: str) -> None:
    y_true, y_pred = np.zeros(t), np.full(p, 0.25)
    if len(p) == 1:
        assert "predictions (N,) get categorical accuracy" in README
        accuracy, crossentropy = "BinaryAccuracy", "binary_crossentropy"
    if accuracy == "CategoricalAccuracy" and t != p or accuracy == "BinaryAccuracy" and t == [4, 2]:
        with pytest.raises(ValueError, match="must have the same shape"):
            lossfuncs.compile("CE", ["Acc"]).update(y_true, y_pred)
        return
    model = lossfuncs.compile("CE", ["Acc"])
    model.update(y_true, y_pred)
    assert [type(metric).__name__ for metric in model.metrics] == [accuracy]
    assert model.metrics_names == ["loss", "Acc"]
    kwargs = {"reduction": "mean"} | ({"sample_weight": np.ones(len(y_pred))} if len(p) == 1 else {})
    assert model.result()["loss"] == pytest.approx(getattr(losses, crossentropy)(y_true, y_pred, **kwargs))


def fn(y_true: Any, y_pred: Any) -> Any:
    return np.abs(y_true - y_pred).max(axis=-1)


IDENTIFIERS = {
    "function fn": fn,
    "lambda": lambda t, p: fn(t, p),
    "MeanSquaredError()": metrics.MeanSquaredError(),
    "MeanSquaredError(name='foo')": metrics.MeanSquaredError(name="foo"),
    "losses.MeanSquaredError()": losses.MeanSquaredError(),
    "losses.Huber (class)": losses.Huber,
}


@pytest.mark.parametrize(("identifier", "cls", "name"), RESOLUTION["names"])
def test_a_metric_has_the_class_and_name_that_keras_gives_it(identifier: str, cls: str, name: str) -> None:
    model = lossfuncs.compile(metrics=[IDENTIFIERS[identifier] if identifier in IDENTIFIERS else identifier.strip("'")])
    model.update(np.eye(3), np.eye(3)[::-1])
    assert [type(metric).__name__ for metric in model.metrics] == [cls]
    assert model.metrics_names == [name]


# Keras 2.2.4


@pytest.mark.parametrize(
    ("loss", "classes", "accuracy", "crossentropy"),
    [
        ("mse", 1, "binary_accuracy", "binary_crossentropy"),
        ("binary_crossentropy", 3, "binary_accuracy", "binary_crossentropy"),
        (losses.binary_crossentropy, 3, "binary_accuracy", "binary_crossentropy"),
        (losses.BinaryCrossentropy(), 3, "binary_accuracy", "binary_crossentropy"),
        ("sparse_categorical_crossentropy", 3, "sparse_categorical_accuracy", "sparse_categorical_crossentropy"),
        ("categorical_crossentropy", 3, "categorical_accuracy", "categorical_crossentropy"),
        ("mse", 3, "categorical_accuracy", "categorical_crossentropy"),
    ],
)
def test_keras_224_asks_the_loss(loss: Any, classes: int, accuracy: str, crossentropy: str) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 9)
    y_true: Any = np.eye(classes)[labels] if "sparse" not in accuracy else labels[:, None]
    y_pred = rng.dirichlet(np.ones(classes), 9) if classes > 1 else rng.uniform(size=(9, 1))
    model = lossfuncs.compile(loss, ["accuracy", "CE", "Acc"], ["crossentropy"], rules="keras-2.2.4")
    model.update(y_true, y_pred, sample_weight=np.ones(9))
    found = model.result()
    assert list(found) == ["loss", "acc", "ce", "acc_1", "weighted_ce"]
    wanted = getattr(metrics, accuracy)(y_true, y_pred, reduction="mean")
    assert found["acc"] == found["acc_1"] == pytest.approx(wanted)
    assert [found["ce"], found["weighted_ce"]] == [pytest.approx(getattr(losses, crossentropy)(y_true, y_pred, reduction="mean"))] * 2


def test_keras_224_names_are_those_of_functions_and_weights_of_zero_leave_the_mean() -> None:
    rng = np.random.default_rng(1)
    t, p = rng.normal(size=(2, 8, 3))
    w = np.array([0.0, 2.0, 0.0, 1.0, 3.0, 0.0, 1.0, 1.0])
    asked: Any = ["mse", "mae"], ["mse", "logcosh", "cosine", fn], ["mae"], [1.0, 0.5]
    old = lossfuncs.compile(*asked, output_names=["x", "y"], rules="keras-2.2.4")
    for part in (slice(0, 3), slice(3, 8)):
        old.update([t[part], t[part]], [p[part], p[part]], w[part])
    found = old.result()
    each = ["mean_squared_error", "logcosh", "cosine_proximity", "fn", "weighted_mean_absolute_error"]
    assert list(found) == ["loss", "x_loss", "y_loss", *(f"{output}_{name}" for output in "xy" for name in each)]
    absolute, squared = np.mean(np.abs(p - t), axis=1), np.mean((p - t) ** 2, axis=1)
    assert found["x_weighted_mean_absolute_error"] == found["y_loss"] == pytest.approx(np.sum(w * absolute) / 5)
    assert found["x_loss"] == pytest.approx(np.sum(w * squared) / 5)
    assert found["loss"] == pytest.approx(found["x_loss"] + 0.5 * found["y_loss"])
    assert found["y_mean_squared_error"] == pytest.approx(squared.mean())
    new = lossfuncs.compile("mse", weighted_metrics=["mae"])
    new.update(t, p, w)
    assert new.result() == pytest.approx({"loss": np.sum(w * squared) / 8, "mae": np.sum(w * absolute) / 8 * 8 / w.sum()})


def test_keras_224_takes_weights_of_steps_in_temporal_mode_only() -> None:
    t, p = np.random.default_rng(2).normal(size=(2, 4, 5, 3))
    steps = np.random.default_rng(3).integers(0, 3, (4, 5))
    temporal = lossfuncs.compile("mse", sample_weight_mode="temporal", rules="keras-2.2.4")
    temporal.update(t, p, steps)
    assert temporal.result()["loss"] == pytest.approx(np.sum(steps * np.mean((p - t) ** 2, axis=-1)) / np.count_nonzero(steps))
    with pytest.raises(ValueError, match=r"shape \(samples, steps\), got shape \(4,\)"):
        temporal.update(t, p, np.ones(4))
    with pytest.raises(ValueError, match="unless sample_weight_mode is 'temporal', got shape"):
        lossfuncs.compile("mse", rules="keras-2.2.4").update(t, p, steps)
    lossfuncs.compile("mse").update(t, p, steps)


# Everything a user may write


class Focus(losses.Loss):
    """As Keras' documentation has it."""

    def __init__(self, power: float = 2.0, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.power = power

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return np.mean(np.abs(y_pred - y_true) ** self.power, axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "power": self.power}


class Right(metrics.Metric):
    """As Keras' documentation has it, with neither a mask nor anything of ours."""

    def __init__(self, name: str = "right", **arguments: Any) -> None:
        super().__init__(name=name, **arguments)
        self.hits = self.add_weight(name="hits", initializer="zeros")
        self.seen = self.add_weight(name="seen", initializer="zeros")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        hits = (np.argmax(y_pred, axis=-1) == np.asarray(y_true)).astype(self.dtype)
        weights = np.ones(len(hits)) if sample_weight is None else sample_weight
        self.hits.assign_add(np.sum(hits * weights))
        self.seen.assign_add(np.sum(weights))

    def result(self) -> Any:
        return self.hits / self.seen


def scaled(factor: float) -> Any:
    def error(y_true: Any, y_pred: Any, offset: float = 0.0) -> Any:
        return factor * np.mean(np.abs(y_pred - y_true + offset), axis=-1)

    return error


N = 41
CLOSURE = scaled(3.0)
MODEL: dict[str, Any] = {
    "loss": {"box": Focus(3.0), "kind": "ce", "mask": ["dice"], "score": CLOSURE, "sure": losses.Huber(0.3, reduction="sum")},
    "loss_weights": {"box": 1, "kind": 0.5, "mask": [-1.0], "score": 2.0, "sure": 0.1},
    "metrics": {"box": ["mae", CLOSURE], "kind": ["acc", Right()], "mask": [[metrics.AUC]],
                "score": [metrics.AUC(exact=True, multi_label=True)]},
    "weighted_metrics": {"kind": ["accuracy", Right(), "F1Score"], "box": "r2_score", "sure": "mse"},
}


def model(**changes: Any) -> Any:
    return lossfuncs.compile(**{**MODEL, **changes})


def several_outputs(seed: int = 0, n: int = N) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 5, n)
    y_true = {"box": rng.normal(size=(n, 4)), "kind": kinds, "mask": [rng.integers(0, 2, (n, 6))],
              "score": rng.integers(0, 2, (n, 3)), "sure": rng.normal(size=n)}  # fmt: skip
    y_pred = {"box": rng.normal(size=(n, 4)), "kind": (0.3 * np.eye(5)[kinds] + rng.dirichlet(np.ones(5), n) * 0.7).astype(np.float32),
              "mask": [rng.uniform(size=(n, 6))], "score": rng.normal(size=(n, 3)), "sure": rng.normal(size=n)}  # fmt: skip
    w = rng.integers(0, 4, n).astype(np.float64)
    return y_true, y_pred, {"box": w, "kind": w, "mask": [None], "score": w, "sure": w}


def part(x: Any, rows: Any) -> Any:
    if isinstance(x, dict):
        return {key: part(y, rows) for key, y in x.items()}
    if isinstance(x, list):
        return [part(y, rows) for y in x]
    return None if x is None else x[rows]


def assert_close(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert list(got) == list(wanted)
    for name in wanted:
        np.testing.assert_allclose(got[name], wanted[name], rtol=1e-13, atol=1e-13, err_msg=name)


def test_a_model_of_several_outputs_with_losses_and_metrics_of_ones_own(backend: str) -> None:
    t, p, w = several_outputs()
    found = (ours := model()).evaluate(t, p, w, batch_size=7)
    assert ours.metrics_names == list(found)
    weights, kept = w["kind"], [np.argmax(p["kind"], axis=1) == t["kind"]]
    each = {
        "box_loss": np.sum(weights * np.mean(np.abs(p["box"] - t["box"]) ** 3, axis=1)) / N,
        "kind_loss": losses.SparseCategoricalCrossentropy()(t["kind"], p["kind"], weights),
        "mask/0_loss": losses.Dice()(t["mask"][0], p["mask"][0]),
        "score_loss": 3.0 * np.sum(weights * np.mean(np.abs(p["score"] - t["score"]), axis=1)) / N,
        "sure_loss": losses.huber(t["sure"], p["sure"], 0.3, sample_weight=weights, reduction="sum"),
    }
    total = each["box_loss"] + 0.5 * each["kind_loss"] - each["mask/0_loss"] + 2.0 * each["score_loss"] + 0.1 * each["sure_loss"]
    wanted = {
        "loss": total,
        **each,
        "box_mae": np.mean(np.abs(p["box"] - t["box"])),
        "box_error": 3.0 * np.mean(np.abs(p["box"] - t["box"])),
        "kind_acc": np.mean(kept),
        "kind_right": np.mean(kept),
        "mask/0_auc": metrics.AUC()(t["mask"][0], p["mask"][0]),
        "score_auc": metrics.AUC(exact=True, multi_label=True)(t["score"], p["score"]),
        "box_r2_score": metrics.R2Score()(t["box"], p["box"], weights),
        "kind_accuracy": np.average(kept[0], weights=weights),
        "kind_weighted_right": np.average(kept[0], weights=weights),
        "kind_F1Score": metrics.F1Score()(t["kind"], p["kind"], weights),
        "sure_mse": np.average((p["sure"] - t["sure"]) ** 2, weights=weights),
    }
    assert_close(found, wanted)


def test_order_and_batches_do_not_matter(backend: str) -> None:
    t, p, w = several_outputs()
    wanted = model().evaluate(t, p, w)
    order = np.random.default_rng(1).permutation(N)
    assert_close(model().evaluate(part(t, order), part(p, order), part(w, order)), wanted)
    for size in (1, 7, 40):
        assert_close(model().evaluate(t, p, w, batch_size=size), wanted)
    rows = np.split(np.arange(N), [3, 4, 30])
    assert_close(model().evaluate((part(t, r), part(p, r), part(w, r)) for r in rows), wanted)


def test_seven_unequal_parts_merge_to_one_pass() -> None:
    t, p, w = several_outputs()
    whole, parts = model(), [model() for _ in range(7)]
    whole.update(t, p, w)
    for one, rows in zip(parts, np.split(np.arange(N), [1, 4, 5, 20, 20, 33]), strict=True):
        if len(rows):
            one.update(part(t, rows), part(p, rows), part(w, rows))
    total = model()
    total.merge(one for one in parts)
    assert total.rows == N
    assert_close(total.result(), whole.result())
    for got, wanted in zip(total.metrics, whole.metrics, strict=True):
        counts = type(wanted) in (Right, metrics.AUC, metrics.F1Score, metrics.SparseCategoricalAccuracy)
        for mine, its in zip(got.variables, wanted.variables, strict=True):
            np.testing.assert_allclose(mine.value, its.value, rtol=0.0 if counts else 1e-14, atol=0.0 if counts else 1e-13)
    with pytest.raises(ValueError, match="others must have the outputs, losses and metrics of this one, <Compiled loss, "):
        other = model(metrics=None)
        other.update(t, p, w)
        total.merge(other)
    with pytest.raises(ValueError, match="others must be compiled"):
        total.merge(model(rules="keras-2.2.4"))
    before = whole.result()
    whole.merge(model())
    assert_close(whole.result(), before)


def test_one_that_was_sent_elsewhere_goes_on_there() -> None:
    t, p, w = several_outputs()
    how: Any = dict(loss="ce", metrics=["acc", metrics.AUC, metrics.AUC(exact=True), fn], weighted_metrics=[losses.Huber(), "F1Score"])
    t, p, w = np.eye(5)[t["kind"]], p["kind"], w["kind"]
    here = lossfuncs.compile(**how)
    there = pickle.loads(pickle.dumps(here))
    here.update(t[:9], p[:9], w[:9])
    later = pickle.loads(pickle.dumps(here))
    there.update(t[9:], p[9:], w[9:])
    there.merge(later)
    assert_close(there.result(), lossfuncs.compile(**how).evaluate(t, p, w))


def test_reset_forgets_and_instances_are_copied() -> None:
    t, p, w = several_outputs()
    shared = metrics.MeanSquaredError()
    shared.update_state([1.0], [9.0])
    one, other = (lossfuncs.compile(metrics=[shared], weighted_metrics=[shared]) for _ in range(2))
    one.update(t["box"], p["box"], w["box"])
    other.update(p["box"], p["box"])
    assert shared.result() == 64.0 and other.result() == {"mean_squared_error": 0.0, "weighted_mean_squared_error": 0.0}
    found = one.result()
    assert found["mean_squared_error"] == pytest.approx(np.mean((p["box"] - t["box"]) ** 2)) != found["weighted_mean_squared_error"]
    one.reset()
    assert one.rows == 0 and one.result() == other.result()
    with pytest.raises(ValueError, match="before the first batch"):
        lossfuncs.compile("mse").result()


def test_a_bad_batch_leaves_nothing_behind(backend: str) -> None:
    t, p, w = several_outputs()
    bad = {**t, "kind": np.where(np.arange(N) == 30, 7, t["kind"])}
    ours = model()
    with pytest.raises(ValueError, match=r"output 'kind': y_true\[30\] is 7, but y_pred has classes 0 to 4"):
        ours.update(bad, p, w)
    ours.update(t, p, w)
    before, states = ours.result(), [metric.state_vector() for metric in ours.metrics]
    with pytest.raises(ValueError, match=r"output 'kind': y_true\[30\] is 7"):
        ours.update(bad, p, w)
    with pytest.raises(ValueError, match="output 'sure': sample_weight of shape"):
        ours.update(t, p, {**w, "sure": w["sure"][:-1]})
    assert ours.rows == N
    assert_close(ours.result(), before)
    for metric, state in zip(ours.metrics, states, strict=True):
        np.testing.assert_array_equal(metric.state_vector(), state)
    with pytest.raises(ValueError, match=r"output 'kind': y_true\[30\] is 7"):
        model().evaluate(bad, p, w, batch_size=7)


def test_what_a_bad_first_batch_made_is_forgotten() -> None:
    calls = iter([ValueError("not yet")])

    def picky(y_true: Any, y_pred: Any) -> Any:
        for error in calls:
            raise error
        return y_pred[:, 0]

    ours = lossfuncs.compile("mse", ["F1Score", picky])
    ours.value_and_grad(np.eye(3), np.eye(3))
    with pytest.raises(ValueError, match="not yet"):
        ours.update(np.eye(3), np.zeros((3, 3)))
    ours.update(np.eye(3), np.eye(3))
    assert ours.rows == 3 and ours.result()["loss"] == 0.0
    assert ours.result()["F1Score"].tolist() == [1.0, 1.0, 1.0]


def test_masks_leave_their_samples_out_of_every_loss_and_metric(backend: str) -> None:
    rng = np.random.default_rng(4)
    t, p, w = rng.integers(0, 5, N), rng.dirichlet(np.ones(5), N), rng.uniform(size=N)
    kept = np.arange(N) % 3 > 0
    how: Any = dict(loss="ce", metrics=["acc", Right()], weighted_metrics=["acc", Right(), "F1Score"])
    wanted = lossfuncs.compile(**how).evaluate(t[kept], p[kept], w[kept])
    masked = lossfuncs.compile(**how)
    masked.update(t, p, w, mask=kept)
    assert_close(masked.result(), wanted)
    two = lossfuncs.compile([how["loss"]] * 2)
    two.update([t, t], [p, p], mask=[None, kept])
    found = two.result()
    assert found["output_2_loss"] == pytest.approx(losses.SparseCategoricalCrossentropy()(t[kept], p[kept])) != found["output_1_loss"]


def test_files_are_evaluated_in_chunks(tmp_path: Path) -> None:
    t, p, w = several_outputs()
    wanted = model().evaluate(t, p, w)

    def stored(x: Any, name: str) -> Any:
        if isinstance(x, dict):
            return {key: stored(y, f"{name}-{key}") for key, y in x.items()}
        if isinstance(x, list):
            return [stored(y, f"{name}-{i}") for i, y in enumerate(x)]
        if x is None:
            return None
        np.save(tmp_path / f"{name}.npy", x)
        return str(tmp_path / f"{name}.npy")

    seen: list[Any] = []
    found = model().evaluate(stored(t, "t"), stored(p, "p"), stored(w, "w"), batch_size=20, progress=lambda *rows: seen.append(rows))
    assert_close(found, wanted)
    assert seen == [(20, N), (40, N), (N, N)]
    with pytest.raises(ValueError, match="no rows"):
        model().evaluate([])


@pytest.mark.parametrize(
    ("how", "data", "message"),
    [
        ({}, ([], {}), "y_pred holds no arrays"),
        ({}, (None, zeros := np.zeros((3, 2))), "y_true has nothing for output 'output_1'"),
        ({"loss": ["mse", "mae"]}, (zeros, zeros), "loss must be for one output, as y_pred has no more, got ['mse', 'mae']"),
        ({"loss": {"a": "mae"}, "output_names": ["b"]}, (zeros, zeros), "loss must be for the output 'b', got 'a'"),
        ({"metrics": [None]}, (zeros, zeros), "metrics holds None where a metric should be"),
        ({"loss_weights": [1.0]}, ([zeros] * 2, [zeros] * 2), "loss_weights must be a dict or list for the outputs output_1, output_2"),
        ({}, ([zeros] * 2, [zeros] * 2, [np.ones(3), np.ones(2)]), "output 'output_2': sample_weight of shape (2,) does not fit"),
        ({"loss": "cosine_similarity"}, (zeros[0], zeros[0]), "cosine_similarity needs several numbers for each sample"),
    ],
)
def test_what_does_not_fit_the_outputs_is_told_with_the_first_batch(how: Any, data: Any, message: str) -> None:
    with pytest.raises(ValueError) as raised:
        lossfuncs.compile(**{"loss": "mse", **how}).update(*data)
    assert message in str(raised.value)


def test_targets_come_by_names_in_order_or_only_where_they_are_asked_for() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(2, 6, 2))
    how: Any = dict(loss=["mse", None], output_names=["x", "y"])
    wanted = lossfuncs.compile(**how).evaluate([a, a], [b, b])
    for targets in ({"y": a, "x": a}, {"x": a}, [a, None], [a], (a,)):
        assert lossfuncs.compile(**how).evaluate(targets, (b, b)) == wanted == {"loss": pytest.approx(np.mean((a - b) ** 2))}
    assert lossfuncs.compile(**how).evaluate([(([a.tolist(), None]), [b, b])]) == wanted
    for targets in ({"x": a, "z": a}, [a, a, a], a):
        with pytest.raises(ValueError, match="y_true must be a dict or list for the outputs x, y, got"):
            lossfuncs.compile(**how).update(targets, [b, b])
    with pytest.raises(ValueError, match="y_true has nothing for output 'x'"):
        lossfuncs.compile(**how).update({"y": a}, [b, b])
    ours = lossfuncs.compile(**how)
    ours.update([a, a], [b, b])
    with pytest.raises(ValueError, match="y_pred must have the outputs of the batches before it, x, y"):
        ours.update([a, a], [b, b, b])
    with pytest.raises(ValueError, match="output_names has 2 names, but y_pred has 3 outputs"):
        lossfuncs.compile(**how).update([a, a, a], [b, b, b])


@pytest.mark.parametrize("loss", [*losses.CLASSES], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight", None])
def test_one_batch_gives_the_loss_and_many_the_same(loss: Any, reduction: Any) -> None:
    """But for circle, whose samples are compared with those of their batch."""
    rng = np.random.default_rng(6)
    t: Any = rng.integers(0, 3, 12)
    p = rng.dirichlet(np.ones(3), 12)
    if loss is losses.CTC:
        t, p = rng.integers(1, 3, (12, 2)), rng.normal(size=(12, 6, 3))
    elif "Sparse" not in loss.__name__ and loss not in (losses.CategoricalGeneralizedCrossEntropy, losses.Circle):
        t = np.eye(3)[t]
    w = None if loss in (losses.Dice, losses.Tversky) else rng.integers(0, 3, 12).astype(float)
    ours = loss(reduction=reduction)
    wanted = ours(t, p, w)
    model = lossfuncs.compile(ours)
    assert model.evaluate(t, p, w)["loss"] == pytest.approx(np.mean(wanted), rel=1e-13)
    if loss is not losses.Circle:
        assert model.evaluate(t, p, w, batch_size=5)["loss"] == pytest.approx(np.mean(wanted), rel=1e-13)
    if w is not None:
        kept = np.arange(12) % 4 > 0
        model.reset()
        model.update(t, p, w, mask=kept)
        found = ours(t, p, w, mask=kept)
        assert model.result()["loss"] == pytest.approx(np.mean(found if np.ndim(found) == 0 else found[kept]), rel=1e-13)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (dict(rules="keras-2"), "rules must be one of 'keras-3', 'keras-2.2.4', got 'keras-2'"),
        (dict(output_names="ab"), "output_names must be a list of different strings, got 'ab'"),
        (dict(output_names=["a", "a"]), "output_names must be a list of different strings"),
        (dict(loss="acc"), "'acc' is a metric, not a loss"),
        (dict(loss=metrics.AUC), "loss must be a loss, got the metric <class"),
        (dict(loss=["mse", {"a": "mean_squared_eror"}]), "Did you mean 'mean_squared_error'?"),
        (dict(loss="mse", loss_weights="two"), "loss_weights must be a number, got 'two'"),
        (dict(metrics=[3]), "Could not interpret metric identifier: 3"),
        (dict(metrics=["mean"]), "'mean' is not a metric of labels and predictions"),
        (dict(metrics=[metrics.Sum()]), "is not a metric of labels and predictions"),
        (dict(loss="mse", sample_weight_mode="samplewise"), "sample_weight_mode must be None or 'temporal', got 'samplewise'"),
    ],
)
def test_what_makes_no_sense_is_told_before_any_data(how: Any, message: str) -> None:
    with pytest.raises(ValueError) as raised:
        lossfuncs.compile(**how)
    assert message in str(raised.value)


@pytest.mark.parametrize("rules", ["keras-3", "keras-2.2.4"])
def test_the_gradient_is_that_of_the_total_loss(rules: str, backend: str) -> None:
    t, p, w = several_outputs(n=6)
    how: Any = dict(
        loss={"kind": "sparse_categorical_crossentropy", "mask": ["dice"], "sure": losses.Huber(0.3, reduction="sum"),
              "score": losses.BinaryCrossentropy(from_logits=True, reduction=None)},
        loss_weights={"kind": 0.5, "mask": [-1.0], "score": 2.0, "sure": 0.1}, metrics={"kind": ["acc"]}, rules=rules,
    )  # fmt: skip
    p["kind"] = p["kind"].astype(np.float64)
    ours = lossfuncs.compile(**how)
    mask = {"sure": np.arange(6) != 2, "kind": np.arange(6) % 2}
    value, gradient = ours.value_and_grad(t, p, w, mask=mask)
    with pytest.raises(ValueError, match="no rows"):
        ours.evaluate([])

    def total(p: Any) -> float:
        ours.reset()
        ours.update(t, p, w, mask=mask)
        return float(ours.result()["loss"])

    assert value == pytest.approx(total(p), rel=1e-13)
    assert not gradient["box"].any() and gradient["box"].shape == p["box"].shape
    rng, h = np.random.default_rng(7), 1e-6
    for name, x in p.items():
        (x, g) = (x[0], gradient[name][0]) if isinstance(x, list) else (x, gradient[name])
        for _ in range(4):
            i = tuple(rng.integers(0, x.shape))
            before = x[i]
            x[i] = before + h
            above = total(p)
            x[i] = before - h
            slope = (above - total(p)) / (2.0 * h)
            x[i] = before
            assert g[i] == pytest.approx(slope, rel=2e-5, abs=2e-8), name
    with pytest.raises(NotImplementedError, match="Focus has no gradient"):
        lossfuncs.compile(Focus()).value_and_grad(p["box"], p["box"])
