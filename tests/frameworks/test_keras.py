"""Keras' losses and metrics, computed by lossfuncs, on the backend that KERAS_BACKEND names."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

import lossfuncs
from lossfuncs import dispatch
from lossfuncs.frameworks.keras import compute, losses, metrics, patch

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras and TensorFlow themselves

X, Y = load_digits(return_X_y=True)
X, Y = (X / 16.0).astype(np.float32), Y.astype(np.int32)

LOSSES = [name for name in lossfuncs.losses.REGISTRY.classes if name not in ("Loss", "LossFunctionWrapper")]
METRICS = [name for name in lossfuncs.metrics.REGISTRY.classes if name not in ("Metric", "MeanMetricWrapper")]
ARGUMENTS: dict[str, Any] = {
    "IoU": {"num_classes": 3, "target_class_ids": [0, 2]}, "MeanIoU": {"num_classes": 3},
    "OneHotIoU": {"num_classes": 4, "target_class_ids": [1]}, "OneHotMeanIoU": {"num_classes": 4},
    "PrecisionAtRecall": {"recall": 0.5}, "RecallAtPrecision": {"precision": 0.5},
    "SensitivityAtSpecificity": {"specificity": 0.5}, "SpecificityAtSensitivity": {"sensitivity": 0.5},
}  # fmt: skip
FUNCTIONS = {name: lossfuncs.losses.REGISTRY.function(name) for name in LOSSES}


def data(entry: Any) -> tuple[Any, Any]:
    """Labels and predictions, float32, that suit a loss."""
    rng = np.random.default_rng(3)
    p = rng.uniform(0.05, 0.95, (12, 4)).astype(np.float32)
    if entry.name == "ctc":
        return np.array([[1, 2, 0], [3, 1, 1]]), rng.normal(size=(2, 8, 5)).astype(np.float32)
    if entry.predictions == "embedding":
        return rng.integers(0, 3, 12), (p / np.linalg.norm(p, axis=1, keepdims=True)).astype(np.float32)
    labels = rng.integers(0, 4, 12)
    by_kind = {"index": labels, "one-hot": np.eye(4, dtype=np.float32)[labels], "real": rng.normal(size=(12, 4)).astype(np.float32)}
    return by_kind.get(entry.targets, rng.integers(0, 2, (12, 4)).astype(np.float32)), p


def gradient(loss: Any, y_true: Any, y_pred: Any, *more: Any) -> tuple[float, Any]:
    """The loss and its gradient by y_pred, by the backend's own means."""
    if compute.BACKEND == "torch":
        import torch

        p = torch.tensor(y_pred, requires_grad=True)
        value = loss(keras.ops.convert_to_tensor(y_true), p, *more)
        value.backward()
        return float(value.detach()), p.grad.numpy()
    if compute.BACKEND == "jax":
        import jax

        value, by_p = jax.jit(jax.value_and_grad(lambda p: loss(y_true, p, *more)))(y_pred)
        return float(value), np.asarray(by_p)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        p = tf.convert_to_tensor(y_pred)
        tape.watch(p)
        value = loss(tf.convert_to_tensor(y_true), p, *more)
    return float(value), np.asarray(tape.gradient(value, p))


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what only concerns Keras: the reference computes, in all threads, which nobody has to compile."""
    monkeypatch.setattr(dispatch, "_default_backend", lambda: "numpy")


def arguments_of(name: str) -> dict[str, Any]:
    return {"axis": -1} if name in ("Dice", "Tversky") else {}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_class_gives_the_librarys_value_and_gradient(name: str, uncompiled: None) -> None:
    y_true, y_pred = data(FUNCTIONS[name].entry)
    weights = np.linspace(0.5, 2.0, len(y_pred)).astype(np.float32)
    for reduction, more in (("sum_over_batch_size", ()), ("sum", (weights,)), ("mean_with_sample_weight", (weights,))):
        options = {"reduction": reduction, **arguments_of(name)}
        ours = getattr(losses, name)(**options)
        reference = getattr(lossfuncs.losses, name)(**options)
        value, by_p = gradient(ours, y_true, y_pred, *more)
        wanted, wanted_by_p = reference.value_and_grad(y_true, y_pred, *more)
        assert value == pytest.approx(wanted, rel=2e-6)
        np.testing.assert_allclose(by_p, wanted_by_p, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_class_is_keras_class_with_its_signature_and_configuration(name: str) -> None:
    theirs, ours = getattr(keras.losses, name), getattr(losses, name)
    assert issubclass(ours, theirs)
    assert inspect.signature(ours) == inspect.signature(theirs)
    loss = ours(reduction="sum", name="mine")
    assert loss.get_config().items() >= theirs(reduction="sum", name="mine").get_config().items()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is ours
    assert again.get_config() == loss.get_config()


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "CTC"])
def test_functions_give_one_differentiable_value_a_sample(name: str, uncompiled: None) -> None:
    function = FUNCTIONS[name]
    y_true, y_pred = data(function.entry)
    options = arguments_of(name) | ({"q": 0.5} if "q" in function.defaults else {})
    ours = getattr(losses, function.__name__)
    values = keras.ops.convert_to_numpy(ours(y_true, keras.ops.convert_to_tensor(y_pred), **options))
    np.testing.assert_allclose(values, function(y_true, y_pred, **options), rtol=2e-6, atol=1e-7)
    factors = np.linspace(1.0, 2.0, values.size).astype(np.float32)
    _, by_p = gradient(lambda t, p: keras.ops.sum(keras.ops.multiply(ours(t, p, **options), factors)), y_true, y_pred)
    wanted = lossfuncs.value_and_grad(function, y_true, y_pred, upstream=factors.reshape(values.shape), **options)[1]
    np.testing.assert_allclose(by_p, wanted, rtol=2e-6, atol=2e-7)


def test_masked_samples_and_ignored_classes_leave_the_mean() -> None:
    y_true, y_pred = data(FUNCTIONS["SparseCategoricalCrossentropy"].entry)
    kept = np.arange(12) % 3 > 0
    p = keras.ops.convert_to_tensor(y_pred)
    p._keras_mask = keras.ops.convert_to_tensor(kept)
    for options in ({}, {"ignore_class": 2}):
        wanted = lossfuncs.losses.SparseCategoricalCrossentropy(**options)(y_true, y_pred, mask=kept)
        assert float(losses.SparseCategoricalCrossentropy(**options)(y_true, p)) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"ignore_class": 2}])
def test_a_models_masks_reach_losses_and_metrics(options: dict[str, Any]) -> None:
    """Inside of what the backend compiles as well, where a tensor may be one that can have no attribute."""
    rng = np.random.default_rng(0)
    steps, labels = rng.integers(0, 5, (8, 6)), rng.integers(0, 3, (8, 6))
    inputs = keras.layers.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Embedding(5, 4, mask_zero=True)(inputs)))
    options = {"from_logits": True, **options}
    model.compile("sgd", loss=losses.SparseCategoricalCrossentropy(**options), metrics=[metrics.SparseCategoricalAccuracy()])
    found = model.evaluate(steps, labels, batch_size=8, verbose=0, return_dict=True)
    p = keras.ops.convert_to_numpy(model(steps))
    loss = lossfuncs.losses.SparseCategoricalCrossentropy(**options)(labels, p, mask=steps != 0)
    right = (np.argmax(p, axis=-1) == labels)[steps != 0].mean()
    assert found == {"loss": pytest.approx(loss, rel=1e-5), "sparse_categorical_accuracy": pytest.approx(right, rel=1e-5)}


if compute.BACKEND == "torch":

    def test_torch_compile_leaves_metrics_alone(uncompiled: None) -> None:
        import torch

        t, p = keras.ops.convert_to_tensor(Y[:8]), keras.ops.convert_to_tensor(np.eye(10, dtype=np.float32)[Y[:8]])
        metric = metrics.SparseCategoricalAccuracy()
        torch.compile(lambda t, p: metric.update_state(t, p), backend="eager")(t, p)
        assert float(torch.compile(lambda: metric.result(), backend="eager")()) == 1.0


def metric_data(name: str) -> tuple[Any, Any]:
    rng = np.random.default_rng(5)
    p = rng.uniform(0.05, 0.95, (40, 4)).astype(np.float32)
    labels = rng.integers(0, 4, 40)
    if name in ("Accuracy", "IoU", "MeanIoU"):
        return rng.integers(0, 3, 40), rng.integers(0, 3, 40)
    if name.startswith("Sparse"):
        return labels, p
    if name in ("MeanSquaredLogarithmicError", "Poisson"):
        return rng.poisson(2.0, (40, 4)).astype(np.float32), p
    return np.eye(4, dtype=np.float32)[labels], p


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_class_gives_the_librarys_result(name: str) -> None:
    arguments = ARGUMENTS.get(name, {})
    ours, reference = getattr(metrics, name)(**arguments), getattr(lossfuncs.metrics, name)(**arguments)
    assert isinstance(ours, getattr(keras.metrics, name))
    y_true, y_pred = metric_data(name)
    weights = np.linspace(0.0, 2.0, 40).astype(np.float32)
    batches = []
    for rows in (slice(0, 25), slice(25, 40)):
        batch = [y_pred[rows]] if name in ("Mean", "Sum") else [y_true[rows], y_pred[rows]]
        batches.append(batch + ([weights[rows]] if batches else []))
    for batch in batches:
        ours.update_state(*map(keras.ops.convert_to_tensor, batch))
        reference.update_state(*batch)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ours.result()), reference.result(), rtol=1e-6)
    state = ours.stateless_reset_state()
    for batch in batches:
        state = ours.stateless_update_state(state, *map(keras.ops.convert_to_tensor, batch))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ours.stateless_result(state)), reference.result(), rtol=1e-6)
    ours.reset_state()
    ours.update_state(*map(keras.ops.convert_to_tensor, batches[0]))
    reference.reset_state()
    reference.update_state(*batches[0])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ours.result()), reference.result(), rtol=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_class_has_keras_signature_and_configuration(name: str) -> None:
    theirs, ours = getattr(keras.metrics, name), getattr(metrics, name)
    assert inspect.signature(ours) == inspect.signature(theirs)
    arguments = {"name": "mine", **ARGUMENTS.get(name, {})}
    metric = ours(**arguments)
    assert metric.get_config() == theirs(**arguments).get_config()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert type(again) is ours


def test_a_metrics_state_counts_where_float32_would_not() -> None:
    mean = metrics.Mean()
    mean.update_state(keras.ops.convert_to_tensor([1.0]), keras.ops.convert_to_tensor([2.0**24]))
    for _ in range(64):
        mean.update_state(keras.ops.convert_to_tensor([3.0]))
    keras_mean = keras.metrics.Mean()
    keras_mean.update_state([1.0], [2.0**24])
    for _ in range(64):
        keras_mean.update_state([3.0])
    assert mean._inner.state_vector().dtype == np.float64
    total, count = 2.0**24 + 192, 2.0**24 + 64
    assert float(mean.result()) == pytest.approx(np.float32(total / count), abs=0)
    assert float(keras_mean.result()) != float(mean.result())


def trained(loss: Any, metrics: Any, epochs: int = 3, **compile: Any) -> tuple[dict[str, list[float]], Any]:
    """The history of a small model of the digits."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Input((64,)), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10)])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss=loss, metrics=metrics, **compile)
    return model.fit(X, Y, epochs=epochs, batch_size=128, verbose=0, shuffle=True).history, model


def metrics_of(model: Any) -> list[Any]:
    return [metric for one in model.metrics for metric in (getattr(one, "metrics", None) or [one])]


EAGER = {"jit_compile": False} if compute.BACKEND == "tensorflow" else {}


def test_the_digits_are_learnt_along_the_same_curve_as_with_keras_own() -> None:
    theirs, _ = trained(keras.losses.SparseCategoricalCrossentropy(from_logits=True), [keras.metrics.SparseCategoricalAccuracy()], **EAGER)
    ours, model = trained(losses.SparseCategoricalCrossentropy(from_logits=True), [metrics.SparseCategoricalAccuracy()], **EAGER)
    assert ours["loss"][-1] < 0.5 * ours["loss"][0]
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-5)
    np.testing.assert_allclose(ours["sparse_categorical_accuracy"], theirs["sparse_categorical_accuracy"], atol=1e-5)
    (accuracy,) = (metric for metric in metrics_of(model) if isinstance(metric, metrics.SparseCategoricalAccuracy))
    assert not accuracy._theirs


def test_a_model_is_saved_with_them(tmp_path: Path) -> None:
    _, model = trained(losses.SparseCategoricalCrossentropy(from_logits=True), [metrics.SparseTopKCategoricalAccuracy(3)], 1, **EAGER)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.loss) is losses.SparseCategoricalCrossentropy
    np.testing.assert_allclose(again.evaluate(X, Y, verbose=0), model.evaluate(X, Y, verbose=0), rtol=1e-6)
    assert any(type(metric) is metrics.SparseTopKCategoricalAccuracy for metric in metrics_of(again))


def test_strings_are_patched_inside_alone() -> None:
    with patch():
        assert keras.losses.get("mse") is losses.mean_squared_error
        assert type(keras.metrics.get("AUC")) is metrics.AUC
        history, model = _regression("mse", ["mae", "accuracy"])
    assert {type(m) for m in metrics_of(model)} >= {metrics.MeanAbsoluteError, metrics.CategoricalAccuracy}
    assert keras.losses.get("mse") is keras.losses.mean_squared_error
    assert type(keras.metrics.get("AUC")) is keras.metrics.AUC
    plain, model = _regression("mse", ["mae", "accuracy"])
    assert not {type(m) for m in metrics_of(model)} & {metrics.MeanAbsoluteError, metrics.CategoricalAccuracy}
    for name, values in history.items():
        np.testing.assert_allclose(values, plain[name], rtol=1e-5)


def _regression(loss: Any, metrics: Any) -> tuple[dict[str, list[float]], Any]:
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.layers.Input((64,)), keras.layers.Dense(10)])
    model.compile("sgd", loss=loss, metrics=metrics, **EAGER)
    return model.fit(X, np.eye(10, dtype=np.float32)[Y], epochs=2, batch_size=256, verbose=0).history, model


def test_strings_are_restored_after_an_error() -> None:
    with pytest.raises(KeyError), patch():
        raise KeyError
    assert keras.losses.get("mse") is keras.losses.mean_squared_error


def test_patch_refuses_a_version_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras, "__version__", "4.0.0")
    with pytest.raises(RuntimeError, match=r"patch\(\) knows Keras 3.15.x inside, and this is 4.0.0"), patch():
        pass


def test_get_finds_ours() -> None:
    assert losses.get("mse") is losses.mean_squared_error
    assert type(losses.get("CategoricalHinge")) is losses.CategoricalHinge
    assert type(metrics.get("AUC")) is metrics.AUC
    assert losses.get({"class_name": "Huber", "config": {"delta": 2.0}}).get_config()["delta"] == 2.0
    own = keras.losses.Huber()
    assert losses.get(own) is own
    assert losses.get(None) is None


def test_huber_keeps_its_delta_in_a_saved_model() -> None:
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(losses.Huber(delta=2.5)))
    assert again._fn_kwargs == {"delta": 2.5}


def test_several_outputs_with_weights_train() -> None:
    keras.utils.set_random_seed(3)
    inputs = keras.layers.Input((64,))
    model = keras.Model(inputs, [keras.layers.Dense(10, name="digit")(inputs), keras.layers.Dense(1, name="size")(inputs)])
    model.compile("sgd", loss=[losses.SparseCategoricalCrossentropy(from_logits=True), losses.Huber()], loss_weights=[1.0, 0.5],
                  weighted_metrics=[[metrics.SparseCategoricalAccuracy()], [metrics.MeanSquaredError()]], **EAGER)  # fmt: skip
    weights = np.linspace(0.0, 1.0, len(X)).astype(np.float32)
    history = model.fit(X, [Y, Y.astype(np.float32) / 10], sample_weight=[weights, weights], epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]


def test_mixed_precision_trains() -> None:
    keras.utils.set_random_seed(4)
    model = keras.Sequential([keras.layers.Input((64,), dtype="float32"), keras.layers.Dense(10, dtype="mixed_bfloat16")])
    loss, accuracy = losses.SparseCategoricalCrossentropy(from_logits=True), metrics.SparseCategoricalAccuracy()
    model.compile("sgd", loss=loss, metrics=[accuracy], **EAGER)
    history = model.fit(X, Y, epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]


def test_bad_labels_are_named() -> None:
    with pytest.raises(Exception, match=r"y_true\[1\] is 7, but y_pred has classes 0 to 3"):
        float(losses.SparseCategoricalCrossentropy()(np.array([1, 7]), keras.ops.convert_to_tensor(np.full((2, 4), 0.25, np.float32))))


if compute.BACKEND == "tensorflow":

    def test_under_xla_keras_own_formula_computes_and_says_so_once() -> None:
        compute._warn_of_xla.cache_clear()
        arguments = (losses.SparseCategoricalCrossentropy(from_logits=True), [metrics.SparseCategoricalAccuracy()], 1)
        with pytest.warns(UserWarning, match="XLA under TensorFlow cannot call lossfuncs"):
            ours, model = trained(*arguments, jit_compile=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again, _ = trained(*arguments, jit_compile=True)
        theirs, _ = trained(keras.losses.SparseCategoricalCrossentropy(from_logits=True), [keras.metrics.SparseCategoricalAccuracy()], 1,
                            jit_compile=True)  # fmt: skip
        assert ours == theirs == again
        assert model.get_metrics_result()["sparse_categorical_accuracy"] > 0.1

    def test_tensorflow_functions_know_their_shapes_in_a_graph() -> None:
        import tensorflow as tf

        @tf.function(input_signature=[tf.TensorSpec([None, 5], tf.float32), tf.TensorSpec([None, 5], tf.float32)])
        def values(t: Any, p: Any) -> Any:
            found = losses.mean_squared_error(t, p)
            assert found.shape.as_list() == [None]
            return found

        assert values(tf.zeros((3, 5)), tf.ones((3, 5))).shape == (3,)


def test_the_readmes_example_runs(run_examples: Callable[[str], None]) -> None:
    run_examples("keras")
