"""NumPy and Numba agree on what is infinite, NaN and 0: all functions on extreme data and with extreme options."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from cases import DTYPES, ENTRIES, REQUIRED, case
from ml_dtypes import finfo

import lossfuncs
from lossfuncs.evaluate import Evaluation
from lossfuncs.table import Entry

Array = np.ndarray[Any, Any]

OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "huber": tuple({"delta": delta} for delta in (0.0, 1e-300, 1e300, math.inf)),
    "binary_crossentropy": tuple({"label_smoothing": x, "from_logits": y} for x in (1e-300, 1.0) for y in (False, True)),
    "binary_focal_crossentropy": (
        *({"gamma": x, "from_logits": y} for x in (0.0, 1e-300, 1e300, math.inf) for y in (False, True)),
        *({"apply_class_balancing": True, "alpha": x, "from_logits": y} for x in (-1.0, 0.0, 1e300, math.inf) for y in (False, True)),
    ),
    "categorical_crossentropy": tuple({"label_smoothing": x, "from_logits": y} for x in (1e-300, 1.0) for y in (False, True)),
    "sparse_categorical_crossentropy": ({"from_logits": True},),
    "categorical_focal_crossentropy": (
        *({"gamma": x, "from_logits": y} for x in (0.0, 1e-300, 1e300, math.inf) for y in (False, True)),
        *({"alpha": x, "from_logits": y} for x in (-1.0, 0.0, 1e300, math.inf, -math.inf) for y in (False, True)),
        *({"alpha": math.inf, "gamma": 0.5, "label_smoothing": x} for x in (0.1, 1.0)),
    ),
    "categorical_generalized_cross_entropy": tuple({"q": q} for q in (1e-300, 1.0)),
    "tversky": tuple({"axis": -1, "alpha": x, "beta": y} for x in (0.0, -1.0, 1e300, math.inf) for y in (0.0, 0.5, math.inf)),
    "binary_accuracy": tuple({"threshold": x} for x in (0.0, math.inf, -math.inf)),
    "top_k_categorical_accuracy": tuple({"k": k} for k in (0, 2, 10**6)),
    "sparse_top_k_categorical_accuracy": tuple({"k": k, "from_sorted_ids": x} for k in (0, 2, 10**6) for x in (False, True)),
}
EXTREMES = [case(e, {**REQUIRED.get(e.name, {}), **o}) for e in ENTRIES if e.shape != "own" for o in OPTIONS.get(e.name, ({},))]
REAL = (0.0, -0.0, 1.0, -1.0, 0.25, 1e-45, 1e-30, 1e-7, 1e38, -1e38, math.inf, -math.inf, math.nan)
WIDE = (5e-324, 1e-160, 1e160, 1e308)  # float64 alone holds these
SHARES = (0.0, -0.0, 1.0, 0.25, 1e-45, 1e-7)
TARGETS = {"binary": SHARES, "one-hot": SHARES, "sign": (-1.0, 1.0), "count": (0.0, 1.0, 7.0, 1e38)}
NOT_NEGATIVE = ("positive", "distribution", "probability")


def rows(entry: Entry, options: dict[str, Any], dtype: str, length: int) -> tuple[Array, Array]:
    """Two elements a row, in all combinations, or more, drawn."""
    numbers = REAL + (WIDE if dtype == "float64" and entry.name != "dice" and length == 2 else ())  # whose sums overflow at other places
    negative = options.get("from_logits") or entry.predictions not in NOT_NEGATIVE
    of_p = [x for x in numbers if negative or not x < 0]
    of_t = TARGETS.get(entry.targets, tuple(x for x in numbers if entry.targets != "positive" or not x < 0))
    if length > 2:
        rng, shape = np.random.default_rng(0), (2000, length)
        t = rng.integers(0, length, 2000) if entry.targets == "index" else rng.choice(of_t, shape).astype(dtype)
        return t, np.where(rng.random(shape) < 0.5, rng.choice(of_p, shape), rng.choice(of_p[:5], shape)).astype(dtype)
    p = np.array(list(itertools.product(of_p, repeat=2)), dtype)
    t = np.arange(2) if entry.targets == "index" else np.array(list(itertools.product(of_t, repeat=2)), dtype)
    return np.repeat(t, len(p), axis=0), np.tile(p, (len(t), 1))


def kind(x: Array) -> Array:
    """0 of a number, 1 and -1 of infinities, 2 of NaN."""
    return np.where(np.isnan(x), 2, np.where(np.isinf(x), np.sign(x), 0))


# Of more elements, powers and sums overflow, and terms of both signs cancel, at other places: there the options are ordinary ones.
SHAPES = [(2, one) for one in EXTREMES] + [(5, one) for one in EXTREMES if all(abs(x) <= 1e3 for x in one.values[1].values())]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("entry", "options", "length"), [pytest.param(*one.values, n, id=f"{one.id}-{n}") for n, one in SHAPES])
def test_the_backends_agree_at_the_ends_of_the_numbers(entry: Entry, options: dict[str, Any], dtype: str, length: int) -> None:
    t, p = rows(entry, options, dtype, length)
    found: list[tuple[Array, ...]] = []
    for backend in ("numpy", "numba"):
        with lossfuncs.backend(backend), np.errstate(all="ignore"):
            if "accuracy" in entry.name:
                found.append((entry.function(t, p, **options),))
            else:
                found.append(lossfuncs.value_and_grad(entry.function, t, p, **options))
    for what, wanted, got in zip(("value", "slope"), *found, strict=False):
        wanted, got = (x.astype(np.float64).reshape(len(p), -1) for x in (wanted, got))
        wrong = np.any(kind(wanted) != kind(got), axis=-1)
        finite = np.where(np.isfinite(wanted), abs(wanted), 0)
        scale = np.max(finite, axis=-1, keepdims=True)
        with np.errstate(invalid="ignore"):
            apart = abs(got - wanted)
        near = apart <= (1e-5 if dtype == "float32" else 1e-8) * scale + 1e-15
        wrong |= ~np.all(near | ~np.isfinite(wanted), axis=-1)
        rows_of = [(t[i], p[i], wanted[i], got[i]) for i in np.nonzero(wrong)[0][:3]]
        assert not wrong.any(), f"{what}, y_true, y_pred, NumPy, Numba: {rows_of}, and so on: {np.count_nonzero(wrong)} of {len(p)}"


@pytest.mark.parametrize("gamma", [700.0, 3e3, 1e300])
@pytest.mark.parametrize("t", [[0.0, 1.0, 0.0], [0.2, 0.3, 0.5]])
def test_a_focal_weight_beside_several_large_others_is_a_number(gamma: float, t: list[float], backend: str) -> None:
    value, gradient = lossfuncs.value_and_grad("categorical_focal_crossentropy", [t], [[0.0, -1.0, -1.2]], gamma=gamma, from_logits=True)
    assert np.all(np.isfinite(value)) and np.all(np.isfinite(gradient))
    assert np.all(value < 1e-50) and np.all(abs(gradient) < 1e-50)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 2.5])
def test_focal_losses_of_sure_logits_vanish_with_all_their_derivatives(gamma: float, dtype: str, backend: str) -> None:
    """Of a right answer u and the entropy are y = exp(-|p|) (1 + O(y)), and the loss y^(gamma + 1)."""
    p = np.array([20.0, 44.0, 60.0, 90.0, 104.0, 200.0, 360.0, 380.0, 500.0, 710.0, 740.0, 800.0])
    for t, sign in ((1.0, 1.0), (0.0, -1.0)):
        x = (sign * p[:, None]).astype(dtype)
        found = lossfuncs.grad_and_hess("binary_focal_crossentropy", np.full_like(x, t), x, gamma=gamma, from_logits=True)
        k = gamma + 1.0
        with np.errstate(under="ignore"):
            for d, factor in zip(found, (-sign * k, k * k), strict=True):
                np.testing.assert_allclose(d[:, 0], factor * np.exp(-k * p), rtol=1e-5, atol=float(np.finfo(dtype).tiny) * 1e8)


@pytest.mark.parametrize("cpu", ["numpy", "numba"])  # a GPU would have to wait for their sum
@pytest.mark.parametrize(
    ("scale", "error"), [(1.7e308, 1.0), (1e307, 100.0), (1e-310, 1.0), (5e-324, 1.0), (5e-324, 1e-50), (1e-250, 1e-50)]
)
def test_only_the_ratios_of_weights_count_in_their_mean(scale: float, error: float, cpu: str) -> None:
    p = error * np.arange(1.0, 5.0)[:, None] * np.ones((4, 3))
    for w in ([1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0]):
        few, many = ({"sample_weight": np.array(w) * x, "reduction": "mean_with_sample_weight"} for x in (1.0, scale))
        for _ in range(3):  # the long way and the short one
            with lossfuncs.backend(cpu):
                (value, gradient), (scaled, slope) = (lossfuncs.value_and_grad("mse", np.zeros((4, 3)), p, **how) for how in (few, many))
                assert lossfuncs.mean_squared_error(np.zeros((4, 3)), p, **many) == scaled == pytest.approx(value, rel=1e-15)
            np.testing.assert_allclose(slope, gradient, rtol=1e-15)
            with lossfuncs.backend(cpu):
                loss, mask = lossfuncs.losses.MeanSquaredError("mean_with_sample_weight"), np.ones(4)
                assert loss(np.zeros((4, 3)), p, many["sample_weight"], mask=mask) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_a_focal_row_whose_sum_is_subnormal_has_a_slope(gamma: float, backend: str) -> None:
    p = np.array([[0.0, 0.0, 1e-40], [1.5e-45, 3e-40, 1e-38], [1e-40, 1e-40, 1e-40]], np.float32)
    for t in np.vstack([np.eye(3), [[0.2, 0.3, 0.5], [0.0, 0.0, 0.0]]]).astype(np.float32):
        how = "categorical_focal_crossentropy", np.tile(t, (3, 1)), p
        with lossfuncs.backend("numpy"):
            wanted = lossfuncs.value_and_grad(*how, gamma=gamma)[1]
        found = lossfuncs.value_and_grad(*how, gamma=gamma)[1]
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("cpu", ["numpy", "numba"])
def test_an_ignored_row_has_no_weight(cpu: str) -> None:
    p, labels = np.arange(12.0).reshape(4, 3), np.array([0, 1, -1, 2])
    how = {"from_logits": True, "ignore_class": -1, "reduction": "mean_with_sample_weight"}
    with lossfuncs.backend(cpu):
        wanted = lossfuncs.sparse_categorical_crossentropy(labels, p, sample_weight=[1.0, 2.0, 0.0, 3.0], **how)
        for there in (1e308, 1e-300):
            w = np.array([1e-300, 2e-300, there, 3e-300])
            assert lossfuncs.sparse_categorical_crossentropy(labels, p, sample_weight=w, **how) == pytest.approx(wanted, rel=1e-15)


def test_batches_of_tiny_weights_add_up_with_others(backend: str) -> None:
    t, p = np.zeros((4, 1)), np.arange(1.0, 5.0)[:, None]
    loss: Any = lossfuncs.losses.MeanSquaredError("mean_with_sample_weight")
    model = lossfuncs.compile(loss=loss)
    for begin, weight in ((0, 1e-300), (2, 1e-285)):
        model.update(t[begin : begin + 2], p[begin : begin + 2], np.full(2, weight))
        assert loss.sum_and_count(t, p, np.full(4, weight)) == (pytest.approx(30.0 * weight), pytest.approx(4 * weight))
    assert model.result()["loss"] == pytest.approx(12.5)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("weights", [(1e-200, 1.0), (1.0, 1e-200), (1e200, 1.0), (0.0, 1e-200), (1e-200, 0.0), (1e300, 1e300)])
def test_batches_weigh_what_their_weights_say(weights: tuple[float, float], parts: int) -> None:
    """Only the ratios of weights count, in a batch and between batches."""
    first, second = ((np.zeros((2, 1)), np.full((2, 1), error), np.full(2, w)) for error, w in zip((1.0, 3.0), weights, strict=True))
    folds = [Evaluation("mae") for _ in range(parts)]
    folds[0].update(*first)
    folds[-1].update(*second)
    if parts > 1:
        folds[0].merge(folds[1])
    a, b = (w / max(weights) for w in weights)
    assert folds[0].result()["mae"] == pytest.approx((a + 3.0 * b) / (a + b), rel=1e-15)


def test_intervals_of_what_is_not_finite_are_no_warning() -> None:
    """Warnings are errors here."""
    for numbers in ([math.inf, 1.0], [math.nan, 1.0], [math.inf, -math.inf], [1e308, 1e308]):
        p = np.array([numbers, numbers])
        found = lossfuncs.evaluate(np.zeros((4, 1)), p.reshape(4, 1), loss="mae", sample_weight=[math.inf, 1.0, 1e300, 0.0], bootstrap=10)
        assert not math.isfinite(found["mae"].value)


def test_a_percentage_is_finite_where_its_mean_is(backend: str) -> None:
    t, p = np.ones((1, 100)), np.zeros((1, 100))
    p[0, :2] = 3e307, -2e306
    assert lossfuncs.mean_absolute_percentage_error(t, p) == pytest.approx(3.2e307)


@pytest.mark.parametrize("cpu", ["numpy", "numba"])
@pytest.mark.parametrize("t", [math.inf, -math.inf])
def test_an_infinite_target_brings_what_the_formula_tends_to(t: float, cpu: str) -> None:
    p = np.array([[1.0], [-1.0], [2.0], [30.0], [-30.0]])
    with lossfuncs.backend(cpu):
        value, gradient = lossfuncs.value_and_grad("binary_crossentropy", np.full_like(p, t), p, from_logits=True)
    np.testing.assert_array_equal(value, np.copysign(math.inf, -t * p[:, 0]))
    np.testing.assert_array_equal(gradient, np.full_like(p, -t))


def odd_logits(n: int) -> tuple[Array, Array]:
    """Labels, and rows of n logits: sure ones, wrong ones by up to 1e30, infinities and NaN, at the label and elsewhere."""
    rng, rows, labels = np.random.default_rng(n), [], []
    ends = (0.0, 30.0, -30.0, 400.0, -400.0, 610.0, -610.0, 2e3, -2e3, 1e6, -1e6, 1e30, -1e30, math.inf, -math.inf, math.nan)
    for label in sorted({0, n // 2, n - 1}):
        for at_label, elsewhere, base in itertools.product(ends, ends, (0.0, 3e4, -math.inf, math.inf)):
            row = base + rng.normal(size=n)
            row[rng.integers(0, n, 2)] = elsewhere
            row[label] = at_label
            rows.append(row)
            labels.append(label)
    order = rng.permutation(len(rows))[: 1 + 2**20 // n]  # rows of all kinds share a group
    return np.array(labels)[order], np.array([rows[i] for i in order])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
@pytest.mark.parametrize("n", [1, 2, 10, 64, 65, 97, 130, 4100])
def test_a_labelled_row_of_any_logits_has_the_loss_and_slope_of_the_reference(n: int, dtype: str) -> None:
    labels, logits = odd_logits(n)
    with np.errstate(over="ignore"):
        p = logits.astype(DTYPES[dtype])
    found = []
    for backend, x in (("numpy", p.astype(np.float64)), ("numba", p)):
        with lossfuncs.backend(backend):
            alone = lossfuncs.sparse_categorical_crossentropy(labels, x, from_logits=True)
            found.append((alone, *lossfuncs.value_and_grad("sparse_categorical_crossentropy", labels, x, from_logits=True)))
    eps = float(finfo(DTYPES[dtype]).eps) * (64 if dtype == "float64" else 1)
    with np.errstate(over="ignore", invalid="ignore"):
        for what, wanted, got in zip(("value", "value with slope", "slope"), *found, strict=True):
            wanted, got = (x.astype(DTYPES[dtype]).astype(np.float64).reshape(len(p), -1) for x in (wanted, got))
            near = (abs(got - wanted) <= eps * abs(wanted) + 1e-40) | (got == wanted) | (np.isnan(got) & np.isnan(wanted))
            wrong = np.nonzero(~np.all(near, axis=-1))[0]
            assert not wrong.size, (what, len(wrong), [(labels[i], p[i][:12], wanted[i][:12], got[i][:12]) for i in wrong[:3]])


def dense_targets(labels: Array, n: int) -> Array:
    """Of the rows with these labels: a third are one-hot, the others have another number there, or a second target that is not 0."""
    rng, rows = np.random.default_rng(n), np.arange(len(labels))
    t = np.zeros((len(labels), n))
    t[rows, labels] = np.where(rows % 3 == 1, rng.choice([0.5, 2.0, -1.0, -0.0, 0.0, math.nan], len(rows)), 1.0)
    second = np.nonzero(rows % 3 == 2)[0]
    t[second, rng.integers(0, n, len(second))] = rng.choice([1.0, 0.25, -0.0], len(second))
    return t


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
@pytest.mark.parametrize("n", [10, 65, 97, 1100])
def test_a_row_of_targets_of_any_logits_has_the_loss_and_slope_of_the_reference(n: int, dtype: str) -> None:
    labels, logits = odd_logits(n)
    with np.errstate(over="ignore"):
        t, p = dense_targets(labels, n).astype(DTYPES[dtype]), logits.astype(DTYPES[dtype])
    found = []
    for backend, y, x in (("numpy", t.astype(np.float64), p.astype(np.float64)), ("numba", t, p)):
        with lossfuncs.backend(backend):
            alone = lossfuncs.categorical_crossentropy(y, x, from_logits=True)
            found.append((alone, *lossfuncs.value_and_grad("categorical_crossentropy", y, x, from_logits=True)))
    eps = float(finfo(DTYPES[dtype]).eps) * (64 if dtype == "float64" else 1)
    several = np.where(np.sum(t != 0, axis=-1) > 1, 1.0, 0.0)[:, None]  # whose terms may cancel
    with np.errstate(over="ignore", invalid="ignore"):
        for what, wanted, got in zip(("value", "value with slope", "slope"), *found, strict=True):
            wanted, got = (x.astype(DTYPES[dtype]).astype(np.float64).reshape(len(p), -1) for x in (wanted, got))
            near = (abs(got - wanted) <= eps * (abs(wanted) + several) + 1e-40) | (got == wanted) | (np.isnan(got) & np.isnan(wanted))
            wrong = np.nonzero(~np.all(near, axis=-1))[0]
            assert not wrong.size, (what, len(wrong), [(t[i].nonzero()[0], p[i][:12], wanted[i][:12], got[i][:12]) for i in wrong[:3]])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
@pytest.mark.parametrize("n", [10, 65, 97, 128, 1000])
def test_the_first_largest_target_is_the_label_whatever_else_stands_in_the_row(n: int, dtype: str) -> None:
    rng = np.random.default_rng(n)
    few = rng.choice([0.0, -0.0, 1.0, -1.0, math.inf, -math.inf], (300, n))
    rare = np.where(rng.random((300, n)) < 2.0 / n, rng.choice([math.nan, math.inf, 3.0], (300, n)), rng.integers(-2, 3, (300, n)))
    ends = np.tile(np.arange(300.0)[:, None] % 5 - 2.0, (1, n))
    ends[::2, -1], ends[1::3, 0] = 4.0, 5.0  # where the row behind begins with a larger one, too
    same = np.repeat([[-math.inf], [math.inf], [math.nan], [0.0]], n, axis=1)
    t = np.concatenate([few, rare, ends, same]).astype(DTYPES[dtype])
    wanted = np.argmax(t.astype(np.float64), axis=-1)
    p = np.zeros_like(t)
    p[np.arange(len(t)), wanted] = 1
    with lossfuncs.backend("numba"):
        np.testing.assert_array_equal(lossfuncs.metrics.categorical_accuracy(t, p), 1.0)


@pytest.mark.parametrize("n", [3, 129])
def test_log_cosh_goes_over_into_its_straight_line(n: int) -> None:
    e = np.array([9.0, np.nextafter(10, 0), 10.0, np.nextafter(10, 11), 10.5, 12.0, 20.0, 1e4, 1e30], np.float32)
    exact = np.logaddexp(e.astype(np.float64), -e.astype(np.float64)) - math.log(2.0)
    found = lossfuncs.log_cosh(np.zeros((len(e), n), np.float32), np.repeat(e[:, None], n, axis=1))
    np.testing.assert_array_equal(found, exact.astype(np.float32))
