"""Parts of a kernel among threads, without the interpreter: each is done once, by whoever is there, and the least result is the first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="kernels are Numba's")

from numba import types  # noqa: E402

from lossfuncs import cache, losses, threads  # noqa: E402
from lossfuncs.fold import inline  # noqa: E402
from lossfuncs.lanes import pointer, put  # noqa: E402
from lossfuncs.parts import shared  # noqa: E402

SIZE = 1000


@pytest.fixture
def fresh_pool() -> Iterator[None]:
    threads._forget()
    yield
    threads._forget()


@pytest.fixture(scope="module")
def kernel() -> Callable[..., int]:
    """kernel(x, first_bad, begin, end, team, parts): count each element of [begin, end) up; the first one from first_bad on is bad."""

    @inline
    def body(x: Any, bad: int, begin: int, end: int) -> int:
        for i in range(begin, end):
            put(x, i, x[i] + 1.0)
        return max(begin, bad) if max(begin, bad) < end else -1

    def run(x: Any, bad: int, begin: int, end: int, team: int, parts: int) -> int:
        return shared(body, team, parts, begin, end, (pointer(x), bad))

    i = types.int64
    return cache.compile(run, i(types.Array(types.float64, 1, "C"), i, i, i, i, i))


@pytest.mark.parametrize("team", [1, 2, 3, 8, 33])
@pytest.mark.parametrize("parts", [1, 2, 7, 100, 1500])
def test_every_part_is_done_once_and_the_first_bad_one_is_told(
    fresh_pool: None, kernel: Callable[..., int], team: int, parts: int
) -> None:
    rounds = 50
    counts = np.zeros(SIZE)
    for k in range(rounds):
        bad = (k * 37) % (SIZE + 100)
        address = threads.enlist(team) if team > 1 else 0
        try:
            found = kernel(counts, bad, 10, SIZE, address, parts)
        finally:
            threads.dismiss()
        assert found == (max(bad, 10) if bad < SIZE else -1)
    assert np.all(counts[10:] == rounds)
    assert np.all(counts[:10] == 0)


def test_parts_become_smaller_towards_the_end(fresh_pool: None) -> None:
    @inline
    def body(sizes: Any, begin: int, end: int) -> int:
        put(sizes, begin, float(end - begin))
        return -1

    def run(sizes: Any, end: int, team: int, parts: int) -> int:
        return shared(body, team, parts, 0, end, (pointer(sizes),))

    i = types.int64
    parts_of = cache.compile(run, i(types.Array(types.float64, 1, "C"), i, i, i))
    sizes = np.zeros(SIZE)
    address = threads.enlist(2)
    try:
        assert parts_of(sizes, SIZE, address, 16) == -1
    finally:
        threads.dismiss()
    found = sizes[sizes > 0]
    assert len(found) == 16 and found.sum() == SIZE
    assert np.all(np.diff(found) < 0) and found[-1] <= SIZE / 16**2 + 1


def test_workers_serve_one_caller_at_a_time_and_no_worker(fresh_pool: None) -> None:
    assert threads.enlist(2)
    try:
        found = []
        other = threading.Thread(target=lambda: found.append(threads.enlist(2)))
        other.start()
        other.join()
        assert found == [0]
    finally:
        threads.dismiss()
    together = threading.Barrier(2)

    def from_worker(i: int) -> int:
        together.wait(30)
        return threads.enlist(2) if threading.current_thread().name == "lossfuncs" else -1

    assert sorted(threads.run(from_worker, 2, 2)) == [-1, 0]
    assert threads.enlist(2)
    threads.dismiss()


def test_callers_at_the_same_time_get_the_bits_of_one(fresh_pool: None) -> None:
    rng = np.random.default_rng(0)
    p, t = rng.random((3000, 100), dtype=np.float32), rng.random((3000, 100), dtype=np.float32)
    wanted = losses.kl_divergence(t, p)
    wrong = []

    def call() -> None:
        for _ in range(30):
            if losses.kl_divergence(t, p).tobytes() != wanted.tobytes():
                wrong.append(threading.get_ident())

    callers = [threading.Thread(target=call) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_a_shape_seen_before_has_the_bits_of_its_first_call_on_any_number_of_threads(fresh_pool: None) -> None:
    rng = np.random.default_rng(1)
    p, t = rng.random((4096, 70), dtype=np.float32), rng.random((4096, 70), dtype=np.float32)
    before = threads.get_num_threads()
    found = set()
    try:
        for n in (1, 2, 3, 16):
            threads.set_num_threads(n)
            for _ in range(6):
                found.add((losses.poisson(t, p).tobytes(), float(losses.poisson(t, p, reduction="mean"))))
    finally:
        threads.set_num_threads(before)
    assert len(found) == 1
