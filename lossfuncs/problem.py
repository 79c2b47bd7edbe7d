"""One call, made ready: rows of numbers, the row maths, its parameters; and how arrays of any layout become flat ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .rows import Rows

Array = NDArray[Any]
# Options that say where the rows lie, which of them count, or which pairs there are: not seen by the row maths.
STRUCTURAL = frozenset({"axis", "ignore_class", "ref_labels", "ref_embeddings", "remove_diagonal"})
NO_CLASS = -(2**63)  # ignore_class where there is none


class BadLabel(Exception):
    """A label is out of range; `row` says where."""

    def __init__(self, row: int) -> None:
        self.row = row


class Problem(NamedTuple):
    """m rows of n elements each, in the order of p's elements."""

    rows: Rows
    parameters: tuple[float, ...]
    t: Array  # shaped as p; or labels, int64, (m,)
    p: Array  # the axes that make a row are the last ones; any strides
    m: int
    n: int
    labelled: bool
    ignore: int  # the label whose rows count as 0
    dtype: np.dtype[Any]  # that both can be read in exactly: float16, bfloat16, float32 or float64
    free_labels: bool = False  # labels are compared, not used: any number will do


class Task(NamedTuple):
    """What to do with a problem's rows, and where the results go."""

    total: bool = False  # add up weight * value instead of storing the values
    weights: Array | None = None  # of the total and of the derivatives: float64, one a row
    scale: float = 1.0  # of the derivatives, beside the weights
    values: Array | None = None  # (m,), unweighted
    derivatives: tuple[Array, ...] = ()  # the gradient; the second derivative as well; shaped as p, any strides
    # On a device, whose results the host is not to wait for:
    value_weights: Any = None  # of the values
    divisor: Any = 1.0  # of the total and the derivatives; or a device's array of one number
    parameters: Any = None  # instead of the problem's: a device's array


def boxes(shape: tuple[int, ...], begin: int, end: int) -> Iterator[tuple[Any, ...]]:
    """Indices whose blocks, one after the other, are the elements [begin, end) of an array of that shape in C order."""
    if begin >= end:
        return
    if len(shape) <= 1:
        yield (slice(begin, end),) if shape else ()
        return
    inner = math.prod(shape[1:])
    first, last = -(-begin // inner), end // inner  # whole slabs in between
    if first > last:
        yield from ((last, *rest) for rest in boxes(shape[1:], begin - last * inner, end - last * inner))
        return
    yield from ((first - 1, *rest) for rest in boxes(shape[1:], begin - (first - 1) * inner, inner) if begin < first * inner)
    if first < last:
        yield (slice(first, last),)
    yield from ((last, *rest) for rest in boxes(shape[1:], 0, end - last * inner))


def is_flat(x: Array, dtype: np.dtype[Any]) -> bool:
    """Whether x's elements lie one after the other as the machine reads them."""
    return bool(x.flags.c_contiguous and x.flags.aligned and x.dtype == dtype and x.dtype.isnative)


def take(x: Array, begin: int, end: int, dtype: np.dtype[Any]) -> Array:
    """Elements [begin, end) of x, in C order, contiguous, as dtype; a copy only where it has to be."""
    if is_flat(x, dtype):
        return x.reshape(-1)[begin:end]
    out = np.empty(end - begin, dtype)
    at = 0
    for index in boxes(x.shape, begin, end):
        block = x[index]
        out[at : at + block.size].reshape(block.shape)[...] = block
        at += block.size
    return out


def give(x: Array, begin: int, end: int, values: Array) -> None:
    """Write values to elements [begin, end) of x, whose type may be smaller."""
    at = 0
    with np.errstate(all="ignore"):
        for index in boxes(x.shape, begin, end):
            block = x[index]
            size = block.size
            x[index] = values[at : at + size].reshape(block.shape)
            at += size


def exact_sum(x: Array) -> float:
    """The sum of the numbers, rounded once."""
    try:
        return math.fsum(x.tolist())
    except (ValueError, OverflowError):  # inf - inf, or too large: IEEE's answer
        with np.errstate(all="ignore"):
            return float(np.sum(x))


def sum_of_weights(w: Array) -> float:
    """What a mean by weights divides by."""
    with np.errstate(all="ignore"):
        return float(np.add.reduce(w.reshape(-1)))


def divides(total: float) -> bool:
    """Whether weights of that sum may be multiplied by values, and the result divided by it, without over- or underflow on the way.

    By 0 nothing is divided but 0, to 0.
    """
    return total == 0.0 or 2.0**-512 < abs(total) < 2.0**512
