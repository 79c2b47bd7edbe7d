"""A pool of threads for functions that release the GIL: the caller works too, results come in order, forks are safe.

Waking a thread that sleeps costs 20-50 us. A worker that has just worked, and a caller whose workers are about to
finish, therefore watch a counter for about 100 us before they sleep. They do so in machine code without the GIL, and
soon yield the core at every look, so that a machine with more threads than cores loses next to nothing by it.

A Python function's items cost its threads some 20 us of handing the GIL around. Machine code needs no GIL: while they
watch, workers also take parts of a kernel that a caller has `enlist`ed them for, for about 1 us.
"""

from __future__ import annotations

import functools
import operator
import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

_PATIENCE = 2_000  # looks of a caller that has no more parts before it yields the core at every look
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


def enlist(team: int, caller: object) -> int:
    """Have up to ``team`` - 1 workers watch for parts of a kernel: their address, for `parts.shared`.

    They are the caller's, any object of its own, until ``enlisted.pop(caller, None)``. That stands in a ``finally`` around this call: an
    interrupt may strike at its very end. 0 if they cannot be had: there is no LLVM, another caller has them, or this is itself a worker.
    """
    pool = None if _local.worker else _pool_with(team - 1)
    if pool is None or not pool.watch.native:
        return 0
    enlisted[caller] = None
    if list(enlisted)[0] is not caller:
        enlisted.pop(caller, None)
        return 0
    watch, helpers = pool.watch, min(team - 1, pool.workers)
    watch.counts[_HELPERS] = helpers
    for _ in range(helpers - watch.counts[_ATTENDING] - pool.queue.qsize()):
        pool.queue.put(None)
    return watch.address


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
    """Words that threads watch while they wait: jobs posted, workers come to rest (hints: queue and gates decide), and the
    kernel whose parts are to be had.
    """

    def __init__(self) -> None:
        import ctypes

        self.counts = (ctypes.c_int64 * 128)()
        self.address = ctypes.addressof(self.counts)
        self.native = _compile_native()
        if self.native:
            self.counts[_CONDUCT] = self.native.conduct
        self.enabled = True

    def post(self) -> None:
        self.counts[_POSTED] += 1

    def next_seat(self, queue: SimpleQueue[_Seat | None]) -> _Seat | None:
        while True:
            posted = self.counts[_POSTED]
            try:
                return queue.get_nowait()
            except Empty:
                looks, yields = (LOOKS, YIELDS) if self.enabled else (0, YIELDS // 4)
                if not self.native or self.native.attend(self.address, posted, looks, yields, GRACE) == posted:
                    return queue.get()

    def until_left(self, seat: _Seat) -> None:
        while True:
            rested = self.counts[_RESTED]
            if seat.left:
                return
            watched = self.enabled and self.native
            if not watched or watched.wait(self.address, rested, LOOKS, YIELDS) == rested:
                seat.gate.acquire()


# The words of a `_Watch`. Those that are written often have a pair of cache lines each.
_POSTED, _RESTED, _OPEN, _NEXT, _INSIDE, _ATTENDING = 0, 16, 32, 48, 64, 80
_HELPERS, _PARTS, _FUNCTION, _ARGUMENTS, _LAST, _CONDUCT, _BAD = 96, 97, 98, 99, 100, 101, 112

# conduct: open a job, take parts, close it, wait until nobody is inside any more. A worker goes inside, then looks whether the job it saw
# is still open: either it sees the job closed, or the conductor sees it inside.
_NATIVE = """
declare i32 @sched_yield()

define internal void @take(ptr %team) {
start:
  %function.at = getelementptr i64, ptr %team, i64 FUNCTION
  %function = load ptr, ptr %function.at
  %arguments.at = getelementptr i64, ptr %team, i64 ARGUMENTS
  %arguments = load ptr, ptr %arguments.at
  %parts.at = getelementptr i64, ptr %team, i64 PARTS
  %parts = load i64, ptr %parts.at
  %next = getelementptr i64, ptr %team, i64 NEXT
  %bad = getelementptr i64, ptr %team, i64 BAD
  br label %ask
ask:
  %i = atomicrmw add ptr %next, i64 1 seq_cst
  %left = icmp slt i64 %i, %parts
  br i1 %left, label %work, label %end
work:
  %found = call i64 %function(ptr %arguments, i64 %i)
  %was = atomicrmw umin ptr %bad, i64 %found seq_cst
  br label %ask
end:
  ret void
}

define internal void @join(ptr %team, i64 %job) {
start:
  %inside = getelementptr i64, ptr %team, i64 INSIDE
  %others = atomicrmw add ptr %inside, i64 1 seq_cst
  %open.at = getelementptr i64, ptr %team, i64 OPEN
  %open = load atomic i64, ptr %open.at seq_cst, align 8
  %still = icmp eq i64 %open, %job
  br i1 %still, label %room, label %leave
room:
  %helpers.at = getelementptr i64, ptr %team, i64 HELPERS
  %helpers = load i64, ptr %helpers.at
  %wanted = icmp slt i64 %others, %helpers
  br i1 %wanted, label %work, label %leave
work:
  call void @take(ptr %team)
  br label %leave
leave:
  %before = atomicrmw sub ptr %inside, i64 1 seq_cst
  ret void
}

define i64 @conduct(ptr %team, ptr %function, ptr %arguments, i64 %parts) {
start:
  %function.at = getelementptr i64, ptr %team, i64 FUNCTION
  store ptr %function, ptr %function.at
  %arguments.at = getelementptr i64, ptr %team, i64 ARGUMENTS
  store ptr %arguments, ptr %arguments.at
  %parts.at = getelementptr i64, ptr %team, i64 PARTS
  store i64 %parts, ptr %parts.at
  %next = getelementptr i64, ptr %team, i64 NEXT
  store i64 0, ptr %next
  %bad = getelementptr i64, ptr %team, i64 BAD
  store i64 -1, ptr %bad
  %last.at = getelementptr i64, ptr %team, i64 LAST
  %last = load i64, ptr %last.at
  %job = add i64 %last, 1
  store i64 %job, ptr %last.at
  %open = getelementptr i64, ptr %team, i64 OPEN
  store atomic i64 %job, ptr %open seq_cst, align 8
  call void @take(ptr %team)
  store atomic i64 0, ptr %open seq_cst, align 8
  %inside.at = getelementptr i64, ptr %team, i64 INSIDE
  br label %look
look:
  %i = phi i64 [0, %start], [%i.next, %again], [%i.next, %yield]
  %inside = load atomic i64, ptr %inside.at seq_cst, align 8
  %alone = icmp eq i64 %inside, 0
  br i1 %alone, label %end, label %more
more:
  %i.next = add i64 %i, 1
  %long = icmp ugt i64 %i.next, PATIENCE
  br i1 %long, label %yield, label %again
again:
  br label %look
yield:
  call i32 @sched_yield()
  br label %look
end:
  %found = load i64, ptr %bad
  ret i64 %found
}

define i64 @attend(ptr %team, i64 %known, i64 %looks, i64 %yields, i64 %grace) {
start:
  %posted.at = getelementptr i64, ptr %team, i64 POSTED
  %open.at = getelementptr i64, ptr %team, i64 OPEN
  %attending = getelementptr i64, ptr %team, i64 ATTENDING
  %rested = getelementptr i64, ptr %team, i64 RESTED
  %a = atomicrmw add ptr %attending, i64 1 seq_cst
  %b = atomicrmw add ptr %rested, i64 1 seq_cst
  br label %look
look:
  %i = phi i64 [0, %start], [0, %job], [%i.next, %idle]
  %done = phi i64 [0, %start], [%open, %job], [%done, %idle]
  %posted = load atomic i64, ptr %posted.at acquire, align 8
  %news = icmp ne i64 %posted, %known
  br i1 %news, label %hold, label %watch
watch:
  %open = load atomic i64, ptr %open.at acquire, align 8
  %closed = icmp eq i64 %open, 0
  %joined = icmp eq i64 %open, %done
  %nothing = or i1 %closed, %joined
  br i1 %nothing, label %wait, label %job
job:
  call void @join(ptr %team, i64 %open)
  br label %look
wait:
  %i.next = add i64 %i, 1
  %holding = icmp ult i64 %i.next, %looks
  br i1 %holding, label %idle, label %patient
patient:
  %yielded = sub i64 %i.next, %looks
  %over = icmp ugt i64 %yielded, %yields
  br i1 %over, label %end, label %yield
yield:
  call i32 @sched_yield()
  br label %idle
idle:
  br label %look
hold:
  %k = phi i64 [0, %look], [%k.next, %hold]
  %again = load atomic i64, ptr %posted.at acquire, align 8
  %k.next = add i64 %k, 1
  %k.end = icmp uge i64 %k, %grace
  br i1 %k.end, label %end, label %hold
end:
  %c = atomicrmw sub ptr %attending, i64 1 seq_cst
  ret i64 %posted
}

define i64 @wait(ptr %team, i64 %known, i64 %looks, i64 %yields) {
start:
  %rested.at = getelementptr i64, ptr %team, i64 RESTED
  %all = add i64 %looks, %yields
  br label %look
look:
  %i = phi i64 [0, %start], [%i.next, %more], [%i.next, %yield]
  %rested = load atomic i64, ptr %rested.at acquire, align 8
  %news = icmp ne i64 %rested, %known
  %over = icmp uge i64 %i, %all
  %stop = or i1 %news, %over
  %i.next = add i64 %i, 1
  br i1 %stop, label %end, label %more
more:
  %patient = icmp uge i64 %i, %looks
  br i1 %patient, label %yield, label %look
yield:
  call i32 @sched_yield()
  br label %look
end:
  ret i64 %rested
}
"""


class _Native(NamedTuple):
    """``attend(words, posted, looks, yields, grace)``: count up RESTED, then watch for parts of a kernel and work at them, and
    for POSTED to be other than given, that many times holding the core and as many yielding it, all over again after a kernel; when
    it has changed, hold on for ``grace`` looks. Returns what was seen. ``wait(words, rested, looks, yields)``: watch RESTED alone.
    ``conduct``: the address of a C function (words, function, its arguments, parts): function(arguments, i) for all parts i by all
    who attend, and the least that it returned, of unsigned numbers.
    """

    attend: Callable[[int, int, int, int, int], int]
    wait: Callable[[int, int, int, int], int]
    conduct: int


@functools.cache  # once, so that a forked child need not ask LLVM again
def _compile_native() -> _Native | None:
    """None where there is no LLVM or no sched_yield: then threads just sleep, and kernels are no team's work."""
    try:
        import ctypes
        import re

        from llvmlite import binding

        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        words = {name[1:]: value for name, value in globals().items() if re.fullmatch("_[A-Z]+", name) and isinstance(value, int)}
        text = re.sub(r"\b[A-Z]{3,}\b", lambda word: str(words[word[0]]), _NATIVE)
        machine = binding.Target.from_default_triple().create_target_machine(jit=True)
        engine = binding.create_mcjit_compiler(binding.parse_assembly(text), machine)
        if not binding.address_of_symbol("sched_yield"):  # asked after the engine has opened the process's own symbols
            return None
        engine.finalize_object()
        conduct, attend, wait = (engine.get_function_address(name) for name in ("conduct", "attend", "wait"))
        engine.detach()  # a worker may be in this code while the interpreter takes everything else down
        integer, pointer = ctypes.c_int64, ctypes.c_void_p
        return _Native(
            ctypes.CFUNCTYPE(integer, pointer, integer, integer, integer, integer)(attend),
            ctypes.CFUNCTYPE(integer, pointer, integer, integer, integer)(wait),
            conduct,
        )
    except Exception:
        return None


class _Pool:
    def __init__(self) -> None:
        self.process = os.getpid()
        self.queue: SimpleQueue[_Seat | None] = SimpleQueue()  # None only wakes
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


def _serve(queue: SimpleQueue[_Seat | None], watch: _Watch) -> None:
    _local.worker = True
    while True:
        seat = watch.next_seat(queue)
        if seat is not None:
            seat.serve()
        del seat


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
    global _lock, _local, _pool, enlisted
    _lock, _local, _pool, enlisted = threading.RLock(), _Local(), None, {}


enlisted: dict[object, None] = {}  # callers, of whom the first has the workers: joined and left in one operation each
_num_threads: int | None = None
_pool: _Pool | None = None
_local = _Local()
_lock = threading.RLock()  # held to start workers, and across a fork

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=lambda: _lock.acquire(), after_in_parent=lambda: _lock.release(), after_in_child=_forget)
