"""Calls like earlier ones: they go a short way, with the same bits, and all that is not quite like them still goes the long one."""

from __future__ import annotations

import functools
import itertools
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import DIFFERENTIABLE, LONGEST, bits, inputs
from numpy.lib.stride_tricks import as_strided

import lossfuncs
from lossfuncs import losses, metrics

Array = np.ndarray[Any, np.dtype[Any]]

REDUCTIONS = [None, "sum", "mean", "mean_with_sample_weight"]
WEIGHTS: dict[str, Callable[[int], Any]] = {
    "float64": lambda m: np.linspace(0.0, 2.0, m),
    "float32": lambda m: np.linspace(0.0, 2.0, m, dtype=np.float32),
    "column": lambda m: np.linspace(0.0, 2.0, m)[:, None],
    "int": lambda m: np.arange(m),
    "zeros": np.zeros,
}


def same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, tuple):
        return len(found) == len(wanted) and all(same(x, y) for x, y in zip(found, wanted, strict=True))
    return type(found) is type(wanted) and np.shape(found) == np.shape(wanted) and bits(found) == bits(wanted)


@pytest.fixture
def no_long_way(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, every call that is made ready as if it were the first fails."""

    def forbid() -> None:
        def fail(*args: Any) -> None:
            raise AssertionError("this call was to go the short way")

        for module in ("dispatch", "derivatives"):
            monkeypatch.setattr(f"lossfuncs.{module}.prepare", fail)

    return forbid


def long(call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The call's result by the long way."""
    with monkeypatch.context() as patch:
        for module in ("dispatch", "derivatives"):
            patch.setattr(f"lossfuncs.{module}.short_way", lambda *args: None)
        return call()


@pytest.mark.parametrize("entry, options", DIFFERENTIABLE)
def test_weighted_calls_have_the_bits_of_the_first(
    entry: Any, options: dict[str, Any], no_long_way: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    t, p = inputs(entry, options, (70, 9))
    kinds = WEIGHTS if entry.name in ("mean_squared_error", "sparse_categorical_crossentropy") else ("float64",)
    calls: list[Callable[[], Any]] = []
    for kind, reduction in itertools.product(kinds, REDUCTIONS):
        how = {"sample_weight": WEIGHTS[kind](70), "reduction": reduction, **options}
        calls += [functools.partial(entry.function, t, p, **how), functools.partial(lossfuncs.value_and_grad, entry.function, t, p, **how)]
    wanted = [long(call, monkeypatch) for call in calls]
    if not entry.labels01:  # what is done with such labels depends on them
        no_long_way()
    for _ in range(2):
        assert all(same(call(), first) for call, first in zip(calls, wanted, strict=True))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_second_derivatives_have_the_bits_of_the_first(
    reduction: str | None, weighted: bool, dtype: str, no_long_way: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    t, p = rng.integers(0, 2, (70, 9)).astype(dtype), rng.normal(size=(70, 9)).astype(dtype)
    w = rng.random(70) if weighted else None

    def call(**out: Any) -> Any:
        return lossfuncs.grad_and_hess("bce", t, p, from_logits=True, sample_weight=w, reduction=reduction, **out)

    wanted = long(call, monkeypatch)
    no_long_way()
    assert same(call(), wanted)
    given = np.empty_like(p), np.empty_like(p)
    found = call(out=given)
    assert found[0] is given[0] and found[1] is given[1] and same(found, wanted)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("shape", [(LONGEST + 5,), (1, 2 * LONGEST), (70, 4001)])
def test_calls_that_cut_rows_have_the_bits_of_the_first(
    shape: tuple[int, ...], dtype: Any, no_long_way: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    t, p = (rng.uniform(1, 1000, shape).astype(dtype) for _ in range(2))  # whose mean square overflows a half
    calls: list[Callable[[], Any]] = []
    for loss, reduction in itertools.product(("mean_squared_error", "mean_squared_logarithmic_error", "poisson"), (None, "sum", "mean")):
        calls.append(functools.partial(losses.get(loss), t, p, reduction=reduction))
        calls.append(functools.partial(lossfuncs.value_and_grad, loss, t, p, reduction=reduction))
    wanted = [long(call, monkeypatch) for call in calls]
    no_long_way()
    for call, first in zip(calls, wanted, strict=True):
        assert same(call(), first) and same(call(), first)


def test_classes_and_metrics_go_the_short_way_too(no_long_way: Callable[[], None]) -> None:
    rng = np.random.default_rng(0)
    t, p, w = rng.random((32, 10)), rng.random((32, 10)), rng.random(32)
    labels = rng.integers(0, 10, 32)
    made = losses.CategoricalCrossentropy(label_smoothing=0.1), losses.SparseCategoricalCrossentropy(from_logits=True)
    calls: list[Callable[[], Any]] = [
        lambda: made[0](t, p),
        lambda: made[0](t, p, w),
        lambda: made[0].value_and_grad(t, p, w),
        lambda: made[1](labels.astype(np.int32), p),
        lambda: made[1](labels.astype(np.float32), p, w.astype(np.float32)),
        lambda: losses.get("bce")(t, p, True),
        lambda: lossfuncs.value_and_grad("huber", t, p, delta=0.5),
        lambda: lossfuncs.mean_squared_error(t.astype(np.float32), p),
        lambda: lossfuncs.mean_squared_error(t[:, 0].copy(), p[:, 0].copy(), sample_weight=w),
    ]
    wanted = [call() for call in calls]
    mean, accuracy = metrics.MeanSquaredError(), metrics.CategoricalAccuracy()

    def update() -> None:
        for weights in (None, w):
            mean.update_state(t, p, weights)
            accuracy.update_state(t, p, weights)

    update()  # finds out how many values there are
    update()
    first = mean.result(), accuracy.result()
    no_long_way()
    assert all(same(call(), value) for call, value in zip(calls, wanted, strict=True))
    update()
    np.testing.assert_allclose((mean.result(), accuracy.result()), first, rtol=1e-15)


def test_a_metric_forgets_what_weighs_nothing_as_it_did_the_first_time() -> None:
    p, w = np.full((3, 2), 0.5), np.array([1.0, 0.0, 1.0])
    t = np.array([0, 9, 1])
    metric = metrics.SparseCategoricalAccuracy()
    metric.update_state(np.zeros(3, np.int64), p, w)
    for _ in range(2):
        metric.reset_state()
        metric.update_state(t, p, w)  # 9 is no class
        assert metric.result() == 0.5
    total = metrics.MeanSquaredError()
    for last in (p, np.array([[0.5, 0.5], [np.nan, np.inf], [0.5, 0.5]])):
        total.update_state(np.zeros((3, 2)), last, w)
    assert total.result() == 0.25


def unaligned(x: Array) -> Array:
    memory = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    memory[...] = x
    return memory


class Own(np.ndarray):  # type: ignore[type-arg]
    """A subclass."""


ODD: dict[str, Callable[[Array], Any]] = {
    "list": lambda x: x.tolist(),
    "other dtype": lambda x: x.astype(np.float64),
    "whole numbers": lambda x: x.astype(np.int32),
    "bits of another dtype": lambda x: x.view(np.int32),
    "Fortran order": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "broadcast": lambda x: as_strided(x, x.shape, (0, 4)) if x.ndim > 1 else as_strided(x, x.shape, (0,)),
    "other byte order": lambda x: x.astype(">f4"),
    "unaligned": unaligned,
    "subclass": lambda x: x.view(Own),
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "dtype of its own": lambda x: x.astype(np.dtype(np.float32, metadata={"a": 1})),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("which", ["y_true", "y_pred", "sample_weight"])
@pytest.mark.parametrize("reduction", [None, "mean"])
def test_what_is_not_quite_like_the_first_call_is_right(odd: str, which: str, reduction: str | None) -> None:
    rng = np.random.default_rng(0)
    first: dict[str, Any] = {name: (9 * rng.random((8, 12))).astype(np.float32) for name in ("y_true", "y_pred")}
    first["sample_weight"] = (9 * rng.random(8)).astype(np.float32)
    other = {**first, which: ODD[odd](first[which])}
    for _ in range(3):
        for given in (first, other, first, other, other):
            exact = {name: np.array(x, np.float64) for name, x in given.items()}
            value = np.mean((exact["y_pred"] - exact["y_true"]) ** 2, axis=-1)
            slope = 2 / 12 * (exact["y_pred"] - exact["y_true"])
            found, gradient = lossfuncs.value_and_grad("mse", **given, reduction=reduction)
            scale = 1 / 8 if reduction else 1.0
            weighted = value * exact["sample_weight"]
            np.testing.assert_allclose(found, np.mean(weighted) if reduction else weighted, rtol=1e-6)
            np.testing.assert_allclose(gradient, slope * exact["sample_weight"][:, None] * scale, rtol=1e-6)
            np.testing.assert_allclose(lossfuncs.mean_squared_error(**given, reduction=reduction), found, rtol=1e-15)
            np.testing.assert_allclose(lossfuncs.mean_squared_error(given["y_true"], given["y_pred"]), value, rtol=1e-6)


@pytest.mark.parametrize("weights", [np.ones(7), np.ones((8, 12)), np.ones((2, 4)), "ones", np.ones(8, complex), None, 2.0, [1.0] * 8])
def test_weights_that_do_not_fit_are_refused_and_others_taken_after_some_that_did(weights: Any) -> None:
    t, p = np.zeros((8, 12)), np.ones((8, 12))
    for reduction in REDUCTIONS:
        for _ in range(2):
            lossfuncs.value_and_grad("mse", t, p, sample_weight=np.ones(8), reduction=reduction)
            lossfuncs.mean_squared_error(t, p, sample_weight=np.ones(8), reduction=reduction)
        if weights is None or isinstance(weights, (float, list)):
            factor = weights if isinstance(weights, float) and reduction != "mean_with_sample_weight" else 1.0
            wanted = factor * lossfuncs.mean_squared_error(t, p, reduction=reduction)
            assert np.array_equal(lossfuncs.mean_squared_error(t, p, sample_weight=weights, reduction=reduction), wanted)
            continue
        for call in (lossfuncs.mean_squared_error, lambda *args, **how: lossfuncs.value_and_grad("mse", *args, **how)):
            with pytest.raises((ValueError, TypeError), match="^sample_weight "):
                call(t, p, sample_weight=weights, reduction=reduction)


def test_memory_for_derivatives_is_checked_in_every_call() -> None:
    rng = np.random.default_rng(0)
    t, p = rng.random((2, 8, 12))
    w = np.ones((8, 1))
    wanted = lossfuncs.value_and_grad("mse", t, p, sample_weight=w)
    hessian = lossfuncs.grad_and_hess("mse", t, p, sample_weight=w)
    for _ in range(2):
        frozen = np.empty_like(p)
        frozen.flags.writeable = False
        for bad in (frozen, np.empty((8, 11)), np.empty((8, 12), np.float32), [0.0]):
            with pytest.raises(ValueError, match="^out must be"):
                lossfuncs.value_and_grad("mse", t, p, sample_weight=w, out=bad)
            with pytest.raises(ValueError, match="^out must be"):
                lossfuncs.grad_and_hess("mse", t, p, sample_weight=w, out=(np.empty_like(p), bad))
        for where in ("y_true", "y_pred", "sample_weight"):
            memory = np.empty((9, 12))
            copies = {"y_true": memory[1:], "y_pred": memory[1:], "sample_weight": memory.reshape(-1)[16:24].reshape(8, 1)}
            given = {"y_true": t, "y_pred": p, "sample_weight": w}
            copies[where][...] = given[where]
            given[where] = copies[where]
            found = lossfuncs.value_and_grad("mse", **given, out=memory[:8])
            assert found[1].base is memory and same((found[0], found[1].copy()), wanted)
        place = p.copy()
        assert same(lossfuncs.value_and_grad("mse", t, place, sample_weight=w, out=place), (wanted[0], place)) and same(place, wanted[1])
        one = np.empty_like(p)
        lossfuncs.grad_and_hess("mse", t, p, sample_weight=w, out=(one, one))
        assert same(one, hessian[1])


def test_the_backend_and_the_options_of_every_call_count() -> None:
    t, p = np.full((4, 3), 0.25), np.full((4, 3), 0.75)
    for _ in range(3):
        assert lossfuncs.huber(t, p, delta=1)[0] == lossfuncs.huber(t, p, delta=1.0)[0] == 0.125
        assert lossfuncs.binary_crossentropy(t, p, from_logits=True)[0] > 0.0
        with pytest.raises(ValueError, match="^from_logits must be"):
            lossfuncs.binary_crossentropy(t, p, from_logits=1)
        assert lossfuncs.huber(t, p, delta=0.25)[0] == lossfuncs.huber(t, p, 0.25)[0] == 0.09375
        assert lossfuncs.dice(t, p, axis=(1,)).shape == (4,)
        with pytest.raises(ValueError, match="^axis must be"):
            lossfuncs.dice(t, p, axis=(True,))
        with pytest.raises(TypeError, match="unexpected keyword argument 'gamma'"):
            lossfuncs.huber(t, p, gamma=1.0)
        with pytest.raises(ValueError, match="^reduction must be one of"):
            lossfuncs.huber(t, p, reduction=["mean"])
        with lossfuncs.backend("numpy"), pytest.MonkeyPatch.context() as patch:
            patch.setattr("lossfuncs.call.cpu_backend", lambda: 1 / 0)
            assert lossfuncs.huber(t, p)[0] == 0.125


def test_no_parameter_is_minus_0(backend: str) -> None:
    loss = lossfuncs.pointwise(lambda t, p, x: (p - t) / x, name="over")
    for x in (-0.0, 0.0, -0.0):
        assert loss(np.zeros((2, 2)), np.ones((2, 2)), x)[0] == math.inf


def test_shapes_in_turn_keep_their_own_results(no_long_way: Callable[[], None]) -> None:
    rng = np.random.default_rng(0)
    shapes = (4, 6), (6, 4), (24, 1), (24,), (4, 2, 3)
    pairs = [tuple(rng.random((2, *shape)).astype(dtype)) for shape in shapes for dtype in ("f4", "f8")]
    wanted = [lossfuncs.mean_squared_error(t, p) for t, p in pairs]
    no_long_way()
    for _ in range(2):
        for (t, p), value in [*zip(pairs, wanted, strict=True), *reversed([*zip(pairs, wanted, strict=True)])]:
            assert same(lossfuncs.mean_squared_error(t, p), value)


def test_dtypes_that_are_gone_are_not_taken_for_others() -> None:
    """A frame knows a dtype by its address, which a later one must not have."""
    for k in range(30):
        kind = np.dtype(np.float64 if k % 2 else np.float32, metadata={"k": k})
        t, p = np.zeros((5, 3), kind), np.full((5, 3), 0.5, kind)
        for _ in range(2):
            assert lossfuncs.mean_squared_error(t, p).tolist() == [0.25] * 5
        del t, p, kind


def test_callers_at_the_same_time_have_their_own_weights_and_results() -> None:
    rng = np.random.default_rng(0)
    t, p = rng.random((2, 3000, 40))
    own = [rng.random(3000) for _ in range(4)]
    how = {"reduction": "mean_with_sample_weight"}
    wanted = [lossfuncs.value_and_grad("mse", t, p, sample_weight=w, **how) for w in own]
    wrong: list[int] = []

    def call(k: int) -> None:
        wrong.extend(k for _ in range(20) if not same(lossfuncs.value_and_grad("mse", t, p, sample_weight=own[k], **how), wanted[k]))

    callers = [threading.Thread(target=call, args=(k,)) for k in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("count", [1, 5, 63, 64, 65, 4096, 4097, 4100])
def test_a_mean_of_few_numbers_is_exact(kind: Any, count: int) -> None:
    rng = np.random.default_rng(0)
    t, p = rng.integers(-8, 9, (count, 1)).astype(kind), rng.integers(-8, 9, (count, 1)).astype(kind)
    exact = np.mean((p.astype(float) - t) ** 2)
    for _ in range(2):
        assert lossfuncs.mean_squared_error(t, p, reduction="mean") == exact
        value, gradient = lossfuncs.value_and_grad("mse", t, p, reduction="mean")
        assert value == exact
        np.testing.assert_allclose(gradient, 2.0 * (p.astype(float) - t) / count, rtol=1e-3 if kind is np.float16 else 1e-6, atol=1e-6)
