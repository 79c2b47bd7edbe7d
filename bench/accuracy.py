"""How far elementary functions, losses and means are from the exact values, next to NumPy and torch.

    python -m bench.accuracy                      everything below, some minutes
    python -m bench.accuracy --sections functions   `lossfuncs.vectormath`: every 64th block of float32, float64 against mpmath
    python -m bench.accuracy --sections losses      every loss and its derivative on rows that are hard to compute
    python -m bench.accuracy --sections means       the mean of 10^8 squared errors; --mean 1000000000 for 10^9
    python -m bench.accuracy --exhaustive         all 2^32 float32 inputs of each function
    python -m bench.accuracy --derive             fit the polynomials of vectormath again, and show how far its coefficients are from exact

The exit status is 1 if a bound is broken:
    functions   0.51 ULP of float32 for SINGLE, 1 ULP of float64 for DOUBLE, no wrong special value
    losses      1 ULP of float32 for 99.99 % of the rows and 2 for all, 4 ULP of its row's largest slope for a derivative; where a sum
                of terms of both signs may cancel, 2^-34 or 2^-47 of the terms beside
    means       1e-15
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import mpmath
import numba
import numpy as np
from mpmath import mp

import lossfuncs
import lossfuncs.losses
from lossfuncs import vectormath
from lossfuncs.benchmark import formulas
from lossfuncs.options import EPS
from lossfuncs.table import LOSSES, METRICS, Entry

SINGLE_BOUND, DOUBLE_BOUND = 0.51, 1.0
UNARY = ("exp", "log", "log1p", "expm1", "tanh", "sigmoid", "softplus", "log_cosh")

Array = np.ndarray[Any, Any]


def _numpy_sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1 + e)


def _numpy_softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _numpy_log_cosh(x: Array) -> Array:
    a = np.abs(x)
    near = np.log1p(2 * np.sinh(np.minimum(a, 1) / 2) ** 2)
    return np.where(a < 1, near, a + (np.log1p(np.exp(-2 * a)) - math.log(2)))


# In float64 these are within a few ULP of float64: 1e-8 ULP of float32, nothing against the bound.
NUMPY: dict[str, Callable[..., Array]] = {
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "tanh": np.tanh,
    "sigmoid": _numpy_sigmoid,
    "softplus": _numpy_softplus,
    "log_cosh": _numpy_log_cosh,
    "pow": np.power,
}


def _exact_log_cosh(x: Any) -> Any:
    return mp.log1p(2 * mp.sinh(x / 2) ** 2)


def _exact_pow(x: Any, y: Any) -> Any:
    return mp.power(x, y)


EXACT: dict[str, Callable[..., Any]] = {
    "exp": mp.exp,
    "log": mp.log,
    "log1p": mp.log1p,
    "expm1": mp.expm1,
    "tanh": mp.tanh,
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "softplus": lambda x: mp.log1p(mp.exp(x)),
    "log_cosh": _exact_log_cosh,
    "pow": _exact_pow,
}


def mapped(function: Any, *dtypes: str) -> Callable[..., None]:
    """A compiled loop out[i] = function(x[i], ...), for one-dimensional contiguous arrays of these dtypes, the last being out's."""
    array = {name: numba.types.Array(numba.from_dtype(np.dtype(name)), 1, "C") for name in dtypes}
    signature = numba.void(*(array[name] for name in dtypes))
    if len(dtypes) == 2:

        def unary(x: Array, out: Array) -> None:
            for i in range(out.size):
                out[i] = function(x[i])

        kernel: Any = unary
    else:

        def binary(x: Array, y: Array, out: Array) -> None:
            for i in range(out.size):
                out[i] = function(x[i], y[i])

        kernel = binary
    compiled: Callable[..., None] = numba.njit(signature, nogil=True, error_model="numpy")(kernel)
    return compiled


# 1/ULP of float32 by the exponent field of the exact value in float64; below 2^-126 the ULP is that of the subnormals.
_PER_ULP = np.ldexp(1.0, 23 - np.maximum(np.arange(2048) - 1023, -126))


@numba.njit(nogil=True, error_model="numpy")
def _compare(out: Array, exact: Array, exact_bits: Array, per_ulp: Array) -> tuple[float, int, int, int]:
    """Largest error in ULP of float32, its index, the number of wrong specials, the number not correctly rounded.

    Special is what rounds to NaN, an infinity or a zero: it must be that one, with that sign.
    """
    worst, where, wrong, misrounded = 0.0, 0, 0, 0
    for i in range(out.size):
        value, reference = out[i], exact[i]
        rounded = np.float32(reference)
        if value == rounded and value != 0:
            if math.isinf(value):
                continue
        elif math.isnan(reference) or math.isinf(rounded) or math.isnan(value) or math.isinf(value):
            wrong += not (math.isnan(reference) and math.isnan(value))
            continue
        elif value == 0 and rounded == 0:
            wrong += math.copysign(1.0, value) != math.copysign(1.0, rounded)
            continue
        else:
            misrounded += 1
        error = abs(np.float64(value) - reference) * per_ulp[(exact_bits[i] >> 52) & 2047]
        if error > worst:
            worst, where = error, i
    return worst, where, wrong, misrounded


@dataclass
class Errors:
    """Errors of one float32 implementation of one function."""

    max_ulp: float = 0.0
    at: tuple[float, ...] = ()
    wrong_specials: int = 0
    misrounded: int = 0
    points: int = 0

    def add(self, out: Array, exact: Array, *arguments: Array) -> None:
        worst, where, wrong, misrounded = _compare(out, exact, exact.view(np.int64), _PER_ULP)
        if worst > self.max_ulp:
            self.max_ulp, self.at = worst, tuple(float(x[where]) for x in arguments)
        self.wrong_specials += wrong
        self.misrounded += misrounded
        self.points += out.size

    def merge(self, other: Errors) -> None:
        if other.max_ulp > self.max_ulp:
            self.max_ulp, self.at = other.max_ulp, other.at
        self.wrong_specials += other.wrong_specials
        self.misrounded += other.misrounded
        self.points += other.points


def _torch_function(name: str) -> Callable[..., Array] | None:
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    function = torch.nn.functional.softplus if name == "softplus" else getattr(torch, name, None)
    return function and (lambda *arguments: function(*(torch.from_numpy(x) for x in arguments)).numpy())


def contestants(name: str, peers: bool = True) -> dict[str, Callable[..., Array]]:
    """Implementations of a function for float32 arrays: ours first, then NumPy's and torch's own, where they have one."""
    kernel = mapped(vectormath.SINGLE[name], *["f4"] * (3 if name == "pow" else 2))

    def ours(*arguments: Array) -> Array:
        out = np.empty_like(arguments[0])
        kernel(*arguments, out)
        return out

    every: dict[str, Callable[..., Array]] = {"lossfuncs": ours}
    if peers and isinstance(NUMPY[name], np.ufunc):
        every["numpy"] = NUMPY[name]
    if peers and (torch_function := _torch_function(name)):
        every["torch"] = torch_function
    return every


BLOCK = 1 << 14  # consecutive bit patterns: 512 blocks a binade, so that one in 64 leaves 8 in each
CHUNK = 1 << 20  # bit patterns treated at once


def bit_patterns(chunk: int, share: int) -> Array:
    """The chunk-th 2^20 float32 numbers out of one block in `share`, which block of a share changing from share to share."""
    block = np.arange(chunk * (CHUNK // BLOCK), (chunk + 1) * (CHUNK // BLOCK), dtype=np.uint64)
    block = block * share + block * 37 % share
    return (block[:, None] * BLOCK + np.arange(BLOCK, dtype=np.uint64)).astype(np.uint32).ravel().view(np.float32)


def single_errors(name: str, share: int, workers: int = 1, peers: bool = True) -> dict[str, Errors]:
    """Errors of every contestant over all float32 numbers in one block of `share`; of `pow` over random pairs, 2^26 at most."""
    every = contestants(name, peers)

    def measure(chunk: int) -> dict[str, Errors]:
        if name == "pow":
            arguments = _random_powers(np.random.default_rng(chunk), CHUNK)
        else:
            arguments = (bit_patterns(chunk, share),)
        errors = {key: Errors() for key in every}
        with np.errstate(all="ignore"):
            exact = np.asarray(NUMPY[name](*(x.astype(np.float64) for x in arguments)))
            for key, function in every.items():
                errors[key].add(function(*arguments), exact, *arguments)
        return errors

    chunks = range(((1 << 32) // CHUNK) // (max(share, 64) if name == "pow" else share))
    total = {key: Errors() for key in every}
    with ThreadPoolExecutor(workers) as pool:
        for errors in pool.map(measure, chunks):
            for key, error in errors.items():
                total[key].merge(error)
    return total


def _random_powers(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Bases in [0, 1) as probabilities are, and of every size; exponents within what float32 can hold of the result."""
    x = np.where(rng.random(count) < 0.5, rng.random(count), np.exp(rng.uniform(-100, 88, count))).astype(np.float32)
    limit = 104 / np.maximum(np.abs(np.log(x.astype(np.float64), where=x > 0, out=np.ones(count))), 1e-6)
    y = np.where(rng.random(count) < 0.5, rng.uniform(-5, 5, count), rng.uniform(-1, 1, count) * limit)
    return x, y.astype(np.float32)


def single_precision(names: Iterable[str], share: int, workers: int) -> bool:
    """Prints the float32 table; whether ours kept within SINGLE_BOUND with every special right."""
    which = f"one block of 2^14 in {share}" if share > 1 else "all 2^32 numbers"
    print(f"float32, SINGLE: {which} (pow: 2^26 random pairs)")
    print(f"{'':10s} {'':10s} {'max ULP':>10s} {'wrong specials':>15s} {'not correctly rounded':>22s}   worst at")
    good = True
    for name in names:
        start = time.perf_counter()
        for key, error in single_errors(name, share, workers).items():
            fraction = error.misrounded / error.points
            print(f"{name:10s} {key:10s} {error.max_ulp:10.4f} {error.wrong_specials:15d} {fraction:22.2e}   {error.at}")
            if key == "lossfuncs":
                good &= error.max_ulp <= SINGLE_BOUND and error.wrong_specials == 0
        print(f"{'':10s} {error.points} points in {time.perf_counter() - start:.0f} s", flush=True)
    return good


def hard_points(name: str, count: int, seed: int) -> tuple[Array, ...]:
    """`count` float64 arguments: any bit pattern, ordinary numbers, and the zones where digits are lost."""
    rng = np.random.default_rng(seed)
    share = count // 10 + 1
    sign = rng.choice([-1.0, 1.0], share)
    zones = [
        rng.integers(0, 1 << 64, share, dtype=np.uint64).view(np.float64),
        rng.standard_normal(share),
        10 * rng.standard_normal(share),
        rng.uniform(-750, 750, share),
        sign * np.exp2(rng.uniform(-60, 10, share)),  # every size that is neither rounded away nor out of range
        sign * np.exp2(rng.uniform(-6, 1, share)),
        1 + sign * np.exp2(rng.uniform(-53, -1, share)),  # log near 1
        -1 + np.exp2(rng.uniform(-53, 0, share)),  # log1p near -1
        (rng.integers(-1080, 1030, share) + 0.5) * math.log(2) * (1 + 1e-3 * rng.standard_normal(share)),  # reduction's seams
        np.exp2(rng.integers(-1074, 1024, share) + 0.5) * (1 + 1e-3 * rng.standard_normal(share)),
    ]
    x = rng.permutation(np.concatenate(zones))
    if name == "log1p":
        x = np.where(x < -1, -x, x)
    if name in ("log", "pow"):
        x = np.abs(x)
    x = x[np.isfinite(x)][:count]
    if name != "pow":
        return (x,)
    with np.errstate(all="ignore"):
        limit = np.minimum(744 / np.abs(np.log(x)), 1e300)
    y = np.where(rng.random(x.size) < 0.5, rng.uniform(-5, 5, x.size), rng.uniform(-1, 1, x.size) * limit)
    return x, y


def double_error(name: str, out: Array, *arguments: Array) -> tuple[float, tuple[float, ...]]:
    """Largest error of out in ULP of float64 against mpmath, and where; infinite for a result that wrongly is, or is not, finite.

    The arguments are finite and in the function's domain; where log would be -inf they are passed over.
    """
    exact = EXACT[name]
    worst, at = 0.0, (math.nan,)
    with mp.workprec(200):
        overflow = mpmath.mpf(2) ** 1024 - mpmath.mpf(2) ** 970
        for value, *points in zip(out.tolist(), *(x.tolist() for x in arguments), strict=True):
            if points[0] == (-1 if name == "log1p" else 0):
                continue
            reference = exact(*(mpmath.mpf(x) for x in points))
            if math.isfinite(value) and abs(reference) < overflow:
                error = float(abs(reference - value) / math.ulp(float(reference)))
            else:
                error = 0.0 if value == math.inf and reference >= overflow else math.inf
            if error > worst:
                worst, at = error, tuple(points)
    return worst, at


def _double_task(name: str, count: int, seed: int) -> tuple[int, float, tuple[float, ...]]:
    arguments = hard_points(name, count, seed)
    out = np.empty_like(arguments[0])
    mapped(vectormath.DOUBLE[name], *["f8"] * (len(arguments) + 1))(*arguments, out)
    return out.size, *double_error(name, out, *arguments)


def double_precision(names: Iterable[str], points: int, workers: int) -> bool:
    """Prints the float64 table; whether every error against mpmath is below DOUBLE_BOUND."""
    print(f"\nfloat64, DOUBLE: {points} points a function against mpmath\n{'':10s} {'max ULP':>10s}   worst at")
    good = True
    tasks = max(workers, points // 50_000)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for name in names:
            results = list(pool.map(partial(_double_task, name, points // tasks), range(tasks)))
            _, worst, at = max(results, key=lambda result: result[1])
            print(f"{name:10s} {worst:10.4f}   {at}", flush=True)
            good &= worst < DOUBLE_BOUND
    return good


@dataclass(frozen=True)
class Fit:
    """What a polynomial of vectormath stands for: `function` on [low, high], error times `weight` at most 2^log2_error."""

    log2_error: float
    function: Callable[[Any], Any]
    low: Any
    high: Any
    weight: Callable[[Any], Any]


def fits() -> dict[str, Fit]:
    def off_zero(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda x: function(x if abs(x) > tiny else tiny)

    def relative(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda x: 1 / abs(function(x))

    tiny = mpmath.mpf(2) ** -90
    half_ln2 = mp.log(2) / 2 * (1 + mpmath.mpf(2) ** -20)  # rounding to the nearest multiple of ln2 may overshoot
    high = mp.sqrt(2) - 1
    narrow, wide = (2 * high / (high + 2)) ** 2, mpmath.mpf(4) / 9
    expm1 = off_zero(lambda r: mp.expm1(r) / r)
    log_cosh = off_zero(lambda z: mp.log(mp.cosh(mp.sqrt(z))) / z)
    atanh = off_zero(lambda z: 2 * mp.atanh(mp.sqrt(z) / 2) / mp.sqrt(z))
    atanh_tail = off_zero(lambda z: (atanh(z) - 1 - z / 12) / z**2)
    square = mpmath.mpf(0.6) ** 2
    zero = mpmath.mpf(0)
    return {
        "EXPM1": Fit(-37.6, expm1, -half_ln2, half_ln2, relative(expm1)),
        "ATANH": Fit(-37.7, atanh, zero, narrow, relative(atanh)),
        "ATANH_WIDE": Fit(-38.5, atanh, zero, wide, relative(atanh)),
        "ATANH_RATIO": Fit(-35.5, atanh, zero, mpmath.mpf(0.16), relative(atanh)),
        "LOG_COSH": Fit(-36.4, log_cosh, zero, square, relative(log_cosh)),
        "LOG2": Fit(-45.0, lambda z: atanh(z) / mp.log(2), zero, narrow, relative(lambda z: atanh(z) / mp.log(2))),
        "EXP_TAIL": Fit(-59.9, off_zero(lambda r: (mp.expm1(r) - r) / r**2), -half_ln2, half_ln2, lambda r: half_ln2),
        "LOG_COSH_TAIL": Fit(-57.3, off_zero(lambda z: (log_cosh(z) - 0.5) / z), zero, square, lambda z: 2 * z + 2.0**-20),
        "ATANH_TAIL": Fit(-65.8, atanh_tail, zero, narrow, lambda z: z * z + 2.0**-30),
        "ATANH_WIDE_TAIL": Fit(-58.9, atanh_tail, zero, wide, lambda z: z * z + 2.0**-30),
    }


def _grid(fit: Fit, count: int) -> list[Any]:
    return [(fit.low + fit.high - (fit.high - fit.low) * mp.cos(mp.pi * k / count)) / 2 for k in range(count + 1)]


def _polynomial(coefficients: Any, x: Any) -> Any:
    """Sum of coefficients[k] x^k."""
    total = 0
    for c in reversed(coefficients):
        total = total * x + c
    return total


def weighted_error(fit: Fit, coefficients: Sequence[Any], count: int = 1000) -> float:
    """max of |polynomial - function| weight over a Chebyshev grid of the interval."""
    return float(max(abs(_polynomial(coefficients, x) - fit.function(x)) * fit.weight(x) for x in _grid(fit, count)))


def minimax(fit: Fit, degree: int) -> list[Any]:
    """Remez' exchange: solve for an error that alternates on degree + 2 points, move them to the extremes of the error, repeat."""
    size = degree + 2
    points = [(fit.low + fit.high - (fit.high - fit.low) * mp.cos(mp.pi * (2 * k + 1) / (2 * size))) / 2 for k in range(size)]
    grid = _grid(fit, 1500)
    values = [(x, fit.function(x), fit.weight(x)) for x in grid]
    coefficients: list[Any] = []
    for _ in range(8):
        system = mpmath.matrix([[x**k for k in range(degree + 1)] + [(-1) ** i / fit.weight(x)] for i, x in enumerate(points)])
        *coefficients, level = mp.lu_solve(system, mpmath.matrix([fit.function(x) for x in points]))
        extremes: list[tuple[Any, Any]] = []
        for x, value, weight in values:
            error = (_polynomial(coefficients, x) - value) * weight
            if extremes and (extremes[-1][1] > 0) == (error > 0):
                extremes[-1] = max(extremes[-1], (x, error), key=lambda extreme: abs(extreme[1]))
            else:
                extremes.append((x, error))
        while len(extremes) > size:
            extremes.pop(0 if abs(extremes[0][1]) < abs(extremes[-1][1]) else -1)
        if len(extremes) < size or max(abs(error) for _, error in extremes) < 1.001 * abs(level):
            break
        points = [x for x, _ in extremes]
    return coefficients


def derive() -> None:
    """Prints a fresh fit of each polynomial of vectormath, its error and that of the coefficients in use."""
    with mp.workprec(500):
        for name, fit in fits().items():
            used = getattr(vectormath, name)
            fresh = [float(c) for c in minimax(fit, len(used) - 1)]
            errors = [math.log2(weighted_error(fit, coefficients)) for coefficients in (fresh, used)]
            print(f"{name}: degree {len(used) - 1}, error 2^{errors[0]:.2f}, in use 2^{errors[1]:.2f}\n    {fresh}", flush=True)
        ln2 = mp.log(2)
        high = mp.floor(ln2 * 2**42) / 2**42
        print(f"LN2_HIGH, LN2_LOW: {float(high)!r}, {float(ln2 - high)!r}")
        print(f"TWELFTH_LOW: {float(mpmath.mpf(1) / 12 - 1 / 12)!r}")


# Losses, row by row. The exact value and gradient of a row of float32 numbers are worked out in long double, by formulas of their own
# that lose no digits; the same formulas with 90 digits of mpmath, on some of the rows, show that long double is enough.

LENGTHS = (1, 3, 10, 16, 100)  # of the rows
ROWS_BOUND, GRADIENT_BOUND = 2.0, 4.0  # ULP of float32: of a value; of the row's largest slope
FEW_BOUND, FEW = 1.0, 1e-4  # ULP, and the share of the values that may be further away
HALF = 0.5 + 1e-3
# What the row maths keeps of a term, for losses whose terms may cancel: SINGLE's functions have 35 bits, float64 arithmetic has 53, of
# which a sum over a row and what goes into its terms take a few.
BY_LOG, BY_FLOAT64 = 2.0**-34, 2.0**-47


@dataclass
class Exact:
    """Value (m,) and gradient (m, n) of m rows. The slacks are what a sum of terms of both signs may lose, where it has such terms."""

    value: Any
    gradient: Any
    slack: Any = 0.0
    gradient_slack: Any = 0.0


def _either(name: str) -> Callable[[Array], Array]:
    """A function of long double arrays, and of arrays of mpmath's numbers."""
    ordinary, precise = getattr(np, name), np.frompyfunc(lambda x: getattr(mp, name)(x) if x or name != "log" else -mp.inf, 1, 1)
    return lambda x: precise(x) if x.dtype == object else ordinary(x)


_exp, _log, _log1p, _expm1, _sqrt, _sinh, _tanh = map(_either, ("exp", "log", "log1p", "expm1", "sqrt", "sinh", "tanh"))


def _sum(x: Any) -> Any:
    return np.sum(x, axis=-1, keepdims=True)


def _of_others(x: Array) -> Array:
    """For each element the sum of the other ones, without a subtraction."""
    before, after = np.cumsum(x, axis=-1), np.cumsum(x[:, ::-1], axis=-1)[:, ::-1]
    nothing = np.zeros_like(x[:, :1])
    return np.concatenate([nothing, before[:, :-1]], axis=-1) + np.concatenate([after[:, 1:], nothing], axis=-1)


def _step(x: Array) -> Array:
    return np.where(x > 0, 1.0, np.where(x < 0, 0.0, 0.5))


def _mean(value: Any, gradient: Any, slack: Any = 0.0, gradient_slack: Any = 0.0) -> Exact:
    n = value.shape[-1]
    return Exact(_sum(value) / n, gradient / n, _sum(slack + np.zeros(value.shape)) / n, gradient_slack / n)


def _squared_error(t: Array, p: Array) -> Exact:
    return _mean((p - t) ** 2, 2 * (p - t))


def _signs(x: Array) -> Array:
    return np.where(x > 0, 1.0, np.where(x < 0, -1.0, 0.0))


def _absolute_error(t: Array, p: Array) -> Exact:
    return _mean(abs(p - t), _signs(p - t))


def _percentage_error(t: Array, p: Array) -> Exact:
    whole = np.maximum(abs(t), EPS)
    return _mean(100 * abs(p - t) / whole, 100 * _signs(p - t) / whole)


def _log_ratio(b: Array, a: Array) -> Array:
    """log(b / a)."""
    near = abs(b - a) < a / 2
    return np.where(near, _log1p(np.where(near, (b - a) / a, 0)), _log(b) - _log(a))


def _squared_log_error(t: Array, p: Array) -> Exact:
    a, b = np.maximum(t, EPS), np.maximum(p, EPS)
    near = abs(b - a) < (1 + a) / 2
    d = np.where(near, _log1p(np.where(near, (b - a) / (1 + a), 0)), _log1p(b) - _log1p(a))
    return _mean(d**2, 2 * d / (1 + b) * _step(p - EPS))


def _huber(t: Array, p: Array, delta: float = 1.0) -> Exact:
    e = p - t
    value = np.where(abs(e) <= delta, e * e / 2, delta * abs(e) - delta * delta / 2)
    return _mean(value, np.clip(e, -delta, delta))


def _log_cosh(t: Array, p: Array) -> Exact:
    e = p - t
    a = abs(e)
    value = np.where(a < 2, _log1p(_sinh(np.minimum(a, 2)) ** 2) / 2, a - (_log(2 + 0 * a) - _log1p(_exp(-2 * a))))
    return _mean(value, _tanh(e))


def _poisson(t: Array, p: Array) -> Exact:
    costs = t * _log(p + EPS)
    return _mean(p - costs, ((p - t) + EPS) / (p + EPS), BY_LOG * (abs(p) + abs(costs)))


def _cosine(t: Array, p: Array, sign: float) -> Exact:
    norm_t, norm_p = np.maximum(_sqrt(_sum(t * t)), EPS), _sqrt(_sum(p * p))
    floored = np.maximum(norm_p, EPS)
    u, v = t / norm_t, p / floored
    cosine = _sum(u * v)
    along = np.where(norm_p > EPS, cosine, 0) * v
    counts = sign * (norm_p > 0)
    return Exact(
        sign * cosine, counts * (u - along) / floored, BY_FLOAT64 * _sum(abs(u * v)), BY_FLOAT64 * np.max(abs(u) + abs(along)) / floored
    )


def _centred(x: Array) -> Array:
    x = x - x[:, :1]
    return x - _sum(x) / x.shape[-1]


def _pearson(t: Array, p: Array) -> Exact:
    dt, dp = _centred(t), _centred(p)
    norm_t, norm_p = _sqrt(_sum(dt * dt)), _sqrt(_sum(dp * dp))
    one = np.where((norm_t > 0) & (norm_p > 0), 1, 0)
    u, v = dt / np.where(one, norm_t, 1), dp / np.where(one, norm_p, 1)
    value = np.where(one, _sum(u * v), math.nan)
    gradient = (u - _sum(u * v) * v) / np.where(one, norm_p, 1)
    return Exact(value, one * gradient, BY_FLOAT64 + 0 * norm_t, BY_FLOAT64 * one / np.where(one, norm_p, 1))


def _concordance(t: Array, p: Array) -> Exact:
    n = t.shape[-1]
    dt, dp, difference = _centred(t), _centred(p), _sum(p - t) / n
    divisor = (_sum(dt * dt) + _sum(dp * dp)) / n + difference**2 + EPS
    value = 2 * _sum(dt * dp) / n / divisor
    terms = np.max(abs(dt) + abs(value * (dp + difference)), axis=-1, keepdims=True)
    return Exact(
        value,
        2 / divisor / n * (dt - value * (dp + difference)),
        BY_FLOAT64 * 2 * _sum(abs(dt * dp)) / n / divisor,
        BY_FLOAT64 * 2 / divisor / n * terms,
    )


def _hinge(t: Array, p: Array) -> Exact:
    return _mean(np.maximum(1 - t * p, 0), -t * _step(1 - t * p))


def _squared_hinge(t: Array, p: Array) -> Exact:
    m = np.maximum(1 - t * p, 0)
    return _mean(m * m, -2 * t * m)


def _categorical_hinge(t: Array, p: Array) -> Exact:
    rivals = (1 - t) * p
    positive, negative = _sum(t * p), np.max(rivals, axis=-1, keepdims=True)
    d = negative - positive
    back = d - negative
    rest = (negative - (d - back)) - (positive + back)  # what d lost
    active, top = _step((d + 1) + rest), rivals == negative
    return Exact(np.maximum((d + 1) + rest, 0), active * (np.where(top, 1, 0) * (1 - t) / _sum(np.where(top, 1, 0)) - t))


def _smoothed(t: Array, smoothing: float, classes: int) -> Array:
    return t * (1.0 - smoothing) + smoothing / classes


def _binary_cost(t: Array, p: Array) -> tuple[Array, Array]:
    q = np.clip(p, EPS, 1.0 - EPS)
    return -(t * _log(q) + (1 - t) * _log1p(-q)), np.where(q == p, (q - t) / (q * (1 - q)), 0)


def _binary_logits(x: Array) -> tuple[Array, Array, Array, Array]:
    """-log of sigmoid(x) and of sigmoid(-x), and these."""
    e = _exp(-abs(x))
    rest, larger, smaller = _log1p(e), 1 / (1 + e), e / (1 + e)
    right = np.where(x < 0, -x, 0) + rest
    return right, np.where(x < 0, 0, x) + rest, np.where(x < 0, smaller, larger), np.where(x < 0, larger, smaller)


def _binary_entropy(t: Array, p: Array, from_logits: bool = False, label_smoothing: float = 0.0) -> Exact:
    t = _smoothed(t, label_smoothing, 2)
    if not from_logits:  # a smoothed target is rounded itself
        cost, slope = _binary_cost(t, p)
        return _mean(cost, slope, 0.0, BY_FLOAT64 * (slope != 0) / np.clip(p * (1 - p), EPS, 1) if label_smoothing else 0.0)
    right, wrong, yes, no = _binary_logits(p)
    return _mean(t * right + (1 - t) * wrong, (1 - t) * yes - t * no, 0.0, BY_LOG * ((1 - t) * yes + t * no))


def _power(u: Array, gamma: float) -> tuple[Array, Array]:
    """u^gamma and its derivative, which counts as 0 where it is infinite."""
    some = u > 0
    base = np.where(some, u, 1)
    return np.where(some, base**gamma, float(gamma == 0)), np.where(some, gamma * base ** (gamma - 1), float(gamma == 1))


def _binary_focal(t: Array, p: Array, gamma: float = 2.0, from_logits: bool = False) -> Exact:
    if from_logits:
        right, wrong, yes, no = _binary_logits(p)
        cost, slope, by_p = t * right + (1 - t) * wrong, (1 - t) * yes - t * no, yes * no
    else:
        (cost, slope), yes, no, by_p = _binary_cost(t, p), p, 1 - p, 1
    f, df = _power(t * no + (1 - t) * yes, gamma)
    bend = df * (1 - 2 * t) * by_p * cost
    return _mean(f * cost, f * slope + bend, 0.0, BY_LOG * (abs(f * slope) + abs(bend)))


def _shares(p: Array) -> tuple[Array, Array, Array, Array]:
    """-log q of each class, q, whether it is within the clip, and the derivative of log q by p at all but the label's part."""
    total = _sum(p)
    total = np.where(total == 0, 1, total)
    share = p / total
    q = np.clip(share, EPS, 1.0 - EPS)
    # near 1, log q = log1p(-the others / total)
    others = _of_others(p) / total
    near = (share > 0.5) & (q == share)
    log_q = np.where(near, _log1p(np.where(near, -others, 0)), _log(q))
    return -log_q, q, np.where(q == share, 1, 0), total


def _cross_entropy(t: Array, p: Array, from_logits: bool = False, label_smoothing: float = 0.0) -> Exact:
    t = _smoothed(t, label_smoothing, t.shape[-1])
    return _focal(t, p, 1.0, 0.0, from_logits)


def _focal(t: Array, p: Array, alpha: float = 0.25, gamma: float = 2.0, from_logits: bool = False) -> Exact:
    """sum(alpha t (1 - q)^gamma (-log q)); the derivative of its k-th term by log q_k is -alpha t_k bend_k."""
    if from_logits:
        d = np.max(p, axis=-1, keepdims=True) - p
        e = _exp(-d)
        others, total = _of_others(e), _sum(e)
        low = d > 1000
        q, u = e / total, others / total
        cost = np.where(low, d + _log(total), _log1p(others / np.where(low, 1, e)))
        inside, ratio, scale = 1, u, q
    else:
        cost, q, inside, total = _shares(p)
        u = 1 - q
        ratio = inside * _of_others(p) / np.where(p == 0, 1, p)
        scale = 1 / total + 0 * p
    f, df = _power(u, gamma)
    bend = alpha * t * inside * (f + df * q * cost)
    gained, lost = scale * _of_others(bend), bend * ratio * (1 if from_logits else scale)
    digits = BY_LOG if from_logits or gamma else BY_FLOAT64
    return Exact(_sum(alpha * t * f * cost), gained - lost, 0.0, digits * (gained + lost))


def _generalized(t: Array, p: Array, q: float) -> Exact:
    x = _sum(t * p)
    return Exact(-_expm1(q * _log(x)) / q, -t * np.where(x == 0, EPS, x) ** (q - 1))


def _divergence(t: Array, p: Array) -> Exact:
    a, b = np.clip(t, EPS, 1.0), np.clip(p, EPS, 1.0)
    terms = -a * _log_ratio(b, a)
    return Exact(_sum(terms), np.where(b == p, -a / b, 0))


def _dice(t: Array, p: Array, axis: int = -1) -> Exact:
    union = _sum(t) + _sum(p) + EPS
    common = _sum(t * p)
    return Exact((_sum(t * (1 - p) + p * (1 - t)) + EPS) / union, 2 * (common / union - t) / union)


def _tversky(t: Array, p: Array, alpha: float = 0.5, beta: float = 0.5, axis: int = -1) -> Exact:
    common, cost = _sum(t * p), alpha * _sum(t * (1 - p)) + beta * _sum(p * (1 - t)) + EPS
    whole = common + cost
    return Exact(cost / whole, (common * (t * (1.0 - alpha) + beta * (1 - t)) - t * whole) / whole**2)


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + _log1p(_exp(-abs(x)))


def _log_sum_exp(x: Array, take: Array) -> tuple[Array, Array]:
    """log sum exp of what is taken of each row, and the share of each element in the sum; -inf and 0 where nothing is."""
    x = np.where(take, x, -math.inf)
    m = np.max(x, axis=-1, keepdims=True)
    e = np.where(take, _exp(np.where(take, x - m, 0)), 0)
    total = np.where(np.any(take, axis=-1, keepdims=True), _sum(e), 1)
    return m + _log(total), e / total


def _circle(labels: Array, p: Array, gamma: float = 80.0, margin: float = 0.4) -> Exact:
    s = p @ p.T
    d = np.maximum(1 - s, 0)
    same = labels[:, None] == labels[None, :]
    near, near_share = _log_sum_exp(gamma * (d * d - margin**2), same & ~np.eye(len(labels), dtype=bool))
    far, far_share = _log_sum_exp(gamma * np.maximum(1 + margin - d, 0) * (1 - margin - d), ~same)
    x = near + far
    outer = 2 * gamma / (1 + _exp(-x))
    by_s = outer * (far_share * np.where(d < 1 + margin, 1 - d, 0) - near_share * d) * _step(1 - s)
    rounding = BY_LOG * abs(by_s) + BY_FLOAT64 * outer * (near_share + far_share)  # the latter of s, where 1 - s is small
    both = by_s + by_s.T
    slack = np.max((rounding + rounding.T) @ abs(p), axis=-1, keepdims=True)
    return Exact(_softplus(x), both @ p, 0.0, slack)


def _alignments(log_p: Array, path: Array) -> Array:
    """log of the probability of all ways to be at each place of the path after each frame; log_p (m, frames, places)."""
    m, _, places = log_p.shape
    skips = np.zeros((m, places), bool)
    skips[:, 2:] = path[:, 2:] != path[:, :-2]
    out = np.full_like(log_p, -math.inf)
    out[:, 0, :2] = log_p[:, 0, :2]
    for i in range(1, log_p.shape[1]):
        at = out[:, i - 1]
        step, skip = np.full_like(at, -math.inf), np.full_like(at, -math.inf)
        step[:, 1:], skip[:, 2:] = at[:, :-1], at[:, :-2]
        out[:, i] = np.logaddexp(np.logaddexp(at, step), np.where(skips, skip, -math.inf)) + log_p[:, i]
    return out


def _ctc(labels: Array, logits: Array) -> Exact:
    m, frames, classes = logits.shape
    path = np.zeros((m, 2 * labels.shape[1] + 1), int)
    path[:, 1::2] = labels
    d = logits - np.max(logits, axis=-1, keepdims=True)
    q = _exp(d) / _sum(_exp(d))
    first = np.argmax(d, axis=-1, keepdims=True)
    log_q = d - _log1p(_sum(np.where(np.arange(classes) == first, 0, _exp(d))))
    log_p = np.take_along_axis(log_q, np.broadcast_to(path[:, None], (m, frames, path.shape[1])), -1)
    forward = _alignments(log_p, path)
    backward = _alignments(log_p[:, ::-1, ::-1], path[:, ::-1])[:, ::-1, ::-1]
    total = np.logaddexp(forward[:, -1, -1], forward[:, -1, -2])[:, None, None]
    possible = total > -math.inf
    here = np.where(possible, _exp(np.where(possible, forward + backward - log_p - total, 0)), 0)
    there = np.stack([np.sum(here * (path[:, None] == k), axis=-1) for k in range(classes)], axis=-1)
    gradient = np.where(possible, q - there, 0).reshape(m, -1)
    terms = np.sum(np.max(abs(log_q), axis=-1), axis=-1, keepdims=True)
    return Exact(-total[:, :, 0], gradient, BY_FLOAT64 * terms, BY_FLOAT64 * (1 + terms))


# Why a loss's bound has a slack, and which.
LOG_TERMS = "values that are differences of a logarithm of 35 bits: 2^-34 of the terms"
PRODUCTS = "sums of products of both signs: 2^-47 of the terms"
FITTED = "slopes near 0 where p fits a soft target: 2^-34 (2^-47 without logarithms) of the terms"

EXACT_LOSSES: dict[str, tuple[Callable[..., Exact], str]] = {
    "mean_squared_error": (_squared_error, ""),
    "mean_absolute_error": (_absolute_error, ""),
    "mean_absolute_percentage_error": (_percentage_error, ""),
    "mean_squared_logarithmic_error": (_squared_log_error, ""),
    "huber": (_huber, ""),
    "log_cosh": (_log_cosh, ""),
    "poisson": (_poisson, LOG_TERMS),
    "cosine_similarity": (partial(_cosine, sign=-1), PRODUCTS),
    "pearson_correlation": (_pearson, PRODUCTS),
    "concordance_correlation": (_concordance, PRODUCTS),
    "hinge": (_hinge, ""),
    "squared_hinge": (_squared_hinge, ""),
    "categorical_hinge": (_categorical_hinge, ""),
    "binary_crossentropy": (_binary_entropy, FITTED),
    "binary_focal_crossentropy": (_binary_focal, FITTED),
    "categorical_crossentropy": (_cross_entropy, FITTED),
    "sparse_categorical_crossentropy": (_cross_entropy, ""),
    "categorical_focal_crossentropy": (_focal, FITTED),
    "categorical_generalized_cross_entropy": (_generalized, ""),
    "kl_divergence": (_divergence, ""),
    "dice": (_dice, ""),
    "tversky": (_tversky, ""),
    "circle": (_circle, "slopes that are sums over pairs, of both signs: 2^-34 of the terms, 2^-47 of the similarities'"),
    "ctc": (_ctc, "sums of probabilities near 1: 2^-47 of the frames' largest costs"),
}
LOSS_CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("mean_squared_error", {}),
    ("mean_absolute_error", {}),
    ("mean_absolute_percentage_error", {}),
    ("mean_squared_logarithmic_error", {}),
    ("huber", {}),
    ("log_cosh", {}),
    ("poisson", {}),
    ("cosine_similarity", {}),
    ("pearson_correlation", {}),
    ("concordance_correlation", {}),
    ("hinge", {}),
    ("squared_hinge", {}),
    ("categorical_hinge", {}),
    ("binary_crossentropy", {}),
    ("binary_crossentropy", {"label_smoothing": 0.1}),
    ("binary_crossentropy", {"from_logits": True}),
    ("binary_focal_crossentropy", {}),
    ("binary_focal_crossentropy", {"gamma": 0.5}),
    ("binary_focal_crossentropy", {"from_logits": True}),
    ("categorical_crossentropy", {}),
    ("categorical_crossentropy", {"label_smoothing": 0.1}),
    ("categorical_crossentropy", {"from_logits": True}),
    ("categorical_crossentropy", {"from_logits": True, "label_smoothing": 0.1}),
    ("sparse_categorical_crossentropy", {}),
    ("sparse_categorical_crossentropy", {"from_logits": True}),
    ("categorical_focal_crossentropy", {}),
    ("categorical_focal_crossentropy", {"from_logits": True}),
    ("categorical_focal_crossentropy", {"gamma": 1.5, "from_logits": True}),
    ("categorical_generalized_cross_entropy", {"q": 0.7}),
    ("kl_divergence", {}),
    ("dice", {"axis": -1}),
    ("tversky", {"axis": -1, "alpha": 0.3, "beta": 0.7}),
    ("circle", {}),
    ("ctc", {}),
)

# What a textbook, and Keras, writes for float32.
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


def _entry(name: str) -> Entry:
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
    entry = _entry(name)
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


def _ulp(x: Any) -> Array:
    """The distance of neighbours in float32 at x."""
    _, exponent = np.frexp(np.asarray(x, np.float64))
    return np.ldexp(np.float64(1), np.maximum(exponent - 24, -149))


def _ulps(got: Array, exact: Array, unit: Array, slack: Any = 0.0) -> Array:
    """|got - exact|, less the slack, in units; 0 for the same infinity or NaN, infinite for a wrong one."""
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float32)
    error = np.maximum(abs(got - exact) - slack, 0) / unit
    same = (got == rounded) | np.isnan(got) & np.isnan(rounded)
    finite = np.isfinite(got) & np.isfinite(rounded)
    return np.where(finite, error, np.where(same, 0, math.inf)).astype(np.float64)


@dataclass
class Worst:
    """Errors of values or gradients: the largest in ULP of float32, where; shares of the points beyond some; and all less the slack."""

    points: int = 0
    max_ulp: float = 0.0
    at: str = ""
    beyond_half: int = 0
    beyond_one: int = 0
    max_bounded: float = 0.0
    bounded_beyond_one: int = 0

    def add(self, kind: str, ulps: Array, bounded: Array) -> None:
        self.points += ulps.size
        if ulps.size and (worst := float(np.max(ulps))) > self.max_ulp:
            self.max_ulp, self.at = worst, kind
        self.beyond_half += int(np.count_nonzero(ulps > HALF))
        self.beyond_one += int(np.count_nonzero(ulps > FEW_BOUND))
        self.max_bounded = max(self.max_bounded, float(np.max(bounded, initial=0.0)))
        self.bounded_beyond_one += int(np.count_nonzero(bounded > FEW_BOUND))


@dataclass
class RowErrors:
    """Errors of one loss on hard rows: ours, the derivative's relative to its row's largest, NumPy's textbook form and torch's."""

    values: Worst
    gradients: Worst
    numpy: Worst
    torch: Worst

    def kept(self) -> bool:
        few = self.values.bounded_beyond_one <= FEW * self.values.points
        return few and self.values.max_bounded <= ROWS_BOUND and self.gradients.max_bounded <= GRADIENT_BOUND


class NotEnoughDigits(ArithmeticError):
    """Long double is not exact enough to be compared with."""


def exact_rows(name: str, options: dict[str, Any], t: Array, p: Array) -> Exact:
    """The exact values and gradients, in long double, of rows as a call takes them; gradients as (m, n)."""
    formula = EXACT_LOSSES[name][0]
    if _entry(name).shape == "own":
        return formula(t, p.astype(np.longdouble), **options)
    if t.ndim < p.ndim:
        t = np.arange(p.shape[-1]) == t[:, None]
    m, n = p.shape
    out = Exact(*(np.empty((m, k), np.longdouble) for k in (1, n, 1, n)))
    step = max(1, (1 << 14) // n)  # elements that stay in the caches
    for lo in range(0, m, step):
        part = formula(*(x[lo : lo + step].astype(np.longdouble) for x in (t, p)), **options)
        for field, x in vars(part).items():
            getattr(out, field)[lo : lo + step] = x
    return out


def check_exact_rows(name: str, options: dict[str, Any], t: Array, p: Array, exact: Exact) -> None:
    """NotEnoughDigits unless mpmath, by the same formula, finds the same for the first and last row to 2^-10 of an ULP of float32."""
    if t.ndim < p.ndim:
        t = np.arange(p.shape[-1]) == t[:, None]
    rows = [i for i in (0, len(p) - 1) if np.isfinite(exact.value[i]).all()]
    if not rows:
        return
    number = np.frompyfunc(lambda x: mpmath.mpf(float(x)), 1, 1)
    with mp.workdps(90):
        precise = EXACT_LOSSES[name][0](number(t[rows]), number(p[rows]), **options)
        largest = np.max(abs(exact.gradient[rows]), axis=-1, keepdims=True)
        for got, wanted, unit in ((exact.value, precise.value, _ulp(exact.value[rows])), (exact.gradient, precise.gradient, _ulp(largest))):
            high = got[rows].astype(np.float64)  # mpmath does not know long double: it comes in two parts
            low = (got[rows] - high).astype(np.float64)
            error = np.max(abs(number(high) + number(low) - wanted) / unit)
            if error > 2.0**-10:
                raise NotEnoughDigits(f"{name}, {options}: long double is {float(error)} ULP of float32 off at {t[rows]}, {p[rows]}")


def _torch_rows(name: str, options: dict[str, Any]) -> Callable[..., Array] | None:
    """torch's own function, or its formula of the peer benchmark, where there is one."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    if set(options) - {"from_logits"}:
        return None
    F = torch.nn.functional
    own: formulas.Formulas = {
        "mean_absolute_error": (lambda t, p: F.l1_loss(p, t, reduction="none").mean(-1),),
        "poisson": (lambda t, p: F.poisson_nll_loss(p, t, log_input=False, eps=EPS, reduction="none").mean(-1),),
    }
    ways = (own | formulas.torch_formulas()).get(name + (" from logits" if options.get("from_logits") else ""))
    return ways and (lambda t, p: ways[0](torch.from_numpy(t), torch.from_numpy(p)).numpy())


def row_errors(name: str, options: dict[str, Any], lengths: Sequence[int] = LENGTHS, rows: int = 100_000, peers: bool = True,
               backend: str = "numba") -> RowErrors:  # fmt: skip
    """Errors of a backend over about `rows` hard rows in all, of these lengths: the longer, the fewer."""
    function, own = _entry(name).function, _entry(name).shape == "own"
    textbook, torch_formula = (TEXTBOOK.get(name), _torch_rows(name, options)) if peers else (None, None)
    errors = RowErrors(Worst(), Worst(), Worst(), Worst())
    share = sum(n**-0.5 for n in lengths)
    with np.errstate(all="ignore"), lossfuncs.backend(backend):
        for n in lengths:
            for kind, t, p in hard_rows(name, options, math.ceil(rows * n**-0.5 / share), n, np.random.default_rng([n, rows])):
                exact, at = exact_rows(name, options, t, p), f"{kind}, n = {n}"
                if not own and n <= 16:
                    check_exact_rows(name, options, t, p, exact)
                wanted, slack = (np.broadcast_to(x, exact.value.shape)[:, 0] for x in (exact.value, exact.slack))
                unit = _ulp(wanted)

                def add(to: Worst, got: Array) -> None:
                    to.add(at, _ulps(got, wanted, unit), _ulps(got, wanted, unit, slack))  # noqa: B023

                add(errors.values, function(t, p, **options))
                value, gradient = lossfuncs.value_and_grad(function, t, p, **options)
                add(errors.values, value)
                gradient = gradient.reshape(exact.gradient.shape)
                unit_of_row = _ulp(np.max(abs(exact.gradient), axis=-1, keepdims=True))
                bounded = _ulps(gradient, exact.gradient, unit_of_row, exact.gradient_slack)
                errors.gradients.add(at, _ulps(gradient, exact.gradient, unit_of_row), bounded)
                if textbook:
                    one_hot = (np.arange(p.shape[-1]) == t[:, None]).astype(np.float32) if t.ndim < p.ndim else t
                    add(errors.numpy, textbook(one_hot, p, **options))
                if torch_formula:
                    add(errors.torch, torch_formula(t, p))
    return errors


def losses(rows: int = 100_000, cases: Sequence[tuple[str, dict[str, Any]]] = LOSS_CASES) -> bool:
    """Prints the table of losses; whether all kept their bounds."""
    lengths = ", ".join(map(str, LENGTHS))
    print(f"\nfloat32, losses: {rows} hard rows each, of lengths {lengths}; errors in ULP, of slopes in ULP of the row's largest")
    if np.finfo(np.longdouble).nmant < 63:
        print("not measured: this needs a long double of 64 bits, which there is not on this platform")
        return False
    print("exact: long double, by formulas that lose no digits; on two rows of each kind 90 digits of mpmath agree (but circle, ctc)")
    print("'net' is what is left of an error beyond the slack that is named: the bounds are on it")
    columns = "".join(f"{title:>9s}" for title in ("max ULP", "> 1", "> 0.501", "slope", "numpy", "> 1", "torch", "> 1"))
    print(f"{'':57s}{columns}   worst at")
    good = True
    for name, options in cases:
        e = row_errors(name, options, rows=rows)
        value, slope = e.values, e.gradients
        title = " ".join([name, *(key if x is True else f"{key}={x}" for key, x in options.items() if key != "axis")])
        peers = "".join(f"{x.max_ulp:9.2g}{x.beyond_one / x.points:9.1e}" if x.points else f"{'':18s}" for x in (e.numpy, e.torch))
        shares = f"{value.beyond_one / value.points:9.1e}{value.beyond_half / value.points:9.1e}"
        print(f"{title:57s}{value.max_ulp:9.3g}{shares}{slope.max_ulp:9.3g}{peers}   {value.at}; {slope.at}", flush=True)
        within = value.beyond_one <= FEW * value.points and value.max_ulp <= ROWS_BOUND and slope.max_ulp <= GRADIENT_BOUND
        if not within and (reason := EXACT_LOSSES[name][1]):
            share = f"{value.bounded_beyond_one / value.points:9.1e}{'':9s}"
            print(f"{'    net':57s}{value.max_bounded:9.3g}{share}{slope.max_bounded:9.3g}   {reason}")
        if not e.kept():
            print(f"{'':57s}BROKEN: {FEW_BOUND:g} ULP for all but {FEW:.2%}, {ROWS_BOUND:g} for all, slopes {GRADIENT_BOUND:g}")
            good = False
    return good


# Means.

MEAN_BOUND = 1e-15  # relative
GRID = 1 << 24  # the numbers are multiples of 2^-24, so that squares of differences are whole numbers of 2^-48


def mean_error(count: int, peers: bool = True) -> dict[str, float]:
    """Relative errors of the mean of `count` float32 squared errors, against whole-number arithmetic."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    with tempfile.TemporaryDirectory() as folder:

        def array(name: str) -> Array:
            if 16 * count < free:  # two arrays, what a peer needs, and room for others
                return np.empty(count, np.float32)
            return np.memmap(Path(folder) / name, np.float32, "w+", shape=(count,))

        t, p = array("y_true"), array("y_pred")
        total, step = 0, 1 << 20
        for lo in range(0, count, step):
            k = np.random.default_rng(lo).integers(0, GRID, (2, min(step, count - lo)), np.int32)
            t[lo : lo + step], p[lo : lo + step] = k.astype(np.float32) / np.float32(GRID)
            d = (k[1] - k[0]).astype(np.int64)
            total += sum(np.add.reduceat(d * d, np.arange(0, d.size, 1 << 14)).tolist())
        exact = Fraction(total, count) / GRID**2
        found = {"lossfuncs": lossfuncs.losses.mean_squared_error(t, p, reduction="mean")}
        if peers:
            e = np.subtract(p, t, out=array("error"))
            found["numpy"] = np.mean(np.square(e, out=e))
            del e
            try:
                import torch

                found["torch"] = torch.nn.functional.mse_loss(torch.from_numpy(p), torch.from_numpy(t)).item()
            except ImportError:
                pass
        return {key: float(abs(Fraction(float(value)) / exact - 1)) for key, value in found.items()}


def means(count: int) -> bool:
    """Prints the errors of the mean; whether ours is within MEAN_BOUND."""
    print(f"\nmean squared error of {count} float32 pairs: relative errors against whole-number arithmetic")
    errors = mean_error(count)
    print("   ".join(f"{name} {error:.2g}" for name, error in errors.items()), flush=True)
    return errors["lossfuncs"] <= MEAN_BOUND


def _main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m bench.accuracy", description="How far lossfuncs is from the exact values.")
    sections = ("functions", "losses", "means")
    parser.add_argument("--sections", nargs="+", choices=sections, default=sections, metavar="NAME", help=f"of {', '.join(sections)}")
    parser.add_argument("--exhaustive", action="store_true", help="functions: all 2^32 float32 inputs instead of one block in 64")
    parser.add_argument("--points", type=int, default=20_000, help="functions: float64 points each (default: 20000)")
    parser.add_argument("--only", nargs="+", choices=[*UNARY, "pow"], default=[*UNARY, "pow"], metavar="NAME", help="which functions")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="functions: threads or processes at once")
    parser.add_argument("--derive", action="store_true", help="fit the polynomials again instead")
    parser.add_argument("--rows", type=int, default=100_000, help="losses: rows each (default: 100000)")
    parser.add_argument("--mean", type=int, default=100_000_000, help="means: how many numbers (default: 100000000)")
    options = parser.parse_args(arguments)
    if min(options.points, options.rows, options.mean) < 1:
        parser.error("--points, --rows and --mean must be at least 1")
    if options.derive:
        derive()
        return 0
    good = True
    if "functions" in options.sections:
        good &= single_precision(options.only, 1 if options.exhaustive else 64, options.workers)
        good &= double_precision(options.only, options.points, options.workers)
    if "losses" in options.sections:
        good &= losses(options.rows)
    if "means" in options.sections:
        good &= means(options.mean)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(_main())
