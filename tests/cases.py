"""Nasty inputs, each with its reason; and what "equal" means for each dtype."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from lossfuncs.domains import draw
from lossfuncs.options import EPS
from lossfuncs.table import LOSSES, METRICS, Entry

Array = np.ndarray[Any, np.dtype[Any]]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64), "float16": np.dtype(np.float16), "bfloat16": BFLOAT16}

LENGTHS = {  # of a row
    1: "one element a lane: nothing to transpose",
    2: "fewer than a block of the transpose",
    7: "one fewer than a block of the transpose",
    8: "one block of the transpose",
    9: "a block of the transpose that overlaps the one before it",
    20: "eights and half of one; 16 rows of a pointwise loss are whole steps",
    33: "the shortest long row of plain sums",
    63: "one fewer than the longest short row of a pointwise loss",
    64: "the longest short row of a pointwise loss",
    65: "the shortest long row of a pointwise loss: one step of 64 lanes and a tail of one",
    96: "the longest short row",
    97: "the shortest long row",
    127: "a tail of 63",
    128: "no tail",
    129: "two steps and a tail of one",
    1000: "an ordinary long row",
    4095: "one fewer than where a pointwise loss is cut",
    4096: "where a pointwise loss is cut",
    4097: "one more than where a pointwise loss is cut",
}
COUNTS = {  # of rows
    1: "one lane of 64",
    7: "one fewer than a block of the transpose",
    8: "one block of the transpose",
    63: "one fewer than all lanes",
    64: "all lanes",
    65: "a second group of one lane",
    130: "three groups",
}
CHUNKS = {  # shapes around the 1 << 15 elements that are computed together
    (511, 64): "one row fewer than a chunk",
    (512, 64): "a chunk",
    (513, 64): "one row more than a chunk",
    (4673, 7): "one row more than a chunk, which is a multiple of 64 rows",
    (32, 1000): "a chunk of long rows",
    (33, 1000): "one long row more",
    (1, 1 << 15): "a row that is a chunk",
    (2, (1 << 15) + 1): "rows longer than a chunk",
}
LONGEST = 1 << 18  # a longer row is cut into pieces for the threads
SHORT = 96  # the longest row that is laid across lanes

SHAPES = {
    "short": [(m, n) for n in LENGTHS for m in COUNTS if n <= SHORT] + [shape for shape in CHUNKS if shape[1] <= SHORT],
    "long": [(m, n) for n in LENGTHS for m in COUNTS if SHORT < n and m * n <= 1 << 15] + [shape for shape in CHUNKS if shape[1] > SHORT],
}

# Options that choose other row maths than the defaults do, or other parameters.
OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "huber": ({"delta": 0.3},),
    "binary_crossentropy": ({"label_smoothing": 0.2}, {"from_logits": True}, {"from_logits": True, "label_smoothing": 0.1}),
    "binary_focal_crossentropy": (
        {"from_logits": True},
        {"gamma": 0.5},
        {"gamma": 3.5, "from_logits": True, "label_smoothing": 0.1},
        {"apply_class_balancing": True, "alpha": 0.7},
    ),
    "categorical_crossentropy": ({"label_smoothing": 0.2}, {"from_logits": True}, {"from_logits": True, "label_smoothing": 0.3}),
    "categorical_focal_crossentropy": (
        {"from_logits": True},
        {"gamma": 0.5},
        {"gamma": 3.5, "from_logits": True},
        {"label_smoothing": 0.1},
        {"gamma": 1.0, "label_smoothing": 0.1},
        {"from_logits": True, "label_smoothing": 0.1},
        {"gamma": 2.5, "from_logits": True, "label_smoothing": 0.1},
    ),
    "sparse_categorical_crossentropy": ({"from_logits": True},),
    "tversky": ({"axis": -1, "alpha": 0.3, "beta": 0.9},),
    "binary_accuracy": ({"threshold": 0.2},),
    "top_k_categorical_accuracy": ({"k": 1},),
    "sparse_top_k_categorical_accuracy": ({"k": 3, "from_sorted_ids": True},),
}
REQUIRED: dict[str, dict[str, Any]] = {"categorical_generalized_cross_entropy": {"q": 0.7}, "dice": {"axis": -1}, "tversky": {"axis": -1}}
ENTRIES = list({id(entry.function): entry for entry in LOSSES + METRICS}.values())


def case(entry: Entry, options: dict[str, Any], **marks: Any) -> Any:
    kind = entry.function.__module__.split(".")[1]
    return pytest.param(entry, options, id="-".join([kind, entry.name, *(f"{k}={v}" for k, v in options.items() if k != "axis")]), **marks)


BASES = [case(entry, REQUIRED.get(entry.name, {})) for entry in ENTRIES if entry.shape != "own"]
CASES = [*BASES, *(case(entry, options) for entry in ENTRIES for options in OPTIONS.get(entry.name, ()))]
DIFFERENTIABLE = [base for base in BASES if "accuracy" not in base.values[0].name]


def by_name(kind: str, name: str) -> Entry:
    """The table's line; kind is "loss" or "metric"."""
    return next(entry for entry in (LOSSES if kind == "loss" else METRICS) if entry.name == name)


# Values at which a formula changes, by what y_true or y_pred holds; all exact in bfloat16 but those of EPS.
REAL = (0.0, -0.0, 1.0, -1.0, 2.5, 2.0**-40, EPS, -(2.0**60), math.inf, -math.inf, math.nan)
EDGES = {
    "real": REAL,
    "positive": tuple(x for x in REAL if not x < 0.0),
    "count": (0.0, 1.0, 7.0),
    "binary": (0.0, 1.0, 0.25, math.nan),
    "sign": (-1.0, 1.0),
    "probability": (0.0, EPS / 2, EPS, 0.25, 0.5, 1.0 - 2.0**-8, 1.0, 1.5, math.nan),
    "distribution": (0.0, 2.0**-40, 0.25, 0.5, 1.0, 1.5, math.nan),
    "logits": (0.0, -1.0, 3.0, 40.0, 800.0, -800.0, math.inf, -math.inf, math.nan),
    "scores": (0.0, -0.0, 1.0, 2.0, math.inf, -math.inf, math.nan),
    "decision": (0.0, -0.0, 1.0, 2.0, math.inf, math.nan),
}
ONE_HOT = ((0.0, 1.0), (1.0, 0.0), (0.25, 0.75), (0.0, 0.0))


def edges(entry: Entry, options: dict[str, Any], dtype: Any) -> Iterator[tuple[Array, Array]]:
    """Rows of two, of all combinations of edge values."""
    predictions = "logits" if options.get("from_logits") else "decision" if options.get("from_sorted_ids") else entry.predictions
    p = np.array(list(itertools.product(EDGES[predictions], repeat=2)), dtype)
    if entry.targets == "index":
        yield from ((np.full(len(p), k), p) for k in (0, 1))
    else:
        for column in ONE_HOT if entry.targets == "one-hot" else itertools.product(EDGES[entry.targets], repeat=2):
            yield np.tile(np.array(column, dtype), (len(p), 1)), p


def inputs(entry: Entry, options: dict[str, Any], shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> tuple[Array, Array]:
    """A draw from the entry's domain, with ties, equal pairs and kinks forced in."""
    rng = np.random.default_rng([seed, *shape])
    t, p = draw(entry, shape, rng, dtype, **options)
    if entry.predictions in ("real", "scores", "logits") and not options.get("from_sorted_ids"):
        p = (np.round(p.astype(np.float64) * 4.0) / 4.0 if seed % 2 else p).astype(dtype)  # many ties
    if entry.targets == "real" and p.size > 2:
        p.reshape(-1)[p.size // 2] = t.reshape(-1)[p.size // 2]  # an error of 0
    if entry.targets in ("binary", "one-hot") and seed % 3 == 2 and entry.predictions != "scores":
        t = (0.75 * t.astype(np.float64) + 0.25 / shape[-1]).astype(dtype)  # soft
    return t, p


# A result is computed in float64, whatever comes in, and rounded once to its own dtype: so it is the reference's, rounded, or its
# neighbour. Kernels for float32 and half types evaluate exp, log, ... to about 32 bits, those for float64 to 52. Sums in another order,
# and sums of terms of either sign, leave an error that is relative to the terms, not to the result: `scale` stands for them.
DIGITS = {"float64": 2.0**-44, "float32": 2.0**-29, "float16": 2.0**-29, "bfloat16": 2.0**-29}


def ulp(x: Array, dtype: np.dtype[Any]) -> Array:
    """The distance of neighbours in that dtype, at x."""
    information = ml_dtypes.finfo(dtype)
    with np.errstate(all="ignore"):
        exponent = np.floor(np.log2(np.maximum(np.abs(x), float(information.smallest_normal))))
    return np.exp2(exponent - information.nmant)


def assert_equal(got: Any, wanted: Any, dtype: np.dtype[Any], scale: Any = 0.0, what: str = "", digits: float | None = None) -> None:
    """got, of that dtype, is wanted, a float64, to within one unit in the last place and what the digits of the terms allow."""
    digits = DIGITS[dtype.name] if digits is None else digits
    got, wanted = np.asarray(got), np.asarray(wanted, np.float64)
    assert got.shape == wanted.shape, what
    assert got.dtype == dtype, what
    with np.errstate(over="ignore"):
        rounded = wanted.astype(dtype).astype(np.float64)
    got = got.astype(np.float64)
    finite = np.isfinite(rounded) & np.isfinite(got)
    with np.errstate(all="ignore"):
        scale = np.where(np.isfinite(scale), scale, 0.0)
        slack = digits * np.maximum(np.abs(rounded), scale) + ulp(rounded, dtype)
        right = np.where(finite, np.abs(got - rounded) <= slack, (got == rounded) | np.isnan(got) & np.isnan(rounded))
    if not right.all():
        i = np.unravel_index(int(np.argmin(right)), right.shape)
        raise AssertionError(f"{what}: {(~right).sum()} of {right.size} differ, the first at {i}: {got[i]!r}, expected {wanted[i]!r}")


def layouts(x: Array) -> Iterator[tuple[str, Array]]:
    """The same elements, otherwise laid out in memory; x has at least two axes."""
    apart = np.zeros((*x.shape[:-1], 3 * x.shape[-1]), x.dtype)
    apart[..., 1::3] = x
    yield "strided", apart[..., 1::3]
    yield "negative strides", np.ascontiguousarray(x[::-1, ..., ::-1])[::-1, ..., ::-1]
    yield "Fortran order", np.asfortranarray(x)
    fixed = x.copy()
    fixed.flags.writeable = False
    yield "read-only", fixed
    buffer = np.zeros(x.nbytes + 1, np.uint8)
    buffer[1:] = x.reshape(-1).view(np.uint8)
    yield "unaligned", buffer[1:].view(x.dtype).reshape(x.shape)
    if x.dtype.kind in "iuf" and x.dtype.itemsize > 1:
        yield "big-endian", x.astype(x.dtype.newbyteorder(">"))
    padded = np.zeros((x.shape[0] + 2, *x.shape[1:]), x.dtype)
    padded[1:-1] = x
    yield "a slice of rows", padded[1:-1]


def bits(x: Any) -> bytes:
    """The bits of a result, in C order and the machine's byte order."""
    x = np.asarray(x)
    return np.ascontiguousarray(x.astype(x.dtype.newbyteorder("="))).tobytes()
