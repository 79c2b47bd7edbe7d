"""scikit-learn's metrics and ours of the same name."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import OURS, Workload


def workloads() -> Iterator[Workload]:
    from sklearn import metrics

    from lossfuncs.frameworks import sklearn as ours

    rng = np.random.default_rng(0)
    for n in (100, 10_000, 1_000_000):
        p = rng.dirichlet(np.ones(10), n)
        labels, predicted = rng.permutation(np.arange(n) % 10), rng.integers(0, 10, n)
        own = p[np.arange(n), labels]
        cases: list[tuple[str, tuple[Any, ...], Any]] = [
            ("log_loss", (labels, p), lambda own=own: -np.mean(np.log(own))),
            ("accuracy_score", (labels, predicted), lambda t=labels, y=predicted: np.mean(t == y)),
            ("top_k_accuracy_score", (labels, p), lambda p=p, own=own: np.mean(np.sum(p > own[:, None], axis=1) < 2)),
        ]
        for name, arguments, expected in cases:
            both = {OURS: getattr(ours, name), "scikit-learn": getattr(metrics, name)}
            contestants = {key: functools.partial(function, *arguments) for key, function in both.items()}
            yield Workload(f"{name}, {n:,} samples", contestants, expected, tolerance=1e-12, target={"scikit-learn": 10.0})
