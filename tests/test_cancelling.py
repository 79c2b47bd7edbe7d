"""Cosine, Pearson's and Lin's coefficient of vectors that are orthogonal up to the last digits, against fractions."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from cases import LONGEST

import lossfuncs
from bench.accuracy.exact import ulp
from lossfuncs import metrics
from lossfuncs.options import EPS

Array = np.ndarray[Any, Any]
NAMES = ("cosine_similarity", "pearson_correlation", "concordance_correlation")


def orthogonal(m: int, n: int, dtype: Any, seed: int = 0) -> tuple[Array, Array]:
    """Rows of which products and sums cancel, but for one element that is off by any share and one that is small."""
    rng, k = np.random.default_rng([seed, n]), -(-n // 4)
    x, y = (rng.standard_normal((2, m, k)) * 10.0 ** rng.uniform(-3, 3, (2, m, 1))).astype(dtype)
    t, p = np.concatenate([x, y, -x, -y], axis=-1)[:, :n], np.concatenate([y, -x, -y, x], axis=-1)[:, :n]
    t[:, 0] *= (1 + 2.0 ** -rng.integers(1, 40, m)).astype(dtype)
    t[1::2, -1], p[1::2, -1] = (10.0 ** -rng.uniform(5, 15, (2, m // 2))).astype(dtype)
    order = rng.permutation(n)
    return t[:, order], p[:, order]


def rows_of_whole_numbers(m: int, n: int, dtype: Any) -> tuple[Array, Array]:
    t, p = np.random.default_rng(n).integers(-2, 3, (2, m, n)).astype(dtype)
    return t, p


def exact(name: str, t: Array, p: Array) -> float:
    """The value in float64, from exact sums."""
    a, b = ([Fraction(float(x)) for x in row] for row in (t, p))
    n = len(a)
    mean_a, mean_b = (sum(x) / n if name != "cosine_similarity" else Fraction(0) for x in (a, b))
    squares_a, squares_b = (float(sum((x - mean) ** 2 for x in row)) for row, mean in ((a, mean_a), (b, mean_b)))
    products = float(sum(x * y for x, y in zip(a, b, strict=True)) - n * mean_a * mean_b)
    if name == "concordance_correlation":
        return 2 * products / n / ((squares_a + squares_b) / n + float(mean_a - mean_b) ** 2 + EPS)
    norms = [math.sqrt(x) for x in (squares_a, squares_b)]
    if name == "cosine_similarity":
        norms = [max(x, EPS) for x in norms]
    return products / norms[0] / norms[1] if all(norms) else math.nan


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_the_value_is_right_where_the_products_cancel(name: str, dtype: str, backend: str) -> None:
    cancelled = 0
    for n in (3, 10, 64, 65, 200):
        for t, p in (orthogonal(40, n, dtype), rows_of_whole_numbers(40, n, dtype)):
            wanted = np.array([exact(name, *row) for row in zip(t, p, strict=True)])
            with lossfuncs.backend(backend):
                got = getattr(metrics, name)(t, p).astype(np.float64)
            sure = abs(wanted) < 2.0**-20 if dtype == "float64" else np.isfinite(wanted)  # float64 data keeps 33 bits elsewhere, or more
            unit = ulp(wanted) if dtype == "float32" else np.maximum(abs(wanted), 1e-300) * 2.0**-52
            assert np.max((abs(got - wanted) / unit)[sure], initial=0) <= (0.501 if dtype == "float32" else 8), (n, got, wanted)
            np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted))
            cancelled += np.count_nonzero(abs(wanted) < 2.0**-20)
    assert cancelled >= 40


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_row_in_pieces_is_as_exact_on_any_number_of_threads(name: str) -> None:
    n = LONGEST + 4 * 1000
    x, y = np.random.default_rng(3).standard_normal((2, n // 4)).astype(np.float32)
    t, p = np.concatenate([x, y, -x, -y]), np.concatenate([y, -x, -y, x])  # of which p adds up to 0
    t[5] *= np.float32(1 + 2.0**-18)
    wanted = math.fsum(t * p.astype(np.float64)) / np.linalg.norm(t.astype(np.float64)) / np.linalg.norm(p.astype(np.float64))
    before, found = lossfuncs.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            lossfuncs.set_num_threads(threads)
            found.append(lossfuncs.value_and_grad(getattr(metrics, name), t, p))
    finally:
        lossfuncs.set_num_threads(before)
    assert abs(wanted) < 1e-9 and abs(float(found[0][0]) - wanted) <= 0.501 * ulp(wanted)
    for value, gradient in found[1:]:
        assert value == found[0][0]
        np.testing.assert_array_equal(gradient, found[0][1])


@pytest.mark.parametrize("n", [10, 100])
def test_joint_rows_settle_their_own_totals(n: int) -> None:
    t, p = orthogonal(100, n, np.float32)
    together = lossfuncs.evaluate(t, p, loss=["mse", "cosine_similarity"], metrics=["pearson_correlation", "mae"])
    for name, function in (("cosine_similarity", lossfuncs.cosine_similarity), ("pearson_correlation", metrics.pearson_correlation)):
        alone = function(t.astype(np.float64), p.astype(np.float64), reduction="mean")
        assert together[name] == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_knows_the_settled_value(name: str) -> None:
    t, p = orthogonal(30, 100, np.float32)
    found = []
    for backend in ("numpy", "numba"):
        with lossfuncs.backend(backend):
            found.append(lossfuncs.value_and_grad(getattr(metrics, name), t, p))
    for got, wanted in zip(*found, strict=True):
        np.testing.assert_array_max_ulp(got, wanted, 1)


def test_what_overflows_on_the_way_stays_as_it_was() -> None:
    t, p = np.array([[1e200, -1e200, 1e180, 3e180]]), np.array([[1e200, 1e200, 2e180, 0.0]])
    for backend in ("numpy", "numba"):
        with lossfuncs.backend(backend):
            assert not np.isinf(metrics.pearson_correlation(t, p)).any()
            assert metrics.cosine_similarity(t, p)[0] == pytest.approx(1e-40, rel=1e-12)
