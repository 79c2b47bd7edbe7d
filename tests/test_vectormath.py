"""The elementary functions keep their bounds, treat specials as IEEE says, vectorise, and give the same bits on every CPU."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
import pytest
from mpmath import mp
from numba.core.errors import TypingError

from bench.accuracy import functions, polynomials
from lossfuncs import lanes, vectormath
from lossfuncs.vectormath import DOUBLE, SINGLE

INF, NAN = math.inf, math.nan
TIERS = {"SINGLE": SINGLE, "DOUBLE": DOUBLE}
LIBM = {"exp", "log", "log1p", "expm1", "tanh", "pow", "cosh", "sqrt", "fma", "fmax", "fmin", "ldexp"}


def evaluate(function: Any, *arguments: Any) -> np.ndarray[Any, Any]:
    columns = [np.array(np.broadcast_to(a, np.broadcast(*arguments).shape), np.float64, ndmin=1) for a in arguments]
    out = np.empty_like(columns[0])
    functions.mapped(function, *["f8"] * (len(columns) + 1))(*columns, out)
    return out


def same(got: np.ndarray[Any, Any], want: Any) -> bool:
    """Equal, NaN to NaN, and zeros of one sign."""
    want = np.asarray(want, np.float64)
    return bool(np.array_equal(got, want, equal_nan=True) and np.array_equal(np.signbit(got[got == 0]), np.signbit(want[want == 0])))


@pytest.mark.parametrize("name", [*functions.UNARY, "pow"])
def test_single_is_within_half_an_ulp_and_a_hair_of_float32(name: str) -> None:
    error = functions.single_errors(name, share=512, workers=2, peers=False)["lossfuncs"]
    assert error.points == 1 << 23
    assert error.max_ulp <= 0.501, f"{error.max_ulp} ULP at {error.at}"
    assert error.wrong_specials == 0


@pytest.mark.parametrize("name", [*functions.UNARY, "pow"])
def test_double_is_within_one_ulp_of_mpmath(name: str) -> None:
    arguments = functions.hard_points(name, 2000, seed=7)
    worst, at = functions.double_error(name, evaluate(DOUBLE[name], *arguments), *arguments)
    assert worst < 1.0, f"{worst} ULP at {at}"


@pytest.mark.parametrize(("exps", "tier", "slack"), [(vectormath.exps_single, SINGLE, 2.0**-38), (vectormath.exps_double, DOUBLE, 0.0)])
def test_sixty_four_exponentials_at_once_are_those_of_one(exps: Any, tier: dict[str, Any], slack: float) -> None:
    pointer, at = lanes.pointer, lanes.at

    def kernel(x: Any, out: Any, begin: int) -> None:
        for i in range(begin, x.size, 64):
            exps(at(pointer(x), i), at(pointer(out), i))

    array = numba.types.Array(numba.float64, 1, "C")
    blocks = numba.njit(numba.void(array, array, numba.int64))(kernel)
    raw = np.empty((2, 64 * 1000 + 8))
    x, out = (row[-row.ctypes.data % 64 // 8 :][: 64 * 1000] for row in raw)  # blocks are aligned to 64 bytes
    x[:] = np.linspace(0.0, -800.0, x.size)
    x[64:128:9] = -INF
    x[128:192:7] = NAN
    blocks(x, out, 0)
    one = evaluate(tier["exp_nonpositive"], x)
    nothing = np.isnan(one) | (x < -vectormath.BIAS * vectormath.LN2 if tier is SINGLE else one == 0)
    assert same(np.where(nothing, out, 0.0), np.where(nothing, one, 0.0))
    assert np.all(out[x < -708.5] < 2.0**-1021)
    ordinary = one > (2.0**-1021 if tier is SINGLE else 0)
    assert np.all(np.abs(out - one)[ordinary] <= slack * one[ordinary])


@pytest.mark.parametrize("name", [*functions.UNARY, "pow"])
def test_single_keeps_its_relative_error_for_any_float64(name: str) -> None:
    arguments = functions.hard_points(name, 20_000, seed=8)
    single, double = evaluate(SINGLE[name], *arguments), evaluate(DOUBLE[name], *arguments)
    if name in ("log", "pow"):  # subnormal arguments count as 0
        normal = arguments[0] >= 2.0**-1022
        single, double = single[normal], double[normal]
    normal = (np.abs(double) >= 2.0**-1021.5) & np.isfinite(double)
    assert normal.sum() > 8_000
    assert np.abs(single[normal] / double[normal] - 1).max() <= 2.0 ** (-30 if name == "pow" else -34.9)
    assert np.array_equal(np.isinf(single), np.isinf(double))
    assert np.all(np.abs(single[np.abs(double) < 2.0**-1022]) <= 2.0**-1021)


def test_the_measure_sees_wrong_bits_and_wrong_specials() -> None:
    exact = np.array([1.0, 1.5, 0.0, -0.0, INF, NAN, 1e39, 3e-46])
    right = np.float32([1.0, 1.5, 0.0, -0.0, INF, NAN, INF, 0.0])
    errors = functions.Errors()
    errors.add(right, exact, right)
    assert (errors.max_ulp, errors.wrong_specials, errors.misrounded) == (0.0, 0, 0)
    wrong = np.float32([np.nextafter(np.float32(1), np.float32(2)), 1.5, -0.0, 0.0, -INF, 1.0, 3.4e38, -0.0])
    errors.add(wrong, exact, wrong)
    assert (errors.max_ulp, errors.wrong_specials, errors.misrounded) == (1.0, 6, 1)


@pytest.mark.parametrize("name", polynomials.fits())
def test_polynomials_are_as_close_as_stated(name: str) -> None:
    with mp.workprec(300):
        fit = polynomials.fits()[name]
        error = polynomials.weighted_error(fit, [mp.mpf(c) for c in getattr(vectormath, name)], 300)
    assert math.log2(error) <= fit.log2_error


SPECIALS = {
    "exp": [(0.0, 1), (-0.0, 1), (INF, INF), (-INF, 0), (NAN, NAN), (710.0, INF), (1e308, INF), (-1e308, 0), (-746.0, 0), (5e-324, 1)],
    "log": [(0.0, -INF), (-0.0, -INF), (1.0, 0), (INF, INF), (-INF, NAN), (NAN, NAN), (-1.0, NAN), (-5e-300, NAN)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, NAN), (NAN, NAN), (-1.0, -INF), (-2.0, NAN), (-1.0000000000000002, NAN)],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -1), (NAN, NAN), (710.0, INF), (-1e308, -1)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (INF, 1), (-INF, -1), (NAN, NAN), (1e308, 1), (-30.0, -1)],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (INF, 1), (-INF, 0), (NAN, NAN), (1e308, 1), (-1e308, 0), (50.0, 1)],
    "softplus": [(INF, INF), (-INF, 0), (NAN, NAN), (1e308, 1e308), (-1e308, 0), (50.0, 50.0)],
    "log_cosh": [(0.0, 0), (-0.0, 0), (INF, INF), (-INF, INF), (NAN, NAN), (1e308, 1e308), (-1e308, 1e308), (1e-200, 0)],
    "sqrt": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-1.0, NAN), (NAN, NAN), (4.0, 2)],
    "fabs": [(-0.0, 0.0), (-INF, INF), (NAN, NAN), (-3.0, 3)],
}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("name", SPECIALS)
def test_special_values(tier: str, name: str) -> None:
    arguments, want = (list(column) for column in zip(*SPECIALS[name], strict=True))
    got = evaluate(TIERS[tier][name], arguments)
    assert same(got, want), list(zip(SPECIALS[name], got, strict=True))


@pytest.mark.parametrize("tier", TIERS)
def test_pow_special_values(tier: str) -> None:
    table = [
        (0.0, 0.0, 1), (0.0, 2.5, 0), (0.0, -1.5, INF), (0.0, INF, 0), (0.0, -INF, INF), (INF, 2.0, INF), (INF, -2.0, 0), (INF, 0.0, 1),
        (1.0, NAN, 1), (1.0, INF, 1), (1.0, -INF, 1), (NAN, 0.0, 1), (NAN, 2.0, NAN), (2.0, NAN, NAN), (2.0, INF, INF), (2.0, -INF, 0),
        (0.5, INF, 0), (0.5, -INF, INF), (-2.0, 0.5, NAN), (-2.0, 0.0, 1), (2.0, 1e308, INF), (2.0, -1e308, 0), (1e300, 1e300, INF),
        (2.0, 10.0, 1024), (2.0, -1.0, 0.5), (1e-300, 2.0, 0),
        (-2.0, 2.0, 4), (-2.0, 3.0, -8), (-2.0, -1.0, -0.5), (-1.0, 1e300, 1), (-1.0, INF, 1), (-2.0, -INF, 0), (-2.0, 2.0**53, INF),
        (-0.0, 3.0, -0.0), (-0.0, 2.0, 0), (-0.0, 0.5, 0), (-0.0, -3.0, -INF), (-0.0, -0.5, INF), (-1e-300, 3.0, -0.0),
        (-INF, 3.0, -INF), (-INF, 2.0, INF), (-INF, -3.0, -0.0), (-INF, 0.5, INF), (-INF, -0.5, 0), (-INF, NAN, NAN), (-2.0, NAN, NAN),
    ]  # fmt: skip
    x, y, want = (list(column) for column in zip(*table, strict=True))
    got = evaluate(TIERS[tier]["pow"], x, y)
    assert same(got, want), list(zip(table, got, strict=True))


@pytest.mark.parametrize(("tier", "bound"), [("SINGLE", 2.0**-35), ("DOUBLE", 2.0**-51)])
def test_relative_entropy_keeps_the_digits_of_nearly_equal_numbers(tier: str, bound: float) -> None:
    rng = np.random.default_rng(0)
    a = np.exp(rng.uniform(np.log(1e-7), 0.0, 3000))
    near = a * (1.0 + rng.choice([-1.0, 1.0], a.size) * np.exp2(rng.uniform(-50.0, 1.5, a.size)))
    edges = np.array([1.0, 0.5, 2.0 / 3.0, 0.75, 1e-7])
    b = np.concatenate([np.abs(near[:1500]) + 1e-12, np.exp(rng.uniform(np.log(1e-7), 0.0, 1500)), a, edges])
    a = np.concatenate([a, a, edges[::-1]])
    got = evaluate(TIERS[tier]["rel_entr"], a, b)
    with mp.workdps(40):
        want = [mp.mpf(x) * mp.log(mp.mpf(x) / mp.mpf(y)) for x, y in zip(a, b, strict=True)]
        assert max(abs(g - w) / abs(w) if w else abs(g) for g, w in zip(got, want, strict=True)) < bound
    assert np.isnan(evaluate(TIERS[tier]["rel_entr"], [NAN, 1.0], [1.0, NAN])).all()


def test_double_overflows_and_underflows_where_the_exact_values_do() -> None:
    last, first_inf = 709.782712893384, 709.7827128933841
    got = evaluate(DOUBLE["exp"], [last, first_inf, -745.1332191019411, -745.1332191019412])
    assert got[0] == pytest.approx(1.797693134862273e308, rel=1e-15) and got[1:].tolist() == [INF, 5e-324, 0.0]
    assert evaluate(DOUBLE["expm1"], [last, first_inf])[1] == INF
    assert evaluate(DOUBLE["log"], [5e-324]) == pytest.approx(-744.4400719213812, rel=1e-16)
    tiny = [5e-324, -5e-324, 3e-310]
    for name in ("log1p", "expm1", "tanh"):
        assert same(evaluate(DOUBLE[name], tiny), tiny), name
    assert evaluate(DOUBLE["log_cosh"], [1e-160, 3e-162]).tolist() == [5e-321, 5e-324]


NASTY = np.array([0.0, -0.0, 1.0, -1.0, 2.5, INF, -INF, NAN, 5e-324, -5e-324, 1e308])


def test_maximum_minimum_keep_nan_from_either_side_and_order_zeros() -> None:
    a, b = (grid.ravel() for grid in np.meshgrid(NASTY, NASTY))

    def ordered(x: float, y: float, largest: bool) -> float:
        if math.isnan(x) or math.isnan(y):
            return NAN
        key = lambda v: (v, math.copysign(1, v))  # noqa: E731
        return max(x, y, key=key) if largest else min(x, y, key=key)

    for name, largest in (("maximum", True), ("minimum", False)):
        assert same(evaluate(SINGLE[name], a, b), [ordered(x, y, largest) for x, y in zip(a, b, strict=True)]), name


def test_copysign_and_where_choose_as_numpy() -> None:
    a, b = (grid.ravel() for grid in np.meshgrid(NASTY, NASTY))
    assert same(evaluate(SINGLE["copysign"], a, b), np.copysign(a, b))
    where = SINGLE["where"]

    @numba.njit
    def choose(x: Any, y: Any, out: Any) -> None:
        for i in range(x.size):
            out[i] = where(x[i] > y[i], x[i], -1)

    out = np.empty_like(a)
    choose(a, b, out)
    assert same(out, np.where(a > b, a, -1))


def test_other_numbers_are_widened_first() -> None:
    exp = SINGLE["exp"]

    @numba.njit
    def call(x: Any) -> Any:
        return exp(x)

    third = np.float32(1) / np.float32(3)
    assert call(third) == call(np.float64(third)) != call(1 / 3)
    assert call(3) == call(3.0)


def test_a_wrong_argument_is_named() -> None:
    exp, where = SINGLE["exp"], SINGLE["where"]
    with pytest.raises(TypingError, match=r"SINGLE\.exp: argument x must be a float64, got complex128"):
        numba.njit(lambda z: exp(z))(1j)
    with pytest.raises(TypingError, match=r"where: argument condition must be a bool, got float64"):
        numba.njit(lambda z: where(z, z, z))(1.0)
    with pytest.raises(TypingError, match=r"load_half: argument bits must be a uint16, got int64"):
        load = vectormath.load_half
        numba.njit(lambda bits: load(bits))(1)
    with pytest.raises(TypingError, match=r"SINGLE\.exp takes 1 arguments \(x\), got 2"):
        numba.njit(lambda z: exp(z, z))(1.0)


HALVES = {"half": (vectormath.load_half, vectormath.store_half), "bfloat16": (vectormath.load_bfloat16, vectormath.store_bfloat16)}
CODES = np.arange(1 << 16, dtype=np.uint16)


def half_values(kind: str) -> np.ndarray[Any, Any]:
    """The exact value of each of the 65536 codes."""
    if kind == "half":
        return CODES.view(np.float16).astype(np.float64)
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
        return (CODES.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def stored(kind: str, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    out = np.empty(x.size, np.uint16)
    functions.mapped(HALVES[kind][1], "f8", "u2")(np.ascontiguousarray(x), out)
    return out


@pytest.mark.parametrize("kind", HALVES)
def test_loading_a_half_is_exact_for_every_code(kind: str) -> None:
    out = np.empty(CODES.size)
    functions.mapped(HALVES[kind][0], "u2", "f8")(CODES, out)
    assert same(out, half_values(kind))


@pytest.mark.parametrize("kind", HALVES)
def test_storing_a_half_gives_back_every_code(kind: str) -> None:
    values = half_values(kind)
    out = stored(kind, values)
    nan = np.isnan(values)
    assert np.array_equal(out[~nan], CODES[~nan])
    assert np.isnan(values[out[nan]]).all() and np.array_equal(out[nan] >> 15, np.signbit(values[nan]))


@pytest.mark.parametrize("kind", HALVES)
def test_storing_a_half_rounds_float64_once_to_nearest_even(kind: str) -> None:
    """Against a search among the exact values: codes ascend with the value, so that a tie goes to the even code."""
    values = half_values(kind)
    infinity = int(np.flatnonzero(values == INF)[0])
    ladder = values[:infinity]
    # the step beyond the largest finite value counts as the one before it: half of it is where infinity begins
    middles = ladder + np.diff(ladder, append=2 * ladder[-1] - ladder[-2]) / 2
    rng = np.random.default_rng(3)
    x = np.concatenate(
        [
            middles,
            np.nextafter(middles, INF),
            np.nextafter(middles, 0),
            middles * (1 + 2.0**-30 * rng.standard_normal(middles.size)),  # float32 cannot tell these from ties
            np.exp2(rng.uniform(-150, 140, 100_000)),
            rng.integers(0, 0x7FF0 << 48, 100_000).view(np.float64),
            [0.0, 5e-324, 1.7e308, INF],
        ]
    )
    below = np.searchsorted(middles, x, side="left")
    tie = np.append(middles, NAN)[below] == x
    want = (below + (tie & (below % 2 == 1))).astype(np.uint16)
    assert np.array_equal(stored(kind, x), want)
    assert np.array_equal(stored(kind, -x), want | 0x8000)


def fingerprints() -> dict[str, dict[str, Any]]:
    """For each function: a hash of its results, the widest register that computes, and the libm or compiler-rt functions it needs."""
    report = {}
    of_two = ("pow", "product", "log_of_sum", "rel_entr", "maximum", "minimum", "copysign")
    cases: dict[str, tuple[Any, tuple[str, ...]]] = {
        f"{tier} {name}": (function, ("f8",) * (3 if name in of_two else 2))
        for tier, functions in TIERS.items()
        for name, function in functions.items()
        if name not in ("where", "float") and (tier == "SINGLE" or function is not TIERS["SINGLE"][name])
    }
    for kind, (load, store) in HALVES.items():
        cases |= {f"load {kind}": (load, ("u2", "f8")), f"store {kind}": (store, ("f8", "u2"))}
    for key, (function, dtypes) in cases.items():
        kernel: Any = functions.mapped(function, *dtypes)
        arguments = [CODES] if dtypes[0] == "u2" else list(functions.hard_points(key.split()[1], 4000, seed=11))
        if len(dtypes) == 3 and len(arguments) == 1:
            arguments.append(-arguments[0][::-1].copy())
        if dtypes[0] == "f8":
            arguments = [np.concatenate([a, NASTY]) for a in arguments]
        out = np.empty(arguments[0].size, dtypes[-1])
        kernel(*arguments, out)
        if out.dtype == np.float64:
            out[np.isnan(out)] = NAN  # which NaN it is depends on the order of operands
        (assembly,) = kernel.inspect_asm().values()
        report[key] = {"hash": hashlib.sha256(out.tobytes()).hexdigest(), **widths_and_calls(assembly)}
    return report


def widths_and_calls(assembly: str) -> dict[str, Any]:
    registers = set(re.findall(r"^\s+v(?!mov|zero|insert|extract|perm)\w+\s.*%([xyz]mm)", assembly, re.M))
    names = set(re.findall(r"(?:call|jmp|mov)\w*\s+\$?\"?(\w+)", assembly))
    return {"registers": sorted(registers), "calls": sorted(name for name in names if name in LIBM or re.match(r"__\w+[shd]f", name))}


AVX512 = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
CPUS = {"nehalem": {"sse4.2"}, "haswell": {"avx2", "fma"}, "skylake-avx512": AVX512}


@pytest.fixture(scope="module")
def reports() -> dict[str, dict[str, dict[str, Any]]]:
    """`fingerprints()` as compiled for this machine and for each of CPUS that it can run."""
    here = Path(__file__).parent
    features = {name for name, present in llvm.get_host_cpu_features().items() if present}
    processes = {
        cpu: subprocess.Popen(
            [sys.executable, "-c", "import json, test_vectormath; print(json.dumps(test_vectormath.fingerprints()))"],
            env={key: value for key, value in os.environ.items() if key != "NUMBA_CPU_NAME"}
            | ({"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""} if cpu != "host" else {})
            | {"PYTHONPATH": os.pathsep.join([*map(str, (here.parent, here)), *filter(None, sys.path)])},
            stdout=subprocess.PIPE,
            text=True,
        )
        for cpu in ["host", *(cpu for cpu, needed in CPUS.items() if needed <= features)]
    }
    outputs = {cpu: process.communicate()[0] for cpu, process in processes.items()}
    assert all(process.returncode == 0 for process in processes.values())
    return {cpu: json.loads(output) for cpu, output in outputs.items()}


@pytest.mark.parametrize("cpu", CPUS)
def test_bits_are_the_same_on_every_cpu(cpu: str, reports: dict[str, dict[str, dict[str, Any]]]) -> None:
    if cpu not in reports:
        pytest.skip(f"this machine cannot run code for {cpu}")
    assert {key: value["hash"] for key, value in reports[cpu].items()} == {key: value["hash"] for key, value in reports["host"].items()}


@pytest.mark.parametrize(("cpu", "register"), [("haswell", "ymm"), ("skylake-avx512", "zmm"), ("host", None)])
def test_loops_are_vectorised_and_call_nothing(cpu: str, register: str | None, reports: dict[str, dict[str, dict[str, Any]]]) -> None:
    if cpu not in reports:
        pytest.skip(f"this machine cannot run code for {cpu}")
    if register is None:
        features = llvm.get_host_cpu_features()
        if not features.get("fma"):
            pytest.skip("this machine has no fused multiply-add")
        register = "zmm" if features.get("avx512f") else "ymm"
    for key, value in reports[cpu].items():
        assert value["calls"] == [], key
        assert register in value["registers"], key


def test_the_check_of_assembly_sees_a_scalar_call() -> None:
    (assembly,) = functions.mapped(numba.njit(lambda x: math.exp(x)), "f8", "f8").inspect_asm().values()  # type: ignore[attr-defined]
    report = widths_and_calls(assembly)
    assert report["calls"] == ["exp"] and not {"ymm", "zmm"} & set(report["registers"])


def test_no_half_needs_a_compiler_runtime_on_any_cpu(reports: dict[str, dict[str, dict[str, Any]]]) -> None:
    for cpu, report in reports.items():
        for kind in HALVES:
            assert report[f"load {kind}"]["calls"] == report[f"store {kind}"]["calls"] == [], cpu
