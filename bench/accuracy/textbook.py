"""What a textbook, and Keras, writes for float32."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lossfuncs.options import EPS

Array = np.ndarray[Any, Any]
_E = np.float32(EPS)


def _book_clip(p: Array) -> Array:
    return np.clip(p, _E, 1 - _E)


def _book_softmax(p: Array) -> Array:
    e = np.exp(p - np.max(p, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def _book_cosine(t: Array, p: Array) -> Array:
    def direction(x: Array) -> Array:
        return x / np.maximum(np.sqrt(np.sum(x * x, axis=-1, keepdims=True)), _E)

    return -np.sum(direction(t) * direction(p), axis=-1)


def _book_correlation(t: Array, p: Array) -> Array:
    return -_book_cosine(t - np.mean(t, axis=-1, keepdims=True), p - np.mean(p, axis=-1, keepdims=True))


def _book_concordance(t: Array, p: Array) -> Array:
    mt, mp_ = np.mean(t, axis=-1, keepdims=True), np.mean(p, axis=-1, keepdims=True)
    cov = np.mean((t - mt) * (p - mp_), axis=-1)
    return 2 * cov / (np.var(t, axis=-1) + np.var(p, axis=-1) + (mt - mp_)[:, 0] ** 2 + _E)


def _book_binary(t: Array, p: Array, from_logits: bool = False, label_smoothing: float = 0.0) -> Array:
    t = t * np.float32(1 - label_smoothing) + np.float32(label_smoothing / 2)
    if from_logits:
        return np.mean(np.maximum(p, 0) - p * t + np.log1p(np.exp(-np.abs(p))), axis=-1)
    q = _book_clip(p)
    return -np.mean(t * np.log(q) + (1 - t) * np.log(1 - q), axis=-1)


def _book_binary_focal(t: Array, p: Array, gamma: float = 2.0, from_logits: bool = False) -> Array:
    q = 1 / (1 + np.exp(-p)) if from_logits else p
    other = 1 - (t * q + (1 - t) * (1 - q))
    q = _book_clip(q)
    return -np.mean(other ** np.float32(gamma) * (t * np.log(q) + (1 - t) * np.log(1 - q)), axis=-1)


def _book_cross_entropy(t: Array, p: Array, from_logits: bool = False, label_smoothing: float = 0.0) -> Array:
    t = t * np.float32(1 - label_smoothing) + np.float32(label_smoothing / t.shape[-1])
    if from_logits:
        x = p - np.max(p, axis=-1, keepdims=True)
        log_q = x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True))
    else:
        log_q = np.log(_book_clip(p / np.sum(p, axis=-1, keepdims=True)))
    return -np.sum(t * log_q, axis=-1)


def _book_focal(t: Array, p: Array, gamma: float = 2.0, from_logits: bool = False) -> Array:
    q = _book_clip(_book_softmax(p) if from_logits else p / np.sum(p, axis=-1, keepdims=True))
    return -np.sum(np.float32(0.25) * t * (1 - q) ** np.float32(gamma) * np.log(q), axis=-1)


def _book_divergence(t: Array, p: Array) -> Array:
    a, b = np.clip(t, _E, 1), np.clip(p, _E, 1)
    return np.sum(a * np.log(a / b), axis=-1)


def _book_tversky(t: Array, p: Array, alpha: float, beta: float, axis: int) -> Array:
    common = np.sum(t * p, axis=-1)
    missed, false = np.sum(t, axis=-1) - common, np.sum(p, axis=-1) - common
    return 1 - common / (common + np.float32(alpha) * missed + np.float32(beta) * false + _E)


def _book_huber(t: Array, p: Array) -> Array:
    e = p - t
    return np.mean(np.where(np.abs(e) <= 1, 0.5 * e * e, np.abs(e) - 0.5), axis=-1)


def _book_log_cosh(t: Array, p: Array) -> Array:
    e = p - t
    return np.mean(e + np.logaddexp(-2 * e, 0) - np.float32(math.log(2)), axis=-1)


TEXTBOOK: dict[str, Callable[..., Array]] = {
    "mean_squared_error": lambda t, p: np.mean((p - t) ** 2, axis=-1),
    "mean_absolute_error": lambda t, p: np.mean(np.abs(p - t), axis=-1),
    "mean_absolute_percentage_error": lambda t, p: 100 * np.mean(np.abs((t - p) / np.maximum(np.abs(t), _E)), axis=-1),
    "mean_squared_logarithmic_error":
        lambda t, p: np.mean((np.log(1 + np.maximum(p, _E)) - np.log(1 + np.maximum(t, _E))) ** 2, axis=-1),
    "huber": _book_huber,
    "log_cosh": _book_log_cosh,
    "poisson": lambda t, p: np.mean(p - t * np.log(p + _E), axis=-1),
    "cosine_similarity": _book_cosine,
    "pearson_correlation": _book_correlation,
    "concordance_correlation": _book_concordance,
    "hinge": lambda t, p: np.mean(np.maximum(1 - t * p, 0), axis=-1),
    "squared_hinge": lambda t, p: np.mean(np.maximum(1 - t * p, 0) ** 2, axis=-1),
    "categorical_hinge": lambda t, p: np.maximum(np.max((1 - t) * p, axis=-1) - np.sum(t * p, axis=-1) + 1, 0),
    "binary_crossentropy": _book_binary,
    "binary_focal_crossentropy": _book_binary_focal,
    "categorical_crossentropy": _book_cross_entropy,
    "sparse_categorical_crossentropy": _book_cross_entropy,
    "categorical_focal_crossentropy": _book_focal,
    "categorical_generalized_cross_entropy": lambda t, p, q: (1 - np.sum(t * p, axis=-1) ** np.float32(q)) / np.float32(q),
    "kl_divergence": _book_divergence,
    "dice": lambda t, p, axis: 1 - 2 * np.sum(t * p, axis=-1) / (np.sum(t, axis=-1) + np.sum(p, axis=-1) + _E),
    "tversky": _book_tversky,
}  # fmt: skip
