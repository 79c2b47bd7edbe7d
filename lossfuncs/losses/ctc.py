"""Connectionist temporal classification: the likelihood of a label sequence over all its alignments with the frames."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dispatch import loss

BLANK = 0


@loss
def ctc(y_true: Any, y_pred: Any, *, sample_weight: Any = None, reduction: str | None = None) -> Any:
    """-log of the probability that frames drawn from softmax(y_pred) read y_true, repeats merged and blanks dropped.

    y_true: class numbers (B, L), padded with 0, which is the blank; a row has as many labels as it has non-zero
    entries. y_pred: logits (B, T, C), of which all T frames count. Result (B,). A sequence that does not fit into T
    frames costs inf with derivative 0 (Keras: inf and NaN, 1e5 or 708, by backend); without labels every frame must
    be blank. ValueError for a label outside 0 ... C - 1. Graves et al., Connectionist temporal classification, 2006.
    """
    return np.array([_sequence(labels, logits) for labels, logits in zip(y_true, y_pred, strict=True)], np.float64)


def _sequence(labels: Any, logits: Any) -> Any:
    log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    path = np.zeros(2 * np.count_nonzero(labels) + 1, np.int64)  # blank, label, blank, ..., blank
    path[1::2] = labels[: len(path) // 2]
    skips = np.append([False, False], path[2:] != path[:-2])[: len(path)]  # over a blank between different labels
    at = np.where(np.arange(len(path)) == 0, 0.0, -np.inf)  # a frame before the first stands on the first blank
    for row in log_p:
        step = np.append(-np.inf, at[:-1])
        skip = np.where(skips, np.append([-np.inf, -np.inf], at[:-2])[: len(path)], -np.inf)
        at = np.logaddexp(np.logaddexp(at, step), skip) + row[path]
    return -np.logaddexp.reduce(at[-2:])


def _log_add(x: float, y: float) -> float:
    m = max(x, y)
    return m if m == -math.inf else m + math.log1p(math.exp(min(x, y) - m))


def forward_backward(logits: Any, labels: Any, label_length: int, alpha: Any, beta: Any, norm: Any, gradient: Any) -> Any:
    """The loss of one sequence; fills its derivative by the logits, softmax - occupancy.

    logits (T, C), labels (L,) of which label_length count, each in 0 ... C - 1 (checked by the caller). Scratch:
    alpha and beta, one number for each frame and place in blank, label, blank, ..., blank, of shape (T, 2
    label_length + 1) at least; norm (T, 2). gradient (T, C), or (0, 0) when it is not wanted. Plain loops, to be run
    as they are or compiled.
    """
    frames, classes = logits.shape
    places = 2 * label_length + 1
    for i in range(frames):
        top = 0
        for k in range(1, classes):
            if logits[i, k] > logits[i, top]:
                top = k
        r = 0.0
        for k in range(classes):
            if k != top:
                r += math.exp(logits[i, k] - logits[i, top])
        norm[i, 0] = logits[i, top]  # the logarithm of the total is kept in two parts: their sum would lose digits
        norm[i, 1] = math.log1p(r)

    for i in range(frames):
        for s in range(places):
            label = labels[s // 2] if s % 2 else BLANK
            if i == 0:
                x = 0.0 if s < 2 else -math.inf
            else:
                x = alpha[i - 1, s]
                if s > 0:
                    x = _log_add(x, alpha[i - 1, s - 1])
                if s > 2 and s % 2 and label != labels[s // 2 - 1]:
                    x = _log_add(x, alpha[i - 1, s - 2])
            alpha[i, s] = x + ((logits[i, label] - norm[i, 0]) - norm[i, 1])
    if frames == 0:
        return 0.0 if label_length == 0 else math.inf
    log_likelihood = alpha[frames - 1, places - 1]
    if places > 1:
        log_likelihood = _log_add(log_likelihood, alpha[frames - 1, places - 2])

    if gradient.shape[0] == 0:
        return -log_likelihood
    if log_likelihood == -math.inf:
        gradient[:, :] = 0.0
        return math.inf
    for i in range(frames - 1, -1, -1):
        for k in range(classes):
            gradient[i, k] = math.exp((logits[i, k] - norm[i, 0]) - norm[i, 1])
        for s in range(places):
            label = labels[s // 2] if s % 2 else BLANK
            if i == frames - 1:
                x = 0.0 if s + 2 >= places else -math.inf
            else:
                x = beta[i + 1, s]
                if s + 1 < places:
                    x = _log_add(x, beta[i + 1, s + 1])
                if s + 2 < places and s % 2 and label != labels[s // 2 + 1]:
                    x = _log_add(x, beta[i + 1, s + 2])
            gradient[i, label] -= math.exp(alpha[i, s] + x - log_likelihood)
            beta[i, s] = x + ((logits[i, label] - norm[i, 0]) - norm[i, 1])
    return -log_likelihood
