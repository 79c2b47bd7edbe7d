"""The pool: order, bits, failures, interrupts, forks and exit, under many callers."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lossfuncs import cpu, threads

ROOT = Path(__file__).parent.parent
THREADS = [1, 2, 3, 4, 7, 8, 16, 64]


def python(program: str, *arguments: object, timeout: float = 100, **environment: str) -> str:
    """The output of a program in a fresh interpreter, which must succeed and say nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


@pytest.fixture(params=[True, False], ids=["watching", "sleeping"])
def pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A new pool, with and without the machine code that watches before it sleeps."""
    if not request.param:
        monkeypatch.setattr(threads, "_compile_native", lambda: None)
    elif sys.platform == "linux":
        pytest.importorskip("llvmlite", reason="without LLVM the pool only sleeps")
        assert threads._compile_native() is not None
    threads._forget()
    yield
    threads._forget()


@pytest.mark.parametrize("count", [0, 1, 2, 5, 100])
@pytest.mark.parametrize("n", THREADS)
def test_results_come_in_order(pool: None, n: int, count: int) -> None:
    assert threads.run(lambda i: i * i, count, n) == [i * i for i in range(count)]


def test_a_first_call_that_waited_for_memory_does_not_decide_how_many_threads_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = SimpleNamespace(seconds_per_element=0.5e-9, latest=[math.inf, math.inf])
    clock = iter([0.0, 1.0, 2.0, 2.00001])
    monkeypatch.setattr(cpu, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    parts: list[tuple[int, int]] = []

    def work(begin: int, end: int) -> int:
        parts.append((begin, end))
        return -1

    for seconds in (1.0, 10e-6):
        cpu._in_parallel(kernel, 1 << 16, 2, work, native=False)
        assert kernel.seconds_per_element * (1 << 16) == pytest.approx(seconds)
    assert parts == [(0, 2), (0, 2)]


def test_bits_do_not_depend_on_the_number_of_threads(pool: None) -> None:
    x = np.random.default_rng(1).standard_normal(1 << 20).astype(np.float32).reshape(64, -1)

    def total(n: int) -> str:
        value = 0.0
        for part in threads.run(lambda i: float(np.sum(x[i])), len(x), n):
            value += part
        return value.hex()

    assert {total(n) for n in THREADS for _ in range(5)} == {total(1)}


@pytest.mark.parametrize("n", [2, 8, 64])
def test_as_many_threads_as_asked_for_work_at_the_same_time(pool: None, n: int) -> None:
    together = threading.Barrier(n)  # opens only when n threads have come
    names = threads.run(lambda i: (together.wait(30), threading.get_ident())[1], n, n)
    assert len(set(names)) == n
    assert threading.get_ident() in names


def test_no_more_threads_work_than_asked_for(pool: None) -> None:
    threads.run(lambda i: time.sleep(0.001), 16, 8)  # the pool is larger than what is asked for next
    working = 0
    most = 0
    lock = threading.Lock()

    def item(index: int) -> None:
        nonlocal working, most
        with lock:
            working += 1
            most = max(most, working)
        time.sleep(0.002)
        with lock:
            working -= 1

    threads.run(item, 30, 3)
    assert 2 <= most <= 3


def test_one_item_or_one_thread_runs_in_the_caller() -> None:
    me = threading.get_ident()
    assert threads.run(lambda i: threading.get_ident(), 1, 8) == [me]
    assert threads.run(lambda i: threading.get_ident(), 9, 1) == [me] * 9


def test_a_run_within_a_run_ends_and_is_serial_in_a_worker(pool: None) -> None:
    together = threading.Barrier(4)
    caller = threading.get_ident()

    def outer(index: int) -> bool:
        together.wait(30)  # so that workers have three of the four items
        me = threading.get_ident()
        return me == caller or threads.run(lambda i: threading.get_ident(), 8, 4) == [me] * 8

    assert threads.run(outer, 4, 4) == [True] * 4
    inner = [sum(range(i, i + 8)) for i in range(9)]
    assert threads.run(lambda i: sum(threads.run(lambda j: i + j, 8, 3)), 9, 4) == inner


def test_the_failure_with_the_lowest_index_is_raised_when_all_have_stopped(pool: None) -> None:
    working = 0
    lock = threading.Lock()
    together = threading.Barrier(4)

    def item(index: int) -> None:
        nonlocal working
        with lock:
            working += 1
        together.wait(30)
        if index in (1, 2):
            raise ValueError(f"item {index}")
        time.sleep(0.02)
        with lock:
            working -= 1

    with pytest.raises(ValueError, match="item 1"):
        threads.run(item, 4, 4)
    assert working == 2  # the two that failed: the others have finished
    assert threads.run(lambda i: i, 9, 4) == list(range(9))


def test_a_failure_drops_the_items_not_yet_begun(pool: None) -> None:
    begun = []

    def item(index: int) -> None:
        begun.append(index)
        time.sleep(0.001)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        threads.run(item, 10_000, 4)
    assert len(begun) <= 4


def test_many_callers_at_once_get_their_own_results(pool: None) -> None:
    wrong = []

    def caller(name: int) -> None:
        for call in range(100):
            n = 1 + (name + call) % 5
            if threads.run(lambda i: (name, call, i), 7, n) != [(name, call, i) for i in range(7)]:  # noqa: B023
                wrong.append((name, call))

    callers = [threading.Thread(target=caller, args=(name,)) for name in range(32)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(60)
    assert not any(thread.is_alive() for thread in callers)
    assert wrong == []


def test_the_pool_does_not_keep_what_a_job_referred_to(pool: None) -> None:
    class Big:
        pass

    def job(fail: bool) -> weakref.ref[Big]:
        big = Big()

        def item(index: int) -> int:
            if fail:
                raise ValueError("no")
            return id(big)

        if fail:
            with pytest.raises(ValueError, match="no"):
                threads.run(item, 4, 4)
        else:
            threads.run(item, 4, 4)
        return weakref.ref(big)

    left = [job(False)]
    deadline = time.monotonic() + 10
    while any(ref() for ref in left) and time.monotonic() < deadline:
        time.sleep(0.01)  # a worker may just be on its way out
    assert not any(ref() for ref in left)


def test_an_interrupt_stops_a_long_run_promptly_and_leaves_the_pool_usable(pool: None) -> None:
    begun = []

    def item(index: int) -> None:
        begun.append(index)
        time.sleep(0.005)

    timer = threading.Timer(0.1, signal.raise_signal, [signal.SIGINT])
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        threads.run(item, 10_000, 4)
    assert time.monotonic() - start < 2  # 12.5 s to the end
    timer.join()
    after = len(begun)
    time.sleep(0.02)
    assert len(begun) == after
    assert threads.run(lambda i: i, 9, 4) == list(range(9))


def test_an_interrupt_is_raised_when_no_worker_is_at_work(pool: None) -> None:
    together = threading.Barrier(2)
    caller = threading.get_ident()
    left = []

    def item(index: int) -> None:
        together.wait(30)
        if threading.get_ident() != caller:
            time.sleep(0.3)
            left.append(index)

    timer = threading.Timer(0.1, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        threads.run(item, 2, 2)
    timer.join()
    assert len(left) == 1


def test_interrupts_at_any_moment_leave_the_pool_usable() -> None:
    python("""
import _thread, random, threading, time
from lossfuncs import threads
stop = False
def pester():
    while not stop:
        time.sleep(random.random() * 2e-3)
        _thread.interrupt_main()
try:
    threads.run(lambda i: i, 4, 4)
    thread = threading.Thread(target=pester, daemon=True)
    thread.start()
except KeyboardInterrupt:
    pass
struck, end = 0, time.monotonic() + 2
def work():
    while time.monotonic() < end:
        assert threads.run(lambda i: i + 1, 20, 4) == list(range(1, 21))
    return True
def worked():
    global struck
    try:
        return work()
    except KeyboardInterrupt:
        struck += 1
while not stop:
    try:
        while not worked():  # a jump back is not within the try, since Python 3.13
            pass
        stop = True
    except KeyboardInterrupt:
        struck += 1
while thread.is_alive():
    try:
        thread.join()
        time.sleep(0.01)
    except KeyboardInterrupt:
        struck += 1
assert struck > 50, struck
together = threading.Barrier(4)
threads.run(lambda i: together.wait(30), 4, 4)  # still four threads
""")


FORKS = """
import os, signal, sys, threading, time
import numpy as np
from lossfuncs import threads
x = np.arange(1 << 16, dtype=np.float64)
def total(n):
    return sum(threads.run(lambda i: float(x[i * 4096:(i + 1) * 4096].sum()), 16, n))
right = total(1)
def compute():
    while True:
        assert total(3) == right
for _ in range(4):
    threading.Thread(target=compute, daemon=True).start()
for _ in range(int(sys.argv[1])):
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # a child that hangs dies by it
        together = threading.Barrier(3)
        threads.run(lambda i: together.wait(20), 3, 3)
        os._exit(0 if total(2) == right == total(4) else 1)
    assert os.waitpid(child, 0)[1] == 0
assert total(4) == right
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("forks", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_children_forked_while_threads_compute_have_a_working_pool(forks: int) -> None:
    python(FORKS, forks, timeout=600)


def test_exit_is_clean_while_the_pool_works() -> None:
    for _ in range(12):
        python(
            """
import sys, threading, time
import numpy as np
from lossfuncs import threads
x = np.arange(1 << 16, dtype=np.float64)
def compute():
    while True:
        threads.run(lambda i: float(x.sum()), 16, 3)
for _ in range(2):
    threading.Thread(target=compute, daemon=True).start()
time.sleep(float(sys.argv[1]))
""",
            random.random() * 0.1,
        )


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_number_of_threads_below_one_is_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match=f"n is {wrong}, but must be at least 1"):
        threads.set_num_threads(wrong)
    with pytest.raises(ValueError, match=f"threads is {wrong}, but must be at least 1"):
        threads.run(abs, 4, wrong)


@pytest.mark.parametrize("wrong", [1.5, "2", None])
def test_a_number_of_threads_that_is_no_int_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match=f"n must be an int, not {type(wrong).__name__}"):
        threads.set_num_threads(wrong)  # type: ignore[arg-type]


def test_the_number_of_threads_is_what_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_num_threads", None)
    threads.set_num_threads(np.int64(3))  # type: ignore[arg-type]
    assert threads.get_num_threads() == 3
    together = threading.Barrier(3)
    threads.run(lambda i: together.wait(30), 3)


def test_the_environment_gives_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_num_threads", None)
    monkeypatch.setenv("LOSSFUNCS_NUM_THREADS", "5")
    assert threads.get_num_threads() == 5


@pytest.mark.parametrize("wrong", ["0", "-2", "many", "1.5"])
def test_a_bad_environment_variable_is_named(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setattr(threads, "_num_threads", None)
    monkeypatch.setenv("LOSSFUNCS_NUM_THREADS", wrong)
    with pytest.raises(ValueError, match=f"LOSSFUNCS_NUM_THREADS is '{wrong}'"):
        threads.get_num_threads()


def test_by_default_every_core_of_the_process_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_num_threads", None)
    monkeypatch.delenv("LOSSFUNCS_NUM_THREADS", raising=False)
    assert threads.get_num_threads() == threads._cores() >= 1


def test_importing_the_pool_loads_neither_numba_nor_llvm() -> None:
    python("import sys, lossfuncs.threads; assert not {'numba', 'llvmlite'} & sys.modules.keys()")
