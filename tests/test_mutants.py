"""The equivalence checks can fail: each schedule is broken on purpose, in a copy of the package, and a check sees it.

A mutant is one place in the source, changed. When the source has moved on and the place is gone, the test says so: choose another.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from cases import LONGEST, assert_equal, by_name, inputs

import lossfuncs

PACKAGE = Path(lossfuncs.__file__).parent


class Mutant(NamedTuple):
    """In `file`, `old` becomes `new`, everywhere; `check` has to fail."""

    file: str
    old: str
    new: str
    check: str


MUTANTS = {
    "columns of a block one off": Mutant("schedules.py", "at(x, r * n + n - 8), n)", "at(x, r * n + n - 9), n)", "short"),
    "a block left out": Mutant("schedules.py", "for j in range(0, n - 7, 8):", "for j in range(0, n - 8, 8):", "short"),
    "columns of a half block one off": Mutant("schedules.py", "at(x, r * n + n - 4), n)", "at(x, r * n + n - 5), n)", "short"),
    "rows summed one off": Mutant("schedules.py", "at(F, row * n), n)", "at(F, row * n + 1), n)", "products"),
    "an element behind a row added": Mutant("lanes.py", "[i % size for i in range(8)]", "[i % size - 1 for i in range(8)]", "pointwise"),
    "rows of eight products mixed": Mutant("lanes.py", "eights[:4], eights[4:], 4", "eights[4:], eights[:4], 4", "products"),
    "rows of 16 that share a register mixed": Mutant("lanes.py", "if not r & registers]", "if not r & registers][::-1]", "short"),
    "the first rows for all of 64": Mutant("schedules.py", "k += LANES", "k = have + LANES", "strips"),
    "what is behind a strip's rows": Mutant("schedules.py", "move(F, at(F, strip * n))", "move(F, F)", "strips"),
    "the factors behind a strip's rows": Mutant("schedules.py", "move(E, at(E, strip * n))", "move(E, E)", "behind"),
    "products of rows one off": Mutant("schedules.py", "at(E, row * n), n)", "at(E, row * n + 1), n)", "products"),
    "a product taken twice": Mutant("fold.py", "put(E, lane, 0.0)", "put(E, lane, E[lane])", "one-hot"),
    "two products added": Mutant("lanes.py", "_fma(builder, x, y, builder.fadd(x, y))", "builder.fadd(x, y)", "products"),
    "sums that cancelled left so": Mutant("exact.py", "CANCELLED = 2.0**-18", "CANCELLED = 0.0", "cancelled"),
    "the first row's maximum for all": Mutant("fold.py", "*a) - S[slot * LANES + lane])", "*a) - S[slot * LANES])", "short"),
    "exponentials kept one off": Mutant("schedules.py", "(at(S, softmax), at", "(at(S, softmax + 1), at", "long"),
    "a label's slope left out": Mutant("schedules.py", "put(into, K[0], at_label)", "put(into, K[0], into[K[0]])", "one label"),
    "a derivative unscaled": Mutant("schedules.py", "put(U, lane, W[lane] * scale)", "put(U, lane, W[lane])", "scale"),
    "a derivative negated": Mutant("schedules.py", "store(slope(c, y, x, *a) * u)", "store(-slope(c, y, x, *a) * u)", "pointwise"),
    "a pointwise tail left out": Mutant("schedules.py", "rest_p, 0, rest, a)", "rest_p, 0, 0, a)", "pointwise"),
    "the last element of a long row left out": Mutant("fold.py", "full, n % LANES, a)", "full, n % LANES - 1, a)", "smoothed"),
    "logarithms of products left to a row's end": Mutant("fold.py", "(j % FACTORS == 0) & (j > 0)", "j < 0", "mistakes"),
    "a product kept beside its logarithm": Mutant("fold.py", "_call_then(take, _start(slot + 1, 0.0))", "take", "mistakes"),
    "lanes combined wrongly": Mutant("lanes.py", "for k in (0, half)]", "for k in (0, half - 1)]", "long"),
    "an equal largest counted twice": Mutant("fold.py", "S[(slot + 2) * LANES + lane] - 1.0)", "S[(slot + 2) * LANES + lane])", "smoothed"),
    "a label far below the largest": Mutant("fold.py", "LIMIT = 2.0**864", "LIMIT = math.inf", "far"),
    "the label's exponential among the others": Mutant("fold.py", "(i != k) & (i < n)", "i < n", "one label"),
    "the label's exponential of a short row among the others": Mutant("fold.py", "j != L[lane]", "j >= 0", "one of few labels"),
    "soft targets taken for hard ones": Mutant("fold.py", "if any_soft(t):", "if any_soft(t) == -1:", "soft"),
    "several targets of a long row taken for one": Mutant("fold.py", "k if found == 1 else -1", "k", "several"),
    "the row behind taken for the only target": Mutant("fold.py", "if some else k", "if bits else k", "one target"),
    "the row behind taken for the largest target": Mutant("fold.py", "largest(y, count)", "largest(y, LANES)", "argmax"),
    "a row of two labels taken for one-hot": Mutant("fold.py", "others |= R[lane] & (R[lane] - 1)", "others |= 0", "one-hot"),
    "the bits of a row one off": Mutant("lanes.py", "builder.and_(start, _INDEX(7))", "builder.and_(start, _INDEX(6))", "one-hot"),
    "the gradient of an ignored row left": Mutant("schedules.py", "if invalid:", "if not invalid:", "ignored"),
    "a tie before the label left out": Mutant("fold.py", "beside[lane], label(S, K, lane)", "beside[lane], label(S, K, lane) - 1", "rank"),
    "a tie before the label of a long row left out": Mutant(
        "fold.py", "max(int(S[label]), 0)", "max(int(S[label]) - 1, 0)", "rank"
    ),
    "a tie within a long row left out": Mutant("fold.py", "at(p, block) if block + LANES <= n else tail_p", "tail_p", "rank"),
    "totals of joint rows mixed": Mutant("schedules.py", "at(acc, which * LANES)", "acc", "joint"),
    "rows of padding added": Mutant("schedules.py", "(v if lane < lanes else 0.0)", "v", "padding"),
    "weights left out of a total": Mutant("schedules.py", "status[lane]) * W[lane]", "status[lane])", "total"),
    "the class after the last allowed": Mutant("schedules.py", "(k < classes)", "(k <= classes)", "labels"),
    "the class after the last of 64 allowed": Mutant("lanes.py", 'icmp_unsigned("<", x, end)', 'icmp_unsigned("<=", x, end)', "labels"),
    "a chunk cut short": Mutant("schedules.py", "(c + 1) * chunk, step", "(c + 1) * chunk - 64, step", "chunks"),
    "maxima of pieces merged wrongly": Mutant("cpu.py", "np.max(totals, axis=0)", "np.min(totals, axis=0)", "pieces"),
    "sums of pieces doubled": Mutant("cpu.py", "_exact_sum(x)) for x in totals.T", "_exact_sum(2.0 * x)) for x in totals.T", "pieces"),
    "the exponents of pieces merged wrongly": Mutant("cpu.py", "np.exp(x - m)", "np.exp(m - x)", "exponents"),
    "cuts taken for whole rows": Mutant("cpu.py", "rest, problem.n)", "rest)", "cuts"),
    "an element of the rest of a cut left out": Mutant("schedules.py", "m + 1, rest", "m + 1, rest - 1", "cuts"),
}  # fmt: skip


def compare(kind: str, name: str, shapes: list[tuple[int, ...]], derive: bool = False, seed: int = 0, **options: Any) -> None:
    """Numba against the reference, through cases.assert_equal as in test_equivalence."""
    entry = by_name(kind, name)
    for shape in shapes:
        t, p = inputs(entry, {k: v for k, v in options.items() if k == "from_logits"}, shape, np.float32, seed)
        found: list[Any] = []
        for backend, a, b in (("numba", t, p), ("numpy", t.astype(np.float64), p.astype(np.float64))):
            with lossfuncs.backend(backend):
                more = {"upstream": np.arange(1.0, shape[0] + 1.0)} if derive and "reduction" not in options else {}
                result = lossfuncs.value_and_grad(entry.function, a, b, **more, **options) if derive else entry.function(a, b, **options)
                found.append(result if derive else (result,))
        for got, wanted in zip(*found, strict=True):
            dtype = np.dtype(np.float64 if np.ndim(wanted) == 0 and "reduction" in options else np.float32)
            assert_equal(got, wanted, dtype, np.max(np.abs(wanted)), f"{name} {shape}", 2.0**-29)


def labels() -> None:
    p = np.zeros((70, 9), np.float32)
    try:
        lossfuncs.sparse_categorical_crossentropy(np.full(70, 9), p)
    except ValueError:
        return
    raise AssertionError("label 9 of 9 classes passed")


def rank() -> None:
    for n, label in ((9, 4), (200, 130), (200, 195)):
        p = np.zeros((3, n), np.float32)
        p[:, label] = 1.0
        p[1, label - 1] = p[2, label + 1] = 1.0
        np.testing.assert_array_equal(lossfuncs.sparse_categorical_accuracy(np.full(3, label), p), [1.0, 0.0, 1.0])


def argmax() -> None:
    t, p = np.zeros((3, 70), np.float32), np.zeros((3, 70), np.float32)
    t[0, [66, 68]] = 1.0
    t[1, [0, 9]] = 2.0
    t[2, 69] = np.nan
    p[np.arange(3), [66, 0, 69]] = 1.0
    np.testing.assert_array_equal(lossfuncs.categorical_accuracy(t, p), 1.0)


def one_target() -> None:
    t, p = np.zeros((2, 100), np.float32), np.zeros((2, 100), np.float32)
    t[0, 3] = t[1, 4] = p[0, 3] = 1.0
    found = lossfuncs.categorical_crossentropy(t, p, from_logits=True)
    np.testing.assert_allclose(found, [np.log(99.0 + np.e) - 1.0, np.log(100.0)], rtol=1e-6)


def several() -> None:
    t, p = np.zeros((1, 130), np.float32), np.zeros((1, 130), np.float32)
    t[:, [3, 129]] = p[:, 3] = 1.0
    found = lossfuncs.categorical_crossentropy(t, p, from_logits=True)
    np.testing.assert_allclose(found, 2.0 * np.log(129.0 + np.e) - 1.0, rtol=1e-6)


def cancelled() -> None:
    t, p = np.array([[2.0**30, 1.0, 2.0**30]], np.float32), np.array([[2.0**30, 1.0, -(2.0**30)]], np.float32)
    np.testing.assert_allclose(lossfuncs.metrics.cosine_similarity(t, p), [2.0**-61], rtol=1e-6)


def one_hot() -> None:
    for n, second in itertools.product((9, 40), (0.0, 1.0)):
        t = np.eye(n, dtype=np.float32)[np.arange(70) % n]
        t[33, 5] = second
        p = np.random.default_rng(0).dirichlet(np.ones(n), 70).astype(np.float32)
        np.testing.assert_allclose(lossfuncs.categorical_crossentropy(t, p), -np.sum(t * np.log(p), axis=-1), rtol=1e-5)


def joint() -> None:
    module = sys.modules["lossfuncs.metrics.metric"]
    module.SHARED = 1  # type: ignore[attr-defined]
    together = [lossfuncs.metrics.MeanSquaredError(), lossfuncs.metrics.MeanAbsoluteError()]
    lossfuncs.metrics.update_state(together, np.zeros((70, 9)), np.full((70, 9), 3.0))
    np.testing.assert_array_equal([metric.result() for metric in together], [9.0, 3.0])


def far() -> None:
    for n in (9, 129):
        p = np.zeros((3, n), np.float32)
        p[:, 1] = 1000.0
        np.testing.assert_array_equal(lossfuncs.sparse_categorical_crossentropy(np.zeros(3, np.int64), p, from_logits=True), 1000.0)


def mistakes() -> None:
    """Of rows of certain mistakes, 1e7 to a factor."""
    for n in (64, 1024, 1087, 1088, 2111, 4160):
        t, p = np.zeros((3, n), np.float32), np.ones((3, n), np.float32)
        for values in (lossfuncs.binary_crossentropy(t, p), lossfuncs.value_and_grad("binary_crossentropy", t, p)[0]):
            np.testing.assert_allclose(values, -np.log(1e-7), rtol=1e-6)


WEIGHTS = {"sample_weight": np.arange(70.0), "reduction": "mean"}
CHECKS = {
    "short": lambda: compare("loss", "categorical_crossentropy", [(70, 9), (70, 15), (9, 16), (3, 64)], True, 0, from_logits=True),
    "scale": lambda: compare("loss", "categorical_crossentropy", [(70, 9)], True, from_logits=True, reduction="mean"),
    "long": lambda: compare("loss", "categorical_crossentropy", [(5, 129), (3, 200)], True, 1, from_logits=True),
    "smoothed": lambda: compare("loss", "categorical_crossentropy", [(5, 129)], True, from_logits=True, label_smoothing=0.1),
    "one label": lambda: compare("loss", "sparse_categorical_crossentropy", [(5, 129)], True, 1, from_logits=True),
    "one of few labels": lambda: compare("loss", "sparse_categorical_crossentropy", [(70, 9)], True, 1, from_logits=True),
    "far": far,
    "mistakes": mistakes,
    "pointwise": lambda: compare("loss", "log_cosh", [(70, 9), (5, 129), (3, 200)], True),
    "products": lambda: compare("loss", "binary_crossentropy", [(70, 9), (3, 40), (3, 2100)], True, from_logits=True),
    "strips": lambda: compare("loss", "mean_squared_error", [(70, 8), (130, 20), (64, 64), (70, 33)], True),
    "behind": lambda: compare("loss", "binary_crossentropy", [(70, 33)], True),
    "soft": lambda: compare("loss", "binary_crossentropy", [(70, 9)], False, 2),
    "total": lambda: compare("loss", "mean_squared_error", [(70, 9)], **WEIGHTS),
    "padding": lambda: compare("loss", "categorical_hinge", [(70, 9)], reduction="mean"),
    "chunks": lambda: compare("loss", "mean_squared_error", [(1100, 64)]),
    "cuts": lambda: compare("loss", "mean_squared_error", [(128, 64), (130, 64)], reduction="mean"),
    "pieces": lambda: compare("loss", "categorical_hinge", [(LONGEST + 9,)]),
    "exponents": lambda: compare("loss", "categorical_crossentropy", [(LONGEST + 9,)], from_logits=True),
    "ignored": lambda: compare("loss", "sparse_categorical_crossentropy", [(70, 9)], True, from_logits=True, ignore_class=2),
    "labels": labels,
    "one-hot": one_hot,
    "rank": rank,
    "argmax": argmax,
    "one target": one_target,
    "several": several,
    "cancelled": cancelled,
    "joint": joint,
}


def run(checks: list[str], package: Path = PACKAGE, **environment: str) -> subprocess.CompletedProcess[str]:
    everything = {**os.environ, "PYTHONPATH": str(package.parent), **environment}
    return subprocess.run([sys.executable, __file__, *checks], env=everything, capture_output=True, text=True, timeout=300)


def mutated(mutant: Mutant, where: Path) -> Path:
    package = where / "lossfuncs"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    source = (package / mutant.file).read_text()
    assert mutant.old in source, f"{mutant.file} no longer holds {mutant.old!r}"
    (package / mutant.file).write_text(source.replace(mutant.old, mutant.new))
    return package


def test_the_checks_pass_on_the_unbroken_package() -> None:
    done = run(list(CHECKS))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_schedule_fails_its_check(name: str, tmp_path: Path) -> None:
    mutant = MUTANTS[name]
    done = run([mutant.check], mutated(mutant, tmp_path), LOSSFUNCS_CACHE="0")
    assert done.returncode == 1 and "AssertionError" in done.stderr, f"it survived: {done}"


def test_every_check_has_a_mutant() -> None:
    assert {mutant.check for mutant in MUTANTS.values()} == set(CHECKS)


if __name__ == "__main__":
    assert Path(os.environ["PYTHONPATH"]) == PACKAGE.parent, PACKAGE
    for check in sys.argv[1:]:
        CHECKS[check]()
