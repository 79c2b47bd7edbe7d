"""Rows that are hard to compute: confident, nearly equal, huge, tiny, on the edges."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from lossfuncs.table import LOSSES, METRICS, Entry

Array = np.ndarray[Any, Any]


def _near(x: Array, rng: np.random.Generator) -> Array:
    """x but for some of its last bits."""
    return x * (1 + rng.integers(-4, 5, x.shape) * 2.0 ** -rng.integers(20, 25, x.shape))


def _real_rows(positive: bool, rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, tuple[Array, Array]]:
    def normal() -> Array:
        x = rng.standard_normal(shape)
        return abs(x) if positive else x

    def any_size() -> Array:
        return normal() * 10.0 ** rng.uniform(-25, 25, shape)

    single = [1e-7, 1.0, 2.0, 0.5, 0.6, math.sqrt(0.5), math.sqrt(2), 1e-45, 1e-38, 2.0**-24, 1 + 2.0**-23, 1 - 2.0**-24, 1.9999999]
    edges = np.array([0.0, *single, *([] if positive else [-0.0, *(-x for x in single)])])
    t = normal()
    return {
        "ordinary": (t, normal()),
        "near-equal": (t, _near(t, rng)),
        "closer": (t, t * (1 + normal() * 10.0 ** -rng.uniform(1, 6, (shape[0], 1)))),
        "huge": (1e25 * t, 1e25 * normal()),
        "tiny": (1e-25 * t, 1e-25 * normal()),
        "any size": (any_size(), any_size()),
        "far from 0": (1e6 + t, 1e6 + normal()),
        "edges": (rng.choice(edges, shape), rng.choice(edges, shape)),
    }


def _orthogonal_rows(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, tuple[Array, Array]]:
    """Rows whose products cancel to the last digits, less their means as well."""
    (m, n), k = shape, shape[1] // 4
    x, y = (rng.standard_normal((2, m, k)) * 10.0 ** rng.uniform(-3, 3, (2, m, 1))).astype(np.float32)
    rest_t, rest_p = 10.0 ** -rng.uniform(0, 25, (2, m, n - 4 * k))
    t, p = np.concatenate([x, y, -x, -y, rest_t], axis=-1), np.concatenate([y, -x, -y, x, rest_p], axis=-1)
    t[:, 0] *= np.where(rng.random(m) < 0.5, 1 + 2.0 ** -rng.integers(1, 23, m), 1)
    order = rng.permutation(n)
    u, v = (z - np.mean(z, axis=-1, keepdims=True) for z in rng.standard_normal((2, *shape)))
    v -= u * np.sum(u * v, axis=-1, keepdims=True) / np.maximum(np.sum(u * u, axis=-1, keepdims=True), 1e-300)
    whole, far = rng.integers(-3, 4, (2, *shape)).astype(np.float64), rng.integers(0, 2, (m, 1)) * 3.0
    return {"orthogonal": (t[:, order], p[:, order]), "orthogonal but for rounding": (u + far, v + far), "whole": (whole[0], whole[1])}


def _binary_rows(logits: bool, rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, tuple[Array, Array]]:
    t = rng.integers(0, 2, shape).astype(np.float64)
    side, soft = 2 * t - 1, rng.random(shape)
    if logits:
        far, normal, edges = rng.uniform(5, 110, shape), 3 * rng.standard_normal(shape), np.array([0.0, -0.0, 1.0, 88.7, 103.9, 120, 710])
        return {
            "ordinary": (t, normal),
            "confident": (t, side * far),
            "confidently wrong": (t, -side * far),
            "huge": (t, 1e25 * normal),
            "tiny": (t, 1e-25 * normal),
            "soft": (soft, normal),
            "fitted": (soft, np.log(soft / (1 - soft))),
            "edges": (rng.choice([0.0, 1.0, 0.5], shape), rng.choice(edges, shape) * rng.choice([1.0, -1.0], shape)),
        }
    off = 10.0 ** -rng.uniform(0.3, 12, shape)
    edges = np.array([0.0, 1.0, 0.5, 1e-7, 1.0000001e-7, 0.9999999e-7, 1 - 2.0**-24, 1 - 2.0**-23, 1 - 2.0**-22, 0.5 + 2.0**-24, 1e-45])
    return {
        "ordinary": (t, rng.random(shape)),
        "confident": (t, abs(t - off)),
        "confidently wrong": (t, abs(1 - t - off)),
        "tiny": (t, 1e-25 * rng.random(shape)),
        "soft": (soft, rng.random(shape)),
        "near-equal": (soft, np.minimum(_near(soft, rng), 1)),
        "edges": (t, rng.choice(edges, shape)),
        "soft edges": (rng.choice([0.0, 1.0, 0.5, 1e-7, 1 - 2.0**-24], shape), rng.choice(edges, shape)),
    }


def _class_rows(logits: bool, soft: bool, rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, tuple[Array, Array]]:
    m, n = shape
    label = rng.integers(0, n, m)
    t = np.eye(n)[label]
    if logits:
        normal, far = 3 * rng.standard_normal(shape), rng.uniform(5, 110, (m, 1))
        softmax = np.exp(normal) / np.sum(np.exp(normal), axis=-1, keepdims=True)
        kinds = {
            "ordinary": (t, normal),
            "confident": (t, normal + far * t),
            "confidently wrong": (t, normal - far * t),
            "tied": (t, _near(np.full(shape, 0.3), rng)),
            "huge": (t, 1e25 * normal),
            "tiny": (t, 1e-25 * normal),
            "far from 0": (t, 1e6 + normal),
        }
        return kinds | ({"soft": (rng.dirichlet(np.ones(n), m), normal), "fitted": (softmax, normal)} if soft else {})
    q, off = rng.dirichlet(np.ones(n), m), 10.0 ** -rng.uniform(0.3, 12, (m, 1))
    others = q * (1 - t)
    others = np.where(n > 1, others / np.maximum(np.sum(others, axis=-1, keepdims=True), 1e-300), 0)
    kinds = {
        "ordinary": (t, q),
        "confident": (t, t * (1 - off) + others * off),
        "confidently wrong": (t, t * off + others * (1 - off)),
        "huge": (t, 1e25 * q),
        "tiny": (t, 1e-25 * q),
        "edges": (t, rng.choice([0.0, 1.0, 1e-7, 0.5, 1 - 2.0**-24, 1e-45], shape)),
    }
    if not soft:
        return kinds
    other = rng.dirichlet(np.ones(n), m)
    closer = q * (1 + rng.standard_normal(shape) * 10.0 ** -rng.uniform(1, 6, (m, 1)))
    closer = abs(closer) / np.sum(abs(closer), axis=-1, keepdims=True)
    return kinds | {"soft": (other, q), "near-equal": (q, _near(q, rng)), "closer": (q, closer)}


def find(name: str) -> Entry:
    return next(entry for entry in (*LOSSES, *METRICS) if entry.name == name)


Block = tuple[str, Array, Array]  # rows of one kind, for one call


def _circle_rows(count: int, n: int, rng: np.random.Generator) -> Iterator[Block]:
    """Batches of n embeddings."""
    kinds = ("ordinary", "clusters", "near-equal", "opposite", "longer")
    for i in range(max(len(kinds), count // (n + 100))):
        kind = kinds[i % len(kinds)]
        labels, p = rng.integers(0, max(2, n // 4), n), rng.standard_normal((n, 8))
        if kind in ("clusters", "near-equal"):
            p = rng.standard_normal((n + 1, 8))[labels] + 10.0 ** -rng.uniform(1, 7) * (p if kind == "clusters" else 0)
        elif kind == "opposite":
            p = (2 * (labels[:, None] % 2) - 1) * p[:1] + 1e-3 * p
        p = p / np.linalg.norm(p, axis=-1, keepdims=True) * (1.5 if kind == "longer" else 1)
        yield kind, labels, (_near(p, rng) if kind == "near-equal" else p).astype(np.float32)


def _ctc_rows(count: int, frames: int, rng: np.random.Generator) -> Iterator[Block]:
    m, classes = -(-count // 40), 5
    labels = rng.integers(1, classes, (m, -(-frames // 3)))
    path = np.zeros((m, frames), int)  # each label, its repetition, a blank
    for i in range(labels.shape[1]):
        path[:, 3 * i : 3 * i + 2] = labels[:, i : i + 1]
    read = np.eye(classes)[path]
    x = 3 * rng.standard_normal((m, frames, classes))
    far = rng.uniform(5, 110, (m, 1, 1))
    for kind, p in (("ordinary", x), ("confident", x + far * read), ("confidently wrong", x - far * read), ("far from 0", 1e6 + x)):
        yield kind, labels, p.astype(np.float32)


def hard_rows(name: str, options: dict[str, Any], count: int, n: int, rng: np.random.Generator) -> Iterator[Block]:
    """About `count` float32 rows of n, equally many of each kind, on which formulas lose digits."""
    entry = find(name)
    logits, shape = bool(options.get("from_logits")), (-(-count // 9), n)
    if entry.shape == "own":
        yield from (_circle_rows if name == "circle" else _ctc_rows)(count, n, rng)
        return
    if entry.targets == "binary":
        kinds = _binary_rows(logits, rng, shape)
    elif entry.predictions == "distribution":
        kinds = _class_rows(logits, entry.targets == "one-hot", rng, shape)
    else:
        kinds = _real_rows(entry.predictions == "positive", rng, shape)
        if name in ("cosine_similarity", "pearson_correlation", "concordance_correlation"):
            kinds |= _orthogonal_rows(rng, shape)
        if entry.targets == "count":
            kinds = {kind: (np.round(7 * t), p) for kind, (t, p) in kinds.items()} | {"not counts": kinds["near-equal"]}
        elif entry.targets == "sign":
            sign = rng.choice([-1.0, 1.0], shape)
            kinds = {kind: (sign, p) for kind, (_, p) in kinds.items()} | {"near-equal": (sign, _near(sign, rng))}
        elif entry.targets == "one-hot":
            t = np.eye(n)[rng.integers(0, n, shape[0])]
            kinds = {kind: (t, p) for kind, (_, p) in kinds.items()} | {"margin": (t, t + 1e-20 * rng.random(shape))}
            kinds["soft"] = (rng.dirichlet(np.ones(n), shape[0]), rng.standard_normal(shape))
    for kind, (t, p) in kinds.items():
        yield kind, np.argmax(t, axis=-1) if entry.targets == "index" else t.astype(np.float32), p.astype(np.float32)
