"""Agreement of two vectors: cosine, Pearson's and Lin's coefficient, one for each row, 1 for the best.

Each public function is the NumPy reference; below it stands its row maths, see `lossfuncs.rows`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dispatch import metric
from ..exact import CANCELLED, add_product_to_parts, covariance, sum_of_parts, two_product, where_cancelled
from ..losses.regression import COSINE, cosine_reference
from ..options import EPS
from ..rows import Careful, Rows, Sum, Top, where


@metric
def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1, *, sample_weight: Any = None, reduction: str | None = None) -> Any:
    """The cosine of the angle between the vectors along `axis`; the loss of this name is minus this, see there."""
    return cosine_reference(y_true, y_pred, axis)


def cosine_rows(n: int) -> tuple[Rows, tuple[float, ...]]:
    return COSINE, (1.0,)


def _centred(x: Any, axis: int) -> Any:
    """x less its mean; exactly 0 where x is constant."""
    x = x - np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    return x - np.mean(x, axis=axis, keepdims=True)


@metric
def pearson_correlation(y_true: Any, y_pred: Any, axis: int = -1, *, sample_weight: Any = None, reduction: str | None = None) -> Any:
    """sum(dt dp) / sqrt(sum(dt^2) sum(dp^2)) along `axis`, dt and dp less their means; equal shapes, `axis` is removed.

    In [-1, 1]; NaN where either side is constant. ValueError for shapes that differ.
    """
    squares_t, squares_p, products = _moments(y_true, y_pred, axis)
    return np.clip(products / (np.sqrt(squares_t) * np.sqrt(squares_p)), -1.0, 1.0)


def _moments(t: Any, p: Any, axis: int) -> tuple[Any, Any, Any]:
    dt, dp = _centred(t, axis), _centred(p, axis)
    squares_t, squares_p, products = (np.sum(x, axis=axis) for x in (dt * dt, dp * dp, dt * dp))
    return squares_t, squares_p, where_cancelled(products, np.sqrt(squares_t) * np.sqrt(squares_p), covariance, t, p, axis)


@metric
def concordance_correlation(y_true: Any, y_pred: Any, axis: int = -1, *, sample_weight: Any = None, reduction: str | None = None) -> Any:
    """2 cov / (var(y_true) + var(y_pred) + (mean difference)^2 + EPS) along `axis`, population moments.

    Equal shapes; `axis` is removed. 1 only where y_pred equals y_true; 0 where either side is constant. Lin, A
    concordance correlation coefficient to evaluate reproducibility, 1989.
    """
    squares_t, squares_p, products = (x / np.shape(y_pred)[axis] for x in _moments(y_true, y_pred, axis))
    return 2.0 * products / (squares_t + squares_p + np.mean(y_pred - y_true, axis=axis) ** 2 + EPS)


# Totals: 0, 1 the maxima of t and p; 2, 3 sums of the distances from these; 4, 5, 6 centred squares and product.
# Distances from the maximum are small beside a large mean, and exactly 0 in a constant row. The parameter is the
# length of the row.


def _both(s: Any, t: float, p: float, n: float) -> tuple[float, float]:
    return t, p


def _from_maxima(s: Any, t: float, p: float, n: float) -> tuple[float, float]:
    return t - s[0], p - s[1]


def _centred_products(s: Any, t: float, p: float, n: float) -> tuple[float, float, float]:
    dt, dp = (t - s[0]) - s[2] * (1.0 / n), (p - s[1]) - s[3] * (1.0 / n)
    return dt * dt, dp * dp, dt * dp


def _cancelled(s: Any, n: float) -> Any:
    return s[6] * s[6] < CANCELLED**2 * (s[4] * s[5])


def _exact_moments(s: Any, t: float, p: float, n: float) -> tuple[float, float, float, float]:
    product, rest = two_product(t, p)
    return t, p, product, rest


def _covariance_of_parts(x: Any, n: float) -> Any:
    """sum(t p) - sum(t) sum(p) / n, as (n sum(t p) - sum(t) sum(p)) / n, from the parts of sum(t), sum(p), and sum(t p) in two sums."""
    y = (0.0, 0.0, 0.0)
    for product in x[6:12]:
        y = add_product_to_parts(y, n, product)
    for t in x[:3]:
        for p in x[3:6]:
            y = add_product_to_parts(y, -t, p)
    return sum_of_parts(y) / n


IN_DOUBT = Careful(6, _cancelled, _exact_moments, 4, _covariance_of_parts)
MOMENTS = (Top(_both, 2), Sum(_from_maxima, 2), Sum(_centred_products, 3, careful=IN_DOUBT))


def _reciprocal_root(x: float) -> Any:
    return where(x == 0.0, 0.0, 1.0 / math.sqrt(x))


def pearson_value(s: Any, size: float, n: float) -> Any:
    return min(max(s[6] / (math.sqrt(s[4]) * math.sqrt(s[5])), -1.0), 1.0)


def pearson_around(s: Any, size: float, n: float) -> tuple[Any, ...]:
    by_t, by_p = _reciprocal_root(s[4]), _reciprocal_root(s[5])
    return s[0], s[2] / n, s[1], s[3] / n, by_t, by_p, s[6] * by_t * by_p * by_p


def pearson_slope(c: Any, t: float, p: float, n: float) -> Any:
    top_t, mean_t, top_p, mean_p, by_t, by_p, projection = c
    return (((t - top_t) - mean_t) * by_t - ((p - top_p) - mean_p) * projection) * by_p


PEARSON = Rows("pearson", MOMENTS, pearson_value, pearson_around, pearson_slope)


def pearson_rows(n: int) -> tuple[Rows, tuple[float, ...]]:
    return PEARSON, (float(n),)


def _mean_difference(s: Any, n: float) -> Any:
    return (s[1] - s[0]) + (s[3] - s[2]) / n


def _concordance_divisor(s: Any, n: float) -> Any:
    difference = _mean_difference(s, n)
    return (s[4] + s[5]) / n + difference * difference + EPS


def concordance_value(s: Any, size: float, n: float) -> Any:
    return 2.0 * (s[6] / n) / _concordance_divisor(s, n)


def concordance_around(s: Any, size: float, n: float) -> tuple[Any, ...]:
    return (
        s[0],
        s[2] / n,
        s[1],
        s[3] / n,
        _mean_difference(s, n),
        concordance_value(s, size, n),
        2.0 / n / _concordance_divisor(s, n),
    )


def concordance_slope(c: Any, t: float, p: float, n: float) -> Any:
    top_t, mean_t, top_p, mean_p, difference, value, scale = c
    return (((t - top_t) - mean_t) - value * (((p - top_p) - mean_p) + difference)) * scale


CONCORDANCE = Rows("concordance", MOMENTS, concordance_value, concordance_around, concordance_slope)


def concordance_rows(n: int) -> tuple[Rows, tuple[float, ...]]:
    return CONCORDANCE, (float(n),)
