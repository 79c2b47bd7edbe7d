"""Objectives for boosters: the focal loss, and softmax, against what one writes by hand in NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import OURS, Workload


def focal(y: Any, z: Any) -> tuple[Any, Any]:
    """Gradient and second derivative of the focal loss, gamma 2, by the logit z."""
    sign = 2 * y - 1
    q = 1 / (1 + np.exp(-z * sign))
    log_q, f = np.log(q), 1 - q
    gradient = sign * f**2 * (2 * q * log_q - f)
    hessian = q * f**2 * (2 * (f - 2 * q) * log_q + 5 * f)
    return gradient, np.maximum(hessian, 1e-16)


def softmax(y: Any, z: Any) -> tuple[Any, Any]:
    """Gradient and doubled second derivative of the cross-entropy, as XGBoost has them."""
    q = np.exp(z - z.max(axis=1, keepdims=True))
    q /= q.sum(axis=1, keepdims=True)
    hessian = np.maximum(2 * q * (1 - q), 1e-16)
    q[np.arange(len(y)), y.astype(np.int64)] -= 1
    return q, hessian


def workloads() -> Iterator[Workload]:
    from lossfuncs.frameworks.boosting import xgboost_objective

    rng = np.random.default_rng(0)
    for name, loss, by_hand, shape, labels in (
        ("focal, 1,000,000 samples", "binary_focal_crossentropy", focal, (1_000_000,), 2),
        ("softmax, 100,000x10", "sparse_categorical_crossentropy", softmax, (100_000, 10), 10),
    ):
        y, z = rng.integers(0, labels, shape[0]).astype(np.float32), rng.normal(size=shape).astype(np.float32)
        objective = xgboost_objective(loss)
        contestants = {OURS: lambda o=objective, y=y, z=z: o(y, z), "by hand in NumPy": lambda h=by_hand, y=y, z=z: h(y, z)}
        yield Workload(
            f"gradient and second derivative, {name}", contestants, lambda h=by_hand, y=y, z=z: h(y, z.astype(np.float64)),
            target={"by hand in NumPy": 1.0},
        )  # fmt: skip
