"""Random inputs as a loss wants them, from the domains that the table declares, for tests and benchmarks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .table import Entry

Array = NDArray[Any]


def draw(entry: Entry, shape: tuple[int, ...], rng: np.random.Generator, dtype: Any = np.float64, **options: Any) -> tuple[Array, Array]:
    """y_true and y_pred for `entry`, y_pred of `shape` and `dtype`; `options` as in the call (axis, from_logits)."""
    axis = options.get("axis", -1) if entry.targets in ("index", "one-hot") else -1
    predictions = "logits" if options.get("from_logits") else entry.predictions
    if options.get("from_sorted_ids"):
        predictions = "ids"
    return _targets(entry.targets, shape, rng, dtype, axis), _predictions(predictions, shape, rng, axis).astype(dtype)


def _predictions(kind: str, shape: tuple[int, ...], rng: np.random.Generator, axis: int) -> Any:
    if kind in ("real", "scores", "logits"):
        return rng.normal(0.0, 3.0 if kind == "logits" else 1.0, shape)
    if kind == "positive":
        return rng.gamma(2.0, 1.0, shape)
    if kind == "probability":
        return rng.uniform(0.0, 1.0, shape)
    if kind == "distribution":
        x = rng.gamma(1.0, 1.0, shape)
        return x / np.sum(x, axis=axis, keepdims=True)
    if kind == "decision":
        return rng.integers(0, 3, shape).astype(np.float64)
    if kind == "ids":
        return np.argsort(rng.uniform(size=shape), axis=-1).astype(np.float64)
    if kind == "embedding":
        x = rng.normal(size=shape)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)
    raise ValueError(f"predictions must be one of those that lossfuncs.table lists, got {kind!r}")


def _targets(kind: str, shape: tuple[int, ...], rng: np.random.Generator, dtype: Any, axis: int) -> Any:
    if kind in ("real", "positive", "decision"):
        return _predictions(kind, shape, rng, axis).astype(dtype)
    if kind == "count":
        return rng.poisson(2.0, shape).astype(dtype)
    if kind == "binary":
        return rng.integers(0, 2, shape).astype(dtype)
    if kind == "sign":
        return (2 * rng.integers(0, 2, shape) - 1).astype(dtype)
    if kind == "label":
        return rng.integers(0, max(2, shape[0] // 3), shape[:1])
    if kind == "sequence":
        batch, frames, classes = shape
        labels = rng.integers(1, classes, (batch, max(1, frames // 2)))
        lengths = rng.integers(1, labels.shape[1] + 1, (batch, 1))
        return np.where(np.arange(labels.shape[1]) < lengths, labels, 0)
    classes = shape[axis]
    index = rng.integers(0, classes, tuple(np.delete(shape, axis)))
    if kind == "index":
        return index
    if kind == "one-hot":
        one_hot = np.zeros(shape, dtype)
        np.put_along_axis(one_hot, np.expand_dims(index, axis), 1, axis)
        return one_hot
    raise ValueError(f"targets must be one of those that lossfuncs.table lists, got {kind!r}")
