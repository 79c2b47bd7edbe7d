"""Parts of a kernel among threads, without the interpreter: each is done once, by whoever is there, and the least result is the first."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="kernels are Numba's")

from numba import types  # noqa: E402

import lossfuncs  # noqa: E402
from lossfuncs import cache, losses, threads  # noqa: E402
from lossfuncs.front import inline  # noqa: E402
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

    sharing = shared(body)

    def run(x: Any, bad: int, begin: int, end: int, team: int, parts: int) -> int:
        return sharing(team, parts, begin, end, (pointer(x), bad))

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
        address = threads.enlist(team, rounds) if team > 1 else 0
        try:
            found = kernel(counts, bad, 10, SIZE, address, parts)
        finally:
            threads.enlisted.pop(rounds, None)
        assert found == (max(bad, 10) if bad < SIZE else -1)
    assert np.all(counts[10:] == rounds)
    assert np.all(counts[:10] == 0)


def test_parts_become_smaller_towards_the_end(fresh_pool: None) -> None:
    @inline
    def body(sizes: Any, begin: int, end: int) -> int:
        put(sizes, begin, float(end - begin))
        return -1

    sharing = shared(body)

    def run(sizes: Any, end: int, team: int, parts: int) -> int:
        return sharing(team, parts, 0, end, (pointer(sizes),))

    i = types.int64
    parts_of = cache.compile(run, i(types.Array(types.float64, 1, "C"), i, i, i))
    sizes = np.zeros(SIZE)
    address = threads.enlist(2, sizes.size)
    try:
        assert parts_of(sizes, SIZE, address, 16) == -1
    finally:
        threads.enlisted.pop(sizes.size, None)
    found = sizes[sizes > 0]
    assert len(found) == 16 and found.sum() == SIZE
    assert np.all(np.diff(found) < 0) and found[-1] <= SIZE / 16**2 + 1


def test_workers_serve_one_caller_at_a_time_and_no_worker(fresh_pool: None) -> None:
    assert threads.enlist(2, "one")
    try:
        found = []
        other = threading.Thread(target=lambda: found.append(threads.enlist(2, "another")))
        other.start()
        other.join()
        assert found == [0]
    finally:
        threads.enlisted.pop("one", None)
    together = threading.Barrier(2)

    def from_worker(i: int) -> int:
        together.wait(30)
        return threads.enlist(2, "worker") if threading.current_thread().name == "lossfuncs" else -1

    assert sorted(threads.run(from_worker, 2, 2)) == [-1, 0]
    assert threads.enlist(2, "one")
    threads.enlisted.pop("one", None)
    assert not threads.enlisted


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


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer")
def test_an_interrupt_leaves_the_workers_to_the_next_caller(fresh_pool: None, monkeypatch: pytest.MonkeyPatch) -> None:
    t, p = np.random.default_rng(0).random((2, 4000, 40))
    monkeypatch.setattr(threads, "_num_threads", 2)
    for _ in range(5):  # what compiles has finalizers, which would swallow an interrupt
        lossfuncs.value_and_grad("mse", t, p, reduction="sum")
    gc.collect()
    gc.disable()
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    interrupts, end = 0, time.monotonic() + 1.5
    try:
        while time.monotonic() < end:
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + 1e-7 * (37 * interrupts % 1000), 0.1)
                while True:
                    caller = object()
                    try:
                        threads.enlist(2, caller)
                    finally:
                        threads.enlisted.pop(caller, None)
            except KeyboardInterrupt:
                interrupts += 1
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + 1e-7 * (41 * interrupts % 3000), 0.1)
                while True:
                    lossfuncs.value_and_grad("mse", t, p, reduction="sum")
            except KeyboardInterrupt:
                interrupts += 1
            assert not threads.enlisted
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    assert interrupts > 100
