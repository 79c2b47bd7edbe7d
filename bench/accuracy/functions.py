"""`lossfuncs.vectormath`: SINGLE against NumPy's float64 on float32 numbers, DOUBLE against mpmath on float64 ones that are hard."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

import mpmath
import numba
import numpy as np
from mpmath import mp

from lossfuncs import target, vectormath

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
    compiled: Callable[..., None] = target.jit(kernel, nogil=True, error_model="numpy")
    compiled.compile(signature)  # type: ignore[attr-defined]
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
