"""The CPU schedules: how the row contract runs at the memory's speed, compiled by Numba.

    short rows   up to 64 elements: 64 rows at a time, transposed, one a lane
    long rows    one row at a time over all lanes; 64 rows' totals then become values together
    pieces       parts of a row too long for one thread; `cpu.py` merges their totals in order

float32 and half data are computed in float64 and rounded once. No schedule knows a loss, and no loss a schedule.
"""

from __future__ import annotations

import math
from typing import Any

from numba.core import types

from . import plain
from .fold import ELEMENTS, Fold, inline, tree
from .lanes import LANES, add_to, at, column, pointer, put, scratch, set_to, transpose8
from .rows import Rows

SHORT = 64  # the longest row that is laid across lanes: its scratch of 64 x 64 elements is at most half of an L1 cache

_VALID, _IGNORED, _BAD = 0.0, 1.0, 2.0


@inline
def _labels(t: Any, first: int, step: int, lanes: int, classes: int, ignore: int, strict: bool, K: Any, status: Any) -> int:
    """Read each label once and check it; return the first lane whose label is out of range, or -1."""
    bad = -1
    for lane in range(LANES):
        k = t[first + lane * step] if lane < lanes else 0
        valid, ignored = (k >= 0) & (k < classes), k == ignore
        put(status, lane, _IGNORED if ignored else (_VALID if valid | (not strict) else _BAD))
        if strict and bad < 0 and not (valid | ignored):
            bad = lane
        put(K, lane, k if valid | (not strict) else 0)
    return bad


@inline
def _no_labels(t: Any, first: int, step: int, lanes: int, classes: int, ignore: int, strict: bool, K: Any, status: Any) -> int:
    for lane in range(LANES):
        put(status, lane, _VALID)
    return -1


@inline
def _transposed(into: Any, x: Any, n: int, lanes: int) -> None:
    """into[j*64 + r] = x[r*n + j] for `lanes` rows of n elements; zeros in the other lanes."""
    blocks = lanes // 8 * 8 if n >= 8 else 0
    for r in range(0, blocks, 8):
        for j in range(0, n - 7, 8):
            transpose8(at(into, j * LANES + r), LANES, at(x, r * n + j), n)
        if n % 8:
            transpose8(at(into, (n - 8) * LANES + r), LANES, at(x, r * n + n - 8), n)
    if n < 8 and lanes == LANES:
        for j in range(n):
            for r in range(LANES):
                put(into, j * LANES + r, x[r * n + j])
        return
    for r in range(blocks, lanes):
        for j in range(n):
            put(into, j * LANES + r, x[r * n + j])
    for j in range(n):
        for r in range(lanes, LANES):
            put(into, j * LANES + r, 0)


@inline
def _transposed_back(into: Any, x: Any, n: int, lanes: int) -> None:
    """into[r*n + j] = x[j*64 + r]."""
    blocks = lanes // 8 * 8 if n >= 8 else 0
    for r in range(0, blocks, 8):
        for j in range(0, n - 7, 8):
            transpose8(at(into, r * n + j), n, at(x, j * LANES + r), LANES)
        if n % 8:
            transpose8(at(into, r * n + n - 8), n, at(x, (n - 8) * LANES + r), LANES)
    for r in range(blocks, lanes):
        for j in range(n):
            put(into, r * n + j, x[j * LANES + r])


class Kernel:
    """The parts of one kernel: a loss's rows for one element kind, with labels or dense targets, and what is asked of it.

    `order` 0 gives values, 1 the gradient too, 2 the second derivative as well. With `total`, w * value is added up over a chunk
    of rows instead of being stored.
    """

    def __init__(self, rows: Rows, kind: str, labelled: bool, long: bool, total: bool, order: int, parameters: int) -> None:
        self.element = ELEMENTS[kind]
        self.fold = Fold(rows, self.element, labelled, long)
        self.labelled, self.long, self.total, self.order = labelled, long, total, order
        self.read = column(self.fold.count)
        self.value = self.element.bind(rows.value)
        self.around = self.element.bind(rows.around or _totals_themselves)
        self.constants = plain.constants(rows, self.fold.count, parameters)
        self.derivatives = [self.element.bind(f) for f in (rows.slope, rows.curve)[:order] if f is not None]
        self.check = _labels if labelled else _no_labels
        self.lanes, self.lane_labels = scratch(LANES, types.float64), scratch(LANES, types.int64)

    def finish(self) -> Any:
        """From the totals R of up to 64 rows, one a lane, to their values: weighted and added to acc, or stored from out[first] on."""
        value, read, store, total, lanes64 = self.value, self.read, self.element.store, self.total, self.lanes

        @inline
        def values(R: Any, status: Any, V: Any, n: int, a: Any) -> None:
            for lane in range(LANES):
                v = value(read(R, lane), float(n), *a)
                put(V, lane, v if status[lane] == _VALID else (0.0 if status[lane] == _IGNORED else math.nan))

        @inline
        def add(R: Any, status: Any, W: Any, out: Any, acc: Any, first: int, lanes: int, n: int, a: Any) -> None:
            V = lanes64()
            values(R, status, V, n, a)
            for lane in range(LANES):
                put(acc, lane, acc[lane] + (V[lane] * W[lane] if lane < lanes else 0.0))

        @inline
        def keep(R: Any, status: Any, W: Any, out: Any, acc: Any, first: int, lanes: int, n: int, a: Any) -> None:
            V = lanes64()
            values(R, status, V, n, a)
            for lane in range(lanes):
                put(out, first + lane, store(V[lane]))

        return add if total else keep

    def short(self) -> Any:
        """group(...): up to 64 rows side by side, one a lane."""
        fold, load, store, read, around = self.fold.all, self.element.load, self.element.store, self.read, self.around
        target, along, strict = self.fold.target, self.fold.along, self.fold.strict
        constant, block = column(self.constants), scratch(LANES * SHORT, self.element.type)
        totals, lanes64, labels64, spread = self.fold.totals, self.lanes, self.lane_labels, scratch(self.constants * LANES, types.float64)
        check, finish = self.check, self.finish()

        @inline
        def laid(x: Any, first: int, lanes: int, n: int, into: Any) -> Any:
            if n == 1 and lanes == LANES:  # already one element a lane
                return at(x, first)
            _transposed(into, at(x, first * n), n, lanes)
            return into

        targets_block = scratch(0, types.int64) if self.labelled else block
        targets_laid = inline(lambda x, first, lanes, n, into: x) if self.labelled else laid

        def derivative(f: Any) -> Any:
            @inline
            def derive(C: Any, U: Any, K: Any, t: Any, p: Any, into: Any, lanes: int, n: int, a: Any) -> None:
                G = block()
                for j in range(n):
                    for lane in range(LANES):
                        y = target(K, along(t, j), j, lane)
                        put(G, j * LANES + lane, store(f(constant(C, lane), y, load(p[j * LANES + lane]), *a) * U[lane]))
                _transposed_back(into, G, n, lanes)

            return derive

        derive = _nothing_or([derivative(f) for f in self.derivatives])

        @inline
        def group(t: Any, p: Any, w: Any, out: Any, grad: Any, hess: Any, acc: Any, first: int, lanes: int, n: int, wstep: int,
                  ignore: int, scale: float, a: Any) -> int:  # fmt: skip
            S, W, U, status, K, C = totals(), lanes64(), lanes64(), lanes64(), labels64(), spread()
            bad = check(t, first, 1, lanes, n, ignore, strict, K, status)
            T, P = targets_laid(t, first, lanes, n, targets_block()), laid(p, first, lanes, n, block())
            fold(S, K, T, P, T, P, n, a)
            for lane in range(LANES):
                put(W, lane, w[(first + lane) * wstep] if lane < lanes else 0.0)
                put(U, lane, _upstream(W[lane] * scale, status[lane]))
                set_to(C, lane, around(read(S, lane), float(n), *a))
            derive(C, U, K, T, P, at(grad, first * n), at(hess, first * n), lanes, n, a)
            finish(S, status, W, out, acc, first, lanes, n, a)
            return bad

        return group

    def long_(self) -> Any:
        """group(...): up to 64 rows one after the other, the lanes within the row."""
        fold, load, store, read, around = self.fold.all, self.element.load, self.element.store, self.read, self.around
        labelled, strict, count = self.labelled, self.fold.strict, self.fold.count
        totals, lanes64, labels64, tail = self.fold.totals, self.lanes, self.lane_labels, scratch(LANES, self.element.type)
        check, finish = self.check, self.finish()

        @inline
        def row_of(x: Any, row: int, n: int, rest: Any) -> Any:
            """The row's address; its last elements, fewer than 64, are copied to where 64 can be read."""
            x = at(x, row * n)
            for j in range(n % LANES):
                put(rest, j, x[n // LANES * LANES + j])
            return x

        targets_tail = scratch(0, types.int64) if labelled else tail
        targets_of = inline(lambda x, row, n, rest: x) if labelled else row_of
        target = inline(lambda k, t, j: 1.0 if j == k else 0.0) if labelled else inline(lambda k, t, j: load(t[j]))

        def derivative(f: Any) -> Any:
            @inline
            def derive(c: Any, u: float, K: Any, t: Any, p: Any, into: Any, lanes: int, n: int, a: Any) -> None:
                k = K[0]
                for j in range(n):
                    put(into, j, store(f(c, target(k, t, j), load(p[j]), *a) * u))

            return derive

        derive = _nothing_or([derivative(f) for f in self.derivatives])

        @inline
        def group(t: Any, p: Any, w: Any, out: Any, grad: Any, hess: Any, acc: Any, first: int, lanes: int, n: int, wstep: int,
                  ignore: int, scale: float, a: Any) -> int:  # fmt: skip
            S, R, W, status, row_status, K, rest_t, rest_p = (
                totals(), totals(), lanes64(), lanes64(), lanes64(), labels64(), targets_tail(), tail())  # fmt: skip
            bad = -1
            for lane in range(LANES):
                put(W, lane, 0.0)
                put(status, lane, _VALID)
            for lane in range(lanes):
                row = first + lane
                if check(t, row, 0, LANES, n, ignore, strict, K, row_status) >= 0 and bad < 0:
                    bad = lane
                T, P = targets_of(t, row, n, rest_t), row_of(p, row, n, rest_p)
                fold(S, K, T, P, rest_t, rest_p, n, a)
                put(status, lane, row_status[0])
                put(W, lane, w[row * wstep])
                set_to(R, lane, read(S, 0))
                u = _upstream(W[lane] * scale, status[lane])
                derive(around(read(S, 0), float(n), *a), u, K, T, P, at(grad, row * n), at(hess, row * n), lanes, n, a)
            for q in range(count):
                for lane in range(lanes, LANES):
                    put(R, q * LANES + lane, 1.0)
            finish(R, status, W, out, acc, first, lanes, n, a)
            return bad

        return group

    def rows(self) -> Any:
        """The kernel over whole rows: chunks [begin, end) of `chunk` rows each, of m rows of n elements.

        Returns the first row with a label out of range, or -1.
        """
        group, lanes64, total = self.long_() if self.long else self.short(), self.lanes, self.total

        @inline
        def chunks(t: Any, p: Any, w: Any, out: Any, grad: Any, hess: Any, n: int, m: int, chunk: int, begin: int, end: int,
                   wstep: int, ignore: int, scale: float, a: Any) -> int:  # fmt: skip
            bad = -1
            acc = lanes64()
            for c in range(begin, end):
                for lane in range(LANES):
                    put(acc, lane, 0.0)
                stop = min(m, (c + 1) * chunk)
                for first in range(c * chunk, stop, LANES):
                    lane = group(t, p, w, out, grad, hess, acc, first, min(LANES, stop - first), n, wstep, ignore, scale, a)
                    if lane >= 0 and bad < 0:
                        bad = first + lane
                if total:
                    put(out, c, _sum_of_lanes(acc))
            return bad

        def values(t: Any, p: Any, w: Any, out: Any, n: int, m: int, chunk: int, begin: int, end: int,
                   wstep: int, ignore: int, a: Any) -> int:  # fmt: skip
            x, o = pointer(p), pointer(out)
            return chunks(pointer(t), x, pointer(w), o, x, x, n, m, chunk, begin, end, wstep, ignore, 1.0, a)

        def gradients(t: Any, p: Any, w: Any, out: Any, grad: Any, hess: Any, n: int, m: int, chunk: int, begin: int, end: int,
                      wstep: int, ignore: int, scale: float, a: Any) -> int:  # fmt: skip
            return chunks(pointer(t), pointer(p), pointer(w), pointer(out), pointer(grad), pointer(hess), n, m, chunk, begin, end,
                          wstep, ignore, scale, a)  # fmt: skip

        return gradients if self.order else values

    def piece(self, index: int) -> Any:
        """The kernel for pass `index` over elements [begin, end) of one row: its totals, given all those of the passes before."""
        fold, count, along = self.fold.each[index], self.fold.count, self.fold.along
        totals, labels64, tail = self.fold.totals, self.lane_labels, scratch(LANES, self.element.type)

        def run(t: Any, p: Any, before: Any, out: Any, begin: int, end: int, a: Any) -> int:
            S, K, rest_t, rest_p, n = totals(), labels64(), tail(), tail(), end - begin
            y, x = at(pointer(t), begin), at(pointer(p), begin)
            for q in range(count):
                for lane in range(LANES):
                    put(S, q * LANES + lane, before[q])
            for j in range(n % LANES):
                put(rest_t, j, y[n // LANES * LANES + j])
                put(rest_p, j, x[n // LANES * LANES + j])
            fold(S, K, y, x, rest_t, rest_p, n, a)
            for q in range(count):
                out[q] = S[q * LANES]
            return -1

        return run

    def piece_gradient(self) -> Any:
        """The kernel for the derivatives at elements [begin, end) of one row, from the row's constants c."""
        load, store, constants = self.element.load, self.element.store, self.constants
        read = column(constants, 1)

        def derivative(f: Any) -> Any:
            @inline
            def derive(c: Any, u: float, t: Any, p: Any, into: Any, begin: int, end: int, a: Any) -> None:
                for j in range(begin, end):
                    put(into, j, store(f(c, load(t[j]), load(p[j]), *a) * u))

            return derive

        derive = [derivative(f) for f in self.derivatives]
        first, last, both = derive[0], derive[-1], len(derive) == 2

        def run(t: Any, p: Any, c: Any, grad: Any, hess: Any, begin: int, end: int, u: float, a: Any) -> int:
            y, x, constants = pointer(t), pointer(p), read(pointer(c), 0)
            first(constants, u, y, x, pointer(grad), begin, end, a)
            if both:
                last(constants, u, y, x, pointer(hess), begin, end, a)
            return -1

        return run


def signature(kernel: Kernel, parameters: int) -> Any:
    """The Numba signature of `kernel.rows()`."""
    i, f, x = types.int64, types.float64, types.Array(kernel.element.type, 1, "C")
    t, out = types.Array(i, 1, "C") if kernel.labelled else x, types.Array(f, 1, "C") if kernel.total else x
    a = types.UniTuple(f, parameters) if parameters else types.Tuple(())
    weights = types.Array(f, 1, "C")
    if kernel.order:
        return i(t, x, weights, out, x, x, i, i, i, i, i, i, i, f, a)
    return i(t, x, weights, out, i, i, i, i, i, i, i, a)


def piece_signature(kernel: Kernel, parameters: int, gradient: bool) -> Any:
    """The Numba signature of `kernel.piece(...)` and of `kernel.piece_gradient()`."""
    i, f, x = types.int64, types.float64, types.Array(kernel.element.type, 1, "C")
    a, numbers = types.UniTuple(f, parameters) if parameters else types.Tuple(()), types.Array(f, 1, "C")
    return i(x, x, numbers, x, x, i, i, f, a) if gradient else i(x, x, numbers, numbers, i, i, a)


@inline
def _upstream(weight: float, status: float) -> float:
    return weight if status == _VALID else (0.0 if status == _IGNORED else math.nan)


@inline
def _sum_of_lanes(x: Any) -> float:
    return tree(x, add_to)


def _totals_themselves(s: Any, n: float, *a: float) -> Any:
    return s


def _nothing_or(derivatives: list[Any]) -> Any:
    """derive(c, u, K, t, p, grad, hess, lanes, n, a): none, the first, or both."""
    if not derivatives:
        return inline(lambda c, u, K, t, p, grad, hess, lanes, n, a: None)
    first = derivatives[0]
    if len(derivatives) == 1:
        return inline(lambda c, u, K, t, p, grad, hess, lanes, n, a: first(c, u, K, t, p, grad, lanes, n, a))
    second = derivatives[1]

    @inline
    def both(c: Any, u: Any, K: Any, t: Any, p: Any, grad: Any, hess: Any, lanes: int, n: int, a: Any) -> None:
        first(c, u, K, t, p, grad, lanes, n, a)
        second(c, u, K, t, p, hess, lanes, n, a)

    return both
