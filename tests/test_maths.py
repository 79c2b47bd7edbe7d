"""The maths apart from any schedule: row maths against the references, derivatives against differences, digits against mpmath."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import mpmath as mp
import numpy as np
import pytest

from lossfuncs import plain
from lossfuncs import rows as contract
from lossfuncs.domains import draw
from lossfuncs.losses.circle import EXCLUDED, OTHER, SAME, circle_rows
from lossfuncs.losses.ctc import ctc
from lossfuncs.losses.ctc import forward_backward as kernel
from lossfuncs.options import EPS
from lossfuncs.rows import Rows
from lossfuncs.table import LOSSES, METRICS, STRUCTURAL, Entry

# What is tried of the options, beside the defaults.
OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "huber": ({"delta": 0.3}, {"delta": 0.0}),
    "binary_crossentropy": (
        {"label_smoothing": 0.2},
        {"from_logits": True},
        {"from_logits": True, "label_smoothing": 1.0},
    ),
    "binary_focal_crossentropy": (
        {"from_logits": True},
        {"gamma": 0.0},
        {"gamma": 1.0, "from_logits": True},
        {"gamma": 0.5},
        {"gamma": 3.5, "from_logits": True, "label_smoothing": 0.1},
        {"apply_class_balancing": True, "alpha": 0.7},
    ),
    "categorical_crossentropy": (
        {"label_smoothing": 0.2},
        {"from_logits": True},
        {"from_logits": True, "label_smoothing": 0.3},
    ),
    "categorical_focal_crossentropy": (
        {"from_logits": True},
        {"gamma": 0.0, "alpha": 1.5},
        {"gamma": 0.5, "from_logits": True},
        {"gamma": 1.0, "label_smoothing": 0.1},
        {"gamma": 2.5, "from_logits": True, "label_smoothing": 0.1},
    ),
    "sparse_categorical_crossentropy": ({"from_logits": True},),
    "categorical_generalized_cross_entropy": ({"q": 0.7}, {"q": 1.0}, {"q": 0.05}),
    "tversky": ({"alpha": 0.3, "beta": 0.9},),
    "binary_accuracy": ({"threshold": 0.2},),
    "top_k_categorical_accuracy": ({"k": 0}, {"k": 1}, {"k": 3}),
    "sparse_top_k_categorical_accuracy": ({"k": 2}, {"k": 3, "from_sorted_ids": True}),
}
ENTRIES = list({id(entry.function): entry for entry in LOSSES + METRICS}.values())
CASES = [
    pytest.param(entry, options, id=f"{entry.function.__module__.split('.')[-2]}-{entry.name}-{options}")
    for entry in ENTRIES
    if entry.shape != "own"
    for options in (*(({},) if entry.name != "categorical_generalized_cross_entropy" else ()), *OPTIONS.get(entry.name, ()))
]


def maths(entry: Entry, options: dict[str, Any], t: Any, n: int) -> tuple[Rows, tuple[float, ...]]:
    if isinstance(entry.rows, Rows):
        return entry.rows, ()
    assert entry.rows is not None
    options = {name: value for name, value in options.items() if name not in STRUCTURAL}
    if entry.labels01:
        options["converted"] = bool(np.all((t == 0) | (t == 1)))
    return entry.rows(n, **options)


def rowwise(entry: Entry, options: dict[str, Any], t: Any, p: Any) -> tuple[Rows, tuple[float, ...], Any, Any]:
    if entry.shape == "element":
        t, p = t[..., None], p[..., None]
    if options.get("from_sorted_ids"):
        p = p[..., : options["k"]]
    return *maths(entry, options, t, p.shape[-1]), t, p


def row_values(entry: Entry, options: dict[str, Any], t: Any, p: Any) -> Any:
    rows, a, t, p = rowwise(entry, options, t, p)
    return plain.values(rows, t, p, a)


def row_slopes(entry: Entry, options: dict[str, Any], t: Any, p: Any, which: str = "slope") -> Any:
    rows, a = maths(entry, options, t, p.shape[-1])
    return plain.derivative(rows, getattr(rows, which), t, p, a)


def reference(entry: Entry, options: dict[str, Any], t: Any, p: Any) -> Any:
    if entry.shape == "axis":
        options = {"axis": -1, **options}
    with np.errstate(all="ignore"):
        return entry.function.reference(t, p, **options)


def inputs(entry: Entry, options: dict[str, Any], shape: tuple[int, ...], seed: int) -> Iterator[tuple[Any, Any]]:
    """Draws from the domain; where targets may be soft, soft ones too."""
    rng = np.random.default_rng(seed)
    t, p = draw(entry, shape, rng, **options)
    if entry.predictions == "probability" and not options.get("from_logits"):
        p = 0.01 + 0.98 * p  # away from the poles, for the sake of differences; `..._on_every_edge` goes there
    yield t, p
    if entry.targets in ("one-hot", "binary"):
        yield 0.7 * t + 0.3 * rng.uniform(0.0, 1.0 / shape[-1], shape), p
    if entry.labels01:
        yield (t + 1.0) / 2.0, p
        yield 0.3 * t, p


@pytest.mark.parametrize(("entry", "options"), CASES)
@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_row_maths_equals_the_reference(entry: Entry, options: dict[str, Any], n: int) -> None:
    for t, p in inputs(entry, options, (50, n), n):
        got, wanted = row_values(entry, options, t, p), reference(entry, options, t, p)
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-15)


REAL = (0.0, -1.0, 1.0, 1e-9, EPS, 2.5, -1e30, 1e200, math.inf, -math.inf, math.nan)
PROBABILITIES = (0.0, EPS / 2, EPS, 0.25, 0.5, 1.0 - EPS, 1.0, 1.5, math.nan)
LOGITS = (0.0, -1.0, 3.0, 40.0, 800.0, -800.0, math.inf, -math.inf, math.nan)
SIDES = {
    "probability": PROBABILITIES,
    "distribution": PROBABILITIES,
    "logits": LOGITS,
    "binary": (0.0, 1.0, 0.25, math.nan),
    "sign": (-1.0, 1.0),
    "positive": tuple(x for x in REAL if not x < 0.0),
    "count": (0.0, 1.0, 7.0),
}


@pytest.mark.parametrize(("entry", "options"), CASES)
def test_row_maths_equals_the_reference_on_every_edge(entry: Entry, options: dict[str, Any]) -> None:
    """All combinations of edge values, in rows of two; NaN and infinities come out the same."""
    predictions = "logits" if options.get("from_logits") else entry.predictions
    p = np.array(list(itertools.product(SIDES.get(predictions, REAL), repeat=2)))
    if entry.targets == "index":
        pairs = [(np.full(len(p), k), p) for k in (0, 1)]
    else:
        sides = ((0.0, 1.0), (1.0, 0.0), (0.25, 0.75), (0.0, 0.0)) if entry.targets == "one-hot" else None
        columns = sides or itertools.product(SIDES.get(entry.targets, REAL), repeat=2)
        pairs = [(np.broadcast_to(np.array(column), p.shape), p) for column in columns]
    for t, p in pairs:
        got, wanted = row_values(entry, options, t, p), reference(entry, options, t, p)
        np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-300)


def differences(f: Any, p: Any) -> Any:
    """Central differences of the rows' values f(p), (m,), by each element of p, (m, n)."""
    out = np.empty(p.shape)
    for j in range(p.shape[-1]):
        h = 2.0**-20 * np.maximum(np.abs(p[:, j]), 2.0**-6)
        up, down = p.copy(), p.copy()
        up[:, j] += h
        down[:, j] -= h
        out[:, j] = (f(up) - f(down)) / (2.0 * h)
    return out


def close_in_each_row(got: Any, wanted: Any, tolerance: float) -> None:
    largest = np.max(np.abs(wanted), axis=-1, keepdims=True)
    assert np.all(np.abs(got - wanted) <= tolerance * np.maximum(largest, 1e-3))


DIFFERENTIABLE = [case for case in CASES if case.values[0].predictions not in ("scores", "decision")]
DIFFERENTIABLE = [case for case in DIFFERENTIABLE if case.values[0].shape != "element"]


def test_exactly_the_accuracies_have_no_slope() -> None:
    for case in CASES:
        entry, options = case.values
        rows, _ = maths(entry, options, np.zeros((1, 3)), 3)
        assert (rows.slope is None) == ("accuracy" in entry.name)


@pytest.mark.parametrize(("entry", "options"), DIFFERENTIABLE)
def test_slope_is_the_derivative_of_the_reference(entry: Entry, options: dict[str, Any]) -> None:
    for t, p in inputs(entry, options, (60, 5), 1):
        wanted = differences(lambda x, t=t: reference(entry, options, t, x), p)
        close_in_each_row(row_slopes(entry, options, t, p), wanted, 1e-6)


TWICE = [case for case in DIFFERENTIABLE if maths(*case.values, np.zeros((1, 3)), 3)[0].curve is not None]


def test_every_pointwise_loss_has_a_curve() -> None:
    names = {case.values[0].name for case in TWICE}
    for case in DIFFERENTIABLE:
        entry, options = case.values
        if maths(entry, options, np.zeros((1, 3)), 3)[0].pointwise:
            assert entry.name in names


@pytest.mark.parametrize(("entry", "options"), TWICE)
def test_curve_is_the_derivative_of_the_slope(entry: Entry, options: dict[str, Any]) -> None:
    for t, p in inputs(entry, options, (60, 5), 2):
        curve = row_slopes(entry, options, t, p, "curve")
        for j in range(p.shape[-1]):
            wanted = differences(lambda x, j=j, t=t: row_slopes(entry, options, t, x)[:, j], p)[:, j]
            close_in_each_row(curve[:, j : j + 1], wanted[:, None], 1e-6)


@pytest.mark.parametrize(("entry", "options"), DIFFERENTIABLE)
def test_a_nan_prediction_makes_its_row_nan(entry: Entry, options: dict[str, Any]) -> None:
    for t, p in inputs(entry, options, (20, 5), 3):
        k = t[3] if entry.targets == "index" else int(np.argmax(t[3]))
        p[3, k] = math.nan
        values = row_values(entry, options, t, p)
        assert np.isnan(values[3]) and np.isfinite(np.delete(values, 3)).all()


@pytest.mark.parametrize("options", [{}, {"from_logits": True}])
def test_a_label_is_worth_its_one_hot_row(options: dict[str, Any]) -> None:
    entries = {entry.name: entry for entry in LOSSES}
    sparse, dense = entries["sparse_categorical_crossentropy"], entries["categorical_crossentropy"]
    t, p = draw(sparse, (40, 6), np.random.default_rng(0), **options)
    one_hot = np.eye(6)[t]
    np.testing.assert_array_equal(row_values(sparse, options, t, p), row_values(dense, options, one_hot, p))
    np.testing.assert_array_equal(row_slopes(sparse, options, t, p), row_slopes(dense, options, one_hot, p))


# Digits. The row maths itself is evaluated with 80 digits: what float64 makes of it must agree.


def _where(condition: Any, x: Any, y: Any) -> Any:
    return x if condition else y


PRECISE = {
    contract.where: _where,
    contract.log_cosh: lambda x: mp.log(mp.cosh(x)),
    contract.coshm1: lambda x: mp.cosh(x) - 1,
    math.log: lambda x: mp.log(x) if x else -mp.inf,
    math.copysign: lambda x, sign: abs(x) if sign >= 0 else -abs(x),
    math.pow: mp.power,
    **{getattr(math, name): getattr(mp, name) for name in ("exp", "log1p", "expm1", "tanh", "sqrt")},
}


def precise(rows: Rows, t: Any, p: Any, a: tuple[float, ...]) -> tuple[Any, list[Any]]:
    """Value and slopes of one row, by mpmath."""

    def bound(f: Any) -> Any:
        return contract.bind(f, PRECISE, lambda g: g)

    p = [mp.mpf(float(x)) for x in p]
    t = [mp.mpf(int(t == j)) for j in range(len(p))] if np.ndim(t) == 0 else [mp.mpf(float(x)) for x in t]
    s: tuple[Any, ...] = ()
    for one in rows.passes:
        f = bound(one.terms)
        if one.op == "dot":
            found = [[y * v for v in f(s, x, *a)] for y, x in zip(t, p, strict=True) if y]
            s += tuple(mp.fsum(column) for column in zip(*found, strict=True)) if found else (mp.mpf(0),) * one.size
            continue
        e = [()] * len(p) if one.exponent is None else [(mp.exp(bound(one.exponent)((), y, x, *a)),) for y, x in zip(t, p, strict=True)]
        found = [f(s, y, x, *more, *a) for y, x, more in zip(t, p, e, strict=True)]
        columns = [[v[i] if isinstance(v, tuple) else v for v in found] for i in range(max(1, one.size))]
        if one.op == "sum":
            s += tuple(mp.fsum(column) for column in columns)
        elif one.op == "logs":
            s += (mp.fsum(x + mp.log1p(e) for x, e in found), mp.mpf(0))
        elif one.op in ("max", "top"):
            s += tuple(max(column) for column in columns)
        else:
            assert one.op == "lse"
            exponents = [v[0] if isinstance(v, tuple) else v for v in found]
            m = max(exponents)
            s += (m, mp.fsum(mp.exp(x - m) for x in exponents) - 1)
    assert rows.around is not None and rows.slope is not None
    n = mp.mpf(len(p))
    c, slope = bound(rows.around)(s, n, *a), bound(rows.slope)
    return bound(rows.value)(s, n, *a), [slope(c, y, x, *a) for y, x in zip(t, p, strict=True)]


def hard_rows(entry: Entry, options: dict[str, Any], n: int) -> Iterator[tuple[str, Any, Any]]:
    """float32 rows on which textbook formulas lose their digits."""
    rng = np.random.default_rng(n)
    t, p = (x[0] for x in draw(entry, (1, n), rng, np.float32, **options))
    predictions = "logits" if options.get("from_logits") else entry.predictions
    yield "ordinary", t, p
    label = int(t) if entry.targets == "index" else int(np.argmax(t))
    at_label = np.arange(n) == label
    if predictions == "logits":
        sides = np.where(t > 0, 30, -30) if entry.targets == "binary" else np.where(at_label, 30, 0)
        yield "confident", t, p + sides
        yield "confidently wrong", t, p - sides
        yield "tied", t, np.full(n, 0.3)
    elif predictions == "probability":
        yield "confident", t, np.abs((t > 0) - rng.uniform(1e-7, 1e-5, n))
        yield "tiny", t, np.full(n, 3e-6)
    elif predictions == "distribution":
        yield "confident", t, np.where(at_label, 1.0 - 1e-6, 1e-6 / (n - 1))
        if entry.targets == "one-hot":
            soft = rng.dirichlet(np.ones(n)).astype(np.float32)
            yield "near-equal", soft, soft * (1.0 + 1e-6 * rng.normal(size=n))
    elif entry.targets in ("real", "positive"):
        yield "near-equal", t, t + np.float32(2.0**-20) * np.abs(p)
        for scale in (1e25, 1e-25, 1e-4):
            yield f"scaled by {scale}", t * scale, p * scale
        yield "far from 0", t + 1e6, p + 1e6


@pytest.mark.parametrize(("entry", "options"), DIFFERENTIABLE)
def test_row_maths_keeps_its_digits(entry: Entry, options: dict[str, Any]) -> None:
    with mp.workdps(80):
        for name, t, p in hard_rows(entry, options, 13):
            t, p = (np.asarray(x, np.float32 if x.dtype.kind == "f" else x.dtype) for x in (t, p))
            rows, a = maths(entry, options, t, len(p))
            value, slopes = precise(rows, t, p, a)
            narrow = rows.suited("float32", np.ndim(t) == 0, len(p))
            if narrow is not rows and narrow.passes[0].op == "logs":
                assert abs(precise(narrow, t, p, a)[0] - value) <= 1e-15 * abs(value), name
            t, p = (np.asarray(x, np.float64 if x.dtype.kind == "f" else x.dtype)[None] for x in (t, p))
            got = float(plain.values(rows, t, p, a)[0])
            assert abs(float(plain.values(narrow, t, p, a)[0]) - value) <= 2e-9 * abs(value), name
            # the largest share is of probabilities clipped at 1 - EPS: there a rounding of 1e-16 is 1e-9 of the value
            assert abs(got - value) <= 2e-10 * abs(value), name
            # a correlation's slope is a difference of unit vectors over a norm: its digits are those of the terms
            terms = max(abs(slope) for slope in slopes)
            if "similarity" in entry.name or "correlation" in entry.name:
                terms += 1e-6 / max(float(np.std(p)), EPS)
            for slope, exact in zip(plain.derivative(rows, rows.slope, t, p, a)[0], slopes, strict=True):
                assert abs(float(slope) - exact) <= 2e-10 * terms, name


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("huber", {"delta": -1.0}, "delta must be a number >= 0, got -1.0"),
        ("huber", {"delta": math.nan}, "delta must be a number >= 0, got nan"),
        ("huber", {"delta": "1"}, "delta must be a number >= 0, got '1'"),
        ("binary_crossentropy", {"label_smoothing": 1.5}, r"label_smoothing must be a number in \[0, 1\], got 1.5"),
        ("binary_crossentropy", {"from_logits": "yes"}, "from_logits must be True or False, got 'yes'"),
        ("categorical_crossentropy", {"label_smoothing": -0.1}, r"label_smoothing must be a number in \[0, 1\], got -0.1"),
        ("binary_focal_crossentropy", {"gamma": -2.0}, "gamma must be a number >= 0, got -2.0"),
        ("binary_focal_crossentropy", {"alpha": None}, "alpha must be a number, got None"),
        ("categorical_focal_crossentropy", {"gamma": True}, "gamma must be a number >= 0, got True"),
        ("categorical_generalized_cross_entropy", {"q": 0.0}, "q must be a number > 0, got 0.0"),
        ("tversky", {"beta": "x"}, "beta must be a number, got 'x'"),
        ("circle", {"gamma": -80}, "gamma must be a number >= 0, got -80"),
        ("binary_accuracy", {"threshold": "high"}, "threshold must be a number, got 'high'"),
        ("top_k_categorical_accuracy", {"k": -1}, "k must be a whole number >= 0, got -1"),
        ("sparse_top_k_categorical_accuracy", {"k": 2.0}, "k must be a whole number >= 0, got 2.0"),
    ],
)
def test_a_bad_option_is_named_with_what_was_wanted(name: str, options: dict[str, Any], message: str) -> None:
    entry = next(entry for entry in ENTRIES if entry.name == name)
    assert callable(entry.rows)
    with pytest.raises(ValueError, match=f"^{message}$"):
        entry.rows(3, **options)


def pairs_of(labels: Any, remove_diagonal: bool) -> Any:
    same = labels[:, None] == labels[None, :]
    t = np.where(same, SAME, OTHER)
    return np.where(same & (np.eye(len(labels)) == 1), EXCLUDED, t) if remove_diagonal else t


@pytest.mark.parametrize("options", [{}, {"gamma": 10.0, "margin": 0.25}, {"gamma": 64.0, "margin": -0.1}])
@pytest.mark.parametrize("remove_diagonal", [True, False])
def test_circle_rows_equal_the_reference(options: dict[str, float], remove_diagonal: bool) -> None:
    entry = next(entry for entry in LOSSES if entry.name == "circle")
    labels, p = draw(entry, (12, 5), np.random.default_rng(4))
    labels[0] = 99  # a sample without a pair of its label
    t, s = pairs_of(labels, remove_diagonal), p @ p.T
    rows, a = circle_rows(len(p), **options)
    wanted = reference(entry, {**options, "remove_diagonal": remove_diagonal}, labels, p)
    np.testing.assert_allclose(plain.values(rows, t, s, a), wanted, rtol=1e-12, atol=1e-300)
    alone = plain.values(rows, np.ones((1, 3)), s[:1, :3], a), plain.values(rows, np.zeros((1, 3)), s[:1, :3], a)
    np.testing.assert_array_equal(alone, 0.0)
    slope = plain.derivative(rows, rows.slope, t, s, a)
    off = np.abs(s - 1.0) > 1e-3  # the diagonal sits on the kink at a similarity of 1
    wanted = differences(lambda x: plain.values(rows, t, x, a), s)
    np.testing.assert_allclose(slope[off], wanted[off], rtol=1e-6, atol=1e-7)
    assert np.isfinite(slope).all()


def forward_backward(labels: Any, logits: Any, wanted: bool = True) -> tuple[float, Any]:
    frames, length = len(logits), int(np.count_nonzero(labels))
    scratch = np.full((2, frames, 2 * length + 1), math.nan)
    gradient = np.full(logits.shape if wanted else (0, 0), math.nan)
    norm = np.full((frames, 2), math.nan)
    return kernel(logits, labels, length, *scratch, norm, gradient), gradient


SEQUENCES = [(1, 2, 0), (1, 1, 0), (1, 2, 1), (2, 2, 2), (0, 0, 0), (3, 0, 0), (1, 0, 2)]


@pytest.mark.parametrize("labels", SEQUENCES)
def test_ctc_sums_over_all_alignments(labels: tuple[int, ...]) -> None:
    """Against every path of 5 frames over 4 classes, one by one."""
    logits = np.random.default_rng(5).normal(size=(5, 4))
    p = np.exp(logits) / np.sum(np.exp(logits), axis=-1, keepdims=True)
    wanted = [k for k in labels if k] if 0 not in labels[: np.count_nonzero(labels)] else None
    value, _ = forward_backward(np.array(labels), logits)
    if wanted is not None:  # a blank among the labels is no reading of any path
        read = ([k for k, _ in itertools.groupby(path) if k] for path in itertools.product(range(4), repeat=5))
        likelihoods = (math.prod(p[i, k] for i, k in enumerate(path)) for path in itertools.product(range(4), repeat=5))
        likelihood = math.fsum(x for x, r in zip(likelihoods, read, strict=True) if r == wanted)
        assert value == pytest.approx(-math.log(likelihood), rel=1e-12)
    assert value == pytest.approx(float(ctc.reference(np.array([labels]), logits[None])[0]), rel=1e-12)
    assert value == forward_backward(np.array(labels), logits, wanted=False)[0]


@pytest.mark.parametrize("labels", SEQUENCES)
def test_ctc_gradient_is_the_derivative(labels: tuple[int, ...]) -> None:
    logits = np.random.default_rng(6).normal(size=(6, 4))

    def values(flat: Any) -> Any:
        return np.array([forward_backward(np.array(labels), x.reshape(6, 4), wanted=False)[0] for x in flat])

    _, gradient = forward_backward(np.array(labels), logits)
    np.testing.assert_allclose(gradient.reshape(1, -1), differences(values, logits.reshape(1, -1)), rtol=1e-6, atol=1e-8)


def test_ctc_of_too_few_frames_is_infinite_with_gradient_zero() -> None:
    value, gradient = forward_backward(np.array([1, 1, 0]), np.zeros((2, 3)))
    assert value == math.inf
    np.testing.assert_array_equal(gradient, 0.0)
