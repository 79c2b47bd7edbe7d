"""The own front end: it means what Python means, takes all parts of all kernels, and what it does not know, Numba compiles."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import BASES, bits, inputs

pytest.importorskip("numba", reason="kernels are Numba's")

from numba import types  # noqa: E402
from numba.core.registry import CPUDispatcher  # noqa: E402

import lossfuncs  # noqa: E402
from lossfuncs import cache, cpu, front, lanes, target, vectormath  # noqa: E402
from lossfuncs.boxed import boxed  # noqa: E402

exp, where = vectormath.DOUBLE["exp"], vectormath.DOUBLE["where"]
NUMBERS = [-9, -8, -1, 0, 1, 5, 17]


def ours(function: Any) -> Any:
    """The function as one of the package's."""
    function.__module__ = "lossfuncs.a_test"
    return function


@pytest.fixture
def numbas(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the functions that are left to Numba."""
    names: list[str] = []
    by_numba = front.by_numba

    def noted(function: Any) -> Any:
        names.append(function.__name__)
        return by_numba(function)

    monkeypatch.setattr(front, "by_numba", noted)
    monkeypatch.setenv("LOSSFUNCS_CACHE", "0")
    return names


@pytest.fixture
def nothing_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_kernel", functools.cache(cpu._kernel.__wrapped__))
    monkeypatch.setattr(cache, "_kernels", {})
    for name in ("dispatch.short_way", "derivatives.short_way", "dispatch.remember", "derivatives.remember_way"):
        monkeypatch.setattr(f"lossfuncs.{name}", lambda *_: None)  # no kernel of an earlier test, nor of this one in a later


def compiled(function: Any, *kinds: Any) -> Callable[..., Any]:
    part = front.inline(ours(function))
    outermost = {1: lambda x: part(x), 2: lambda x, y: part(x, y), 3: lambda x, y, z: part(x, y, z)}[len(kinds)]
    return cache.compile(outermost, kinds)


def rounded_down(x: int, y: int) -> int:
    return x // 8 * 1000 + x % 8 + y * (x // 1) - (-x) // 4


def nested(x: int, y: int) -> int:
    total, steps = 0, 0
    for i in range(x):
        for j in range(y, -3, -2):
            if i > j:
                total += i * j
            elif i == j and not total:
                total = -1
            else:
                steps += i >= j - 1
    while steps:
        steps -= 1
        total += steps % 2
    return total


def early(x: int, y: int) -> int:
    for i in range(x, y, 3):
        if i * i > y:
            return i
    if x > y:
        return -x
    else:
        return y if x else min(x, max(y, 3))


def short_circuit(x: int, y: int) -> bool:
    return x > 0 and (y > x or y == -1 or not x) and (x != 5) | (y != 17)


def unpacked(x: int, y: int) -> float:
    s = (float(x), y + 0.5, -1.0, *((x * 1.0,) + (2.5,)))
    a, (b, c) = s[1], s[2:4]
    lowest = a if x > y else b
    return x / 4 - lowest * c + (x < y) + s[-1] + int(a * 2.0) + (1.0 if bool(x) else 0)


def with_large_numbers(x: int, y: int) -> float:
    return (x if x > -(2**63) else y) * 1.0 + (y + 0.5) * 2**80


def with_lambda(x: int, y: int) -> int:
    return TWICE(x, y)[1] - TWICE(y, x)[0]


TWICE: Any = front.inline(ours(lambda x, y: (x + y, 2 * x)))


FUNCTIONS = [rounded_down, nested, early, short_circuit, unpacked, with_large_numbers, with_lambda]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_it_means_what_python_means(function: Any, numbas: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = compiled(function, types.int64, types.int64)
    assert numbas == []
    monkeypatch.setitem(globals(), "TWICE", lambda x, y: (x + y, 2 * x))
    for x, y in itertools.product(NUMBERS, repeat=2):
        assert kernel(x, y) == function(x, y), (x, y)


def test_comparisons_and_truth_of_nan_are_ieees(numbas: list[str]) -> None:
    def compared(x: float, y: float) -> int:
        return (x < y) + 2 * (x <= y) + 4 * (x == y) + 8 * (x != y) + 16 * (x > y) + 32 * (not x) + 64 * (x >= 0) + 128 * bool(y)

    kernel = compiled(compared, types.float64, types.float64)
    assert numbas == []
    for x, y in itertools.product((math.nan, -0.0, 0.0, 1.5, math.inf, -math.inf), repeat=2):
        assert kernel(x, y) == compared(x, y)


room, put = lanes.scratch(2, types.float32), lanes.put


def rounded(x: int, y: float) -> float:
    P = room()
    put(P, 0, x)
    put(P, 1, y)
    return int(P[0]) + float(P[1])


def test_intrinsics_take_any_number_for_one_of_another_type(numbas: list[str]) -> None:
    kernel = compiled(rounded, types.int64, types.float64)
    assert numbas == []
    assert kernel(2**24 + 1, 0.1) == 2**24 + float(np.float32(0.1))


def divided(x: float, y: float) -> float:  # as Python divides, which is for Numba to know
    return x // y + callee(x)


callee: Any = front.inline(ours(lambda x: exp(where(x > 0.0, -x, x))))


def calling(x: float, y: float) -> float:
    return 2.0 * DIVIDED(x, y)


DIVIDED: Any = front.inline(ours(divided))


def test_what_it_does_not_know_numba_compiles_between_functions_that_it_does(numbas: list[str]) -> None:
    kernel = compiled(calling, types.float64, types.float64)
    assert numbas == ["divided"]
    for x, y in itertools.product((-7.5, 0.25, 3.0), (2.0, -0.5)):
        assert kernel(x, y) == pytest.approx(2.0 * (x // y + math.exp(-abs(x))), rel=1e-15)


@pytest.mark.parametrize("source", ["gone", "changed", "moved"])
def test_a_function_whose_source_is_not_its_own_any_more_is_numbas(
    source: str, tmp_path: Path, nothing_compiled: None, numbas: list[str]
) -> None:
    path = tmp_path / "module.py"
    path.write_text("def f(x):\n    return x * 2.0\n\ndef g(x):\n    return x * 3.0\n")
    spec = importlib.util.spec_from_file_location("module", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if source == "gone":
        path.unlink()
    else:
        path.write_text(path.read_text().replace("2.0", "5.0") if source == "changed" else path.read_text().replace("g", "f"))
    assert compiled(module.f, types.float64)(1.5) == 3.0
    assert numbas == (["f"] if source != "moved" else [])


def values_and_gradients(shape: tuple[int, int]) -> bytes:
    rng = np.random.default_rng(0)
    t, p = rng.random((2, *shape, 2), np.float32)[..., 0]  # strided: calls of flat arrays know their kernels
    return b"".join(bits(x) for x in lossfuncs.value_and_grad("bce", t, p))


@pytest.mark.parametrize("which", ["front end", "target"])
def test_numbas_own_gives_the_same_bits(which: str, nothing_compiled: None, numbas: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = values_and_gradients((5, 130))
    cpu._kernel.cache_clear()
    cache._kernels.clear()
    if which == "target":
        monkeypatch.setattr(target, "_dispatcher", CPUDispatcher)
    else:

        def nothing(function: Any) -> Any:
            raise front.Beyond

        monkeypatch.setattr(front, "source", nothing)
    assert values_and_gradients((5, 130)) == wanted
    assert bool(numbas) == (which == "front end")


@pytest.mark.parametrize(("entry", "options"), BASES)
def test_it_takes_all_that_kernels_are_made_of(
    entry: Any, options: dict[str, Any], nothing_compiled: None, numbas: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def emitted(function: Any, signature: Any, **_: Any) -> Callable[..., int]:
        [part] = [cell.cell_contents._defn.part for cell in function.__closure__]
        target.context().refresh()
        front.Part(part, target._dispatcher.targetdescr.typing_context, [boxed] * 7)
        return lambda *arguments: -1

    monkeypatch.setattr(cache, "compile", emitted)
    for shape in ((3, 9), (3, 70)):
        t, p = inputs(entry, options, shape)
        entry.function(t, p, **options)
        if "accuracy" not in entry.name:
            lossfuncs.value_and_grad(entry.function, t, p, **options)
    assert numbas == []
