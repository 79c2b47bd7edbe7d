"""The CUDA kernels against the NumPy reference, on the emulated device: over the table, schedules, dtypes, tasks and layouts."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import BASES, CASES, DIFFERENTIABLE, DTYPES, Array, assert_equal, bits, by_name, edges, inputs
from emulator.device import DEVICE, DeviceArray
from emulator.program import SCHEDULES, Schedule
from test_accuracy import EXTENDED
from test_equivalence import TASKS, largest, possible, reference, run

import lossfuncs
from bench.accuracy import losses as accuracy
from lossfuncs import gpu
from lossfuncs.call import RowsCall
from lossfuncs.problem import Task
from lossfuncs.table import Entry

# Terms are computed in float32 and added in float64: a result is within so much of the largest term, beside the rounding to its dtype.
DIGITS = {"float64": 2.0**-46, "float32": 2.0**-20, "float16": 2.0**-20, "bfloat16": 2.0**-20}

# Shapes that bring about each schedule; of the second the rows are one vector and more, unaligned, and several tiles.
SHAPES = {
    "tile": [(1, 1), (130, 3), (7, 9), (70, 33), (9, 101)],
    "long": [(3, 1000), (2, 1501), (5, 4099)],
    "pieces": [(2, 70_001)],
}


@pytest.fixture(autouse=True)
def emulated() -> Iterator[None]:
    with lossfuncs.backend("emulated"):
        yield


def device(*arrays: Any) -> list[DeviceArray]:
    return [DEVICE.send(np.asarray(x)) for x in arrays]


def scale_of(wanted: Any) -> Any:
    """What the terms of a result are as large as: the row's largest derivative, the value itself."""
    return largest(wanted, -1 if np.ndim(wanted) == 2 else None) if np.ndim(wanted) else abs(float(wanted))


SAMPLE = 8  # of a case's combinations, by -m slow


def chosen() -> list[Any]:
    """Every case with every dtype, schedule and task: those that are quick bring every loss, dtype, schedule and task about; a sample is
    slow; `-m product` has the rest, for an hour."""
    found = []
    for i, one in enumerate(CASES):
        every = [(kind, shapes, task) for kind, shapes, task in itertools.product(DTYPES, SHAPES, TASKS) if possible(*one.values, task)]
        first = next(task for task in ("gradient", "values") if possible(*one.values, task))
        quick = {("float32", ("tile", "long")[i % 2], first), every[11 * i % len(every)]}
        sample = random.Random(one.id).sample(every, min(SAMPLE, len(every)))
        for combination in every:
            marks = () if combination in quick else (pytest.mark.slow,) if combination in sample else (pytest.mark.product,)
            found.append(pytest.param(*one.values, *combination, marks=marks, id="-".join([one.id, *combination])))
    return found


@pytest.mark.parametrize(("entry", "options", "kind", "shapes", "task"), chosen())
def test_kernels_equal_the_reference(entry: Entry, options: dict[str, Any], kind: str, shapes: str, task: str) -> None:
    dtype = DTYPES[kind]
    # second derivatives are sums of several terms of both signs, slopes of a correlation differences of nearly equal vectors
    digits = DIGITS[kind] * (8 if "curve" in task else 64 if "correlation" in entry.name else 1)
    for seed, shape in enumerate(SHAPES[shapes]):
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
            what = f"{task} of {kind} {shape}"
            if np.ndim(w) == 0 and "total" in task:
                assert g.dtype == np.float64 and g == pytest.approx(w, rel=4 * digits, abs=4 * digits, nan_ok=True), what
            else:
                assert_equal(g, w, dtype, scale_of(w), what, digits)


@pytest.mark.parametrize(("entry", "options"), DIFFERENTIABLE)
def test_nan_infinities_and_edges_come_out_as_in_the_reference(entry: Entry, options: dict[str, Any]) -> None:
    found = list(edges(entry, options, np.float32))
    t, p = (np.concatenate([pair[i] for pair in found]) for i in (0, 1))
    t64 = t if entry.targets == "index" else t.astype(np.float64)
    got = lossfuncs.value_and_grad(entry.function, t, p, **options)
    wanted = reference(lossfuncs.value_and_grad, entry.function, t64, p.astype(np.float64), **options)
    for g, w in zip(got, wanted, strict=True):
        scale = np.maximum(np.maximum(largest(p, -1), largest(w, -1) if np.ndim(w) == 2 else np.abs(w)[:, None]), 1.0)
        if "correlation" in entry.name:  # the gradient is a difference of unit vectors over the spread of p
            with np.errstate(all="ignore"):
                scale = np.maximum(scale, 1.0 / np.std(p.astype(np.float64), axis=-1, keepdims=True))
        assert_equal(g, w, np.dtype(np.float32), scale if np.ndim(w) == 2 else scale[:, 0], "edges", DIGITS["float32"])


# How exact float32 losses are, in units of the last place; where that is worse it says why.
ULPS = 6.0
WORSE = {
    "poisson": 1000.0,  # terms of both signs cancel
    "categorical_crossentropy from_logits": 16.0,  # x - max is rounded before its exponential, in rows whose loss is nothing but those
    "sparse_categorical_crossentropy from_logits": 16.0,
    "categorical_focal_crossentropy from_logits": 16.0,
    "categorical_generalized_cross_entropy": 16.0,  # q log(p) is rounded before its exponential, for predictions of 1e30
}


@EXTENDED
@pytest.mark.parametrize(("name", "options"), [pytest.param(*case, id="-".join([case[0], *case[1]])) for case in accuracy.LOSS_CASES])
def test_float32_losses_are_exact_to_a_few_units(name: str, options: dict[str, Any]) -> None:
    errors = accuracy.row_errors(name, options, lengths=(1, 10), rows=60, peers=False, backend="emulated")
    assert errors.values.points >= 20
    assert errors.values.max_bounded <= WORSE.get(" ".join([name, *(["from_logits"] if "from_logits" in options else [])]), ULPS), errors


# Layouts.

FAMILIES = ["mean_squared_error", "categorical_crossentropy", "sparse_categorical_crossentropy", "cosine_similarity"]


def problem_of(name: str, t: Any, p: Any, **options: Any) -> Any:
    entry = by_name("loss", name)
    return RowsCall(entry.function, entry, {**entry.function.defaults, **options}, t, p, None).problem


def schedule_of(name: str, shape: tuple[int, ...], order: int = 0, total: bool = False, kind: str = "float32", **options: Any) -> str:
    """The schedule of a call, as it would be launched."""
    t, p = device(*inputs(by_name("loss", name), {**options}, shape, DTYPES[kind]))
    problem = problem_of(name, t, p, **options)
    launched: list[str] = []
    chosen = gpu.choose
    try:
        gpu.choose = lambda *a: launched.append(chosen(*a)) or launched[-1]  # type: ignore[assignment, func-returns-value]
        into = tuple(DEVICE.empty(problem.p.shape, problem.dtype) for _ in range(order))
        gpu.run(DEVICE, problem, Task(total, values=None if total else DEVICE.empty((problem.m,), problem.dtype), derivatives=into))
    finally:
        gpu.choose = chosen
    return launched[0].source  # type: ignore[attr-defined, no-any-return]


def test_shapes_choose_their_schedule() -> None:
    assert schedule_of("mean_squared_error", (300, 10)) == "TILE"
    assert schedule_of("mean_squared_error", (30, 1000)) == "DIRECT"
    assert schedule_of("mean_squared_error", (30, 1000), total=True) == "PIECES"
    assert schedule_of("mean_squared_error", (2, 100_000)) == "PIECES"
    assert schedule_of("sparse_categorical_crossentropy", (30, 1000), from_logits=True) == "DIRECT"
    assert schedule_of("sparse_categorical_crossentropy", (30, 1000), 1, from_logits=True) == "TILE"
    assert schedule_of("categorical_crossentropy", (300, 5, 32), axis=1) == "STEP"
    assert schedule_of("categorical_crossentropy", (30, 20_000), 1, from_logits=True) == "TILE"
    assert schedule_of("categorical_crossentropy", (5, 30_000), 1, from_logits=True) == "DIRECT"


def layouts(x: Array) -> Iterator[tuple[str, DeviceArray]]:
    """The same elements on the device, otherwise laid out."""
    yield "as it is", DEVICE.send(x)
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1] + 3), x.dtype)
    wide[..., 3 : 3 + x.shape[-1]] = x
    yield "rows apart", DEVICE.send(wide)[..., 3 : 3 + x.shape[-1]]
    yield "elements apart", DEVICE.send(np.repeat(x, 2, axis=-1))[..., ::2]
    yield "backwards", DEVICE.send(np.ascontiguousarray(x[::-1, ..., ::-1]))[::-1, ..., ::-1]
    yield "Fortran order", DEVICE.send(np.ascontiguousarray(x.T)).T
    yield "one element on", DEVICE.send(np.concatenate([x.reshape(-1)[:1], x.reshape(-1)]))[1:].reshape(x.shape)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shape", [(70, 9), (5, 4, 70), (3, 1501)], ids=str)
def test_the_layout_in_memory_changes_no_more_than_the_order_of_sums(name: str, shape: tuple[int, ...]) -> None:
    t, p = inputs(by_name("loss", name), {}, shape)
    wanted = reference(lossfuncs.value_and_grad, name, t if t.ndim < p.ndim else t.astype(np.float64), p.astype(np.float64))
    targets = [("labels", DEVICE.send(t))] * 6 if t.ndim < p.ndim else list(layouts(t))
    for (what, on_p), (what_t, on_t) in zip(layouts(p), [*targets[2:], *targets[:2]], strict=True):
        for out in (None, DEVICE.empty((*shape, 2), np.float32)[..., 0]):
            got = lossfuncs.value_and_grad(name, on_t, on_p, out=out)
            assert out is None or got[1] is out
            for g, w in zip(got, wanted, strict=True):
                found = f"y_pred {what}, y_true {what_t}"
                assert_equal(g.get(), w, np.dtype(np.float32), np.maximum(scale_of(w), 1e-3), found, DIGITS["float32"])


@pytest.mark.parametrize("name", ["binary_crossentropy", *FAMILIES[1:]])
def test_any_axis_is_that_of_the_reference(name: str) -> None:
    entry = by_name("loss", name)
    for shape in ((6, 5, 7), (9, 5, 64)):
        for axis in (0, 1, 2, *([(0, 2), None] if name == "binary_crossentropy" else [])):
            t, p = inputs(entry, {"axis": axis} if isinstance(axis, int) else {}, shape)
            t64 = t if entry.targets == "index" else t.astype(np.float64)
            got = lossfuncs.value_and_grad(entry.function, t, p, axis=axis)
            wanted = reference(lossfuncs.value_and_grad, entry.function, t64, p.astype(np.float64), axis=axis)
            for g, w in zip(got, wanted, strict=True):
                assert_equal(g, w, np.dtype(np.float32), largest(w), f"axis={axis} of {shape}", DIGITS["float32"])


@pytest.mark.parametrize("name", ["log_cosh", "categorical_crossentropy", "cosine_similarity"])
@pytest.mark.parametrize("shape", [(70, 9), (70, 129), (2, 70_001)], ids=str)
def test_out_receives_the_gradient_wherever_it_lies(name: str, shape: tuple[int, ...]) -> None:
    t, p = inputs(by_name("loss", name), {}, shape)
    value, wanted = lossfuncs.value_and_grad(name, t, p)

    def result(t: Any, p: Any, out: Any) -> None:
        other, gradient = lossfuncs.value_and_grad(name, t, p, out=out)
        assert gradient is out
        np.testing.assert_allclose(out.get(), wanted, rtol=1e-6, atol=1e-6 * largest(wanted))
        np.testing.assert_allclose(other.get(), value, rtol=1e-6)

    on_t, on_p = device(t, p)
    result(on_t, on_p, DEVICE.empty(shape, np.float32))
    result(on_t, on_p, DEVICE.empty(shape, np.float32)[::-1])
    result(on_t, on_p, on_p)  # over y_pred
    both = DEVICE.send(np.concatenate([t, p]))
    result(both[: len(t)], both[len(t) :], both[: len(t)])  # over y_true
    longer = DEVICE.send(np.concatenate([p, p[:1]]))
    result(on_t, longer[:-1], longer[1:])  # one row further on


def test_both_derivatives_may_be_written_over_their_inputs() -> None:
    t, p = inputs(by_name("loss", "log_cosh"), {}, (66, 70))
    wanted = lossfuncs.grad_and_hess("log_cosh", t, p)
    on_t, on_p = device(t, p)
    got = lossfuncs.grad_and_hess("log_cosh", on_t, on_p, out=(on_t, on_p))
    assert got[0] is on_t and got[1] is on_p
    assert bits(on_t.get()) == bits(wanted[0]) and bits(on_p.get()) == bits(wanted[1])


# What calls on a device promise.


@pytest.mark.parametrize(("entry", "options"), BASES)
def test_no_call_on_device_arrays_waits_for_the_device(entry: Entry, options: dict[str, Any]) -> None:
    t, p = inputs(entry, options, (12, 9) if entry.shape != "element" else (108,))
    on_t, on_p = device(t, p)
    weight = DEVICE.send(np.linspace(0.0, 1.0, len(p)).astype(np.float32))
    before = DeviceArray.waits
    results = [entry.function(on_t, on_p, **options), entry.function(on_t, on_p, **options, reduction="mean")]
    results += [entry.function(on_t, on_p, **options, sample_weight=weight, reduction="mean_with_sample_weight")]
    if possible(entry, options, "gradient"):
        results += lossfuncs.value_and_grad(entry.function, on_t, on_p, **options, sample_weight=weight, reduction="mean")
        results += lossfuncs.value_and_grad(entry.function, on_t, on_p, **options, upstream=weight)
    assert DeviceArray.waits == before
    assert all(isinstance(x, DeviceArray) for x in results)
    with lossfuncs.backend("numpy"):  # they are computed where they are, whatever is chosen for the host's arrays
        again = entry.function(on_t, on_p, **options)
    assert isinstance(again, DeviceArray) and bits(again.get()) == bits(results[0].get())
    assert results[0].dtype == np.float32 and results[1].dtype == np.float64


@pytest.mark.parametrize(("entry", "options"), BASES)
def test_a_repeated_call_computes_anew(entry: Entry, options: dict[str, Any]) -> None:
    shape = (12, 9) if entry.shape != "element" else (108,)
    draws = [inputs(entry, options, shape, seed=seed) for seed in (0, 1, 2)]
    for reduction in (None, "sum", "mean"):
        wanted = [entry.function(t, p, **options, reduction=reduction) for t, p in draws]  # of the host's arrays: never repeated
        got = [entry.function(*device(t, p), **options, reduction=reduction).get() for t, p in draws]
        assert [bits(x) for x in got] == [bits(x) for x in wanted]
        if possible(entry, options, "gradient"):
            pairs = [lossfuncs.value_and_grad(entry.function, t, p, **options, reduction=reduction) for t, p in draws]
            again = [lossfuncs.value_and_grad(entry.function, *device(t, p), **options, reduction=reduction) for t, p in draws]
            assert [bits(x.get()) for pair in again for x in pair] == [bits(x) for pair in pairs for x in pair]
    t, p = draws[0]
    strided = DEVICE.send(np.repeat(p, 2, axis=-1))[..., ::2]  # of the same shape, but otherwise laid out
    np.testing.assert_allclose(entry.function(DEVICE.send(t), strided, **options).get(), entry.function(t, p, **options), rtol=1e-6)


@pytest.mark.parametrize("n", [5, 70, 1501, 70_001])
@pytest.mark.parametrize("bad", [-1, -(2**40), 2**40, "n"])
def test_a_label_out_of_range_reads_nothing_and_is_told_when_asked(n: int, bad: int | str) -> None:
    t, p = inputs(by_name("loss", "sparse_categorical_crossentropy"), {"from_logits": True}, (3, n))
    t[1] = n if bad == "n" else bad
    on_t, on_p = device(t, p)
    lossfuncs.check()
    value, gradient = lossfuncs.value_and_grad("sparse_categorical_crossentropy", on_t, on_p, from_logits=True)
    assert np.isnan(value.get()).tolist() == [False, True, False]
    assert np.isnan(gradient.get()).all(axis=-1).tolist() == [False, True, False] and np.isfinite(gradient.get()[::2]).all()
    with pytest.raises(ValueError, match="^y_true had a label out of range in row 1 of a call on the GPU"):
        lossfuncs.check()
    lossfuncs.check()  # only once
    with pytest.raises(ValueError, match=rf"^y_true\[1\] is {t[1]}, but y_pred has classes 0 to {n - 1}$"):  # arrays of the host
        lossfuncs.sparse_categorical_crossentropy(t, p, from_logits=True)
    lossfuncs.check()


def test_an_ignored_class_leaves_the_mean_on_the_device() -> None:
    t, p = inputs(by_name("loss", "sparse_categorical_crossentropy"), {}, (40, 9))
    weight = np.arange(40.0)
    options: dict[str, Any] = {"ignore_class": int(t[0])}
    for more in ({}, {"sample_weight": weight}):
        for reduction in ("sum", "mean", "mean_with_sample_weight"):
            given = {"reduction": reduction, **options, **more}
            wanted = reference(lossfuncs.value_and_grad, "sparse_categorical_crossentropy", t, p.astype(np.float64), **given)
            got = lossfuncs.value_and_grad("sparse_categorical_crossentropy", t, p, **given)
            assert got[0] == pytest.approx(wanted[0], rel=1e-6)
            np.testing.assert_allclose(got[1], wanted[1], rtol=2e-6, atol=1e-7)


def test_hinge_finds_out_on_the_device_whether_targets_are_0_and_1() -> None:
    _, p = inputs(by_name("loss", "hinge"), {}, (70, 9))
    for t in (np.arange(630).reshape(70, 9) % 2, np.where(np.arange(630).reshape(70, 9) % 2, 1, -1), np.full((70, 9), 0.5)):
        for name in ("hinge", "squared_hinge"):
            for kind in (np.int64, np.float32):
                wanted = reference(lossfuncs.value_and_grad, name, t.astype(kind), p.astype(np.float64))
                for g, w in zip(lossfuncs.value_and_grad(name, t.astype(kind), p), wanted, strict=True):
                    np.testing.assert_allclose(g, w, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("name", "shape", "options"), [
    ("cosine_similarity", (9, 40), {}), ("categorical_crossentropy", (5, 1501), {"from_logits": True}), ("huber", (70, 300), {}),
    ("sparse_categorical_crossentropy", (2, 70_001), {"from_logits": True}), ("categorical_hinge", (2, 70_001), {}),
])  # fmt: skip
def test_the_order_in_which_threads_run_changes_no_bit(name: str, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    t, p = device(*inputs(by_name("loss", name), options, shape))

    def results() -> list[bytes]:
        weight = DEVICE.send(np.arange(1.0, 1.0 + shape[0]))
        value, gradient = lossfuncs.value_and_grad(name, t, p, **options)
        mean = lossfuncs.value_and_grad(name, t, p, **options, reduction="mean", sample_weight=weight)
        return [bits(x.get()) for x in (value, gradient, *mean)]

    wanted = results()
    try:
        for order in SCHEDULES:
            DEVICE.schedule = Schedule(order, 7)
            assert results() == wanted, order
    finally:
        DEVICE.schedule = Schedule("in order")


def test_rows_beyond_2_to_the_31_elements_are_reached() -> None:
    m, n = 50_001, 50_257  # 2.5e9 elements, 10 GB that are never touched but for the last rows
    t, p = (DEVICE.zeros((m, n), np.float32) for _ in range(2))
    gradient, values = DEVICE.zeros((m, n), np.float32), DEVICE.zeros((m,), np.float32)
    labels = DEVICE.zeros((m,), np.int64)
    rng = np.random.default_rng(0)
    last_p, last_t = rng.normal(size=(2, 3, n)).astype(np.float32)
    p[-3:], t[-3:], labels[-3:] = DEVICE.send(last_p), DEVICE.send(last_t), DEVICE.send(np.array([0, n - 1, 5]))
    try:
        DEVICE.blocks = range(m - 3, m)
        for name, target, last in (("log_cosh", t, last_t), ("sparse_categorical_crossentropy", labels, np.array([0, n - 1, 5]))):
            options = {"from_logits": True} if target is labels else {}
            problem = problem_of(name, target, p, **options)
            gpu.run(DEVICE, problem, Task(values=values, derivatives=(gradient,)))
            wanted = reference(lossfuncs.value_and_grad, name, last, last_p.astype(np.float64), **options)
            np.testing.assert_allclose(values[-3:].get(), wanted[0], rtol=1e-6)
            np.testing.assert_allclose(gradient[-3:].get(), wanted[1], rtol=1e-5, atol=1e-8)
    finally:
        DEVICE.blocks = None


def test_memory_of_two_kinds_is_refused_in_a_sentence() -> None:
    t, p = np.zeros((3, 4), np.float32), DEVICE.zeros((3, 4), np.float32)
    for args, message in (
        ((t, p), "y_pred is an array of 'emulated', on its device, but y_true is not: move one of them"),
        ((p, t), "y_true is an array of 'emulated', on its device, but y_pred is not: move one of them"),
    ):
        with pytest.raises(TypeError, match=f"^{message}$"):
            lossfuncs.mean_squared_error(*args)
    with pytest.raises(TypeError, match="^sample_weight is on a GPU, but y_pred is not: move one of them$"), lossfuncs.backend("numba"):
        lossfuncs.mean_squared_error(t, t, sample_weight=p[:, 0])
    with pytest.raises(ValueError, match="^out must be an array on the GPU as y_pred is, got ndarray$"):
        lossfuncs.value_and_grad("mse", p, p, out=t)


def test_evaluate_computes_on_the_device() -> None:
    rng = np.random.default_rng(0)
    labels, p = rng.integers(0, 10, 999), rng.dirichlet(np.ones(10), 999).astype(np.float32)
    t, q = (rng.uniform(size=(999, 4)) > 0.5).astype(np.float32), rng.uniform(size=(999, 4)).astype(np.float32)
    weight = rng.uniform(size=999)
    for arrays, more in (
        ((labels, p), {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy", "sparse_top_k_categorical_accuracy"]}),
        ((labels, p), {"loss": "sparse_categorical_crossentropy", "sample_weight": weight}),
        ((labels, p), {"loss": "sparse_categorical_crossentropy", "options": {"ignore_class": 3}}),
        ((t, q), {"loss": ["bce", "mse", "cosine_similarity"]}),
        ((t, q), {"loss": "dice"}),
    ):
        before = DEVICE.launches
        got = lossfuncs.evaluate(*arrays, **more, batch_size=100)
        assert DEVICE.launches > before or more["loss"] == "dice"  # whose totals over all data the host adds up
        assert got == pytest.approx(reference(lossfuncs.evaluate, *arrays, **more, batch_size=100), rel=1e-6)


# The package.


def test_a_wheel_brings_every_kernel_source(tmp_path: Path) -> None:
    root = Path(lossfuncs.__file__).parent.parent
    copied = tmp_path / "source"
    for name in ("lossfuncs", "kernels"):
        shutil.copytree(root / name, copied / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, copied / name)
    build = [sys.executable, "-c", "import setuptools.build_meta as b, sys; print(b.build_wheel(sys.argv[1]))", str(tmp_path)]
    done = subprocess.run(build, cwd=copied, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if name.startswith("lossfuncs/kernels/")}
        wheel.extractall(tmp_path / "installed")
    assert names == {f"lossfuncs/kernels/{path.name}" for path in gpu.SOURCES.glob("*.cuh")}
    found = [sys.executable, "-c", "import lossfuncs.gpu; print(lossfuncs.gpu.SOURCES)"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    where = subprocess.run(found, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert where.stdout.strip() == str(tmp_path / "installed" / "lossfuncs" / "kernels"), where.stderr
