"""The Numba kernels against the NumPy reference: over the table, shapes, dtypes, tasks, axes, weights and layouts."""

from __future__ import annotations

import itertools
import math
import sys
from typing import Any

import numpy as np
import pytest
from cases import (
    BASES,
    CASES,
    DIFFERENTIABLE,
    DIGITS,
    DTYPES,
    LONGEST,
    SHAPES,
    Array,
    assert_equal,
    bits,
    by_name,
    edges,
    inputs,
    layouts,
)

import lossfuncs
from lossfuncs.call import RowsCall
from lossfuncs.rows import Rows
from lossfuncs.table import Entry

TASKS = ("values", "total", "gradient", "gradient of total", "curve", "curve of total")


def reference(function: Any, *args: Any, **options: Any) -> Any:
    """function(*args, **options) by the NumPy backend; arrays are given to it as float64."""
    with lossfuncs.backend("numpy"):
        return function(*args, **options)


def rows_of(entry: Entry, options: dict[str, Any]) -> Rows:
    t, p = inputs(entry, options, (2, 9))
    return RowsCall(entry.function, entry, {**entry.function.defaults, **options}, t, p, None).problem.rows


def possible(entry: Entry, options: dict[str, Any], task: str) -> bool:
    rows = rows_of(entry, options)
    return (rows.slope if "gradient" in task else rows.curve if "curve" in task else True) is not None


def chosen() -> list[Any]:
    """Every case with every dtype, schedule and task: each is a kernel to compile.

    The bases keep the float32 gradient by both schedules, and every case one more, spread so that all dtypes, schedules and tasks come up;
    the rest is slow.
    """
    found = []
    for i, one in enumerate(CASES):
        base = i < len(BASES)
        every = [(kind, schedule, task) for kind, schedule, task in itertools.product(DTYPES, SHAPES, TASKS) if possible(*one.values, task)]
        first = next(task for task in ("gradient", "values") if possible(*one.values, task))
        quick = {("float32", schedule, first) for schedule in SHAPES if base} | {every[11 * i % len(every)]}
        for combination in every:
            marks = () if combination in quick else (pytest.mark.slow,)
            found.append(pytest.param(*one.values, *combination, marks=marks, id="-".join([one.id, *combination])))
    return found


def largest(x: Any, axis: int | None = None) -> Any:
    """The largest finite size along the axis."""
    x = np.abs(np.where(np.isfinite(x), x, 0.0))
    return np.max(x, axis=axis, keepdims=True, initial=0.0) if axis is not None else np.max(x, initial=0.0)


def run(entry: Entry, options: dict[str, Any], task: str, t: Any, p: Any, weight: Any, upstream: Any) -> tuple[Any, ...]:
    f = entry.function
    if task == "values":
        return f(t, p, **options), f(t, p, **options, sample_weight=weight)
    if task == "total":
        plain = (f(t, p, **options, reduction=r) for r in ("sum", "mean"))
        weighted = (f(t, p, **options, sample_weight=weight, reduction=r) for r in ("sum", "mean", "mean_with_sample_weight"))
        return (*plain, *weighted)
    derive = lossfuncs.value_and_grad if "gradient" in task else lossfuncs.grad_and_hess
    if "total" in task:
        mean = derive(f, t, p, reduction="mean", upstream=1.5, **options)
        return (*mean, *derive(f, t, p, reduction="sum", sample_weight=weight, **options))
    return (*derive(f, t, p, **options), *derive(f, t, p, upstream=upstream, sample_weight=weight, **options))


@pytest.mark.parametrize(("entry", "options", "kind", "schedule", "task"), chosen())
def test_numba_equals_the_reference(entry: Entry, options: dict[str, Any], kind: str, schedule: str, task: str) -> None:
    dtype = DTYPES[kind]
    for seed, shape in enumerate(SHAPES[schedule]):
        if options.get("k", 0) > shape[-1]:
            continue
        if entry.shape == "element":
            shape = (shape[0] * shape[1],)
        t, p = inputs(entry, options, shape, dtype, seed)
        rng = np.random.default_rng(seed)
        weight, upstream = rng.integers(0, 4, shape[0]).astype(np.float64), rng.normal(size=shape[0])
        t64 = t if entry.targets == "index" else t.astype(np.float64)
        wanted = reference(run, entry, options, task, t64, p.astype(np.float64), weight, upstream)
        got = run(entry, options, task, t, p, weight, upstream)
        for g, w in zip(got, wanted, strict=True):
            total = np.ndim(w) == 0 and ("total" in task)
            scale = largest(w, -1 if np.ndim(w) == 2 else None) if np.ndim(w) else shape[0]
            assert_equal(g, w, np.dtype(np.float64) if total else dtype, scale, f"{task} of {kind} {shape}", DIGITS[kind])


def test_the_cases_reach_every_row_maths_of_the_table() -> None:
    reached = {id(each) for one in CASES for each in (rows_of(*one.values), rows_of(*one.values).narrow)}
    there = {
        id(rows): name
        for module in {module_of(entry) for entry in (one.values[0] for one in CASES)}
        for name, value in vars(module).items()
        for rows in (value.values() if isinstance(value, dict) else [value])
        if isinstance(rows, Rows)
    }
    assert not [name for key, name in there.items() if key not in reached]


def module_of(entry: Entry) -> Any:
    return sys.modules[entry.function.__module__]


@pytest.mark.parametrize(("entry", "options"), DIFFERENTIABLE)
@pytest.mark.parametrize("repeats", [1, 40], ids=["short", "long"])
def test_nan_infinities_and_edges_come_out_as_in_the_reference(entry: Entry, options: dict[str, Any], repeats: int) -> None:
    for t, p in edges(entry, options, np.float32):
        t, p = (np.tile(x, (1, repeats)) if x.ndim == 2 else x for x in (t, p))
        t64 = t if entry.targets == "index" else t.astype(np.float64)
        got = lossfuncs.value_and_grad(entry.function, t, p, **options)
        wanted = reference(lossfuncs.value_and_grad, entry.function, t64, p.astype(np.float64), **options)
        for g, w in zip(got, wanted, strict=True):
            scale = np.maximum(largest(p, -1), largest(w, -1) if np.ndim(w) == 2 else np.abs(w)[:, None])
            if "correlation" in entry.name:  # the gradient is a difference of unit vectors over the spread of p
                with np.errstate(all="ignore"):
                    scale = np.maximum(scale, 1.0 / np.std(p.astype(np.float64), axis=-1, keepdims=True))
            assert_equal(g, w, np.dtype(np.float32), np.maximum(scale if np.ndim(w) == 2 else scale[:, 0], 1.0), f"y_true of {t[0]}")


@pytest.mark.parametrize(("entry", "options"), DIFFERENTIABLE)
@pytest.mark.parametrize("shape", [(130, 9), (65, 129), (5, 9, 13)], ids=str)
def test_the_layout_in_memory_does_not_change_a_bit(entry: Entry, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    t, p = inputs(entry, options, shape)
    value, gradient = lossfuncs.value_and_grad(entry.function, t, p, **options)
    targets = [("labels", t)] * 8 if t.ndim == 1 else list(layouts(t))
    for (what, other_p), (what_t, other_t) in zip(layouts(p), [*targets[3:], *targets[:3]], strict=False):
        other = lossfuncs.value_and_grad(entry.function, other_t, other_p, **options)
        assert bits(other[0]) == bits(value) and bits(other[1]) == bits(gradient), f"y_pred {what}, y_true {what_t}"


def test_broadcast_arrays_give_the_bits_of_whole_ones() -> None:
    row = np.linspace(-2.0, 2.0, 33, dtype=np.float32)
    p, t = np.broadcast_to(row, (70, 33)), np.broadcast_to(np.float32(0.5), (70, 33))
    got = lossfuncs.value_and_grad("log_cosh", t, p)
    wanted = lossfuncs.value_and_grad("log_cosh", t.copy(), p.copy())
    assert [bits(x) for x in got] == [bits(x) for x in wanted]


AXES = ["binary_crossentropy", "binary_focal_crossentropy", "cosine_similarity", "dice", "tversky", "categorical_crossentropy",
        "categorical_focal_crossentropy", "sparse_categorical_crossentropy"]  # fmt: skip
PAIRS = [(0, 1), (-1, 0), (0, 2), (1,), [2, 1], (2, 0, 1), None]


@pytest.mark.parametrize("name", AXES)
def test_an_axis_is_the_reference_axis_and_the_bits_of_the_moved_array(name: str) -> None:
    entry = by_name("loss", name)
    several = PAIRS if name in ("binary_crossentropy", "binary_focal_crossentropy", "dice", "tversky") else []
    for axis in [0, 1, 2, -1, -2, -3, *several]:
        t, p = inputs(entry, {"axis": axis} if isinstance(axis, int) else {}, (6, 5, 7))
        t64 = t if entry.targets == "index" else t.astype(np.float64)
        got = lossfuncs.value_and_grad(entry.function, t, p, axis=axis)
        wanted = reference(lossfuncs.value_and_grad, entry.function, t64, p.astype(np.float64), axis=axis)
        for g, w in zip(got, wanted, strict=True):
            assert_equal(g, w, np.dtype(np.float32), largest(w), f"axis={axis}")
        if isinstance(axis, int):
            moved = np.ascontiguousarray(np.moveaxis(p, axis, -1))
            value, gradient = lossfuncs.value_and_grad(entry.function, t if t.ndim == 2 else np.moveaxis(t, axis, -1), moved, axis=-1)
            assert bits(got[0]) == bits(value) and bits(np.moveaxis(got[1], axis, -1)) == bits(gradient), f"axis={axis}"


@pytest.mark.parametrize("name", ["mean_squared_error", "categorical_crossentropy", "sparse_categorical_crossentropy"])
@pytest.mark.parametrize("shape", [(2, 3, 5, 9), (3, 2, 70, 65), (1, 1, 1, 1), (2, 1, 3, 1, 4)], ids=str)
def test_any_number_of_axes_is_rows_of_the_last(name: str, shape: tuple[int, ...]) -> None:
    entry = by_name("loss", name)
    t, p = inputs(entry, {}, shape)
    value, gradient = lossfuncs.value_and_grad(entry.function, t, p)
    flat = t.reshape(-1, *t.shape[len(shape) - 1 :])
    wanted = lossfuncs.value_and_grad(entry.function, flat, p.reshape(-1, shape[-1]))
    assert value.shape == shape[:-1] and gradient.shape == shape
    assert bits(value) == bits(wanted[0]) and bits(gradient) == bits(wanted[1])


INTEGERS = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


@pytest.mark.parametrize("name", ["mean_squared_error", "binary_crossentropy", "categorical_crossentropy", "hinge"])
@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_targets_of_any_type_are_taken_at_their_exact_value(name: str, kind: str) -> None:
    entry = by_name("loss", name)
    _, p = inputs(entry, {}, (66, 5), DTYPES[kind])
    whole = np.eye(5)[np.arange(66) % 5]
    wanted = reference(lossfuncs.value_and_grad, entry.function, whole, p.astype(np.float64))
    for target in [*INTEGERS, *DTYPES]:
        got = lossfuncs.value_and_grad(entry.function, whole.astype(DTYPES.get(target, target)), p)
        for g, w in zip(got, wanted, strict=True):
            assert_equal(g, w, DTYPES[kind], largest(w), target)


def test_whole_numbers_beyond_the_significand_of_y_pred_keep_their_value() -> None:
    for target, number in (("int32", 2**24 + 1), ("int64", 2**40 + 1), ("uint16", 2**11 + 1), ("float64", 1.0 + 2.0**-40)):
        for kind in ("float16", "bfloat16", "float32"):
            p = np.full((3, 4), 1.0, DTYPES[kind])
            t = np.full((3, 4), number, target)
            with np.errstate(over="ignore"):
                wanted = np.full(3, (1.0 - float(number)) ** 2).astype(DTYPES[kind])
                np.testing.assert_array_equal(lossfuncs.mean_squared_error(t, p), wanted, f"{target} {kind}")


def test_integer_predictions_are_computed_as_float64_and_do_not_wrap() -> None:
    t, p = np.array([[10, 0]], np.uint8), np.array([[200, 0]], np.uint8)
    value, gradient = lossfuncs.value_and_grad("mse", t, p)
    assert value.dtype == gradient.dtype == np.float64
    np.testing.assert_array_equal(value, [18050.0])
    np.testing.assert_array_equal(gradient, [[190.0, 0.0]])


@pytest.mark.parametrize("target", [*INTEGERS, "float32"])
def test_labels_of_any_integer_type_are_one(target: str, backend: str) -> None:
    labels = np.arange(70) % 2
    p = np.random.default_rng(0).normal(size=(70, 2)).astype(np.float32)
    wanted = lossfuncs.sparse_categorical_crossentropy(labels, p, from_logits=True)
    for given in (labels.astype(target), labels.astype(target)[:, None], np.repeat(labels.astype(target), 2)[::2]):
        np.testing.assert_array_equal(lossfuncs.sparse_categorical_crossentropy(given, p, from_logits=True), wanted)


def test_lists_series_and_frames_are_arrays(backend: str) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    t, p = np.eye(4)[[0, 3, 1]], np.random.default_rng(0).dirichlet(np.ones(4), 3)
    wanted = lossfuncs.categorical_crossentropy(t, p)
    frame, series = pandas.DataFrame(p), pandas.Series([0, 3, 1])
    np.testing.assert_array_equal(lossfuncs.categorical_crossentropy(t.tolist(), p.tolist()), wanted)
    np.testing.assert_array_equal(lossfuncs.categorical_crossentropy(pandas.DataFrame(t), frame), wanted)
    np.testing.assert_array_equal(lossfuncs.sparse_categorical_crossentropy(series, frame), wanted)
    weight = pandas.Series([1.0, 2.0, 3.0])
    value, gradient = lossfuncs.value_and_grad("categorical_crossentropy", pandas.DataFrame(t), frame, sample_weight=weight)
    np.testing.assert_allclose(value, wanted * [1.0, 2.0, 3.0], rtol=1e-15)
    assert type(gradient) is np.ndarray and gradient.shape == p.shape


@pytest.mark.parametrize("shape", [(6, 5, 4), (3, 70)], ids=str)
def test_weights_of_every_allowed_shape_are_those_of_the_full_one(shape: tuple[int, ...], backend: str) -> None:
    t, p = inputs(by_name("loss", "mean_squared_error"), {}, shape)
    rng = np.random.default_rng(1)
    values = shape[:-1]
    given = [np.float64(2.5), np.array([2.5]), rng.integers(0, 5, values), rng.uniform(size=values)[..., None], rng.uniform(size=values[0]),
             rng.uniform(size=(values[0], *(1,) * (len(values) - 1)))]  # fmt: skip
    for weight in given:
        full = np.asarray(weight, np.float64)
        full = full[..., 0] if full.ndim == len(shape) else full
        full = np.broadcast_to(full.reshape(full.shape + (1,) * (len(values) - full.ndim)), values)
        plain, slope = (x.astype(np.float64) for x in lossfuncs.value_and_grad("mse", t, p))
        value, gradient = lossfuncs.value_and_grad("mse", t, p, sample_weight=weight)
        np.testing.assert_allclose(value, plain * full, rtol=3e-7)
        np.testing.assert_allclose(gradient, slope * full[..., None], rtol=3e-7)
        for reduction, divisor in (("sum", 1.0), ("mean", full.size), ("mean_with_sample_weight", full.sum())):
            total, by_total = lossfuncs.value_and_grad("mse", t, p, sample_weight=weight, reduction=reduction, upstream=3.0)
            assert total == pytest.approx((plain * full).sum() / divisor, rel=1e-6)
            assert total == lossfuncs.mean_squared_error(t, p, sample_weight=weight, reduction=reduction)
            np.testing.assert_allclose(by_total, 3.0 * slope * full[..., None] / divisor, rtol=1e-6)


def test_one_dimension_is_one_row_and_with_a_weight_each_a_row_of_its_own(backend: str) -> None:
    t, p, w = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 7.0]), np.array([1.0, 0.0, 2.0])
    assert lossfuncs.mean_squared_error(t, p) == 10.0 / 3.0
    np.testing.assert_array_equal(lossfuncs.mean_squared_error(t, p, sample_weight=w), [0.0, 0.0, 18.0])
    value, gradient = lossfuncs.value_and_grad("mse", t, p, sample_weight=w, reduction="mean_with_sample_weight")
    assert value == 6.0
    np.testing.assert_array_equal(gradient, [0.0, 0.0, 4.0])


# Written in place.


@pytest.mark.parametrize("name", ["log_cosh", "categorical_crossentropy", "cosine_similarity"])
@pytest.mark.parametrize("shape", [(70, 9), (70, 129), (LONGEST + 5,)], ids=str)
def test_out_receives_the_gradient_wherever_it_lies(name: str, shape: tuple[int, ...]) -> None:
    entry = by_name("loss", name)
    t, p = inputs(entry, {}, shape)
    value, wanted = lossfuncs.value_and_grad(name, t, p)

    def result(t: Array, p: Array, out: Array) -> None:
        other, gradient = lossfuncs.value_and_grad(name, t, p, out=out)
        assert gradient is out and bits(out) == bits(wanted) and bits(other) == bits(value)

    result(t, p, np.empty(shape, np.float32))
    result(t, p, np.empty((*shape, 2), np.float32)[..., 0])
    result(t, p, np.empty(shape, np.float32)[::-1])
    same = p.copy()
    result(t, same, same)
    both = np.concatenate([t, p])
    result(both[: len(t)], both[len(t) :], both[: len(t)])  # over y_true
    longer = np.concatenate([p, p[:1]])
    result(t, longer[:-1], longer[1:])  # one row further on
    strided = np.repeat(p, 2, axis=-1)
    result(t, strided[..., ::2], strided[..., ::2])


def test_both_derivatives_may_be_written_over_their_inputs() -> None:
    t, p = inputs(by_name("loss", "log_cosh"), {}, (66, 70))
    wanted = lossfuncs.grad_and_hess("log_cosh", t, p)
    t, p = t.copy(), p.copy()
    got = lossfuncs.grad_and_hess("log_cosh", t, p, out=(t, p))
    assert got[0] is t and got[1] is p and bits(t) == bits(wanted[0]) and bits(p) == bits(wanted[1])


# Rows too long for one thread.


DENSE = [one for one in BASES if one.values[0].targets != "index" and one.values[0].shape != "element"]


@pytest.mark.parametrize(("entry", "options"), DENSE)
def test_a_row_of_a_million_equals_the_reference(entry: Entry, options: dict[str, Any]) -> None:
    for shape in ((1_000_003,), (2, LONGEST + 1)):
        t, p = inputs(entry, options, shape)
        slopes = possible(entry, options, "gradient")
        run_it = lossfuncs.value_and_grad if slopes else lambda f, *args, **o: (f(*args, **o),)
        upstream: Any = {"upstream": np.arange(1.0, 1.0 + len(shape))[: math.prod(shape[:-1])]} if slopes and len(shape) > 1 else {}
        wanted = reference(run_it, entry.function, t.astype(np.float64), p.astype(np.float64), **options, **upstream)
        got = run_it(entry.function, t, p, **options, **upstream)
        for g, w in zip(got, wanted, strict=True):
            assert_equal(g, w, np.dtype(np.float32), largest(w, -1) if np.ndim(w) else np.abs(w), str(shape))
        total = reference(entry.function, t.astype(np.float64), p.astype(np.float64), reduction="sum", **options)
        assert entry.function(t, p, reduction="sum", **options) == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("name", ["sparse_categorical_crossentropy", "sparse_categorical_accuracy", "sparse_top_k_categorical_accuracy"])
def test_a_label_of_a_very_long_row_equals_the_reference(name: str) -> None:
    entry = by_name("loss" if "crossentropy" in name else "metric", name)
    t, p = inputs(entry, {}, (3, LONGEST + 1))
    t[1] = LONGEST
    wanted = reference(entry.function, t, p.astype(np.float64))
    assert_equal(entry.function(t, p), wanted, np.dtype(np.float32), np.abs(wanted))


def test_the_first_largest_of_a_long_row_is_found_in_every_piece() -> None:
    n = LONGEST + 77
    t = np.zeros((6, n), np.float32)
    p = np.zeros((6, n), np.float32)
    for i, at in enumerate((0, 1, (1 << 15) - 1, 1 << 15, n - 2, n - 1)):
        t[i, at] = p[i, at] = 1.0
        p[i, at + 1 :] = 1.0  # ties after it
    np.testing.assert_array_equal(lossfuncs.categorical_accuracy(t, p), 1.0)
    np.testing.assert_array_equal(lossfuncs.top_k_categorical_accuracy(t, p, k=n), 1.0)
    p[:, 5] = math.nan
    np.testing.assert_array_equal(lossfuncs.categorical_accuracy(t, p), 0.0)


# Nothing, labels to leave out, weights of classes, ids.


def test_an_empty_batch_has_no_values_sum_0_and_mean_nan(backend: str) -> None:
    for one in BASES:
        entry, options = one.values
        p = np.zeros((0, 4), np.float32)
        t = np.zeros(0, np.int64) if entry.targets == "index" else p
        value = entry.function(t, p, **options)
        assert value.shape == ((0, 4) if entry.shape == "element" else (0,)) and value.dtype == np.float32
        assert entry.function(t, p, reduction="sum", **options) == 0.0
        assert math.isnan(entry.function(t, p, reduction="mean", **options))
        if possible(entry, options, "gradient"):
            assert lossfuncs.value_and_grad(entry.function, t, p, **options)[1].shape == (0, 4)


def test_rows_of_nothing_are_nan_and_rows_without_classes_an_error(backend: str) -> None:
    p = np.zeros((3, 0))
    np.testing.assert_array_equal(lossfuncs.mean_squared_error(p, p), [math.nan] * 3)
    assert math.isnan(lossfuncs.mean_squared_error(p, p, reduction="mean"))
    with pytest.raises(ValueError, match=r"^y_pred of shape \(3, 0\) has no classes$"):
        lossfuncs.sparse_categorical_crossentropy([0, 0, 0], p)


@pytest.mark.parametrize("ignored", [-1, 255, 2])
@pytest.mark.parametrize("n", [5, 70])
def test_rows_of_the_ignored_class_leave_value_gradient_and_mean(ignored: int, n: int, backend: str) -> None:
    t, p = inputs(by_name("loss", "sparse_categorical_crossentropy"), {"from_logits": True}, (130, n))
    t = np.where(np.arange(130) % 3 == 1, ignored, t)
    keep = t != ignored
    p[~keep, 0] = math.nan
    options: dict[str, Any] = {"from_logits": True, "ignore_class": ignored}
    value, gradient = lossfuncs.value_and_grad("sparse_categorical_crossentropy", t, p, **options)
    wanted = lossfuncs.value_and_grad("sparse_categorical_crossentropy", t[keep], p[keep], from_logits=True)
    assert not value[~keep].any() and not gradient[~keep].any()
    if backend == "emulated":  # where a row begins decides which lane meets which of its elements first
        np.testing.assert_allclose(value[keep], wanted[0], rtol=3e-7)
        np.testing.assert_allclose(gradient[keep], wanted[1], rtol=3e-7, atol=1e-9)
    else:
        assert bits(value[keep]) == bits(wanted[0]) and bits(gradient[keep]) == bits(wanted[1])
    mean, gradient = lossfuncs.value_and_grad("sparse_categorical_crossentropy", t, p, reduction="mean", **options)
    wanted = lossfuncs.value_and_grad("sparse_categorical_crossentropy", t[keep], p[keep], reduction="mean", from_logits=True)
    assert mean == pytest.approx(wanted[0], rel=1e-8 if backend == "emulated" else 1e-13)
    np.testing.assert_allclose(gradient[keep], wanted[1], rtol=3e-7, atol=1e-12)
    weight = np.arange(130.0)
    weighted = lossfuncs.sparse_categorical_crossentropy(t, p, sample_weight=weight, reduction="mean_with_sample_weight", **options)
    assert weighted == pytest.approx(np.sum(value.astype(np.float64) * weight) / weight[keep].sum(), rel=1e-6)
    assert lossfuncs.sparse_categorical_crossentropy(np.full(130, ignored), p, reduction="mean", **options) == 0.0


@pytest.mark.parametrize("options", [{"gamma": 0.5}, {"from_logits": True, "label_smoothing": 0.2}], ids=str)
@pytest.mark.parametrize("n", [5, 70])
def test_alpha_for_each_class_is_a_weight_of_its_targets(options: dict[str, Any], n: int) -> None:
    entry = by_name("loss", "categorical_focal_crossentropy")
    t, p = inputs(entry, options, (66, n))
    alpha = np.linspace(0.1, 2.0, n)
    wanted = reference(lossfuncs.value_and_grad, entry.function, t.astype(np.float64), p.astype(np.float64), alpha=alpha, **options)
    for given in (alpha, alpha.tolist()):
        for g, w in zip(lossfuncs.value_and_grad(entry.function, t, p, alpha=given, **options), wanted, strict=True):
            assert_equal(g, w, np.dtype(np.float32), largest(w))
    one = lossfuncs.value_and_grad(entry.function, t, p, alpha=0.5, **options)[0]
    np.testing.assert_allclose(lossfuncs.value_and_grad(entry.function, t, p, alpha=[0.5], **options)[0], one, rtol=3e-7)


@pytest.mark.parametrize("n", [5, 70])
def test_sorted_ids_hold_the_label_among_the_first_k(n: int, backend: str) -> None:
    ids = np.argsort(np.random.default_rng(0).uniform(size=(130, n)), axis=-1)
    labels = np.arange(130) % (2 * n)  # half of them are no class at all
    for k in (0, 1, 3, n, n + 5):
        got = lossfuncs.sparse_top_k_categorical_accuracy(labels, ids, k=k, from_sorted_ids=True)
        np.testing.assert_array_equal(got, (ids[:, :k] == labels[:, None]).any(axis=-1))


# The two that are not rows.


@pytest.mark.parametrize("options", [{}, {"remove_diagonal": False}, {"gamma": 10.0, "margin": 0.25}], ids=str)
@pytest.mark.parametrize("references", [False, True], ids=["own", "references"])
@pytest.mark.parametrize("count", [1, 2, 40, 130])
def test_circle_equals_the_reference(options: dict[str, Any], references: bool, count: int) -> None:
    entry = by_name("loss", "circle")
    t, p = inputs(entry, {}, (count, 6))
    if references:
        labels, vectors = inputs(entry, {}, (71, 6), seed=1)
        options = {**options, "ref_labels": labels, "ref_embeddings": vectors.astype(np.float64)}
    for more in ({}, {"sample_weight": np.arange(count)}, {"reduction": "mean"}):
        wanted = reference(lossfuncs.value_and_grad, "circle", t, p.astype(np.float64), **options, **more)
        got = lossfuncs.value_and_grad("circle", t, p, **options, **more)
        # d = 1 - s loses digits near s = 1, times gamma: the values are exponents of 80 times that
        np.testing.assert_allclose(got[0], wanted[0], rtol=3e-7, atol=1e-9)
        np.testing.assert_allclose(got[1], wanted[1], rtol=1e-6, atol=1e-6 * largest(wanted[1]))


@pytest.mark.parametrize("kind", DTYPES)
def test_ctc_equals_the_reference(kind: str) -> None:
    entry = by_name("loss", "ctc")
    for shape in ((1, 1, 2), (5, 7, 3), (66, 12, 5), (3, 40, 30)):
        t, p = inputs(entry, {}, shape, DTYPES[kind])
        weight = np.arange(1.0, shape[0] + 1.0)
        for more in ({}, {"sample_weight": weight}, {"reduction": "mean", "sample_weight": weight}):
            wanted = reference(lossfuncs.value_and_grad, "ctc", t, p.astype(np.float64), **more)
            got = lossfuncs.value_and_grad("ctc", t, p, **more)
            exact = np.dtype(np.float64) if "reduction" in more else DTYPES[kind]
            assert_equal(got[0], wanted[0], exact, np.abs(wanted[0]) * 2.0**8)  # of as many terms as there are frames
            assert_equal(got[1], wanted[1], DTYPES[kind], 2.0**8 * largest(wanted[1]))


# A user's own.


def _branching(t: float, p: float, low: float, high: float = 2.0) -> float:
    if p < low:
        return math.exp(p) - t
    return math.log(p) * high if p > high else max(p - t, 0.0)


def _branching_slope(t: float, p: float, low: float, high: float = 2.0) -> float:
    if p < low:
        return math.exp(p)
    return high / p if p > high else (1.0 if p > t else 0.0)


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_a_loss_of_ones_own_with_branches_equals_its_scalar_functions(kind: str) -> None:
    loss = lossfuncs.pointwise(_branching, _branching_slope, name="branching")
    for shape in ((66, 9), (5, 129), (LONGEST + 3,)):
        t, p = inputs(by_name("loss", "mean_squared_error"), {}, shape, DTYPES[kind])
        wanted = np.mean(np.vectorize(_branching, otypes="d")(t.astype(float), 2.0 * p.astype(float), -0.5, 2.0), axis=-1)
        slope = np.vectorize(_branching_slope, otypes="d")(t.astype(float), 2.0 * p.astype(float), -0.5, 2.0) / shape[-1]
        value, gradient = lossfuncs.value_and_grad(loss, t, 2 * p, low=-0.5)
        assert_equal(value, wanted, DTYPES[kind], 1.0)
        assert_equal(gradient, slope, DTYPES[kind], largest(slope))
        assert_equal(reference(loss, t, 2 * p, low=-0.5), wanted, DTYPES[kind], 1.0)


WORDS = {
    "powers": lambda t, p: math.pow(p, -3.0) + math.pow(p, 2) + p**-1.0 + p**-2,
    "whole numbers": lambda t, p: math.floor(p) + 2.0 * math.ceil(p) - 4.0 * math.trunc(p) + math.fmod(p, 2.5),
    "several at once": lambda t, p: max(p, t, -3.0, 1) - min(0, p, t) + float(p > t),
    "a root of both signs": lambda t, p: math.cbrt(p),
}


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("words", [words for words in WORDS if words != "a root of both signs" or hasattr(math, "cbrt")])
def test_the_words_of_a_loss_of_ones_own_mean_the_same_everywhere(words: str, kind: str, backend: str) -> None:
    p = np.array([[-3.5], [-2.0], [-1.0], [-0.0], [0.0], [0.5], [7.25], [1e19], [-1e19], [math.inf], [-math.inf], [math.nan]], kind)
    t, loss = np.full_like(p, 0.25), lossfuncs.pointwise(WORDS[words], name="words")
    wanted = reference(loss, t.astype(float), p.astype(float))
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(loss(t, p), wanted.astype(kind), rtol=1e-6 if kind == "float32" else 1e-14)


def _factorial(p: float) -> float:
    return p * _factorial(p - 1.0) if p > 0.0 else 1.0


def _importing(t: float, p: float) -> float:
    import cmath

    return abs(cmath.exp(t - p))


def test_what_cannot_be_compiled_is_named() -> None:
    for loss, reason in (
        (lossfuncs.pointwise(lambda t, p: math.isclose(t, p), name="near"), "Unknown attribute 'isclose' of type Module"),
        (lossfuncs.pointwise(lambda t, p: (t, p), name="pair"), r"Cannot cast UniTuple\(float64 x 2\) to float64$"),
        (lossfuncs.pointwise(lambda t, p: math.exp(t, p), name="two"), r"No implementation .* >>> DOUBLE.exp\(float64, float64\)"),
        (lossfuncs.pointwise(lambda t, p: _factorial(p), name="recursive"), "Untyped global name '_factorial'"),
        (lossfuncs.pointwise(lambda t, p: max(t, p, key=abs), name="keyed"), r"maximum\(\) got an unexpected keyword argument 'key'"),
        (lossfuncs.pointwise(_importing, name="importing"), r"Use of unsupported opcode \(IMPORT_NAME\) found"),
    ):
        with pytest.raises(ValueError, match=f"^{loss.__name__} cannot be compiled, for its functions must be scalar maths: {reason}"):
            loss(np.ones((2, 3)), np.ones((2, 3)))


def _refusing(t: float, p: float) -> float:
    if p > 2.0:
        raise ValueError
    return t - p


def _looked_up(t: float, p: float) -> Any:
    return TABLE[int(p)]


def _calling(t: float, p: float) -> float:
    return _refusing(t, p) + 1.0


TABLE = np.array([-1, -2, -3], np.int8)


@pytest.mark.parametrize("value", [_refusing, _looked_up, _calling])
@pytest.mark.parametrize("shape", [(9, 5), (3, 200), (LONGEST + 3,)])
def test_where_a_loss_of_ones_own_raises_its_kernel_gives_nan(value: Any, shape: tuple[int, ...]) -> None:
    t, p = np.zeros(shape), np.ones(shape)
    p[0] = 1e9
    found, gradient = lossfuncs.value_and_grad(lossfuncs.pointwise(value, value), t, p)
    np.testing.assert_array_equal(found, np.mean(np.where(p > 2.0, np.nan, value(0.0, 1.0)), axis=-1))
    np.testing.assert_array_equal(gradient, np.where(p > 2.0, np.nan, value(0.0, 1.0) / shape[-1]))
    with pytest.raises((ValueError, IndexError)):
        reference(lossfuncs.pointwise(value), t, p)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_later_calls_with_labels_of_any_type_have_the_bits_of_the_first(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((70, 9), dtype=np.float32)
    classes, targets = rng.integers(0, 2, 70), rng.integers(0, 2, x.shape)
    wanted = lossfuncs.sparse_categorical_crossentropy(classes, x, from_logits=True)
    value, gradient = lossfuncs.value_and_grad("bce", targets.astype(np.float32), x, from_logits=True)
    for _ in range(3):
        found = lossfuncs.sparse_categorical_crossentropy(classes.astype(dtype), x, from_logits=True)
        assert found.tobytes() == wanted.tobytes()
        again = lossfuncs.value_and_grad("bce", targets.astype(dtype), x, from_logits=True)
        assert (again[0].tobytes(), again[1].tobytes()) == (value.tobytes(), gradient.tobytes())
