"""The CPU backend: compiled kernels over chunks of rows, on all threads.

What is computed together depends on the shape alone, never on the threads or on how the arrays lie in memory, and totals are
added in the order of the chunks; so the same bits come out of any number of threads and of any layout.
"""

from __future__ import annotations

import functools
import math
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba.core import errors

from . import cache, plain, threads
from .boxed import LONG, OTHER, PARTS, SCALE, TEAM, Kind, frame
from .fold import KEPT
from .lanes import LANES
from .problem import NO_CLASS, Array, BadLabel, Problem, Task, divides, give, is_flat, sum_of_weights, take
from .problem import exact_sum as _exact_sum
from .rows import Pass, Rows
from .schedules import SIGNATURE, Kernel, laid_across, piece_signature

CHUNK = 1 << 15  # elements that are computed together: 128 KB of float32, an eighth of an L2 cache
GROUP = 1024  # elements of the longest row beside which the work on its totals counts
LONGEST = 1 << 18  # a longer row is cut up for the threads
CUT = 4096  # a pointwise loss may be cut into rows of this length
WORTH = 20e-6  # seconds of work a thread from which sharing it pays, even when the other threads must be woken first
BY_PYTHON = 3  # times that much, where the threads hand the GIL around
TRIALS = 3  # calls of one shape that are timed on one thread
TRIED = 1 << 22  # elements of the largest call that is: some milliseconds
BREATH = 1 << 25  # elements a thread after which a pending KeyboardInterrupt is let in, and all wait for the last: tens of milliseconds

class Compiled:
    """A kernel's machine code, and what it was seen to take. That of whole rows lets go of the GIL by itself, where there is much to do."""

    def __init__(self, name: str, function: Any, types: Any, nogil: bool = False) -> None:
        try:
            self.call = cache.compile(function, types, nogil=nogil)
        except (errors.NumbaError, errors.UnsupportedBytecodeError, TypeError, AttributeError) as error:  # of a user's own function
            *_, innermost = str(error).split("Failed in nopython mode pipeline")  # the functions from the kernel down to the user's
            lines = [line.strip() for line in innermost.splitlines() if line.strip() and not line.startswith(" (step: ")]
            told = " ".join(lines[: 2 if lines[:1] and lines[0].endswith(":") else 1])
            reason = re.split(r': (?:\S+ )?%"', told)[0] or "Numba does not say why"  # without the LLVM behind it
            raise ValueError(f"{name} cannot be compiled, for its functions must be scalar maths: {reason}") from None
        self.seconds_per_element = 0.5e-9
        self.latest = [math.inf, math.inf]  # likewise, of the two latest calls by one thread: the very first also waits for memory


def _rows_kernel(rows: Rows, kind: str, labelled: bool, n: int, total: bool, order: int, parameters: int) -> Compiled:
    rows = rows.suited(kind, labelled, n)
    kept = order == 1 and rows.softmax_slope is not None and n <= KEPT
    return _kernel(rows, kind, labelled, not laid_across(rows, n), total, order, parameters, kept, n == 1)


@functools.cache
def _kernel(rows: Rows, kind: str, labelled: bool, long: bool, total: bool, order: int, parameters: int, kept: bool,
            single: bool) -> Compiled:  # fmt: skip
    if not order:
        rows = rows._replace(passes=rows.passes[: rows.leading])
    kernel = Kernel(rows, kind, labelled, long, total, order, parameters, kept, single)
    return Compiled(rows.name, kernel.entry(), SIGNATURE)


@functools.cache
def _piece_kernel(rows: Rows, kind: str, index: int, order: int, parameters: int, careful: bool = False) -> Compiled:
    """The kernel of pass `index` on a piece of a row, or of its careful sums; of the derivatives for order > 0."""
    rows = rows._replace(passes=tuple(one._replace(by_label=False) for one in rows.passes))  # a piece does not know of the label
    kernel = Kernel(rows, kind, False, True, False, order, parameters)
    function = kernel.piece_gradient() if order else kernel.piece(index, careful)
    return Compiled(rows.name, function, piece_signature(parameters, order > 0), nogil=True)


def run(problem: Problem, task: Task) -> float:
    """Do the task; returns the total. Raises BadLabel."""
    m, n = problem.m, problem.n
    if task.total and task.weights is None and _may_be_cut(problem):
        return _cut(problem, task, 0, m * n)
    if n <= LONGEST or problem.labelled:
        return _whole_rows(problem, task, 0, m, n)
    return _long_rows(problem, task, _cut if problem.rows.pointwise else _pieces)


def _may_be_cut(problem: Problem) -> bool:
    """Whether rows may end anywhere."""
    return problem.rows.pointwise and not problem.labelled


def totals(problem: Problem, weights: Array | None) -> list[float]:
    """The totals of all values of joint rows. Raises BadLabel."""
    out = np.empty((_chunks(problem.m, problem.n), 1 + len(problem.rows.more)))
    _whole_rows(problem, Task(True, weights), 0, problem.m, problem.n, several=out)
    return [_exact_sum(column) for column in out.T]


def shortcut(
    problem: Problem, arrays: Sequence[Kind], shape: tuple[int, ...], dtype: np.dtype[Any], reduction: str | None, order: int = 0
) -> Callable[..., Any] | None:
    """`run` for more arrays like these, without ignored classes: what depends on the shapes alone is worked out here. Or None.

    arrays are y_true, of the problem's dtype or int64 labels, y_pred and, where there are, float64 weights, one a row. The function takes
    three, or anything in their place, and gives the values, of that shape, or what the reduction makes of them; for order 1 and 2
    with the derivatives, shaped as y_pred, for which it may be given memory.

    It gives None when a call should go the long way after all: for other arrays, to be shared among threads, or for the error that a
    label out of range deserves.
    """
    m, n, rest, a = problem.m, problem.n, 0, problem.parameters
    weighted = len(arrays) > 2
    alone = m == 1 and n > LONGEST  # the value of such a row is a total, too
    summed = reduction is not None or alone
    if summed and not weighted and _may_be_cut(problem):
        m, n, rest = cut(problem.rows, m * n)
    if n > LONGEST or dtype != problem.dtype or problem.ignore != NO_CLASS:
        return None
    kernel = _rows_kernel(problem.rows, _kind(problem), problem.labelled, n, summed, order, len(a))
    call, elements = kernel.call, m * n + rest
    chunk = _chunk(n, CHUNK if summed else CHUNK // 8)
    chunks = -(-m // chunk) + (rest > 0)
    into, size = (np.dtype(np.float64), (chunks,)) if summed else (dtype, shape)
    divisor = float(problem.m) if reduction == "mean" or reduction == "mean_with_sample_weight" and not weighted else 1.0
    by_weights = weighted and reduction == "mean_with_sample_weight"
    numbers = frame(n, m, chunk, 0, chunks, step=int(weighted), scale=1.0 / divisor, parameters=a, rest=rest, of=problem.n,
                    weigh=weighted and not summed, arrays=arrays)  # fmt: skip
    given, gradient_shape = list(arrays), arrays[1][1]  # to be kept alive: the frame knows the addresses of the dtypes

    trials: list[float] = []
    serial = kernel.seconds_per_element * elements  # what one thread takes: a guess, then the least of the first calls

    def shared(*arguments: Any) -> int:
        """The kernel's call on as many threads as it is worth; if they are not to be had, what is never right."""
        nonlocal serial
        team = _team(serial)
        if len(trials) < TRIALS and elements < TRIED:
            began = time.perf_counter()
            bad = call(*arguments)
            trials.append(time.perf_counter() - began)
            serial = min(trials)
        elif team == 1 and elements < BREATH:
            bad = call(*arguments)
        else:
            caller = object()
            try:
                address = threads.enlist(team, caller) if 1 < team and elements < BREATH * team else 0
                if not address:
                    return OTHER
                by_team = arguments[-1].copy()
                by_team[TEAM], by_team[PARTS], by_team[LONG] = address, min(8 * team, chunks), True
                bad = call(*arguments[:-1], by_team)
            finally:
                threads.enlisted.pop(caller, None)
        return int(bad)

    compute, empty = call if chunks == 1 else shared, np.empty

    def values(t: Any, p: Any, w: Any) -> Any:
        out = empty(size, dtype)
        if compute(t, p, w, out, out, out, numbers) != -1:
            return None
        return out if shape else out[()]

    def reduced(out: Array, by: float) -> Any:
        total = out.item() if chunks == 1 else _exact_sum(out)
        if reduction is None:
            with np.errstate(over="ignore"):  # of a half
                return np.full(shape, total, dtype)[()]
        return np.float64(total / (by or math.inf))

    def total(t: Any, p: Any, w: Any) -> Any:
        out = empty(chunks)
        if compute(t, p, w, out, out, out, numbers) != -1:
            return None
        by = sum_of_weights(w) if by_weights else divisor
        return reduced(out, by) if divides(by) else None

    def derived(t: Any, p: Any, w: Any, gradient: Any = None, curvature: Any = None) -> Any:
        out, mine, by = empty(size, into), numbers, divisor
        if gradient is None:
            gradient = empty(gradient_shape, dtype)
            curvature = empty(gradient_shape, dtype) if order == 2 else gradient
        if by_weights:
            if type(w) is not np.ndarray or w.dtype != given[2][0]:
                return None
            by = sum_of_weights(w)
            if not divides(by):
                return None
            mine = numbers.copy()
            mine.view(np.float64)[SCALE] = 1.0 / (by or math.inf)
        if compute(t, p, w, out, gradient, gradient if order == 1 else curvature, mine) != -1:
            return None
        value = reduced(out, by) if summed else out if shape else out[()]
        return (value, gradient) if order == 1 else (value, gradient, curvature)

    return derived if order else total if summed else values


def _chunk(n: int, elements: int = CHUNK) -> int:
    """How many rows of n elements are computed together."""
    if n > GROUP:
        return max(1, elements // n)
    return max(64, elements // n // 64 * 64)  # 64 rows' totals become values together


def _chunks(m: int, n: int) -> int:
    """How many chunks m rows of n elements make."""
    return -(-m // _chunk(n))


def _whole_rows(problem: Problem, task: Task, start: int, m: int, n: int, rest: int = 0, several: Array | None = None) -> float:
    """m rows of n elements, from element `start` on, and a rest. `several` is for the totals of joint rows: (chunks, values)."""
    kind, order, size = _kind(problem), len(task.derivatives), m * n + rest
    kernel = _rows_kernel(problem.rows, kind, problem.labelled, n, task.total, order, len(problem.parameters))
    chunk, chunks = _chunk(n), _chunks(m, n) + (rest > 0)
    w, step = task.weights, int(task.weights is not None)
    out = several.reshape(-1) if several is not None else np.empty(chunks) if task.total else task.values
    count = 1 if several is None else several.shape[1]
    assert out is not None

    def numbers(m: int, chunk: int, begin: int, end: int, team: int = 0, parts: int = 1) -> Array:
        return frame(n, m, chunk, begin, end, team, parts, step, problem.ignore, task.scale, problem.parameters, rest, problem.n)

    flat = is_flat(problem.p, problem.dtype) and (problem.labelled or is_flat(problem.t, problem.dtype))
    flat = flat and (task.total or out.dtype == problem.dtype) and all(is_flat(d, problem.dtype) for d in task.derivatives)
    if flat:
        if not task.total:  # nothing is added up by chunks: smaller ones are shared more evenly
            chunk = _chunk(n, CHUNK // 8)
            chunks = -(-m // chunk)
        end = start + size
        t = problem.t if problem.labelled else problem.t.reshape(-1)[start:end]
        derivatives = [d.reshape(-1)[start:end] for d in task.derivatives] or [out]
        arrays = t, problem.p.reshape(-1)[start:end], w, out, derivatives[0], derivatives[-1]

        def chunks_of(begin: int, end: int, team: int = 0, parts: int = 1) -> int:
            return int(kernel.call(*arrays, numbers(m, chunk, begin, end, team, parts)))

    else:

        def chunks_of(begin: int, end: int, team: int = 0, parts: int = 1) -> int:
            bad = (one_chunk(c) for c in range(begin, end))
            return next((b for b in bad if b >= 0), -1)

    def one_chunk(c: int) -> int:
        """As above, on copies of the chunk's elements."""
        lo, hi = min(m, c * chunk), min(m, (c + 1) * chunk)
        begin, end = start + lo * n, start + (hi * n if lo < m else size)
        p = take(problem.p, begin, end, problem.dtype)
        t = problem.t[lo:hi] if problem.labelled else take(problem.t, begin, end, problem.dtype)
        into = out[c * count : (c + 1) * count] if task.total else np.empty(hi - lo, problem.dtype)
        grads = [np.empty(end - begin, problem.dtype) for _ in task.derivatives]
        weights = None if w is None else w[lo:hi]
        some = grads or [into]
        bad = int(kernel.call(t, p, weights, into, some[0], some[-1], numbers(hi - lo, hi - lo, 0, 1)))
        if not task.total:
            give(out, lo, hi, into)
        for d, g in zip(task.derivatives, grads, strict=True):
            give(d, begin, end, g)
        return bad + lo if bad >= 0 else -1

    bad = _in_parallel(kernel, size, chunks, chunks_of, flat)
    if bad >= 0:
        raise BadLabel(bad)
    return _exact_sum(out) if task.total and several is None else 0.0


def _in_parallel(kernel: Compiled, elements: int, chunks: int, work: Callable[..., int], native: bool) -> int:
    """work(begin, end) over all chunks; the first result that is not negative, by chunk, or -1.

    If `native`, work(begin, end, team, parts) is one kernel's, whose parts `team` shares.
    """
    team = _team(elements * kernel.seconds_per_element / (1 if native else BY_PYTHON))
    unknown = kernel.latest[0] == math.inf and elements <= TRIED
    if chunks == 1 or team == 1 or unknown:
        parts = -(-elements // BREATH)
        if parts == 1:
            began = time.perf_counter()
            bad = work(0, chunks)
            if elements > CUT:
                kernel.latest = [kernel.latest[1], (time.perf_counter() - began) / elements]
                kernel.seconds_per_element = min(kernel.latest)
            return bad
        team = 1
    else:
        caller = object()
        try:
            if native and (address := threads.enlist(team, caller)):
                breaths = min(chunks, -(-elements // (BREATH * team)))
                bad, i = -1, 0
                while bad < 0 and i < breaths:
                    begin, end = i * chunks // breaths, (i + 1) * chunks // breaths
                    bad, i = work(begin, end, address, min(8 * team, end - begin)), i + 1
                return bad
        finally:
            threads.enlisted.pop(caller, None)
        parts = max(4 * team, -(-elements // BREATH))
    parts = min(parts, chunks)
    found = threads.run(lambda i: work(i * chunks // parts, (i + 1) * chunks // parts), parts, team)
    return next((bad for bad in found if bad >= 0), -1)


def _team(seconds: float) -> int:
    """How many threads are to share work that would take one of them so many seconds."""
    return min(threads.get_num_threads(), 1 + int(seconds / WORTH))


def _cut(problem: Problem, task: Task, begin: int, end: int) -> float:
    """The total of a pointwise loss over elements [begin, end): rows end where it suits."""
    m, n, rest = cut(problem.rows, end - begin)
    return _whole_rows(problem, task, begin, m, n, rest)


def cut(rows: Rows, elements: int) -> tuple[int, int, int]:
    """The rows, the length of each, and what is left over, in which elements of a pointwise loss are added up.

    Up to CUT of them are a row, or a lane each.
    """
    if elements > CUT:
        return elements // CUT, CUT, elements % CUT
    return (elements, 1, 0) if elements <= LANES and rows.narrow is None else (1, elements, 0)


def _long_rows(problem: Problem, task: Task, one: Callable[[Problem, Task, int, int], float]) -> float:
    """One row after the other, each by all threads."""
    totals = []
    for i in range(problem.m):
        w = 1.0 if task.weights is None else float(task.weights[i])
        value = one(problem, Task(True, None, task.scale * w, None, task.derivatives), i * problem.n, (i + 1) * problem.n)
        totals.append(w * value)
        if task.values is not None:
            with np.errstate(over="ignore"):  # of a half
                task.values[i] = value
    return _exact_sum(np.array(totals)) if task.total else 0.0


def _pieces(problem: Problem, task: Task, begin: int, end: int) -> float:
    """The value of the one row in elements [begin, end), whose totals are gathered from pieces."""
    rows, a, kind, n = problem.rows, problem.parameters, _kind(problem), problem.n
    pieces = -(-n // CHUNK)
    with np.errstate(all="ignore"):
        s: tuple[Any, ...] = ()
        for index, one in enumerate(rows.passes if task.derivatives else rows.passes[: rows.leading]):
            s += _gathered(problem, one, index, s, begin, end, pieces)
        value = float(plain.on_arrays(rows.value)(s, np.float64(n), *a))
        if not task.derivatives:
            return value
        c = np.array(plain.on_arrays(rows.around)(s, np.float64(n), *a) if rows.around else s, np.float64)
    kernel = _piece_kernel(rows, kind, 0, len(task.derivatives), len(a))

    def derive(i: int) -> int:
        lo, hi = begin + i * CHUNK, min(end, begin + (i + 1) * CHUNK)
        t, p = (take(x, lo, hi, problem.dtype) for x in (problem.t, problem.p))
        grads = [np.empty(hi - lo, problem.dtype) for _ in task.derivatives]
        kernel.call(t, p, c, grads[0], grads[-1], 0, hi - lo, task.scale, a)
        for d, g in zip(task.derivatives, grads, strict=True):
            give(d, lo, hi, g)
        return -1

    threads.run(derive, pieces)
    return value


def _gathered(problem: Problem, one: Pass, index: int, s: tuple[Any, ...], begin: int, end: int, pieces: int) -> tuple[Any, ...]:
    """The totals of one pass over a row in pieces, merged in order."""
    a, dtype = problem.parameters, problem.dtype
    if one.op == "pick":
        i = int(s[one.label])
        p = take(problem.p, begin + i, begin + i + 1, dtype).astype(np.float64)
        return (np.float64(plain.on_arrays(one.terms)(s, p, *a)[0]),)
    slot = len(s)
    count = sum(x.size for x in problem.rows.passes)

    def gathered(s: tuple[Any, ...], width: int, careful: bool) -> Array:
        kernel = _piece_kernel(problem.rows, _kind(problem), index, 0, len(a), careful)
        before = np.array([*s, *[0.0] * (count - len(s))], np.float64)
        found = np.empty((pieces, width))

        def gather(i: int) -> None:
            lo, hi = begin + i * CHUNK, min(end, begin + (i + 1) * CHUNK)
            t, p = (take(x, lo, hi, dtype) for x in (problem.t, problem.p))
            known = before.copy()
            if one.op == "earlier":
                known[one.label] -= i * CHUNK  # the kernel counts places from the piece's beginning
            kernel.call(t, p, known, found[i], 0, hi - lo, a)

        threads.run(gather, pieces)
        return found

    totals = gathered(s, count, False)[:, slot : slot + one.size]
    if one.op in ("sum", "dot", "larger", "earlier"):
        sums = tuple(np.float64(_exact_sum(x)) for x in totals.T)
        if one.careful and plain.on_arrays(one.careful.doubt)((*s, *sums), *a):
            parts = gathered((*s, *sums), 3 * one.careful.size, True)
            return plain.settled(one.careful, (*s, *sums), np.split(parts, one.careful.size, axis=1), a)[slot:]
        return sums
    if one.op == "max":
        return tuple(np.max(totals, axis=0))
    if one.op == "top":
        return tuple(np.fmax.reduce(totals, axis=0))
    if one.op == "lse":
        m = np.max(totals[:, 0])
        best = int(np.argmax(totals[:, 0]))
        others = [(1.0 + r) * np.exp(x - m) for i, (x, r) in enumerate(totals) if i != best]
        return m, np.float64(totals[best, 1] + _exact_sum(np.array(others)))
    # label: each piece names its own first largest target; the first largest of these it is
    where = [begin + i * CHUNK + int(x) for i, x in enumerate(totals[:, 0])]
    return (np.float64(where[int(np.argmax([take(problem.t, k, k + 1, dtype)[0] for k in where]))] - begin),)


def _kind(problem: Problem) -> str:
    return _name(problem.dtype)


@functools.cache
def _name(dtype: np.dtype[Any]) -> str:
    return dtype.name

