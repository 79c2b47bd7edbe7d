"""The same bits from any number of threads, again and again, and from any x86 CPU."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from cases import BASES, DIFFERENTIABLE, EDGES, bits, by_name, inputs

import lossfuncs

# One loss for each kind of pass and each transcendental function: sum, max, log sum exp, dot, label; log, log1p, exp, tanh.
SELECTED = ["categorical_hinge", "log_cosh", "binary_crossentropy", "cosine_similarity", "sparse_categorical_crossentropy"]
LOGITS = {"binary_crossentropy", "sparse_categorical_crossentropy"}
THREADS = (1, 2, 3, 7, 64)


def digest(results: Any) -> str:
    return hashlib.sha256(b"".join(bits(x) for x in results)).hexdigest()


def small(selected: list[tuple[Any, dict[str, Any]]]) -> dict[str, str]:
    """Digests of values and gradients, short rows and long ones in turn."""
    found = {}
    for i, (entry, options) in enumerate(selected):
        for shape in ((70, 9), (5, 129))[:: 1 if i % 2 else -1][: 2 if len(selected) > len(SELECTED) else 1]:
            t, p = inputs(entry, options, shape)
            results = lossfuncs.value_and_grad(entry.function, t, p, **options)
            found[f"{entry.name} {options} {shape}"] = digest(results)
    return found


def selection(all_of_them: bool) -> list[tuple[Any, dict[str, Any]]]:
    if all_of_them:
        return [one.values for one in DIFFERENTIABLE]
    return [(by_name("loss", name), {"from_logits": True} if name in LOGITS else {}) for name in SELECTED]


FEATURES = {"haswell": "+avx2,+fma", "nehalem": ""}  # as LLVM names them for the machine itself: what kernels ask for


def elsewhere(cpu: str, all_of_them: bool) -> dict[str, str]:
    """The same, compiled for that CPU without any feature beyond its own."""
    environment = {**os.environ, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": FEATURES[cpu], "LOSSFUNCS_CACHE": "0"}
    command = [sys.executable, __file__, *(["all"] if all_of_them else [])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return dict(line.split("\t") for line in done.stdout.splitlines())


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the CPUs named here are x86")
@pytest.mark.parametrize("cpu", FEATURES)
@pytest.mark.parametrize("all_of_them", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["selected", "all"])
def test_another_cpu_gives_the_same_bits(cpu: str, all_of_them: bool) -> None:
    assert elsewhere(cpu, all_of_them) == small(selection(all_of_them))


LARGE = {
    "values": lambda t, p: (lossfuncs.log_cosh(t, p),),
    "total": lambda t, p: (lossfuncs.log_cosh(t, p, reduction="mean"),),
    "weighted total": lambda t, p: (lossfuncs.log_cosh(t, p, sample_weight=np.arange(len(p)), reduction="mean_with_sample_weight"),),
    "gradient": lambda t, p: lossfuncs.value_and_grad("log_cosh", t, p),
    "one row": lambda t, p: lossfuncs.value_and_grad("log_cosh", t.reshape(-1), p.reshape(-1)),
    "one row in passes": lambda t, p: lossfuncs.value_and_grad("cosine_similarity", t.reshape(-1), p.reshape(-1)),
    "strided": lambda t, p: lossfuncs.value_and_grad("log_cosh", t[:, ::2], p[:, ::2], reduction="sum"),
}


@pytest.mark.parametrize("what", LARGE)
def test_any_number_of_threads_and_every_repeat_give_the_same_bits(what: str) -> None:
    t, p = inputs(by_name("loss", "log_cosh"), {}, (20_011, 62))
    before = lossfuncs.get_num_threads()
    try:
        found = set()
        for threads in THREADS * 3:
            lossfuncs.set_num_threads(threads)
            found.add(digest(LARGE[what](t, p)))
    finally:
        lossfuncs.set_num_threads(before)
    assert len(found) == 1


@pytest.mark.parametrize("name", ["huber", "log_cosh", "binary_crossentropy", "cosine_similarity"])
@pytest.mark.parametrize("shape", [(2011, 62), (50, 62), (333, 100), (4097, 1), (64, 64)], ids=str)
def test_a_call_that_was_made_before_gives_the_same_bits(name: str, shape: tuple[int, int]) -> None:
    t, p = inputs(by_name("loss", name), {}, shape)
    for options in ({}, {"reduction": "mean"}, {"reduction": "sum", "sample_weight": np.linspace(0.0, 2.0, shape[0])}):
        found = {digest((getattr(lossfuncs, name)(t, p, **options),)) for _ in range(5)}
        found |= {digest(lossfuncs.value_and_grad(name, t, p, **options)[:1]) for _ in range(5)}
        assert len(found) == 1, options


@pytest.mark.parametrize("name", ["binary_crossentropy", "categorical_crossentropy"])
@pytest.mark.parametrize("shape", [(64, 10), (64, 40), (64, 1), (3, 200)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_soft_targets_change_no_bit_of_rows_with_hard_ones(name: str, shape: tuple[int, int], dtype: Any) -> None:
    t, p = inputs(by_name("loss", name), {}, shape, dtype)
    t = np.round(t)
    soft, weight = t.copy(), np.ones(shape[0])
    soft[1], weight[1] = 0.25, 0.0
    found = [getattr(lossfuncs, name)(x, p, sample_weight=weight, reduction="sum") for x in (t, soft)]
    assert found[0] == found[1]
    derived = [lossfuncs.value_and_grad(name, x, p, sample_weight=weight, reduction="sum") for x in (t, soft)]
    assert derived[0][0] == derived[1][0] == found[0]
    np.testing.assert_array_equal(derived[0][1], derived[1][1])


@pytest.mark.parametrize("n", [3, 4, 9, 57, 58])
@pytest.mark.parametrize(
    ("kind", "name", "options"),
    [
        ("loss", "categorical_crossentropy", {}),
        ("loss", "categorical_crossentropy", {"from_logits": True}),
        ("loss", "categorical_focal_crossentropy", {}),
        ("metric", "categorical_accuracy", {}),
    ],
    ids=str,
)
def test_one_hot_rows_have_the_same_bits_beside_soft_ones(kind: str, name: str, options: dict[str, Any], n: int) -> None:
    entry = by_name(kind, name)
    t, p = inputs(entry, options, (130, n))
    edges = EDGES["logits" if options.get("from_logits") else entry.predictions]
    places = slice(0, p.size, 7)
    p.reshape(-1)[places] = np.resize(np.array(edges, p.dtype), p.reshape(-1)[places].shape)
    t[5] = 0.0
    hard, soft = np.ones(len(t), bool), t.copy()
    for row, targets in ((3, 0.25), (70, np.nan), (129, 1.0)):  # one in each group of rows that are computed together
        soft[row], hard[row] = targets, False
    found = [entry.function(x, p, **options)[hard] for x in (t, soft)]
    assert digest(found[:1]) == digest(found[1:])
    if kind == "loss":
        derived = [lossfuncs.value_and_grad(name, x, p, **options) for x in (t, soft)]
        assert digest(x[hard] for x in derived[0]) == digest(x[hard] for x in derived[1])


def test_circle_has_the_same_bits_for_any_number_of_threads() -> None:
    t, p = inputs(by_name("loss", "circle"), {}, (300, 24))
    before = lossfuncs.get_num_threads()
    try:
        found = set()
        for threads in THREADS:
            lossfuncs.set_num_threads(threads)
            found.add(digest(lossfuncs.value_and_grad("circle", t, p, reduction="mean")))
    finally:
        lossfuncs.set_num_threads(before)
    assert len(found) == 1


@pytest.mark.parametrize("shape", [(4_000_037,), (400_009, 10), (4_001, 1000)], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_mean_of_a_large_array_is_exact_to_1e_15(shape: tuple[int, ...], weighted: bool) -> None:
    rng = np.random.default_rng(0)
    t, p = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    terms = (p.astype(np.float64) - t) ** 2
    if not weighted:
        exact = math.fsum(terms.reshape(-1)) / terms.size
        assert abs(lossfuncs.mean_squared_error(t, p, reduction="mean") - exact) <= 1e-15 * exact
    elif len(shape) == 2:
        weight = rng.uniform(size=len(t))
        exact = math.fsum((terms * weight[:, None]).reshape(-1)) / math.fsum(weight) / shape[1]
        got = lossfuncs.mean_squared_error(t, p, sample_weight=weight, reduction="mean_with_sample_weight")
        assert abs(got - exact) <= 1e-15 * exact


def test_the_mean_of_one_value_in_many_is_that_value() -> None:
    """float32 counts stop at 2**24, and sums of 0.1 drift."""
    x = np.full((1 << 24) + 100, 0.1, np.float32)
    value = float(np.float32(0.1))
    assert lossfuncs.mean_absolute_error(np.zeros_like(x), x, reduction="mean") == pytest.approx(value, rel=1e-15)


def test_the_bases_cover_every_dtype_free_kernel() -> None:
    assert {one.values[0].name for one in BASES} >= set(SELECTED)


if __name__ == "__main__":
    for name, found in small(selection("all" in sys.argv[1:])).items():
        print(name, found, sep="\t")


@pytest.mark.parametrize("reduction", [None, "mean"])
@pytest.mark.parametrize("entry, options", DIFFERENTIABLE)
def test_the_short_way_of_a_gradient_has_the_bits_of_the_long_one(entry: Any, options: dict[str, Any], reduction: str | None) -> None:
    for shape in ((70, 9), (64, 128)):
        t, p = inputs(entry, options, shape)
        out = np.empty_like(p)
        long = lossfuncs.value_and_grad(entry.function, t, p, out=out, reduction=reduction, **options)
        for _ in range(2):
            assert digest(lossfuncs.value_and_grad(entry.function, t, p, reduction=reduction, **options)) == digest(long)
