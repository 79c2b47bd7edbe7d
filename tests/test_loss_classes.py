"""The loss classes: masks, weights, reductions, configurations, and classes of a user's own."""

from __future__ import annotations

import collections
import importlib
import inspect
import itertools
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import by_name, inputs

import lossfuncs
from lossfuncs import losses
from lossfuncs.cli import main
from lossfuncs.losses import CLASSES, Loss, LossFunctionWrapper, MeanSquaredError

REDUCTIONS = ["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none", None]
# Every option of every class, away from its default.
OPTIONS: dict[str, dict[str, Any]] = {
    "Huber": {"delta": 0.3},
    "CosineSimilarity": {"axis": 1},
    "BinaryCrossentropy": {"from_logits": True, "label_smoothing": 0.1, "axis": [0, 1]},
    "BinaryFocalCrossentropy": {
        "apply_class_balancing": True, "alpha": 0.7, "gamma": 1.5, "from_logits": True, "label_smoothing": 0.1, "axis": 0,
    },
    "CategoricalCrossentropy": {"from_logits": True, "label_smoothing": 0.1, "axis": 0},
    "CategoricalFocalCrossentropy": {"alpha": [0.5, 1.0, 2.0], "gamma": 1.5, "from_logits": True, "label_smoothing": 0.1, "axis": 1},
    "SparseCategoricalCrossentropy": {"from_logits": True, "ignore_class": 1, "axis": 1},
    "CategoricalGeneralizedCrossEntropy": {"q": 0.7},
    "Dice": {"axis": -1},
    "Tversky": {"alpha": 0.3, "beta": 0.9, "axis": [1]},
    "Circle": {"gamma": 16.0, "margin": 0.3, "remove_diagonal": False},
}  # fmt: skip
every_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def made(cls: type[Loss], **arguments: Any) -> Any:
    """An instance with the options above."""
    return cls(**OPTIONS.get(cls.__name__, {}), **arguments)  # type: ignore[arg-type]


def function_of(cls: type[Loss]) -> Any:
    return made(cls).fn


def data(cls: type[Loss], dtype: Any = np.float32, rows: int = 6) -> tuple[Any, Any]:
    """A batch that suits the class; three classes, or numbers a sample."""
    entry = by_name("loss", function_of(cls).__name__)
    shape = (rows, 5, 3) if entry.name == "ctc" else (rows, 3)
    options = {"from_logits": OPTIONS.get(cls.__name__, {}).get("from_logits", False)}
    if entry.shape == "own":
        return lossfuncs.domains.draw(entry, shape, np.random.default_rng(rows), dtype)
    return inputs(entry, options, shape, dtype, seed=rows)


def per_sample(cls: type[Loss], **arguments: Any) -> Any:
    """An instance that has one value for each sample, whatever the others are."""
    options = {k: v for k, v in OPTIONS.get(cls.__name__, {}).items() if k != "axis"}
    if cls in (losses.Dice, losses.Tversky):
        options["axis"] = -1
    return cls(**options, **arguments)


def same(a: Any, b: Any) -> bool:
    """Equal but for the last bits: the reference of ctc takes another way to the value when there is a gradient to it."""
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and np.allclose(a, b, 16.0 * np.finfo(a.dtype).eps, 0.0, equal_nan=True)


def zeros(*shape: int) -> Any:
    return np.zeros(shape)


# Strings, configurations, pickles


def test_a_class_string_gives_a_new_instance_and_a_function_string_the_function() -> None:
    for cls in CLASSES:
        first, second = losses.get(cls.__name__), losses.get(cls.__name__)
        assert type(first) is type(second) is cls and first is not second
        assert first.get_config() == cls().get_config()
    assert losses.get("mse") is losses.mean_squared_error
    assert losses.get("cosine_proximity") is losses.cosine_similarity
    assert type(losses.get("Loss")) is Loss


def test_get_takes_what_keras_takes() -> None:
    def closure(scale: float) -> Callable[..., Any]:
        return lambda y_true, y_pred: scale * np.mean(np.abs(y_pred - y_true), axis=-1)

    loss, own = losses.Huber(2.0), closure(3.0)
    assert losses.get(None) is None
    assert losses.get(loss) is loss
    assert losses.get(own) is own
    assert type(losses.get(losses.Huber)) is losses.Huber
    assert losses.get({"class_name": "Huber", "config": {"delta": 2.0}}).get_config() == loss.get_config()
    assert losses.get({"class_name": "function", "config": "huber", "module": "builtins"}) is losses.huber
    with pytest.raises(ValueError, match="Could not interpret loss identifier: <class 'int'>"):
        losses.get(int)
    with pytest.raises(TypeError, match="reductoin"):
        losses.get({"class_name": "Huber", "config": {"reductoin": "sum"}})


def test_a_registered_loss_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses.REGISTRY, "registered", {})
    quantile = lossfuncs.pointwise(lambda t, p, tau=0.5: max(tau * (t - p), (tau - 1.0) * (t - p)), name="quantile")
    lossfuncs.register(quantile)
    assert losses.get("quantile") is quantile
    loss = LossFunctionWrapper(quantile, tau=0.9)
    again = losses.deserialize(json.loads(json.dumps(losses.serialize(loss))))
    assert again.fn is quantile and again.get_config() == loss.get_config()


@every_class
def test_a_configuration_makes_the_same_loss(cls: type[Loss], backend: str) -> None:
    t, p = data(cls)
    for loss in (cls(), made(cls, reduction="none", name="own", dtype="float64")):
        config = loss.get_config()
        again = cls.from_config(config)
        read = losses.deserialize(json.loads(json.dumps(losses.serialize(loss))))
        thawed = pickle.loads(pickle.dumps(loss))
        for other in (again, read, thawed):
            assert type(other) is cls
            assert other.get_config() == config
            assert np.array_equal(other(t, p), loss(t, p))


@every_class
def test_a_configuration_holds_every_argument(cls: type[Loss]) -> None:
    config = made(cls, reduction="sum", name="own", dtype="float64").get_config()
    assert set(config) == set(inspect.signature(cls).parameters)
    assert {k: config[k] for k in OPTIONS.get(cls.__name__, {})} == OPTIONS.get(cls.__name__, {})
    assert "dtype" not in cls().get_config()  # nor in Keras


def test_keras_own_configurations_are_read() -> None:
    config = {
        "module": "keras.losses",
        "class_name": "BinaryFocalCrossentropy",
        "config": {"name": "focal", "reduction": "sum", "gamma": 3.0, "alpha": 0.1},
        "registered_name": None,
    }
    loss = losses.deserialize(config)
    assert type(loss) is losses.BinaryFocalCrossentropy
    assert loss.get_config()["gamma"] == 3.0
    assert losses.serialize(loss)["module"] == "keras.losses"
    function = {"module": "builtins", "class_name": "function", "config": "mean_squared_error", "registered_name": "function"}
    assert losses.serialize(losses.mean_squared_error) == function
    assert losses.deserialize(function) is losses.mean_squared_error


def test_the_two_cosine_similarities_are_not_confused() -> None:
    for function in (losses.cosine_similarity, lossfuncs.metrics.cosine_similarity):
        config = json.loads(json.dumps(losses.serialize(LossFunctionWrapper(function, axis=0))))
        assert losses.deserialize(config).fn is function
        assert LossFunctionWrapper.from_config(config["config"]).fn is function  # type: ignore[attr-defined]


def test_deserialize_finds_only_what_is_registered_or_given() -> None:
    class Own(Loss):
        def __init__(self, power: float = 2.0, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.power = power

        def call(self, y_true: Any, y_pred: Any) -> Any:
            return np.mean(np.abs(y_pred - y_true) ** self.power, axis=-1)

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "power": self.power}

    config = json.loads(json.dumps(losses.serialize(Own(3.0))))
    assert config["class_name"] == "Own" and config["registered_name"] == "Own"
    with pytest.raises(ValueError, match="Could not interpret loss identifier: 'Own'"):
        losses.deserialize(config)
    assert losses.deserialize(config, {"Own": Own}).power == 3.0

    def absolute(y_true: Any, y_pred: Any) -> Any:
        return np.abs(y_pred - y_true)

    wrapped = losses.serialize(LossFunctionWrapper(absolute))
    assert losses.deserialize(wrapped, {"absolute": absolute}).fn is absolute
    with pytest.raises(ValueError, match="'absolute'"):
        losses.deserialize(wrapped)
    with pytest.raises(ValueError, match="Did you mean 'MeanSquaredError'"):
        losses.deserialize("MeanSquareError")
    with pytest.raises(ValueError, match="to serialize must be"):
        losses.serialize(3)
    assert losses.deserialize("Huber") is losses.Huber
    assert losses.deserialize("mse") is losses.mean_squared_error
    assert losses.deserialize(None) is None


def test_names_are_keras() -> None:
    for cls in CLASSES:
        assert cls().name == inspect.signature(cls).parameters["name"].default

    class QuantileLoss2(Loss):
        pass

    assert [QuantileLoss2().name for _ in range(3)] == ["quantile_loss2", "quantile_loss2_1", "quantile_loss2_2"]
    assert QuantileLoss2("mine").name == "mine"
    assert losses.Huber(name=None).name.startswith("huber")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reduction": "auto"}, "'auto' of tf.keras means 'sum_over_batch_size'"),
        ({"reduction": []}, r"reduction must be one of None, 'none', .*, got \[\]"),
        ({"dtype": "int32"}, "dtype must be float16, bfloat16, float32 or float64, got 'int32'"),
        ({"dtype": object()}, "dtype must be float16, bfloat16, float32 or float64"),
    ],
)
def test_a_bad_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MeanSquaredError(**arguments)


def test_a_wrapper_checks_its_function() -> None:
    with pytest.raises(TypeError, match="did you mean 'delta'"):
        LossFunctionWrapper(losses.huber, detla=1.0)
    with pytest.raises(TypeError, match="missing required argument: 'q'"):
        LossFunctionWrapper(losses.categorical_generalized_cross_entropy)
    with pytest.raises(TypeError, match="fn must be a function"):
        LossFunctionWrapper("mse")  # type: ignore[arg-type]


# A call is its function's


@every_class
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_call_has_the_bits_of_the_function(cls: type[Loss], reduction: Any, backend: str) -> None:
    t, p = data(cls, rows=70)
    loss = made(cls, reduction=reduction)
    if cls is losses.Circle and reduction not in (None, "none", "sum"):
        assert np.count_nonzero(loss.call(t, p) == 0.0) == 0  # else the class divides by fewer
    value, gradient = lossfuncs.value_and_grad(loss.fn, t, p, reduction=reduction, **loss.options)
    both = loss.value_and_grad(t, p)
    if cls is losses.Circle:
        assert np.allclose(loss(t, p), value, 1e-12, 0.0) and np.allclose(both[0], value, 1e-12, 0.0)
        assert np.allclose(both[1], gradient, 1e-6, 1e-9)
        return
    assert np.array_equal(loss(t, p), loss.fn(t, p, reduction=reduction, **loss.options))
    assert same(both[0], value) and np.array_equal(both[1], gradient)
    assert np.array_equal(loss.call(t, p), loss.fn(t, p, **loss.options))


@every_class
@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
def test_the_gradient_is_scaled_by_upstream_and_written_to_out(cls: type[Loss], masked: bool, backend: str) -> None:
    t, p = data(cls, np.float64)
    mask = np.arange(len(p)) != 2 if masked else None
    loss = per_sample(cls)
    value, gradient = loss.value_and_grad(t, p, mask=mask)
    out = np.full(p.shape, np.nan)
    again, into = loss.value_and_grad(t, p, upstream=-3.0, out=out, mask=mask)
    assert into is out
    assert again == value and same(value, loss(t, p, mask=mask))
    assert np.allclose(out, -3.0 * gradient, 1e-13, 0.0)
    seeds = np.linspace(-1.0, 2.0, len(p))
    unreduced = per_sample(cls, reduction=None)
    values, gradient = unreduced.value_and_grad(t, p, seeds, mask=mask)
    assert same(values, unreduced(t, p, seeds, mask=mask))
    assert np.allclose(gradient, unreduced.value_and_grad(t, p, upstream=seeds, mask=mask)[1], 1e-13, 1e-300)


def test_a_call_of_a_class_takes_no_more_passes_than_its_function(monkeypatch: pytest.MonkeyPatch) -> None:
    t, p = data(MeanSquaredError, rows=70)
    weights, mask = np.ones(70), np.arange(70) > 3
    runs: list[Any] = []
    run = importlib.import_module("lossfuncs.cpu").run
    with lossfuncs.backend("numba"):
        monkeypatch.setattr("lossfuncs.cpu.run", lambda problem, task: runs.append(task) or run(problem, task))
        for module in ("dispatch", "derivatives"):  # a call seen before goes another way
            monkeypatch.setattr(f"lossfuncs.{module}.short_way", lambda *call: None)
        for loss in (MeanSquaredError(), MeanSquaredError("mean_with_sample_weight")):
            for arguments in ({"sample_weight": weights}, {"mask": mask}, {"sample_weight": weights, "mask": mask}):
                runs.clear()
                loss(t, p, **arguments)
                loss.value_and_grad(t, p, **arguments)
                assert [(task.total, task.values is None, len(task.derivatives)) for task in runs] == [(True, True, 0), (True, True, 1)]


# Masks and weights

POINTWISE = [cls for cls in CLASSES if cls is not losses.Circle]


@pytest.mark.parametrize("cls", POINTWISE, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_what_is_masked_is_as_if_it_were_not_there(cls: type[Loss], weighted: bool, backend: str) -> None:
    t, p = data(cls, np.float64, rows=9)
    mask = np.arange(9) % 3 != 1
    w = np.linspace(0.5, 2.5, 9) if weighted else None
    for reduction in REDUCTIONS:
        loss = per_sample(cls, reduction=reduction)
        value, gradient = loss.value_and_grad(t, p, w, mask=mask)
        kept, kept_gradient = loss.value_and_grad(t[mask], p[mask], None if w is None else w[mask])
        if loss.reduction in (None, "none"):
            assert not value[~mask].any()
            value = value[mask]
        assert np.allclose(value, kept, 1e-14, 1e-300)
        assert np.allclose(gradient[mask], kept_gradient, 1e-13, 1e-300)
        assert not gradient[~mask].any()
        assert np.allclose(loss(t, p, w, mask=mask)[mask] if np.ndim(value) else loss(t, p, w, mask=mask), value, 1e-14, 1e-300)


@pytest.mark.parametrize("cls", [cls for cls in POINTWISE if cls is not losses.CTC], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("reduction", ["mean", "mean_with_sample_weight", None])
def test_what_is_masked_may_be_anything(cls: type[Loss], reduction: Any, backend: str) -> None:
    t, p = data(cls, np.float64, rows=9)
    mask = np.arange(9) % 3 != 1
    loss = per_sample(cls, reduction=reduction)
    wanted, gradient = loss.value_and_grad(t, p, mask=mask)
    p[1], p[4] = np.nan, np.inf
    t[[1, 7]] = -1 if t.dtype.kind == "i" else np.nan
    value, other = loss.value_and_grad(t, p, mask=mask)
    assert np.array_equal(value, wanted) and np.array_equal(other, gradient)
    assert np.array_equal(loss(t, p, mask=mask), wanted)
    same_place = p.copy()
    assert np.array_equal(loss.value_and_grad(t, same_place, out=same_place, mask=mask)[1], gradient)
    p[0] = np.nan
    assert np.isnan(loss(t, p, mask=mask)).any()


@pytest.mark.parametrize("cls", [cls for cls in POINTWISE if cls is not losses.CTC], ids=lambda cls: cls.__name__)
def test_what_is_masked_may_be_too_large_for_a_half(cls: type[Loss], backend: str) -> None:
    t, p = data(cls, np.float64, rows=9)
    t, p = t if t.dtype.kind == "i" else t.astype(np.float16), p.astype(np.float16)
    mask = np.arange(9) % 3 != 1
    loss = per_sample(cls, reduction=None)
    wanted = loss(t, p)
    p[1], p[4] = 6e4, -6e4
    if t.dtype.kind != "i":
        t[~mask] = 0.0
    assert np.array_equal(loss(t, p, mask=mask), np.where(mask.reshape(-1, *[1] * (wanted.ndim - 1)), wanted, 0.0))


def test_what_is_masked_may_be_anything_along_any_axis(backend: str) -> None:
    rng = np.random.default_rng(8)
    t, p = rng.integers(0, 3, (4, 5)), rng.normal(size=(4, 3, 5))
    mask = rng.integers(0, 2, (4, 5)) == 1
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, axis=1, ignore_class=2)
    wanted = loss.value_and_grad(t, p, mask=mask)
    t[~mask] = 7
    p.transpose(0, 2, 1)[~mask] = np.nan
    value, gradient = loss.value_and_grad(t[..., None].reshape(4, 1, 5), p, mask=mask)
    assert value == wanted[0] and np.array_equal(gradient, wanted[1])
    with pytest.raises(ValueError, match=r"y_true\[\d, \d\] is 7"):
        loss(t, p, mask=np.ones((4, 5)))
    flat, other = rng.normal(size=(2, 6))
    flat[2], kept = np.nan, np.arange(6) != 2
    assert MeanSquaredError()(other, flat, mask=kept) == MeanSquaredError()(other[kept], flat[kept], np.ones(5))
    likelihood = losses.CTC()
    labels, logits = np.array([[1, 1], [2, 0]]), rng.normal(size=(2, 2, 3))  # two equal labels need three frames
    assert likelihood(labels, logits) == np.inf
    assert same(likelihood(labels, logits, mask=[0, 1]), likelihood(labels[1:], logits[1:]))


def test_a_mask_may_be_per_step_or_per_sample_and_integers(backend: str) -> None:
    rng = np.random.default_rng(5)
    t, p = rng.normal(size=(2, 4, 5, 3))
    errors = np.mean((p - t) ** 2, axis=-1)
    steps = rng.integers(0, 2, (4, 5))
    loss = MeanSquaredError()
    assert np.isclose(loss(t, p, mask=steps), errors[steps == 1].mean(), 1e-14, 0.0)
    assert np.isclose(loss(t, p, mask=steps[..., None]), errors[steps == 1].mean(), 1e-14, 0.0)
    assert np.isclose(loss(t, p, mask=[1, 0, 0, 1]), errors[[0, 3]].mean(), 1e-14, 0.0)
    assert np.isclose(loss(t[:, 0, 0], p[:, 0, 0], mask=[1, 0, 0, 1]), ((p - t)[[0, 3], 0, 0] ** 2).mean(), 1e-14, 0.0)
    assert loss(t, p, mask=zeros(4)) == 0.0
    assert not loss.value_and_grad(t, p, mask=zeros(4))[1].any()
    for wrong in (zeros(3), zeros(4, 5, 3), zeros(1, 4)):
        with pytest.raises(ValueError, match="mask of shape"):
            loss(t, p, mask=wrong)


class Masked(np.ndarray):  # type: ignore[type-arg]
    """An array that carries a mask as Keras' tensors do."""

    _keras_mask: Any = None


def test_a_mask_that_y_pred_carries_is_honoured(backend: str) -> None:
    t, p = data(MeanSquaredError, np.float64)
    carrier = p.copy().view(Masked)
    carrier._keras_mask = np.arange(6) < 4
    for loss in (MeanSquaredError(), losses.Circle(), LossFunctionWrapper(lambda t, p: np.mean((p - t) ** 2, axis=-1))):
        target = np.arange(6) % 2 if isinstance(loss, losses.Circle) else t
        assert loss(target, carrier) == loss(target, p, mask=carrier._keras_mask) != loss(target, p)
        every = np.ones(6)
        assert loss(target, carrier, mask=every) == loss(target, p, mask=every)  # what is passed comes first


def test_ignored_classes_and_masks_both_leave_the_mean(backend: str) -> None:
    p = np.random.default_rng(1).dirichlet(np.ones(3), 6)
    t = np.array([0, 1, 2, 1, 0, 2])
    mask = np.array([1, 1, 0, 1, 1, 1])
    counted = [0, 4, 5]
    each = -np.log(p[np.arange(6), t])
    loss = losses.SparseCategoricalCrossentropy(ignore_class=1)
    assert np.isclose(loss(t, p, mask=mask), each[counted].mean(), 1e-14, 0.0)
    w = np.arange(1.0, 7.0)
    assert np.isclose(loss(t, p, w, mask=mask), (w * each)[counted].sum() / 3, 1e-14, 0.0)
    loss = losses.SparseCategoricalCrossentropy(ignore_class=1, reduction="mean_with_sample_weight")
    assert np.isclose(loss(t, p, w, mask=mask), (w * each)[counted].sum() / w[counted].sum(), 1e-14, 0.0)


def test_circle_leaves_out_samples_without_loss(backend: str) -> None:
    rng = np.random.default_rng(2)
    p = rng.normal(size=(6, 4))
    p /= np.linalg.norm(p, axis=1, keepdims=True)
    t = np.array([0, 1, 1, 2, 2, 2])  # nobody is like the first
    each = losses.circle(t, p, gamma=4.0)
    assert each[0] == 0.0 and (each[1:] > 0.0).all()
    loss = losses.Circle(gamma=4.0)
    assert np.isclose(loss(t, p), each.sum() / 5, 1e-14, 0.0)
    assert np.isclose(loss(t, p, mask=[1, 0, 1, 1, 1, 1]), each[2:].sum() / 4, 1e-14, 0.0)
    w = np.arange(6.0)
    weighted = losses.Circle(gamma=4.0, reduction="mean_with_sample_weight")
    assert np.isclose(weighted(t, p, w), (w * each).sum() / w.sum(), 1e-14, 0.0)
    assert np.isclose(losses.Circle(gamma=4.0, reduction="sum")(t, p), each.sum(), 1e-14, 0.0)
    value, gradient = loss.value_and_grad(t, p)
    assert same(value, loss(t, p))
    i, j, h = 2, 1, 1e-6
    step = np.zeros_like(p)
    step[i, j] = h
    assert np.isclose((loss(t, p + step) - loss(t, p - step)) / (2.0 * h), gradient[i, j], 1e-7, 0.0)
    p[3, 0] = np.nan
    assert np.isnan(loss(t, p))  # a loss of NaN is none of 0


@every_class
def test_inputs_are_only_read(cls: type[Loss], backend: str) -> None:
    t, p = data(cls)
    w, mask = np.linspace(1.0, 2.0, len(p)), np.arange(len(p)) > 1
    for x in (t, p, w, mask):
        x.setflags(write=False)
    kept = [x.tobytes() for x in (t, p, w, mask)]
    loss = per_sample(cls)
    loss(t, p, w, mask=mask)
    loss.value_and_grad(t, p, w, mask=mask)
    assert [x.tobytes() for x in (t, p, w, mask)] == kept


def test_a_weight_of_a_sample_weighs_all_its_steps(backend: str) -> None:
    t, p = np.random.default_rng(3).normal(size=(2, 3, 3, 4))
    w = np.array([1.0, 0.0, 2.0])
    errors = np.mean((p - t) ** 2, axis=-1)
    assert np.isclose(MeanSquaredError()(t, p, w), (errors * w[:, None]).sum() / 9, 1e-14, 0.0)
    assert np.isclose(MeanSquaredError("mean_with_sample_weight")(t, p, w), (errors * w[:, None]).sum() / (3 * w.sum()), 1e-14, 0.0)


# Precision


def test_float64_is_not_cut_and_integers_do_not_wrap(backend: str) -> None:
    t, p = np.random.default_rng(4).normal(size=(2, 50, 3))
    assert abs(MeanSquaredError()(t, p) - np.mean((p - t) ** 2)) < 1e-15
    assert MeanSquaredError()(np.array([[0]], np.uint8), np.array([[16]], np.uint8)) == 256.0
    own = LossFunctionWrapper(lambda t, p: np.mean((t - p) ** 2, axis=-1))
    assert own(np.array([[0]], np.uint8), np.array([[16]], np.uint8)) == 256.0
    labels = np.array([16777217, 3])
    seen: list[Any] = []
    LossFunctionWrapper(lambda t, p: seen.append(t) or p[:, 0])(labels, np.ones((2, 1), np.float32))
    assert seen[0].ravel().tolist() == labels.tolist()


def test_dtype_rounds_the_inputs_and_the_result(backend: str) -> None:
    t, p = np.random.default_rng(4).normal(size=(2, 50, 3))
    for name in ("float16", "bfloat16", "float32"):
        loss = MeanSquaredError(dtype=name)
        cut = [x.astype(loss._dtype) for x in (t, p)]
        assert loss.dtype == name
        assert loss(t, p) == np.float64(MeanSquaredError()(*cut)).astype(loss._dtype)
        value, gradient = loss.value_and_grad(t, p, np.ones(50), mask=np.ones(50))
        assert value.dtype == gradient.dtype == loss._dtype and value == loss(t, p)
        values, gradient = MeanSquaredError(None).value_and_grad(*cut, mask=np.ones(50))
        assert values.dtype == gradient.dtype == loss._dtype
        assert LossFunctionWrapper(lambda t, p: np.mean((t - p) ** 2, -1), dtype=name)(t, p).dtype == loss._dtype
    assert MeanSquaredError().dtype is None
    assert MeanSquaredError(dtype="mixed_float16").dtype == "float16"
    assert MeanSquaredError(dtype=collections.namedtuple("Policy", "compute_dtype")("float32")).dtype == "float32"
    labels = np.array([2049.0])  # float16 has no 2049: class numbers are not rounded
    assert np.isfinite(losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float16")(labels, zeros(1, 2050)))


def test_many_float16_losses_have_a_mean(backend: str) -> None:
    t, p = np.zeros((70_000, 1), np.float16), np.ones((70_000, 1), np.float16)
    assert MeanSquaredError()(t, p) == MeanSquaredError(dtype="float16")(t, p) == 1.0


# A user's own


class RootLoss(Loss):
    """As Keras' documentation has it."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return np.sqrt(np.mean((y_pred - y_true) ** 2, axis=-1))


def test_a_subclass_is_weighed_and_reduced(backend: str) -> None:
    t, p = np.random.default_rng(6).normal(size=(2, 5, 3)).astype(np.float32)
    each = np.sqrt(np.mean((p - t) ** 2, axis=-1)).astype(np.float64)
    w, mask = np.arange(5.0), np.array([1, 0, 1, 1, 1])
    wanted = {
        "sum": (w * mask * each).sum(),
        "mean": (w * mask * each).sum() / 4,
        "sum_over_batch_size": (w * mask * each).sum() / 4,
        "mean_with_sample_weight": (w * mask * each).sum() / (w * mask).sum(),
    }
    for reduction, value in wanted.items():
        assert np.isclose(RootLoss(reduction=reduction)(t, p, w, mask=mask), value, 1e-14, 0.0)  # type: ignore[arg-type]
    values = RootLoss(reduction=None)(t, p, w, mask=mask)
    assert values.dtype == np.float32 and np.array_equal(values, (w * mask * each).astype(np.float32))
    assert RootLoss()(t, p) == each.sum() / 5
    assert RootLoss()(t, p, mask=zeros(5)) == 0.0
    assert type(RootLoss.from_config(RootLoss("own", "sum").get_config())) is RootLoss
    assert pickle.loads(pickle.dumps(RootLoss()))(t, p) == RootLoss()(t, p)
    with pytest.raises(NotImplementedError, match="RootLoss has no gradient"):
        RootLoss().value_and_grad(t, p)
    with pytest.raises(ValueError, match="sample_weight of shape"):
        RootLoss()(t, p, zeros(4))
    with pytest.raises(TypeError, match="what call returns"):
        LossFunctionWrapper(lambda t, p: "nothing")(t, p)


def test_a_mask_on_the_values_counts_too() -> None:
    class Positive(Loss):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            values = np.mean(y_pred - y_true, axis=-1).view(Masked)
            values._keras_mask = np.asarray(values) > 0.0
            return values

    p = np.array([[1.0], [-2.0], [3.0], [5.0]])
    assert Positive()(zeros(4, 1), p) == 3.0
    assert Positive()(zeros(4, 1), p, mask=[1, 1, 1, 0]) == 2.0


def test_a_masked_value_of_nan_does_not_count() -> None:
    p = np.array([[1.0], [np.nan]])
    assert RootLoss()(zeros(2, 1), p, mask=[1, 0]) == 1.0


def test_a_subclass_of_a_built_in_class_may_change_call(backend: str) -> None:
    class Twice(MeanSquaredError):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            return 2.0 * super().call(y_true, y_pred)

    t, p = data(MeanSquaredError, np.float64)
    assert np.isclose(Twice()(t, p), 2.0 * MeanSquaredError()(t, p), 1e-14, 0.0)
    with pytest.raises(NotImplementedError, match="Twice"):
        Twice().value_and_grad(t, p)


def test_a_function_of_a_users_own_gets_equal_ranks_and_its_options() -> None:
    def scaled(y_true: Any, y_pred: Any, scale: float = 1.0) -> Any:
        assert y_true.shape == y_pred.shape
        return scale * np.mean(np.abs(y_true - y_pred), axis=-1)

    loss = LossFunctionWrapper(scaled, scale=3.0)
    assert loss(np.arange(4), np.ones((4, 1))) == loss(np.arange(4)[:, None], np.ones(4)) == 3.0
    assert loss.get_config()["scale"] == 3.0 and loss.name.startswith("loss_function_wrapper")


def test_a_loss_of_several_outputs_gets_them_as_they_are() -> None:
    Pair = collections.namedtuple("Pair", "boxes scores")

    def both(y_true: Any, y_pred: Any) -> Any:
        return np.mean((y_pred["a"] - y_true["a"]) ** 2, axis=-1) + np.mean(np.abs(y_pred["b"][0] - y_true["b"][0]), axis=-1)

    t = {"a": np.arange(4), "b": [np.zeros((4, 2), np.uint8)]}
    p = {"a": np.ones((4, 1)), "b": [np.ones((4, 2), np.uint8)]}
    assert LossFunctionWrapper(both, reduction="none")(t, p).tolist() == [2.0, 1.0, 2.0, 5.0]
    assert LossFunctionWrapper(both)(t, p, [1, 0, 0, 1]) == 7.0 / 4.0
    assert LossFunctionWrapper(both)(t, p, mask=[1, 0, 0, 1]) == 7.0 / 2.0

    class OfPairs(Loss):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            return np.abs(y_pred.boxes - y_true[0]).sum(axis=-1) * y_pred.scores

    assert OfPairs()([zeros(3, 2), zeros(3)], Pair(np.ones((3, 2)), np.array([1, 2, 3]))) == 4.0
    with pytest.raises(ValueError, match="y_true must have the keys of y_pred"):
        LossFunctionWrapper(both)({"a": zeros(4)}, p)
    with pytest.raises(ValueError, match="y_true must be 2 arrays, as y_pred is"):
        LossFunctionWrapper(lambda t, p: p[0])([zeros(4)], [zeros(4), zeros(4)])
    with pytest.raises(TypeError, match="y_pred cannot be read as an array|y_pred must hold real numbers"):
        MeanSquaredError()(t, p)


def test_lists_of_numbers_are_arrays(backend: str) -> None:
    t, p = [[0.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 0.0]]
    assert MeanSquaredError()(t, p) == 0.5
    assert RootLoss()(t, p) == np.sqrt(0.5)
    assert MeanSquaredError()(t, p, sample_weight=[0.7, 0.3]) == 0.25


# Where strings and instances arrive elsewhere


def test_evaluate_takes_class_strings_and_instances(tmp_path: Path, capsys: pytest.CaptureFixture[str], backend: str) -> None:
    t, p = data(losses.Huber, np.float64)
    found = lossfuncs.evaluate(t, p, loss=["MeanSquaredError", losses.Huber(0.3), losses.LogCosh()])
    assert found == {
        "MeanSquaredError": pytest.approx(MeanSquaredError()(t, p), rel=1e-14),
        "huber(delta=0.3)": pytest.approx(losses.Huber(0.3)(t, p), rel=1e-14),
        "log_cosh": pytest.approx(losses.LogCosh()(t, p), rel=1e-14),
    }
    np.save(tmp_path / "t.npy", t)
    np.save(tmp_path / "p.npy", p)
    assert main(["evaluate", str(tmp_path / "t.npy"), str(tmp_path / "p.npy"), "--loss", "MeanSquaredError", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["values"] == {"MeanSquaredError": pytest.approx(MeanSquaredError()(t, p), rel=1e-14)}
    assert lossfuncs.value_and_grad("MeanSquaredError", t, p, reduction="mean")[0] == pytest.approx(MeanSquaredError()(t, p), rel=1e-14)


def test_reductions_are_all_there() -> None:
    assert set(itertools.chain(REDUCTIONS)) == set(lossfuncs.call.REDUCTIONS)
