"""A pool of threads for functions that release the GIL: the caller works too, results come in order, forks are safe.

Waking a thread that sleeps costs 20-50 us. A worker that has just worked, and a caller whose workers are about to
finish, therefore watch a counter for about 100 us before they sleep. They do so in machine code without the GIL, and
soon yield the core at every look, so that a machine with more threads than cores loses next to nothing by it.
"""

from __future__ import annotations

import functools
import operator
import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

# How long to watch before sleeping: first holding the core, about 20 us, then yielding it at every look, about 80 us.
LOOKS, YIELDS = 80_000, 220
GRACE = 4_000  # looks, about 2 us, from seeing a job to asking for the GIL, which the caller lets go in its own share


def run(function: Callable[[int], T], count: int, threads: int | None = None) -> list[T]:
    """Return ``[function(0), ..., function(count - 1)]``, computed by up to ``threads`` threads, this one among them.

    Called from a worker, ``run`` is serial. If an item fails, those not yet begun are dropped, and once nobody is at
    work any more the failure with the lowest index is raised. So it is with KeyboardInterrupt.
    """
    team = min(get_num_threads() if threads is None else _positive("threads", threads), count)
    if team <= 1 or _local.worker:
        return [function(index) for index in range(count)]
    return _Job(function, count).run(team - 1)


def set_num_threads(n: int) -> None:
    """Let ``run`` use up to ``n`` threads, n >= 1, the calling thread included."""
    global _num_threads
    _num_threads = _positive("n", n)


def get_num_threads() -> int:
    """The number of threads: as set, else ``LOSSFUNCS_NUM_THREADS``, else the number of cores this process may use."""
    global _num_threads
    if _num_threads is None:
        chosen = os.environ.get("LOSSFUNCS_NUM_THREADS", "").strip()
        if chosen and not (chosen.isdecimal() and int(chosen)):
            raise ValueError(f"LOSSFUNCS_NUM_THREADS is {chosen!r}, but must be a whole number of at least 1")
        _num_threads = int(chosen) if chosen else _cores()
    return _num_threads


def _positive(name: str, value: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, not {type(value).__name__}") from None
    if number < 1:
        raise ValueError(f"{name} is {number}, but must be at least 1")
    return number


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Job:
    """One call of ``run``.

    Threads agree by single operations on lists and dictionaries, which are atomic with and without a GIL, and whose
    outcome can be asked again: an interrupt may strike between any two of them.
    """

    def __init__(self, function: Callable[[int], Any], count: int) -> None:
        self.function = function
        self.pending = list(range(count - 1, -1, -1))
        self.results: list[Any] = [None] * count
        self.errors: list[tuple[int, BaseException]] = []

    def run(self, helpers: int) -> list[Any]:
        pool = _pool_with(helpers)
        seats = [_Seat(self) for _ in range(min(helpers, pool.workers))]
        try:
            for seat in seats:
                pool.queue.put(seat)
            pool.watch.post()
            self.work()
        finally:
            self.pending.clear()
            self.close(seats, pool.watch)
        if self.errors:
            error = min(self.errors, key=lambda item: (isinstance(item[1], Exception), item[0]))[1]
            self.errors.clear()  # an error refers to this frame, which must not refer to it
            try:
                raise error
            finally:
                del error
        return self.results

    def close(self, seats: list[_Seat], watch: _Watch) -> None:
        """Wait until no worker is at the job; an interrupt meanwhile is raised only then."""
        interrupt = None
        for seat in seats:
            while not seat.belongs_to("caller") and not seat.left:
                try:
                    watch.until_left(seat)
                except KeyboardInterrupt as error:
                    interrupt = error
            seat.job = None  # a worker may yet find the seat in the queue: let it not keep the caller's arrays
        if interrupt:
            raise interrupt

    def work(self) -> None:
        while True:
            try:
                index = self.pending.pop()
            except IndexError:
                return
            try:
                self.results[index] = self.function(index)
            except BaseException as error:
                self.pending.clear()
                self.errors.append((index, error))


class _Seat:
    """A worker's place in a job. It belongs to the worker that comes for it, or to the caller that closes it first."""

    __slots__ = ("gate", "job", "left", "owner")

    def __init__(self, job: _Job) -> None:
        self.job: _Job | None = job
        self.owner: dict[str, str] = {}
        self.left = False
        self.gate = threading.Lock()
        self.gate.acquire()

    def belongs_to(self, who: str) -> bool:
        return self.owner.setdefault("owner", who) == who

    def serve(self) -> None:
        job = self.job
        if job and self.belongs_to("worker"):
            job.work()
            self.left = True
            self.gate.release()


class _Watch:
    """Two counters to watch while waiting: jobs posted and workers come to rest. Hints: queue and gates decide."""

    def __init__(self) -> None:
        import ctypes

        self._counts = (ctypes.c_int64 * 32)()  # 128 bytes apart, two cache lines
        self._posted = ctypes.addressof(self._counts)
        self._rested = self._posted + 128
        self._unused = self._posted + 64
        self._spin = _compile_spin()
        self.enabled = True

    def post(self) -> None:
        self._counts[0] += 1

    def next_seat(self, queue: SimpleQueue[_Seat]) -> _Seat:
        while True:
            posted = self._counts[0]
            try:
                return queue.get_nowait()
            except Empty:
                watched = self.enabled and self._spin
                if not watched or watched(self._rested, self._posted, posted, LOOKS, YIELDS, GRACE) == posted:
                    return queue.get()

    def until_left(self, seat: _Seat) -> None:
        while True:
            rested = self._counts[16]
            if seat.left:
                return
            watched = self.enabled and self._spin
            if not watched or watched(self._unused, self._rested, rested, LOOKS, YIELDS, 0) == rested:
                seat.gate.acquire()


_SPIN = """
declare i32 @sched_yield()
define i64 @spin(ptr %announce, ptr %watched, i64 %known, i64 %looks, i64 %yields, i64 %grace) {
start:
  %before = atomicrmw add ptr %announce, i64 1 seq_cst
  br label %look
look:
  %i = phi i64 [0, %start], [%i.next, %look]
  %seen = load atomic i64, ptr %watched acquire, align 8
  %changed = icmp ne i64 %seen, %known
  %i.next = add i64 %i, 1
  %i.end = icmp uge i64 %i, %looks
  %look.end = or i1 %changed, %i.end
  br i1 %look.end, label %patient, label %look
patient:
  %j = phi i64 [0, %look], [%j.next, %yield]
  %now = load atomic i64, ptr %watched acquire, align 8
  %news = icmp ne i64 %now, %known
  br i1 %news, label %hold, label %more
more:
  %j.next = add i64 %j, 1
  %j.end = icmp uge i64 %j, %yields
  br i1 %j.end, label %end, label %yield
yield:
  call i32 @sched_yield()
  br label %patient
hold:
  %k = phi i64 [0, %patient], [%k.next, %hold]
  %again = load atomic i64, ptr %watched acquire, align 8
  %k.next = add i64 %k, 1
  %k.end = icmp uge i64 %k, %grace
  br i1 %k.end, label %end, label %hold
end:
  ret i64 %now
}
"""


@functools.cache  # once, so that a forked child need not ask LLVM again
def _compile_spin() -> Callable[[int, int, int, int, int, int], int] | None:
    """``spin(announce, watched, known, looks, yields, grace)``: count up at one address, then watch the other, a number
    of times holding the core and a number of times yielding it, until it is not ``known``. If so, hold on for ``grace``
    looks. Returns what was seen. None where there is no LLVM or no sched_yield: then threads just sleep.
    """
    try:
        import ctypes

        from llvmlite import binding

        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        machine = binding.Target.from_default_triple().create_target_machine(jit=True)
        engine = binding.create_mcjit_compiler(binding.parse_assembly(_SPIN), machine)
        if not binding.address_of_symbol("sched_yield"):  # asked after the engine has opened the process's own symbols
            return None
        engine.finalize_object()
        address = engine.get_function_address("spin")
        engine.detach()  # a worker may be in this code while the interpreter takes everything else down
        integer, pointer = ctypes.c_int64, ctypes.c_void_p
        return ctypes.CFUNCTYPE(integer, pointer, pointer, integer, integer, integer, integer)(address)
    except Exception:
        return None


class _Pool:
    def __init__(self) -> None:
        self.process = os.getpid()
        self.queue: SimpleQueue[_Seat] = SimpleQueue()
        self.watch = _Watch()
        self.workers = 0

    def grow(self, workers: int) -> None:
        while self.workers < workers:
            try:
                threading.Thread(target=_serve, args=(self.queue, self.watch), daemon=True, name="lossfuncs").start()
            except RuntimeError:  # no more threads, by the system's limit or at exit: those there are suffice
                return
            self.workers += 1
            self.watch.enabled = self.workers < _cores()


def _serve(queue: SimpleQueue[_Seat], watch: _Watch) -> None:
    _local.worker = True
    while True:
        watch.next_seat(queue).serve()


class _Local(threading.local):
    worker = False


def _pool_with(workers: int) -> _Pool:
    global _pool
    pool = _pool
    if pool is None or pool.process != os.getpid() or pool.workers < workers:
        with _lock:
            if _pool is None or _pool.process != os.getpid():
                _pool = _Pool()
            pool = _pool
            pool.grow(workers)
    return pool


def _forget() -> None:
    """In the child of a fork: the workers stayed behind."""
    global _lock, _local, _pool
    _lock, _local, _pool = threading.RLock(), _Local(), None


_num_threads: int | None = None
_pool: _Pool | None = None
_local = _Local()
_lock = threading.RLock()  # held to start workers, and across a fork

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=lambda: _lock.acquire(), after_in_parent=lambda: _lock.release(), after_in_child=_forget)
