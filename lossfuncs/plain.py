"""The NumPy schedule of the row contract: whole arrays, float64, no compiler.

It runs what has no hand-written NumPy form: the derivatives on the NumPy backend, and a user's own losses there. Arrays are
(..., n); totals keep the last axis with size 1, so that formulas broadcast.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .problem import exact_sum
from .rows import Careful, Pass, Rows, Scalar, bind, coshm1, exp_nonpositive, log_cosh, rel_entr, sigmoid, softplus, where

Array = NDArray[Any]


def _softplus(x: Any) -> Any:
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


def _sigmoid(x: Any) -> Any:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def _log_cosh(x: Any) -> Any:
    # cosh x = 1 + (e^x + e^-x - 2)/2 = 1 + expm1(-|x|)^2 / (2 e^-|x|): no cancellation near 0; the plain form far away
    x = np.abs(x)
    near, far = np.minimum(x, 1.0), np.maximum(x, 1.0)
    return np.where(
        x < 1.0,
        np.log1p(np.expm1(-near) ** 2 / (2.0 * np.exp(-near))),
        far - math.log(2.0) + np.log1p(np.exp(-2.0 * far)),
    )


def _coshm1(x: Any) -> Any:
    return 2.0 * np.sinh(0.5 * x) ** 2


def _rel_entr(a: Any, b: Any) -> Any:
    return a * np.copysign(np.log1p(np.abs(a - b) / np.minimum(a, b)), a - b)


NUMPY: dict[Any, Any] = {
    where: np.where, exp_nonpositive: np.exp, sigmoid: _sigmoid, softplus: _softplus, log_cosh: _log_cosh, coshm1: _coshm1,
    rel_entr: _rel_entr,
    max: lambda *x: functools.reduce(np.maximum, x), min: lambda *x: functools.reduce(np.minimum, x), abs: np.abs,
    math.pow: np.power, math.copysign: np.copysign, math.fabs: np.abs,
    **{getattr(math, name): getattr(np, name)
       for name in ("exp", "log", "log1p", "expm1", "sqrt", "tanh", "sin", "cos", "tan", "sinh", "cosh", "floor", "ceil", "trunc", "log2",
                    "log10", "exp2", "cbrt", "isnan", "isinf", "isfinite", "atan2", "hypot", "fmod")
       if hasattr(math, name)},
    math.atan: np.arctan, math.asin: np.arcsin, math.acos: np.arccos,
    math.asinh: np.arcsinh, math.acosh: np.arccosh, math.atanh: np.arctanh,
}  # fmt: skip


@functools.cache
def on_arrays(function: Scalar) -> Any:
    """A scalar function of the contract, evaluated on arrays."""
    return bind(function, NUMPY, lambda f: f)


@functools.cache
def element_by_element(function: Scalar, outputs: int = 1) -> Any:
    """A user's own scalar function, branches and all, on arrays: dull, and right."""
    scalar = on_arrays(function)
    return np.vectorize(lambda *numbers: scalar(*map(np.float64, numbers)), otypes="d" * outputs)  # a float would raise for 1 / 0


def totals(rows: Rows, t: Array, p: Array, a: tuple[float, ...]) -> tuple[Array, ...]:
    """All totals of the rows of (t, p); t has p's shape, or p's without the last axis when it holds labels."""
    s: tuple[Array, ...] = ()
    for one in rows.passes:
        s += _gather(one, s, t, p, a)
    return s


def targets(t: Array, p: Array) -> Array:
    """t as one number an element: a label becomes its one-hot row."""
    if t.ndim == p.ndim:
        return t
    one_hot: Array = np.arange(p.shape[-1]) == t[..., None]
    return one_hot.astype(np.float64)


def _gather(one: Pass, s: tuple[Array, ...], t: Array, p: Array, a: tuple[float, ...]) -> tuple[Array, ...]:
    f = on_arrays(one.terms)
    if one.op == "label":
        return ((np.argmax(t, axis=-1) if t.ndim == p.ndim else t).astype(np.float64)[..., None],)
    if one.op == "pick":
        x = np.broadcast_to(f(s, p, *a), p.shape)
        return (np.take_along_axis(x, s[one.label].astype(np.int64), axis=-1),)
    if one.op in ("larger", "earlier"):
        own, place = s[one.own], np.arange(p.shape[-1])
        counted = ~(p <= own) if one.op == "larger" else (p == own) & (place < s[one.label])
        return (np.sum(counted, axis=-1, keepdims=True).astype(np.float64),)
    if one.op == "again":
        return s[one.label : one.label + one.size]
    t = targets(t, p)
    if one.exponent is not None:
        a = (np.exp(on_arrays(one.exponent)(s, t, p, *a)), *a)
    if one.op == "dot":
        terms = tuple(np.where(t == 0, 0.0, t * x) for x in f(s, p, *a))
    else:
        x = f(s, t, p, *a)
        terms = tuple(np.broadcast_to(np.asarray(v, np.float64), p.shape) for v in (x if isinstance(x, tuple) else (x,)))
    if one.op == "logs":
        x, e = terms
        total = np.sum(x + np.log1p(e), axis=-1, keepdims=True)
        return total, np.zeros_like(total)
    if one.op in ("sum", "dot"):
        sums = tuple(np.sum(x, axis=-1, keepdims=True) for x in terms)
        return sums if one.careful is None else _carefully(one.careful, (*s, *sums), t, p, a)[len(s) :]
    if one.op == "max":
        return tuple(np.max(x, axis=-1, keepdims=True) for x in terms)
    if one.op == "top":
        return tuple(np.fmax.reduce(x, axis=-1, keepdims=True) for x in terms)
    (x,) = terms  # lse
    m = np.max(x, axis=-1, keepdims=True)
    largest = x == m
    others = np.sum(np.where(largest, 0.0, np.exp(np.where(largest, 0.0, x - m))), axis=-1, keepdims=True)
    return m, others + (np.sum(largest, axis=-1, keepdims=True) - 1.0)


def _carefully(careful: Careful, s: tuple[Array, ...], t: Array, p: Array, a: tuple[float, ...]) -> tuple[Array, ...]:
    """s, with what is in doubt gathered again, one row after the other."""
    s = (*s[: careful.which], s[careful.which].copy(), *s[careful.which + 1 :])
    for row in zip(*np.nonzero(on_arrays(careful.doubt)(s, *a)[..., 0]), strict=True):
        of_row = tuple(x[row] for x in s)
        x = on_arrays(careful.terms)(of_row, t[row], p[row], *a)
        s[careful.which][row] = settled(careful, of_row, list(x) if isinstance(x, tuple) else [x], a)[careful.which]
    return s


def settled(careful: Careful, s: tuple[Any, ...], numbers: list[Array], a: tuple[float, ...]) -> tuple[Any, ...]:
    """The totals s of one row that are in doubt, settled by the sums of `numbers`."""
    parts: list[float] = []
    for x in numbers:
        left = x.reshape(-1)
        for _ in range(3):
            parts.append(exact_sum(left))
            left = np.append(left, -parts[-1])
    x = on_arrays(careful.settle)(tuple(map(np.float64, parts)), *a)
    return s if np.isnan(x) else (*s[: careful.which], x, *s[careful.which + 1 :])


def values(rows: Rows, t: Array, p: Array, a: tuple[float, ...]) -> Array:
    """The value of each row."""
    with np.errstate(all="ignore"):
        s = totals(rows, t, p, a)
        return np.broadcast_to(on_arrays(rows.value)(s, float(p.shape[-1]), *a), (*p.shape[:-1], 1))[..., 0]


def derivative(rows: Rows, which: Scalar, t: Array, p: Array, a: tuple[float, ...]) -> Array:
    """`which` (rows.slope or rows.curve) at every element."""
    assert rows.around is not None
    with np.errstate(all="ignore"):
        c = on_arrays(rows.around)(totals(rows, t, p, a), float(p.shape[-1]), *a)
        return np.broadcast_to(on_arrays(which)(c, targets(t, p), p, *a), p.shape)


def constants(rows: Rows, count: int, parameters: int) -> int:
    """How many numbers `rows.around` gives."""
    if rows.around is None:
        return count
    with np.errstate(all="ignore"):
        return len(on_arrays(rows.around)((np.float64(1.0),) * count, np.float64(2.0), *(np.float64(1.0),) * parameters))
