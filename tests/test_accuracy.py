"""Every loss keeps its bound in ULP on rows that are hard to compute, and means are right to the last digits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bench.accuracy import losses, means
from bench.accuracy.exact import ulp

EXTENDED = pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no wider than float64 here")
CASES = [pytest.param(name, options, id="-".join([name, *map(str, options)])) for name, options in losses.LOSS_CASES]


@EXTENDED
@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_float32_loss_is_within_one_ulp_and_its_slopes_within_four(name: str, options: dict[str, Any]) -> None:
    errors = losses.row_errors(name, options, lengths=(1, 10, 100), rows=2000, peers=False)
    assert errors.values.points >= 100 and errors.gradients.points >= errors.values.points
    assert errors.kept(), errors


def test_a_mean_is_right_to_the_last_digits() -> None:
    assert means.mean_error(1_000_000, peers=False)["lossfuncs"] <= means.MEAN_BOUND


def test_the_measure_sees_an_error_and_what_a_slack_forgives() -> None:
    exact = np.array([1.0, 1.0, 1e39, math.nan, 1e-45, 1.0], np.longdouble)
    got = np.array([1.0 + 2.0**-22, 1.0 + 2.0**-22, math.inf, math.nan, 0.0, math.nan], np.float32)
    unit = ulp(exact)
    np.testing.assert_array_equal(unit[[0, 4]], [2.0**-23, 2.0**-149])
    ulps = losses.ulps(got, exact, unit)
    np.testing.assert_allclose(ulps, [2.0, 2.0, 0.0, 0.0, 1e-45 / 2.0**-149, math.inf])
    slack = np.array([2.0**-23, 1.0, 0.0, 0.0, 0.0, 1.0])
    np.testing.assert_allclose(losses.ulps(got, exact, unit, slack)[[0, 1, 5]], [1.0, 0.0, math.inf])
