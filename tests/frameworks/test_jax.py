"""The losses on arrays of JAX: the same numbers as on NumPy's, through everything that JAX does to a function."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import DIFFERENTIABLE, OPTIONS, Entry, case, inputs

import lossfuncs
from lossfuncs.frameworks import jax as adapter
from lossfuncs.frameworks.bound import bind
from lossfuncs.table import LOSSES

NAMES = {entry.name for entry in LOSSES}
LOGITS = {"from_logits": True}
EACH = [*(x for x in DIFFERENTIABLE if x.values[0].name in NAMES and "metrics" not in x.id),
        *(case(entry, options) for entry in LOSSES for options in OPTIONS.get(entry.name, ()) if "from_logits" in options)]  # fmt: skip
# Of no parameters, one and more, of totals, of labels: what handlers that XLA calls themselves differ in.
COMPILED = {"mean_squared_error", "huber", "binary_focal_crossentropy", "cosine_similarity", "sparse_categorical_crossentropy"}
RNG = np.random.default_rng(0)
T, P = (jnp.asarray(RNG.normal(size=(3, 4, 6)), jnp.float32) for _ in range(2))
LABELS = jnp.asarray(RNG.integers(0, 6, (3, 4)))


def draw(entry: Entry, options: dict[str, Any], shape: tuple[int, ...] = (5, 6)) -> tuple[Any, Any]:
    return tuple(np.array(x) for x in inputs(entry, options, shape, np.float32))


def ours(y: Any, p: Any) -> Any:
    return lossfuncs.sparse_categorical_crossentropy(y, p, from_logits=True, reduction="mean")


def theirs(y: Any, p: Any) -> Any:
    return -jnp.take_along_axis(jax.nn.log_softmax(p), y[..., None], -1).mean()


def log_cosh(t: Any, p: Any) -> Any:
    return lossfuncs.log_cosh(t, p, reduction="mean")


def plain_log_cosh(t: Any, p: Any) -> Any:
    return jnp.log(jnp.cosh(p - t)).mean()


PAIRS = {"cross entropy": (ours, theirs, LABELS), "log cosh": (log_cosh, plain_log_cosh, T)}
close = functools.partial(jax.tree.map, functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6))


@pytest.mark.parametrize("entry, options", EACH)
def test_values_and_gradients_are_those_on_numpys_arrays(entry: Entry, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if entry.name not in COMPILED or (options and entry.name != "sparse_categorical_crossentropy"):
        monkeypatch.setattr(adapter, "SMALL", 0)  # XLA calls Python: handlers of its own take seconds each to compile
    t, p = draw(entry, options)
    values = entry.function(t, p, **options)
    loss = functools.partial(entry.function, **options)
    for run in (loss, jax.jit(loss)):
        found = run(jnp.asarray(t), jnp.asarray(p))
        assert isinstance(found, jax.Array) and found.dtype == np.float32
        assert np.array_equal(found, values, equal_nan=True)
    value, gradient = lossfuncs.value_and_grad(entry.function, t, p, reduction="mean", **options)
    found = jax.jit(jax.value_and_grad(lambda p: loss(t, p, reduction="mean")))(jnp.asarray(p))
    assert np.array_equal(found[0], np.float32(value), equal_nan=True)
    assert np.array_equal(found[1], gradient, equal_nan=True)


@pytest.mark.parametrize("shape", [(1, 1), (3, 70), (40, 1000), (9, 4096)])
@pytest.mark.parametrize("name", ["mean_squared_error", "sparse_categorical_crossentropy"])
def test_small_and_large_arrays_have_the_same_bits(name: str, shape: tuple[int, int]) -> None:
    entry = next(entry for entry in LOSSES if entry.name == name)
    options = LOGITS if "sparse" in name else {}
    t, p = draw(entry, options, shape)
    wanted = lossfuncs.value_and_grad(entry.function, t, p, reduction="mean", **options)
    found = jax.jit(jax.value_and_grad(lambda p: entry.function(t, p, reduction="mean", **options)))(p)
    assert found[0] == np.float32(wanted[0]) and np.array_equal(found[1], wanted[1])


@pytest.mark.parametrize("name", PAIRS)
def test_transformations(name: str) -> None:
    ours, theirs, targets = PAIRS[name]
    t, p = targets[0], P[0]
    for transform in (jax.grad, jax.hessian, lambda f: jax.jit(jax.hessian(f)), lambda f: jax.jacrev(jax.jacrev(f)), jax.jit,
                      lambda f: lambda p: jax.jvp(f, (p,), (P[1],)), lambda f: jax.checkpoint(jax.grad(f))):  # fmt: skip
        close(transform(lambda p: ours(t, p))(p), transform(lambda p: theirs(t, p))(p))
    for transform in (jax.vmap, lambda f: jax.vmap(jax.grad(f, 1)), lambda f: jax.jit(jax.vmap(jax.grad(f, 1))),
                      lambda f: jax.grad(lambda t, p: jax.vmap(f)(t, p).sum(), 1)):  # fmt: skip
        close(transform(ours)(targets, P), transform(theirs)(targets, P))
    close(jax.vmap(ours, (None, 0))(t, P), jax.vmap(theirs, (None, 0))(t, P))
    total = jax.lax.scan(lambda sum, p: (sum + ours(t, p), None), jnp.float32(0), P)[0]
    close(total, sum(theirs(t, p) for p in P))


def test_examples_that_depend_on_their_whole_batch_are_mapped_one_by_one() -> None:
    t = jnp.asarray(RNG.integers(0, 2, (3, 4, 6)), jnp.float32)
    found = jax.vmap(jax.grad(lambda p, t: lossfuncs.dice(t, p, reduction="mean")))(jax.nn.sigmoid(P), t)
    for i in range(3):
        close(found[i], jnp.asarray(lossfuncs.value_and_grad("dice", t[i], jax.nn.sigmoid(P[i]), reduction="mean")[1]))


def test_values_that_depend_on_all_rows_have_a_gradient_together() -> None:
    labels, p = jnp.asarray([0, 1, 0, 1]), P[0] / jnp.linalg.norm(P[0], axis=1, keepdims=True)
    weight, upstream = jnp.linspace(0.5, 1.0, 4), jnp.linspace(1.0, 2.0, 4)
    given = {"sample_weight": np.asarray(weight), "gamma": 2.0}

    def values(p: Any) -> Any:
        return lossfuncs.circle(labels, p, **given)

    wanted = lossfuncs.value_and_grad("circle", np.asarray(labels), np.asarray(p), upstream=np.asarray(upstream), **given)
    for transform in (lambda f: f, jax.jit):
        value, backward = jax.vjp(transform(values), p)
        assert np.array_equal(value, wanted[0]) and np.array_equal(backward(upstream)[0], wanted[1])
    traced = jax.jit(lambda p: lossfuncs.value_and_grad("circle", labels, p, upstream=upstream, **given))(p)
    assert np.array_equal(traced[0], wanted[0]) and np.array_equal(traced[1], wanted[1])
    close(jax.jit(jax.vmap(jax.jacrev(values)))(jnp.stack([p, p[::-1]]))[0], jax.jacrev(values)(p))
    with pytest.raises(NotImplementedError, match="circle has no second derivative"):
        jax.jacrev(jax.jacrev(values))(p)
    with pytest.raises(ValueError, match="sample_weight is differentiated"):
        jax.grad(lambda w: lossfuncs.circle(labels, p, sample_weight=w).sum())(weight)


def test_shard_map() -> None:
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("i")

    def part(t: Any, p: Any) -> Any:
        return jax.lax.pmean(log_cosh(t, p), "i")

    sharded = jax.shard_map(part, mesh=mesh, in_specs=(spec, spec), out_specs=jax.sharding.PartitionSpec())
    close(jax.jit(jax.value_and_grad(lambda p: sharded(T[0], p)))(P[0]), jax.value_and_grad(lambda p: plain_log_cosh(T[0], p))(P[0]))


def test_without_foreign_functions_there_are_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "_has_ffi", lambda: False)
    jax.clear_caches()
    found = jax.jit(jax.vmap(jax.grad(ours, 1)))(LABELS, P)
    text = jax.jit(lambda p: ours(LABELS[0], p)).lower(P[0]).as_text()
    jax.clear_caches()
    assert "callback" in text
    close(found, jax.vmap(jax.grad(theirs, 1))(LABELS, P))


@pytest.mark.parametrize("options", [{"ignore_class": 2}, {"sample_weight": np.arange(4.0)}, {"reduction": "mean_with_sample_weight"}])
def test_weights_and_ignored_classes(options: dict[str, Any]) -> None:
    if options.get("reduction"):
        options = {**options, "sample_weight": np.arange(4.0)}
    options = {"reduction": "mean", "from_logits": True, **options}
    loss = functools.partial(lossfuncs.sparse_categorical_crossentropy, LABELS[0], **options)
    value, gradient = lossfuncs.value_and_grad("sparse_categorical_crossentropy", np.asarray(LABELS[0]), np.asarray(P[0]), **options)
    found = jax.jit(jax.value_and_grad(loss))(P[0])
    assert found[0] == np.float32(value) and np.array_equal(found[1], gradient)
    weights = np.asarray(options.get("sample_weight", np.ones(4))) * (np.asarray(LABELS[0]) != options.get("ignore_class"))
    divisor = weights.sum() if "reduction" in options and options["reduction"] != "mean" or "ignore_class" in options else 4.0

    def plain(p: Any) -> Any:
        return (-jnp.take_along_axis(jax.nn.log_softmax(p), LABELS[0][:, None], -1)[:, 0] * weights).sum() / divisor

    close(jax.hessian(loss)(P[0]), jax.hessian(plain)(P[0]))


def test_half_data() -> None:
    for dtype in (jnp.bfloat16, jnp.float16):
        value, gradient = jax.jit(jax.value_and_grad(lambda p: ours(LABELS[0], p)))(P[0].astype(dtype))
        wanted = lossfuncs.value_and_grad("sparse_categorical_crossentropy", np.asarray(LABELS[0]), np.asarray(P[0].astype(dtype)),
                                          reduction="mean", **LOGITS)  # fmt: skip
        assert value.dtype == np.float32 and value == np.float32(wanted[0])
        assert gradient.dtype == dtype and np.array_equal(gradient, wanted[1])
        assert jax.jit(lossfuncs.huber)(T[0].astype(dtype), P[0].astype(dtype)).dtype == dtype


def test_a_scaled_loss_saves_the_gradient_of_float16() -> None:
    rng = np.random.default_rng(0)
    t, p = (jnp.asarray(rng.random((500, 400)), jnp.float16) for _ in "tp")
    found = jax.jit(jax.grad(lambda p: lossfuncs.mean_squared_error(t, p, reduction="mean") * 2.0**20))(p)
    wanted = 2.0 * (np.asarray(p, np.float64) - np.asarray(t, np.float64)) * 2.0**20 / p.size
    assert found.dtype == np.float16
    np.testing.assert_allclose(np.asarray(found, np.float64), wanted, rtol=1e-3, atol=1e-6)


def test_arrays_outside_of_transformations() -> None:
    value, gradient = lossfuncs.value_and_grad("mse", T[0], P[0])
    assert isinstance(value, jax.Array) and isinstance(gradient, jax.Array)
    close((value, gradient), jax.jit(lambda p: lossfuncs.value_and_grad("mse", T[0], p))(P[0]))
    metric = lossfuncs.metrics.SparseCategoricalAccuracy()
    metric.update_state(LABELS[0], P[0])
    assert metric.result() == (P[0].argmax(-1) == LABELS[0]).mean()
    with_metric = jax.value_and_grad(lambda p: (ours(LABELS[0], p), lossfuncs.sparse_categorical_accuracy(LABELS[0], p)), has_aux=True)
    assert with_metric(P[0])[0][1].shape == (4,)


@pytest.mark.parametrize("call, error, sentence", [
    (lambda: jax.jit(ours)(LABELS[0] + 6, P[0]), Exception, "y_true holds a label that is none of y_pred's classes, 0 to 5"),
    (lambda: ours(LABELS[0] * 0 + 6, P[0]), ValueError, r"y_true\[0\] is 6, but y_pred has classes 0 to 5"),
    (lambda: jax.jit(log_cosh)(T[0], P[0, :3]), ValueError, "must have the same shape"),
    (lambda: jax.grad(log_cosh)(T[0], P[0]), ValueError, "y_true is differentiated"),
    (lambda: jax.grad(lambda w: lossfuncs.huber(T[0], P[0], sample_weight=w).sum())(jnp.ones(4)), ValueError, "sample_weight is diff"),
    (lambda: jax.hessian(lambda p: lossfuncs.cosine_similarity(T[0], p).sum())(P[0]), NotImplementedError, "no second derivative"),
    (lambda: jax.grad(lambda p: jax.grad(lambda p: jax.grad(log_cosh, 1)(T[0], p).sum())(p).sum())(P[0]), NotImplementedError, "no third"),
    (lambda: jax.jit(lambda p: lossfuncs.huber(T[0], p, delta=-1.0))(P[0]), ValueError, "delta must be a number >= 0"),
    (lambda: jax.jit(lambda w: lossfuncs.huber(np.ones(4), np.ones(4), sample_weight=w))(P[0, 0, :4]), TypeError, "traced by a transf"),
    (lambda: lossfuncs.huber(T[0], P[0].astype(jnp.complex64)), TypeError, "must hold real numbers"),
    (lambda: lossfuncs.value_and_grad("mse", T[0], P[0], out=np.zeros((4, 6))), ValueError, "cannot be overwritten"),
])  # fmt: skip
def test_bad_input_is_named_in_one_sentence(call: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        jax.block_until_ready(call())


def test_arrays_on_an_accelerator_are_refused() -> None:
    elsewhere = SimpleNamespace(devices=lambda: [SimpleNamespace(platform="gpu")])
    with pytest.raises(TypeError, match="it is on an accelerator, and JAX's arrays are computed on the CPU alone; use jax.device_put"):
        adapter.to_numpy(elsewhere)
    jax.ffi.register_ffi_target("refused", jax.ffi.pycapsule(adapter._refusal), platform="cpu", api_version=1)  # which XLA calls there
    with pytest.raises(Exception, match="y_pred cannot be computed on: it is on an accelerator"):
        jax.block_until_ready(jax.ffi.ffi_call("refused", jax.ShapeDtypeStruct((4,), np.float32))(P[0], a=np.zeros(3)))


def test_texts_name_the_loss_for_other_processes() -> None:
    assert bind(lossfuncs.huber, {"delta": 2.0}, "mean").text == '["lossfuncs.losses.regression:huber", {"delta": 2.0}, "mean"]'


def test_the_readmes_examples_run(run_examples: Any) -> None:
    run_examples("jax")


def test_a_model_learns_the_digits_as_with_a_loss_of_jax_numpy(digits: Any) -> None:
    labels, features = (jnp.asarray(x) for x in digits)

    def curve(loss: Any) -> list[float]:
        first, second = jax.random.normal(jax.random.key(0), (10, 16)) / 4, jax.random.normal(jax.random.key(1), (16, 10)) / 4

        def objective(weights: Any, x: Any, y: Any) -> Any:
            return loss(y, jnp.tanh(x @ weights[0]) @ weights[1])

        step, weights, found = jax.jit(jax.value_and_grad(objective)), (first, second), []
        for i in range(120):
            batch = slice(i % 4 * 150, i % 4 * 150 + 150)
            value, gradient = step(weights, features[batch], labels[batch])
            weights = jax.tree.map(lambda w, g: w - 0.1 * g, weights, gradient)
            found.append(float(value))
        return found

    mine, plain = curve(ours), curve(theirs)
    assert plain[-1] < 0.5 * plain[0]
    np.testing.assert_allclose(mine, plain, rtol=1e-5, atol=1e-6)
