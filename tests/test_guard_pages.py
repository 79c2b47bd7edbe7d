"""No kernel reads or writes beside its arrays: they end, or start, at a page that cannot be touched.

Each sweep runs in a process of its own, which an access beside an array kills. To see one kernel by itself:
python test_guard_pages.py rows categorical_hinge
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from cases import BASES, DTYPES, ENTRIES, LONGEST, by_name, inputs

import lossfuncs
from lossfuncs.dispatch import prepare
from lossfuncs.problem import Task

PAGE = mmap.PAGESIZE
LENGTHS = (1, 2, 7, 8, 9, 15, 33, 63, 64, 65, 72, 95, 96, 97, 127, 128, 129, 200)
COUNTS = (1, 7, 8, 9, 63, 64, 65, 129)


class Guarded:
    """Memory between two pages that cannot be touched."""

    def __init__(self, size: int) -> None:
        self.size = -(-size // PAGE) * PAGE
        self.map = mmap.mmap(-1, self.size + 2 * PAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        libc = ctypes.CDLL(None, use_errno=True)
        for page in (address, address + PAGE + self.size):
            if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), 0):
                raise OSError(ctypes.get_errno(), "mprotect")

    def array(self, x: Any, end: bool) -> Any:
        """A copy of x that ends at the upper page, or starts at the lower one."""
        x = np.ascontiguousarray(x)
        offset = PAGE + (self.size - x.nbytes if end else 0)
        out = np.frombuffer(self.map, np.uint8, x.nbytes, offset).view(x.dtype).reshape(x.shape)
        out[...] = x
        return out


class Memory:
    """One guarded piece for each array of a call."""

    def __init__(self, size: int) -> None:
        self.pieces = [Guarded(size) for _ in range(8)]
        self.next = 0

    def __call__(self, x: Any, end: bool) -> Any:
        self.next = (self.next + 1) % len(self.pieces)
        return self.pieces[self.next].array(x, end)


def call(memory: Memory, entry: Any, options: dict[str, Any], t: Any, p: Any, end: bool, order: int) -> None:
    """Values and derivatives into guarded arrays, then a weighted total."""
    weight = np.arange(len(p), dtype=np.float64) if p.ndim > 1 else None
    call = prepare(entry.function, memory(t, end), memory(p, end), options, None if weight is None else memory(weight, end), None)
    into = tuple(call.view(memory(np.zeros(p.shape, call.dtype), end)) for _ in range(order))
    values = memory(np.zeros(call.m, call.dtype), end)
    weights = None if call.weights is None else memory(call.weights, end)
    call.run("numba", Task(False, weights, 1.0, values, into))
    expected = lossfuncs.value_and_grad(entry.function, t, p, **options)[0] if order == 1 else entry.function(t, p, **options)
    assert np.asarray(expected).tobytes() == values.tobytes(), f"{entry.name} {p.shape}"


def rows(names: list[str]) -> None:
    memory = Memory(max(LENGTHS) * max(COUNTS) * 8)
    for one in BASES:
        entry, options = one.values
        if names and entry.name not in names:
            continue
        order = 0 if "accuracy" in entry.name else 1
        for m in COUNTS:
            for n in LENGTHS:
                t, p = inputs(entry, options, (m, n))
                for end in (True, False):
                    call(memory, entry, options, t, p, end, order)


def types(names: list[str]) -> None:
    """Other dtypes, the second derivative, labels at both ends of their range, and the ignored ones."""
    memory = Memory(max(LENGTHS) * max(COUNTS) * 8)
    softmax, sparse = by_name("loss", "categorical_crossentropy"), by_name("loss", "sparse_categorical_crossentropy")
    for m in COUNTS:
        for n in LENGTHS:
            for end in (True, False):
                for kind in ("float16", "float64"):
                    t, p = inputs(softmax, {"from_logits": True}, (m, n), DTYPES[kind])
                    call(memory, softmax, {"from_logits": True}, t, p, end, 2)
                for label in (0, n - 1, -1, n, 2**40, -(2**62)):
                    t, p = np.full(m, label), np.zeros((m, n), np.float32)
                    try:
                        call(memory, sparse, {"ignore_class": -1}, t, p, end, 1)
                    except ValueError as error:
                        assert "but y_pred has classes" in str(error) and label not in range(-1, n)
                    else:
                        assert label in range(-1, n)


def long(names: list[str]) -> None:
    """Rows in pieces, totals in cuts, chunks for several threads, and what is not rows."""
    memory = Memory(4 * LONGEST * 8)
    lossfuncs.set_num_threads(3)
    for name in ("mean_squared_error", "cosine_similarity", "categorical_crossentropy"):
        entry = by_name("loss", name)
        for shape in ((LONGEST + 1,), (2, LONGEST + 65), (513, 64), (33, 1000), (40_001, 7)):
            t, p = inputs(entry, {}, shape)
            for end in (True, False):
                call(memory, entry, {}, t, p, end, 1)
                guarded = memory(t, end), memory(p, end)
                lossfuncs.value_and_grad(entry.function, *guarded, reduction="mean", out=memory(p, end))
                entry.function(*guarded, reduction="sum")
    for entry in ENTRIES:
        if entry.shape == "own":
            for shape in ((1, 3), (70, 5)) if entry.name == "circle" else ((1, 1, 2), (5, 9, 4)):
                t, p = inputs(entry, {}, shape)
                for end in (True, False):
                    call(memory, entry, {}, t, p, end, 1)


def flipped(names: list[str]) -> None:
    """Labels that another thread makes good and bad during the calls."""
    entry, n, m = by_name("loss", "sparse_categorical_crossentropy"), 16, 4096
    memory = Memory(m * n * 4)
    t, p = memory(np.zeros(m, np.int64), True), memory(np.zeros((m, n), np.float32), True)
    gradient = memory(np.zeros((m, n), np.float32), True)
    stop = threading.Event()

    def flip() -> None:
        while not stop.is_set():
            for label in (n, 3, 2**40, 0, -(2**62)):
                t[::5] = label

    thread = threading.Thread(target=flip)
    thread.start()
    outcomes = [0, 0]
    for _ in range(2000):
        try:
            lossfuncs.value_and_grad(entry.function, t, p, from_logits=True, out=gradient)
            outcomes[0] += 1
        except ValueError:
            outcomes[1] += 1
    stop.set()
    thread.join()
    assert outcomes[1], "no call met a bad label"


def planted(names: list[str]) -> None:
    """A kernel that reads one element too many, above or below."""
    from numba.core import types

    from lossfuncs import cache
    from lossfuncs.lanes import pointer

    def above(x: Any) -> float:
        y, total = pointer(x), 0.0
        for i in range(len(x) + 1):
            total += y[i]
        return total

    def below(x: Any) -> float:
        y, total = pointer(x), 0.0
        for i in range(-1, len(x)):
            total += y[i]
        return total

    (name, where) = names
    kernel = cache.compile({"above": above, "below": below}[name], types.float64(types.Array(types.float64, 1, "C")))
    x = np.ones(1000)
    kernel(x if where == "ordinary" else Guarded(x.nbytes).array(x, name == "above"))


def row_too_many(names: list[str]) -> None:
    """A kernel of the library that is told of one row too many."""
    from lossfuncs import cpu

    entry = by_name("loss", "categorical_crossentropy")
    t, p = inputs(entry, {}, (64, 64))
    guarded = Guarded(p.nbytes)
    problem = prepare(entry.function, t, guarded.array(p, True), {}, None, None).problem  # type: ignore[attr-defined]
    cpu.run(problem._replace(m=65), Task(values=np.zeros(65, np.float32)))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONFAULTHANDLER": ""}
    return subprocess.run([sys.executable, __file__, *arguments], env=environment, capture_output=True, text=True, timeout=900)


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")


@pytest.mark.parametrize("sweep", ["rows", "types", "long", "flipped"])
def test_no_kernel_touches_what_is_beside_its_arrays(sweep: str) -> None:
    done = run(sweep)
    assert done.returncode == 0, f"died with {done.returncode}: {done.stderr}"


@pytest.mark.parametrize("name", ["above", "below"])
def test_a_planted_access_beside_an_array_dies_here_and_nowhere_else(name: str) -> None:
    assert run("planted", name, "ordinary").returncode == 0
    assert run("planted", name, "guarded").returncode == -signal.SIGSEGV


def test_a_row_kernel_that_is_told_of_one_row_too_many_dies_here() -> None:
    assert run("row_too_many").returncode == -signal.SIGSEGV


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2:])
