"""Scalar Python translated to C++: compiled for the CPU, it computes what the Python computes; what has no translation is named."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import math
import subprocess
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import CASES, Array, edges, inputs
from emulator.build import compiler

import lossfuncs
from lossfuncs import plain
from lossfuncs.call import RowsCall, complete
from lossfuncs.rows import Rows, mean_of, where
from lossfuncs.table import Entry
from lossfuncs.translate import TOTALS, Untranslatable, functor, source_node

KERNELS = next(p for p in (Path(lossfuncs.__file__).parent / "kernels", Path(lossfuncs.__file__).parent.parent / "kernels") if p.is_dir())

# For each function of a functor a loop over m elements: totals s (m, width), n of the row, t and p (m,), parameters a, results (m, count).
HARNESS = """
#include "accuracy.cuh"
#include "hinge.cuh"
#include "overlap.cuh"
#include "probabilistic.cuh"
#include "python.cuh"
#include "regression.cuh"
using namespace lossfuncs;
template <class T> void put(double* out, T x) { out[0] = x; }
template <class T, int K> void put(double* out, Numbers<T, K> x) { for (int i = 0; i < K; i++) out[i] = x[i]; }
#define LOOP(NAME, STRUCT, N, CALL) extern "C" void NAME(long m, const double* s, long width, double n, const double* t, \\
        const double* p, const double* a, double* out, long count) { \\
    auto f = with_parameters<STRUCT, N>(a); \\
    for (long i = 0; i < m; i++, s += width, out += count) put(out, CALL); }
"""


def compiled(text: str, cache: pytest.Cache) -> Any:
    """The shared library of C++ text, kept between runs."""
    headers = "".join(path.read_text() for path in sorted(KERNELS.glob("*.cuh")))
    library = cache.mkdir("translate") / f"{hashlib.blake2b((headers + text).encode(), digest_size=12).hexdigest()}.so"
    if not library.exists():
        apart = library.with_suffix(f".{id(text)}.{np.random.default_rng().integers(2**62)}")
        flags = ["-x", "c++", "-std=c++17", "-O0", "-ffp-contract=off", "-fPIC", "-shared", "-w", f"-I{KERNELS}", "-o", str(apart), "-"]
        done = subprocess.run([compiler(), *flags], input=text, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr[:4000]
        apart.replace(library)
    return ctypes.CDLL(str(library))


def loops(rows: Rows) -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """For each function of the rows: its name, how it is called in a loop, the Python function."""
    for k, one in enumerate(rows.passes):
        if one.op not in ("label", "larger", "earlier"):  # what a schedule does alone
            yield str(k), f"f.terms(At<{k}>(), s, {'' if one.op in ('dot', 'pick') else 't[i], '}p[i])", one.terms
    yield "value", "f.value(s, n)", rows.value
    for which, f, call in (("around", rows.around, "f.around(s, n)"), ("slope", rows.slope, "f.slope(f.around(s, n).x, t[i], p[i])"),
                           ("curve", rows.curve, "f.curve(f.around(s, n).x, t[i], p[i])")):  # fmt: skip
        if f is not None:
            yield which, call, f


def run(library: Any, name: str, s: Array, n: float, t: Array, p: Array, a: tuple[float, ...], count: int) -> Array:
    """The results of a loop, (m, count)."""
    s, t, p = (np.ascontiguousarray(x, np.float64) for x in (s, t, p))
    out = np.full((len(t), count), 99.0)
    numbers = np.array([*a, 0.0])
    at = [ctypes.c_void_p(x.ctypes.data) for x in (s, t, p, numbers, out)]
    size = ctypes.c_long
    getattr(library, name)(size(len(t)), at[0], size(s.shape[1]), ctypes.c_double(n), at[1], at[2], at[3], at[4], size(count))
    return out


def problems(entry: Entry, options: dict[str, Any]) -> Iterator[Any]:
    """Ordinary rows and edge cases, as float64."""
    for t, p in (inputs(entry, options, (40, 5), np.float64), *edges(entry, options, np.float64)):
        yield RowsCall(entry.function, entry, complete(entry.function, options), t, p, None).problem


@functools.cache
def all_rows() -> dict[int, tuple[str, Rows, int]]:
    """The row maths of the table: a name, the rows and how many parameters they have, by identity."""
    found: dict[int, tuple[str, Rows, int]] = {}
    for case in CASES:
        problem = next(problems(*case.values))
        found.setdefault(id(problem.rows), (f"rows{len(found)}", problem.rows, len(problem.parameters)))
    return found


@pytest.fixture(scope="module", params=["translated", "written by hand"])
def functors(request: pytest.FixtureRequest) -> Any:
    """All row maths of the table in C++, as translated, or as it stands in kernels/."""
    text = [HARNESS]
    for name, rows, parameters in all_rows().values():
        if request.param == "translated":
            text.append(f"namespace lossfuncs {{\n{functor(rows, parameters, name)}}}")
        else:
            text.append(f"template <class T> using {name} = {rows.cuda or f'{rows.name}<T>'};")
        for which, call, _ in loops(rows):
            if which != "around" or request.param == "translated":  # by hand it may be other numbers
                text.append(f"LOOP({name}_{which}, {name}<double>, {parameters}, {call})")
        text.append(f"static_assert({name}<double>::passes::size == {sum(one.size for one in rows.passes)});")
        if request.param == "translated":
            text.append(f"template struct lossfuncs::{name}<float>;")
    return request.param, compiled("\n".join(text), request.config.cache)


def agree(got: Array, wanted: Array, what: str) -> None:
    """The same formula in the same order: apart by the last digits of log, exp, ..., as far as a subtraction makes them more."""
    scale = np.max(np.abs(wanted[np.isfinite(wanted)]), initial=0.0)
    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-13 * scale, err_msg=what)


@pytest.mark.parametrize(("entry", "options"), CASES)
def test_every_function_of_every_loss_is_the_same_in_cpp(entry: Entry, options: dict[str, Any], functors: Any) -> None:
    kind, library = functors
    for problem in problems(entry, options):
        name, rows, _ = all_rows()[id(problem.rows)]
        a, n = problem.parameters, problem.n
        p = np.asarray(problem.p, np.float64).reshape(-1, n)
        t = np.asarray(problem.t, np.float64).reshape(p.shape if not problem.labelled else (-1,))
        with np.errstate(all="ignore"):
            totals = plain.totals(rows, t, p, a)
            targets = plain.targets(t, p)
            c = plain.on_arrays(rows.around)(totals, float(n), *a) if rows.around else totals
        for which, _, f in loops(rows):
            if which == "around" and kind != "translated":
                continue
            dots = which.isdigit() and rows.passes[int(which)].op in ("dot", "pick")
            with np.errstate(all="ignore"):
                if which in ("value", "around"):
                    wanted = plain.on_arrays(f)(totals, float(n), *a)
                else:
                    wanted = plain.on_arrays(f)(c if which in ("slope", "curve") else totals, *((p,) if dots else (targets, p)), *a)
            wanted = np.stack([np.broadcast_to(x, p.shape) for x in (wanted if isinstance(wanted, tuple) else (wanted,))], -1)
            s = np.stack([np.broadcast_to(x, p.shape) for x in totals], -1).reshape(p.size, -1)
            got = run(library, f"{name}_{which}", s, float(n), targets.reshape(-1), p.reshape(-1), a, wanted.shape[-1])
            agree(got, wanted.reshape(got.shape), f"{rows.name} {which}")


# What a user may write; each is a function of (t, p), evaluated on all pairs of POINTS.

SCALE = 3
ENORMOUS = 10**400
LIMITS = types.SimpleNamespace(top=2.0)


def _clip(x: float, low: float = -1.0, *, high: float = 1) -> float:
    return min(max(x, low), high)


def _both(x: float, y: float) -> tuple[float, float]:
    return x + y, x - y


def branches(t, p):
    """Text at the beginning says what it is."""
    if p > t:
        e = p - t
        if e > 1:
            return 2 * e - 1
    elif p == t:
        return 0
    else:
        e = t - p
    return e * e


def swapped(t, p):
    t, p = p, t
    t -= 1
    x = y = t - 2 * p
    x += 1
    return x * y


def flags(t, p):
    inside = -1 < t <= p < 3
    outside = not inside
    inside = inside + 1  # a truth value becomes a number
    return inside + 4 * outside


def in_parts(t, p):
    total, difference = _both(t, p)
    both = (total, difference) if total > 0 else (difference, 1.5)
    return both[0] * both[1] + _both(difference, total)[1]


def annotated(t: float, p: float) -> float:
    e: float = p - t
    pass
    return abs(e) ** 1.5 + e**2 + e**3


def double(t, p, *more):  # a keyword of C++
    return t + p + (more[0] if t > 0 else _sum(*more))


def _sum(x, y):
    return x + y


def use_of_rest(t, p):
    return double(t, p, 2, t)


CONSTRUCTS: list[Callable[..., Any]] = [
    branches, swapped, flags, in_parts, annotated, use_of_rest,
    lambda t, p: 1 / 2 * t, lambda t, p: 7 // 2 + p,
    lambda t, p: t // p if p else 0.0,
    lambda t, p: t % p if p else 0.0,
    lambda t, p: (p and t) + 2 * (p or t) - (not p),
    lambda t, p: t > 0 and p > 0 or p < -1,
    lambda t, p: 1 if t == p else (-1 if t != p > 0 else 0),
    lambda t, p: _clip(t, high=SCALE) + _clip(p, -2) * _clip(x=0.5 * t),
    lambda t, p: max(t, p, 0) + min(t, p, 1.5) - max(p, 1) * min(1, t),
    lambda t, p: math.log1p(abs(t)) + math.exp(-abs(p)) - math.atan2(t, p) + math.hypot(t, p) + math.pi,
    lambda t, p: math.floor(t) + math.ceil(p) * math.trunc(t) + math.copysign(2, p) + math.fmod(t, 3) + math.sqrt(abs(p)),
    lambda t, p: math.erf(t) - math.erfc(p) + math.lgamma(abs(t) + 1) * math.gamma(abs(p) + 0.5) + math.cbrt(p) + math.exp2(t),
    lambda t, p: math.log(abs(t) + 1, 3) + math.degrees(p) - math.radians(t) + math.remainder(p, 2) + math.fabs(p) + float(t),
    lambda t, p: where(p > 0, t, -t) * pow(2, p) + bool(t) + math.log(2) + True,
    lambda t, p: 0 if math.isnan(t) else (1 if math.isinf(p) else math.isfinite(t) + 1e30 * 1e-30),
    lambda t, p: (math.inf if p > t else -math.inf) if p else math.tau,
]  # fmt: skip
POINTS = np.array([-2.5, -1.0, -0.375, 0.0, 0.375, 1.0, 1.5, 2.0, 3.0, 7.0])  # exact in float32


@pytest.fixture(scope="module")
def constructs(request: pytest.FixtureRequest) -> Any:
    text = [HARNESS]
    for i, f in enumerate(CONSTRUCTS):
        for scalar in ("double", "float"):
            struct = f"construct{i}"
            text.append(f"LOOP({struct}_{scalar}, {struct}<{scalar}>, 0, f.terms(At<0>(), s, t[i], p[i]))")
        text.insert(-2, f"namespace lossfuncs {{\n{functor(mean_of(f), 0, struct)}}}")
    return compiled("\n".join(text), request.config.cache)


@pytest.mark.parametrize("i", range(len(CONSTRUCTS)))
def test_python_keeps_its_meaning(i: int, constructs: Any) -> None:
    t, p = (x.reshape(-1) for x in np.meshgrid(POINTS, POINTS))
    wanted = np.array([[CONSTRUCTS[i](x, y)] for x, y in zip(t.tolist(), p.tolist(), strict=True)], np.float64)
    none = np.zeros((len(t), 1))
    np.testing.assert_allclose(run(constructs, f"construct{i}_double", none, 1.0, t, p, (), 1), wanted, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(run(constructs, f"construct{i}_float", none, 1.0, t, p, (), 1), wanted, rtol=2e-5, atol=2e-5)


def loops_over(t, p):
    total = 0
    for x in (t, p):
        total += x
    return total


def maybe_nothing(t, p):
    if t > 0:
        x = p
    return x


def takes_anything(t, p, **more):
    return t


def takes_too_much(t, p, *more, k=1.0):
    return t


def no_return(t, p):
    if t > 0:
        return p


def calls_itself(t, p):
    return calls_itself(p, t) if t > p else t


def assigns_outside(t, p):
    LIMITS.top = t
    return p


def another_kind(t, p):
    x = (t, p)
    x = t
    return x


def of_three(t, p):
    x, y, z = t, p
    return x + y + z


def inside(t, p):
    def f(x):
        return x

    return f(t)


def raising(t, p):
    raise ValueError


REFUSED = [
    (loops_over, "a for loop, 'for x in (t, p):', in loops_over "),
    (lambda t, p: sum([t, p]), "a list, '[t, p]', in <lambda> "),
    (lambda t, p: sum(x for x in (t, p)), "a generator, '(x for x in (t, p))', in <lambda> "),
    (lambda t, p: np.exp(t - p), "a call, 'np.exp(t - p)', in <lambda> "),
    (lambda t, p: math.comb(t, p), "a call, 'math.comb(t, p)', in <lambda> "),
    (lambda t, p: (t - p).real, "an attribute, '(t - p).real', in <lambda> "),
    (lambda t, p: t @ p, "an operation on bits or matrices, 't @ p', in <lambda> "),
    (lambda t, p: "a" < t, "\"'a'\" in <lambda> "),
    (lambda t, p: t in (p, 1), "'t in (p, 1)' in <lambda> "),
    (lambda t, p: (x := t) + x, "an assignment inside an expression, '(x := t)', in <lambda> "),
    (lambda t, p: undefined + p, "a name without a value, 'undefined', in <lambda> "),  # noqa: F821
    (lambda t, p: LIMITS.top * p, "an attribute, 'LIMITS.top', in <lambda> "),
    (lambda t, p: (t, p)[2], "a place that the tuple does not have, '(t, p)[2]', in <lambda> "),
    (lambda t, p: max((t, p)), "a tuple where a number is wanted, '(t, p)', in <lambda> "),
    (lambda t, p: t if (t, p) else p, "a tuple where a condition is wanted, "),
    (lambda t, p: t if p else (t, p), "a choice of a number or a tuple, "),
    (lambda t, p: _clip(t, 1, 2), "a call with arguments that do not fit "),
    (lambda t, p: ENORMOUS * p, "a number beyond float64, "),
    (maybe_nothing, "a variable that may hold nothing, 'x', in maybe_nothing "),
    (assigns_outside, "an attribute, 'LIMITS.top', in assigns_outside "),
    (another_kind, "x, once a number and once a tuple, 'x', in another_kind "),
    (of_three, "an assignment of another number of values, '(x, y, z)', in of_three "),
    (inside, "a function inside the function, 'def f(x):', in inside "),
    (raising, "raise, 'raise ValueError', in raising "),
]


@pytest.mark.parametrize(("f", "message"), REFUSED)
def test_what_has_no_translation_is_named_with_its_place(f: Callable[..., Any], message: str) -> None:
    with pytest.raises(Untranslatable) as error:
        functor(mean_of(f), 0, "refused")
    assert str(error.value).startswith(message)
    line = f.__code__.co_firstlineno
    named = next(int(word.rstrip(")")) for i, word in enumerate(str(error.value).split()) if str(error.value).split()[i - 1] == "line")
    assert __file__ in str(error.value) and line <= named <= line + 5


@pytest.mark.parametrize(("f", "message"), [
    (no_return, "can end without return"), (calls_itself, "calls itself"), (takes_anything, "takes arguments as no"),
    (takes_too_much, "takes arguments as no"),
])  # fmt: skip
def test_a_function_that_is_no_formula_is_named(f: Callable[..., Any], message: str) -> None:
    with pytest.raises(Untranslatable, match=rf"^{f.__name__} \({__file__}, line {f.__code__.co_firstlineno}\) {message}"):
        functor(mean_of(f), 0, "refused")


def test_each_of_several_lambdas_in_a_line_has_its_own_source() -> None:
    one, other = (lambda t, p: t - p), (lambda t, p: (lambda x: x * p)(t))
    assert [np.asarray(source_node(f).end_col_offset) - source_node(f).col_offset for f in (one, other)] == [18, 33]
    assert "t_ - p_" in functor(mean_of(one), 0, "one")


def test_a_function_without_source_says_so() -> None:
    scope: dict[str, Any] = {}
    exec("def f(t, p):\n    return t - p", scope)
    with pytest.raises(Untranslatable, match=r"^the source of f \(<string>, line 1\) is not to be had: put it into a file"):
        functor(mean_of(scope["f"]), 0, "f")
    with pytest.raises(Untranslatable, match="^expected a plain Python function, got builtin_function_or_method$"):
        source_node(math.exp)


def test_a_file_that_was_edited_since_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text("def f(t, p):\n    return t - p\n")
    scope: dict[str, Any] = {"__name__": "own"}
    exec(compile(path.read_text(), path, "exec"), scope)
    assert "t_ - p_" in functor(mean_of(scope["f"]), 0, "f")
    path.write_text("def f(t, p):\n    return t + p + 0\n")
    with pytest.raises(Untranslatable, match="has changed since it was read: start anew$"):
        functor(mean_of(scope["f"]), 0, "f")


def test_values_from_outside_are_those_of_the_moment() -> None:
    def power_of(k: float) -> Callable[..., float]:
        return lambda t, p: abs(p - t) ** k + TOTALS

    assert "T(1.5)" in functor(mean_of(power_of(1.5)), 0, "f") and "T(-1.0)" in functor(mean_of(power_of(1.5)), 0, "f")
