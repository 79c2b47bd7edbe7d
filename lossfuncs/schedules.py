"""The CPU schedules: how the row contract runs at the memory's speed, compiled by Numba.

    short rows   up to 96 elements: 64 rows at a time, transposed, one a lane
    long rows    one row at a time over all lanes; 64 rows' totals then become values together
    pieces       parts of a row too long for one thread; `cpu.py` merges their totals in order

float32 and half data are computed in float64 and rounded once. No schedule knows a loss, and no loss a schedule.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from numba import types

from . import plain
from .boxed import (
    BEGIN,
    CHUNK,
    END,
    HEADERS,
    IGNORE,
    LONG,
    OF,
    ONE,
    OTHER,
    PARAMETERS,
    PARTS,
    REST,
    SCALE,
    STEP,
    TEAM,
    WEIGH,
    M,
    N,
    boxed,
    fits,
    memory,
    numbers,
    release_gil,
    take_gil,
    words,
)
from .fold import AHEAD, ELEMENTS, SHORT, Fold, hard_or_soft, settling
from .front import inline
from .lanes import (
    BAD,
    IGNORED,
    LANES,
    VALID,
    add_to,
    all_below,
    at,
    column,
    factor_to,
    judge,
    move,
    no_derivative,
    no_labels,
    no_weights,
    prefetch,
    products_of_rows8,
    put,  # fmt: skip
    scratch,
    set_to,
    sum_of_lanes,
    sums_of_rows8,
    transpose4x16,
    transpose8x16,
    transpose16x4,
    transpose16x8,
    widen,
)
from .parts import shared
from .problem import NO_CLASS
from .rows import FACTORS, Rows, Scalar

STRIP = 1024  # numbers that short rows keep until they are added up: more leave the L1 cache, and the hardware stops reading ahead


def laid_across(rows: Rows, n: int) -> bool:
    """Whether 64 rows of n elements are laid across lanes: as long as that was measured to pay. Counts by label take a row at a step."""
    operations = {one.op for one in rows.passes}
    if operations == {"sum"} and not rows.pointwise:
        return n <= LANES // 2
    return n <= (LANES if rows.pointwise or operations & {"larger", "earlier"} else SHORT)


def _labels(strict: bool, long: bool) -> Any:
    """check(...): read the labels once, one a lane or one for all lanes; the first lane whose label is out of range, or -1."""

    @inline
    def one(t: Any, row: int, classes: int, ignore: int, K: Any, status: Any) -> int:
        k = t[row]
        valid, ignored = (k >= 0) & (k < classes) | (not strict), (k == ignore) & (k != NO_CLASS)
        put(status, 0, IGNORED if ignored else (VALID if valid else BAD))
        k = k if valid else 0
        for lane in range(LANES):
            put(K, lane, k)
        return -1 if valid | ignored else 0

    @inline
    def each(t: Any, row: int, classes: int, ignore: int, K: Any, status: Any) -> int:
        move(K, at(t, row))  # from now on they may change in t
        if all_below(K, classes if strict else -1, ignore):
            for lane in range(LANES):
                put(status, lane, VALID)
            return -1
        wrong = 0
        for lane in range(LANES):
            k = K[lane]
            valid, ignored = (k >= 0) & (k < classes) | (not strict), (k == ignore) & (k != NO_CLASS)
            put(status, lane, IGNORED if ignored else (VALID if valid else BAD))
            put(K, lane, k if valid else 0)
            wrong += not (valid | ignored)
        if not wrong:
            return -1
        lane = 0
        while status[lane] != BAD:
            lane += 1
        return lane

    return one if long else each


@inline
def _copied(into: Any, x: Any, count: int) -> None:
    for i in range(count):
        put(into, i, x[i])


@inline
def _weights(w: Any, lanes: int, step: int, W: Any) -> None:
    """The weights of up to 64 rows, or one for all of them."""
    if step:
        _copied(W, w, lanes)
    else:
        x = w[0]
        for lane in range(LANES):
            put(W, lane, x)


@inline
def _transposed(x: Any, n: int, into: Any) -> Any:
    """into[j*64 + r] = x[r*n + j], element j of row r of 64."""
    if n < 8:
        for j in range(n):
            for r in range(LANES):
                put(into, j * LANES + r, x[r * n + j])
        return into
    for r in range(0, LANES, 16):
        for j in range(0, n - 7, 8):
            transpose16x8(at(into, j * LANES + r), LANES, at(x, r * n + j), n)
        if n % 8 > 4:
            transpose16x8(at(into, (n - 8) * LANES + r), LANES, at(x, r * n + n - 8), n)
        elif n % 8:
            transpose16x4(at(into, (n - 4) * LANES + r), LANES, at(x, r * n + n - 4), n)
    return into


@inline
def _transposed_back(into: Any, x: Any, n: int) -> None:
    """into[r*n + j] = x[j*64 + r]."""
    if n < 8:
        for j in range(n):
            for r in range(LANES):
                put(into, r * n + j, x[j * LANES + r])
    else:
        for r in range(0, LANES, 16):
            for j in range(0, n - 7, 8):
                transpose8x16(at(into, r * n + j), n, at(x, j * LANES + r), LANES)
            if n % 8 > 4:
                transpose8x16(at(into, r * n + n - 8), n, at(x, (n - 8) * LANES + r), LANES)
            elif n % 8:
                transpose4x16(at(into, r * n + n - 4), n, at(x, (n - 4) * LANES + r), LANES)


@inline
def _padded(into: Any, x: Any, count: int, size: int) -> None:
    """into: `count` of x and zeros, `size` in all."""
    _copied(into, x, count)
    for i in range(count, size):
        put(into, i, 0)


class Kernel:
    """The parts of one kernel: a loss's rows for one element kind, with labels or dense targets, and what is asked of it.

    `order` 0 gives values, 1 the gradient too, 2 the second derivative as well. With `total`, w * value is added up over a chunk
    of rows instead of the values being stored. `kept` is for rows of up to KEPT elements with a `softmax_slope`, `single` for those
    of one.
    """

    def __init__(self, rows: Rows, kind: str, labelled: bool, long: bool, total: bool, order: int, parameters: int, kept: bool = False,
                 single: bool = False) -> None:  # fmt: skip
        self.maths, self.kept, self.single = rows, kept, single
        self.logs = rows.passes[0].op == "logs"  # of a pointwise loss, whose only pass it is
        self.element = ELEMENTS[kind]
        self.fold = Fold(rows, self.element, labelled, long, kept, single, order == 2)
        self.labelled, self.long, self.total, self.order, self.parameters = labelled, long, total, order, parameters
        self.read = column(self.fold.count)
        self.values = [self.element.bind(value) for value in (rows.value, *rows.more)]
        self.around: Any = self.element.bind(rows.around or _totals_themselves) if order else None
        self.constants = plain.constants(rows, self.fold.count, parameters) if order else 0
        slope, curve = rows.softmax_slope if kept else rows.slope, rows.curve
        if rows.passes[0].exponent is not None:  # the exponential comes before the parameters
            slope, curve = rows.exponent_slope or _whatever_e(slope), _whatever_e(curve)
        self.derivatives = [self.element.bind(f) for f in (slope, curve)[:order] if f is not None]
        self.check = _labels(self.fold.strict, long) if labelled else no_labels
        self.judge = judge(labelled)
        self.weights = _weights if total or order else no_weights
        self.lanes, self.lane_labels = scratch(LANES, types.float64), scratch(LANES + 1, types.int64)

    def finish(self) -> Any:
        """From the totals S of `lanes` rows, one a lane, to their values: weighted and added to acc, or stored in out.

        Where the rows have several values, each is added to 64 lanes of its own.
        """
        return functools.reduce(_then, (self._finish(value, which * LANES) for which, value in enumerate(self.values)))

    def _finish(self, value: Any, slot: int) -> Any:
        read, store, judge = self.read, self.element.store, self.judge
        length = inline(lambda of: 1.0) if self.single and not self.total else inline(lambda of: of)

        @inline
        def add(S: Any, status: Any, W: Any, out: Any, acc: Any, lanes: int, of: float, a: Any) -> None:
            for lane in range(LANES):
                v = judge(value(read(S, lane), of, *a), status[lane]) * W[lane]
                put(acc, slot + lane, acc[slot + lane] + (v if lane < lanes else 0.0))

        @inline
        def keep(S: Any, status: Any, W: Any, out: Any, acc: Any, lanes: int, of: float, a: Any) -> None:
            for lane in range(LANES):
                put(W, lane, judge(value(read(S, lane), length(of), *a), status[lane]))
            for lane in range(lanes):
                put(out, lane, store(W[lane]))

        return add if self.total else keep

    def short(self) -> Any:
        """group(...): 64 rows side by side, one a lane, of the `left` that are still to come.

        Where there are fewer, on copies with rows of zeros behind them, whose results are let go.
        """
        group = self._pointwise_short() if self.maths.pointwise and not self.labelled else self._transposed_short()
        labelled, stored, order, kind = self.labelled, not self.total, self.order, self.element.type
        beside = self.fold.beside
        predictions = scratch(LANES * SHORT + beside, kind)
        targets = scratch(LANES, types.int64) if labelled else predictions
        weights, values = self.lanes, scratch(LANES, kind if stored else types.float64)
        gradient, curvature = (scratch(LANES * SHORT if order > k else 0, kind) for k in range(2))

        @inline
        def padded(t: Any, p: Any, w: Any, out: Any, grad: Any, hess: Any, acc: Any, left: int, n: int, of: float, wstep: int, ignore: int,
                   scale: float, a: Any) -> Any:  # fmt: skip
            T, P, W, V, G, H = t, p, w, out, grad, hess
            lanes, copied = min(left, LANES), (left - LANES) * n < beside
            if copied:
                T, P, V, G, H = targets(), predictions(), values(), gradient(), curvature()
                each = 1 if labelled else n
                _padded(T, t, lanes * each, LANES * each)
                _padded(P, p, lanes * n, LANES * n)
                if wstep:
                    W = weights()
                    _padded(W, w, lanes, LANES)
            bad = group(T, P, W, V, G, H, acc, lanes, n, of, wstep, ignore, scale, a)
            if copied:
                if stored:
                    _copied(out, V, lanes)
                if order:
                    _copied(grad, G, lanes * n)
                if order == 2:
                    _copied(hess, H, lanes * n)
            return bad

        if not self.single:
            return padded

        @inline
        def either(t: Any, p: Any, w: Any, out: Any, grad: Any, hess: Any, acc: Any, left: int, n: int, of: float, wstep: int, ignore: int,
                   scale: float, a: Any) -> Any:  # fmt: skip
            """What lies in one of two places takes LLVM 10 ns to tell from the rest: that counts where 64 rows are 64 elements."""
            if left >= LANES + beside:
                return group(t, p, w, out, grad, hess, acc, LANES, n, of, wstep, ignore, scale, a)
            return padded(t, p, w, out, grad, hess, acc, left, n, of, wstep, ignore, scale, a)

        return either

    def _transposed_short(self) -> Any:
        fold, check, finish, derive, weights = self.fold.all, self.check, self.finish(), self._derive_short(), self.weights
        totals, lanes64, labels64, total = self.fold.totals, self.lanes, self.lane_labels, self.total
        block = scratch(LANES * (SHORT + 1), self.element.type)
        as_it_is = inline(lambda x, n, into: x)
        transposed = as_it_is if self.single else _transposed  # one element a lane already
        one_hot, derived = self.fold.labels(), self.order > 0

        @inline
        def targets(K: Any, t: Any, n: int, into: Any) -> Any:
            if not one_hot(K, t, n, into) or derived:
                return transposed(t, n, into)
            return into

        @inline
        def own(K: Any, p: Any, n: int, into: Any) -> None:
            if K[LANES]:
                for lane in range(LANES):
                    put(into, n * LANES + lane, p[lane * n + K[lane]])

        if self.labelled:
            targets = inline(lambda K, t, n, into: t)
        if not self.fold.gathers or not self.fold.across:
            own = inline(lambda K, p, n, into: None)
        predictions = transposed if self.fold.across or self.order else as_it_is
        targets_block = scratch(0, types.int64) if self.labelled else block

        @inline
        def group(t: Any, p: Any, w: Any, out: Any, grad: Any, hess: Any, acc: Any, lanes: int, n: int, of: float, wstep: int, ignore: int,
                  scale: float, a: Any) -> Any:  # fmt: skip
            S, W, status, K = totals(), lanes64(), lanes64(), labels64()
            bad = check(t, 0, n, ignore, K, status)
            T, P = targets(K, t, n, targets_block()), predictions(p, n, block())
            own(K, p, n, P)
            fold(S, K, T, P, t, p, n, a)
            weights(w, LANES, wstep, W)
            derive(S, W, status, K, T, P, T, P, grad, hess, n, of, scale, a)
            finish(S, status, W, out, acc, lanes if total else LANES, of, a)
            return bad

        return group

    def _derive_short(self) -> Any:
        if not self.order:
            return no_derivative
        load, store, read, around, judge = self.element.load, self.element.store, self.read, self.around, self.judge
        target, stride, constant, labelled = self.fold.target, self.fold.stride, column(self.constants), self.labelled
        block, spread, lanes64 = scratch(LANES * SHORT, self.element.type), scratch(self.constants * LANES, types.float64), self.lanes
        read_x, softmax, kept = widen if self.kept else load, self.fold.softmax, self.kept

        @inline
        def let_go(status: Any, into: Any, n: int) -> None:
            """Rows without a valid label are rare, and what was worked out of them is of no use."""
            invalid = 0
            for lane in range(LANES):
                invalid += status[lane] != VALID
            if invalid:
                for lane in range(LANES):
                    if status[lane] != VALID:
                        for j in range(n):
                            put(into, lane * n + j, store(judge(1.0, status[lane])))

        def derivative(f: Any) -> Any:
            @inline
            def derive(C: Any, U: Any, status: Any, K: Any, t: Any, x: Any, into: Any, n: int, a: Any) -> None:
                G = block()
                for j in range(n):
                    for lane in range(LANES):
                        y = target(K, at(t, j * stride), j, lane)
                        put(G, j * LANES + lane, store(f(constant(C, lane), y, read_x(x[j * LANES + lane]), *a) * U[lane]))
                _transposed_back(into, G, n)
                if labelled:
                    let_go(status, into, n)

            return derive

        first_one, second = _one_or_both([derivative(f) for f in self.derivatives])

        @inline
        def derive(S: Any, W: Any, status: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, grad: Any, hess: Any, n: int,
                   of: float, scale: float, a: Any) -> None:  # fmt: skip
            C, U = spread(), lanes64()
            for lane in range(LANES):
                put(U, lane, W[lane] * scale)
                set_to(C, lane, around(read(S, lane), of, *a))
            x = at(S, softmax) if kept else p
            first_one(C, U, status, K, t, x, grad, n, a)
            second(C, U, status, K, t, x, hess, n, a)

        return derive

    def long_(self) -> Any:
        """group(...): up to 64 rows one after the other, the lanes within the row."""
        if self.order and self.maths.pointwise:
            return self._pointwise_long()
        fold, check, finish, derive, weights = self.fold.all, self.check, self.finish(), self._derive_long(), self.weights
        count, read, labelled = self.fold.count, self.read, self.labelled
        totals, lanes64, labels64, tail = self.fold.totals, self.lanes, self.lane_labels, scratch(LANES, self.element.type)

        @inline
        def row_of(x: Any, row: int, n: int) -> Any:
            return at(x, row * n)

        @inline
        def rest_of(x: Any, n: int, last: bool, rest: Any) -> Any:
            """The address of the row's last elements, fewer than 64, where 64 can be read: a row that follows lends its first."""
            x = at(x, n // LANES * LANES)
            if not last:
                return x
            for j in range(n % LANES):
                put(rest, j, x[j])
            return rest

        targets = inline(lambda x, row, n: x) if labelled else row_of
        targets_rest = inline(lambda x, n, last, rest: rest) if labelled else rest_of
        targets_tail = scratch(0, types.int64) if labelled else tail

        @inline
        def group(t: Any, p: Any, w: Any, out: Any, grad: Any, hess: Any, acc: Any, lanes: int, n: int, of: float, wstep: int, ignore: int,
                  scale: float, a: Any) -> Any:  # fmt: skip
            S, R, W, status, one, K, copy_t, copy_p = (
                totals(), totals(), lanes64(), lanes64(), lanes64(), labels64(), targets_tail(), tail())  # fmt: skip
            bad = -1
            weights(w, lanes, wstep, W)
            for lane in range(LANES):
                put(status, lane, VALID)
            for q in range(count):
                for lane in range(lanes, LANES):
                    put(R, q * LANES + lane, 1.0)
            put(one, 0, VALID)
            for lane in range(lanes):
                if check(t, lane, n, ignore, K, one) >= 0 and bad < 0:
                    bad = lane
                T, P, last = targets(t, lane, n), row_of(p, lane, n), lane == lanes - 1
                rest_t, rest_p = targets_rest(T, n, last, copy_t), rest_of(P, n, last, copy_p)
                fold(S, K, T, P, rest_t, rest_p, n, a)
                put(status, lane, one[0])
                set_to(R, lane, read(S, 0))
                derive(S, at(W, lane), one, K, T, P, rest_t, rest_p, at(grad, lane * n), at(hess, lane * n), n, of, scale, a)
            finish(R, status, W, out, acc, lanes, of, a)
            return bad

        return group

    def _pointwise(self, terms: Any, take_in: Any) -> Any:
        """element(S, u, c, t, p, into, into2, i, lane, wanted, a): take in one element and write its derivatives to place i.

        A pointwise loss needs no totals for them, so one sweep does both, and value and slope share their transcendental parts.
        """
        load, store, (slope, *more) = self.element.load, self.element.store, self.derivatives

        @inline
        def first(S: Any, u: float, c: Any, t: Any, p: Any, into: Any, into2: Any, i: int, lane: int, wanted: bool, a: Any) -> None:
            y, x = load(t[lane]), load(p[lane])
            take_in(S, lane, terms((), y, x, *a), 1.0, wanted)
            put(into, i, store(slope(c, y, x, *a) * u))

        if not more:
            return first
        curve = more[0]

        @inline
        def both(S: Any, u: float, c: Any, t: Any, p: Any, into: Any, into2: Any, i: int, lane: int, wanted: bool, a: Any) -> None:
            first(S, u, c, t, p, into, into2, i, lane, wanted, a)
            put(into2, i, store(curve(c, load(t[lane]), load(p[lane]), *a) * u))

        return both

    def _pointwise_block(self, scale: Any, take_in: Any) -> Any:
        """each(S, (U, c), (into, into2), t, p, i, count, a): `count` of 64 elements, whose derivatives are scaled by scale(U, lane)."""

        def block(terms: Any) -> Any:
            element = self._pointwise(terms, take_in)

            @inline
            def each(S: Any, known: Any, into: Any, t: Any, p: Any, i: int, count: int, a: Any) -> None:
                for lane in range(LANES):
                    element(S, scale(known[0], lane), known[1], t, p, into[0], into[1], i + lane, lane, lane < count, a)

            return each

        one, bind = self.maths.passes[0], self.element.bind
        if one.exponent is None:
            soft = block(bind(one.terms))
            return hard_or_soft(block(bind(one.hard)), soft, self.element.any_soft) if one.hard else soft
        exponentials, room, element = self.element.exponentials(one), self.lanes, self._pointwise(bind(one.terms), take_in)

        @inline
        def with_exponentials(S: Any, known: Any, into: Any, t: Any, p: Any, i: int, count: int, a: Any) -> None:
            E = room()
            exponentials(E, t, p, a)
            for lane in range(LANES):
                element(S, scale(known[0], lane), known[1], t, p, into[0], into[1], i + lane, lane, lane < count, (E[lane],) + a)

        return with_exponentials

    def _pointwise_short(self) -> Any:
        """64 rows as one stretch of memory: elements mapped where they lie, a strip of rows summed, what is behind it kept for the next."""
        each, (sums, settled), finish, order = self._pointwise_step(), self._pointwise_sums(), self.finish(), self.order
        around = self.around or inline(lambda s, n, *a: ())
        lanes64, weights, total, logs, room = self.lanes, self.weights, self.total, self.logs, STRIP // 2 if self.logs else STRIP
        values = scratch(room + LANES + 8, types.float64)
        factors, products = (scratch(size if logs else 0, types.float64) for size in (room + LANES + 8, 2 * LANES))
        spread = scratch((LANES if self.single else LANES * LANES) if order else 0, types.float64)
        derivative = scratch(LANES if order else 0, self.element.type)

        @inline
        def group(t: Any, p: Any, w: Any, out: Any, grad: Any, hess: Any, acc: Any, lanes: int, n: int, of: float, wstep: int, ignore: int,
                  scale: float, a: Any) -> Any:  # fmt: skip
            S, P, W, U, F, E, G, H = lanes64(), products(), lanes64(), spread(), values(), factors(), derivative(), derivative()
            weights(w, LANES, wstep, W)
            c = around((0.0,), of, *a)
            if order:
                if wstep:
                    for row in range(LANES):
                        for j in range(n):
                            put(U, row * n + j, W[row] * scale)
                else:
                    for i in range(LANES):
                        put(U, i, W[0] * scale)
            strip = 8  # rows that are added up together: whole steps of 64 elements, or what stays in the L1 cache
            while (strip * n % LANES > 0) & (2 * strip * n <= room):
                strip += strip
            row, k, have = 0, 0, 0
            while row < LANES:
                while have < strip * n:
                    each(at(F, have), at(E, have), at(U, k * wstep), c, at(t, k), at(p, k), G, H, a)
                    if order:
                        move(at(grad, k), G)
                    if order == 2:
                        move(at(hess, k), H)
                    k += LANES
                    have += LANES
                sums(at(S, row), at(P, row), F, E, strip, n)
                row += strip
                have -= strip * n
                if have:
                    move(F, at(F, strip * n))
                    if logs:
                        move(E, at(E, strip * n))
            settled(S, P, n)
            finish(S, S, W, out, acc, lanes if total else LANES, of, a)
            return -1

        return group

    def _pointwise_sums(self) -> tuple[Any, Any]:
        """What becomes of rows whose n elements stand one after the other in F, and of `Logs` in F and E.

        sums(S, P, F, E, rows, n) takes the totals of some, and of `Logs` the products; settled(S, P, n) the logarithms of those of 64.
        """
        log1p = self.element.replace[math.log1p]

        @inline
        def sums(S: Any, P: Any, F: Any, E: Any, rows: int, n: int) -> None:
            if n == 1:
                for lane in range(LANES):
                    put(S, lane, F[lane])
            else:
                for row in range(0, rows, 8):
                    sums_of_rows8(at(S, row), at(F, row * n), n)

        @inline
        def sums_and_products(S: Any, P: Any, F: Any, E: Any, rows: int, n: int) -> None:
            sums(S, P, F, E, rows, n)
            for row in range(0, rows, 8):
                products_of_rows8(at(P, row), at(E, row * n), n)

        @inline
        def logs(S: Any, P: Any, n: int) -> None:
            halves = 2
            if n <= 2 * FACTORS:
                halves = 1
                for lane in range(LANES):
                    x, y = P[lane], P[LANES + lane]
                    put(P, lane, x + (y + x * y))
            for i in range(0, halves * LANES, LANES):
                for lane in range(LANES):
                    put(S, lane, S[lane] + log1p(P[i + lane]))

        @inline
        def nothing_to_do(S: Any, P: Any, n: int) -> None:
            """The sums are all."""

        return (sums_and_products, logs) if self.logs else (sums, nothing_to_do)

    def _pointwise_step(self) -> Any:
        """each(F, E, U, c, t, p, G, H, a): what 64 elements bring, and their derivatives times U."""
        one, load, bind = self.maths.passes[0], self.element.load, self.element.bind

        @inline
        def value_in(FE: Any, lane: int, x: float, weight: float, wanted: bool) -> None:
            put(FE[0], lane, x)

        @inline
        def factor_in(FE: Any, lane: int, xe: Any, weight: float, wanted: bool) -> None:
            put(FE[0], lane, xe[0])
            put(FE[1], lane, xe[1])

        take_in = factor_in if self.logs else value_in
        if self.order:
            block = self._pointwise_block(inline(lambda U, lane: U[lane]), take_in)
            return inline(lambda F, E, U, c, t, p, G, H, a: block((F, E), (U, c), (G, H), t, p, 0, LANES, a))

        def mapping(terms: Any) -> Any:
            @inline
            def step(FE: Any, s: Any, K: Any, t: Any, p: Any, j: int, count: int, a: Any) -> None:
                for lane in range(LANES):
                    take_in(FE, lane, terms(s, load(t[lane]), load(p[lane]), *a), 1.0, True)

            return step

        if one.exponent is not None:
            exponentials, terms, room = self.element.exponentials(one), bind(one.terms), self.lanes

            @inline
            def together(FE: Any, t: Any, p: Any, a: Any) -> None:
                E = room()
                exponentials(E, t, p, a)
                for lane in range(LANES):
                    take_in(FE, lane, terms((), load(t[lane]), load(p[lane]), E[lane], *a), 1.0, True)

            return inline(lambda F, E, U, c, t, p, G, H, a: together((F, E), t, p, a))
        step = mapping(bind(one.terms))
        if one.hard is not None:
            step = hard_or_soft(mapping(bind(one.hard)), step, self.element.any_soft)
        return inline(lambda F, E, U, c, t, p, G, H, a: step((F, E), (), U, t, p, 0, LANES, a))

    def _pointwise_long(self) -> Any:
        take_in = factor_to if self.logs else add_to
        block = self._pointwise_block(inline(lambda u, lane: u), take_in)
        finish, around, twice = self.finish(), self.around, self.order == 2
        [sweep], count, read = self.fold.gatherings[0], self.fold.count, self.read
        settle, settled = settling([sweep.settle] if sweep.settle else []), sweep.finish
        totals, lanes64, tail, weights = self.fold.totals, self.lanes, scratch(LANES, self.element.type), self.weights

        @inline
        def group(t: Any, p: Any, w: Any, out: Any, grad: Any, hess: Any, acc: Any, lanes: int, n: int, of: float, wstep: int, ignore: int,
                  scale: float, a: Any) -> Any:  # fmt: skip
            S, R, W, rest_t, rest_p, G, H = totals(), totals(), lanes64(), tail(), tail(), tail(), tail()
            full, rest = n // LANES * LANES, n % LANES
            weights(w, lanes, wstep, W)
            for lane in range(count * LANES):
                put(R, lane, 0.0)
            c = around((0.0,), of, *a)
            for row in range(lanes):
                T, P = at(t, row * n), at(p, row * n)
                into, into2 = at(grad, row * n), at(hess, row * n)
                u = W[row] * scale
                for lane in range(count * LANES):
                    put(S, lane, 0.0)
                for i in range(rest):
                    put(rest_t, i, T[full + i])
                    put(rest_p, i, P[full + i])
                for i in range(0, full, LANES):
                    prefetch(T, i + AHEAD)
                    prefetch(P, i + AHEAD)
                    block(S, (u, c), (into, into2), at(T, i), at(P, i), i, LANES, a)
                    if i + LANES < full:
                        settle(S, i // LANES + 1)
                if rest:
                    block(S, (u, c), (G, H), rest_t, rest_p, 0, rest, a)
                    for i in range(rest):
                        put(into, full + i, G[i])
                    if twice:
                        for i in range(rest):
                            put(into2, full + i, H[i])
                settled(S)
                set_to(R, row, read(S, 0))
            finish(R, S, W, out, acc, lanes, of, a)
            return -1

        return group

    def _derive_long(self) -> Any:
        if not self.order:
            return no_derivative
        load, store, read, around, judge = self.element.load, self.element.store, self.read, self.around, self.judge
        labelled, block = self.labelled, scratch(LANES, self.element.type)
        straight = self.labelled and self.kept  # otherwise the gradient may take the place of what it is made from
        step = 0 if labelled else LANES  # every target but the label's is 0, and that one is mended at the end
        target = inline(lambda t, lane: 0.0) if labelled else inline(lambda t, lane: load(t[lane]))
        read_x = load
        if self.kept:  # the slope is one of exp(p - m), which stands behind the totals
            read_x, softmax = widen, self.fold.softmax
            source = inline(lambda S, p, tail, full: (at(S, softmax), at(S, softmax + full * LANES)))
        else:
            source = inline(lambda S, p, tail, full: (p, tail))

        def derivative(f: Any) -> Any:
            @inline
            def each(c: Any, u: float, t: Any, x: Any, G: Any, a: Any) -> None:
                for lane in range(LANES):
                    put(G, lane, store(f(c, target(t, lane), read_x(x[lane]), *a) * u))

            @inline
            def derive(S: Any, c: Any, u: float, status: float, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, into: Any, n: int,
                       a: Any) -> None:  # fmt: skip
                G, full, verdict = block(), n // LANES, judge(1.0, status)
                x, tail_x = source(S, p, tail_p, full)
                if verdict == 1.0:
                    if labelled:
                        at_label = store(f(c, 1.0, read_x(x[K[0]]), *a) * u)
                    for j in range(full):
                        if straight:
                            prefetch(into, j * LANES + AHEAD)
                            each(c, u, at(t, j * step), at(x, j * LANES), at(into, j * LANES), a)
                        else:
                            prefetch(p, j * LANES + n)
                            each(c, u, at(t, j * step), at(x, j * LANES), G, a)
                            for lane in range(LANES):
                                put(into, j * LANES + lane, G[lane])
                    if n % LANES:
                        each(c, u, tail_t, tail_x, G, a)
                        for lane in range(n % LANES):
                            put(into, full * LANES + lane, G[lane])
                    if labelled:
                        put(into, K[0], at_label)
                else:
                    for j in range(n):
                        put(into, j, store(verdict))

            return derive

        first_one, second = _one_or_both([derivative(f) for f in self.derivatives])

        @inline
        def derive(S: Any, W: Any, status: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, grad: Any, hess: Any, n: int,
                   of: float, scale: float, a: Any) -> None:  # fmt: skip
            c, u = around(read(S, 0), of, *a), W[0] * scale
            first_one(S, c, u, status[0], K, t, p, tail_t, tail_p, grad, n, a)
            second(S, c, u, status[0], K, t, p, tail_t, tail_p, hess, n, a)

        return derive

    def _chunks(self) -> Any:
        """chunks(...): chunks [begin, end) of `chunk` of m rows of n elements; the first row with a label out of range, or -1.

        The values are those of a row of `of` elements, of which what is cut has some. `rest` elements behind the rows are a chunk more.
        """
        group, total, count = self.long_() if self.long else self.short(), self.total, len(self.values)
        dense, stored, single, totals = not self.labelled, not total, self.single, scratch(count * LANES, types.float64)
        cut = self.long and total and self.maths.pointwise and dense
        left = inline(lambda first, stop, m: min(stop - first, LANES)) if self.long else inline(lambda first, stop, m: m - first)

        @inline
        def chunks(t: Any, p: Any, w: Any, out: Any, grad: Any, hess: Any, n: int, rest: int, of: float, m: int, chunk: int,
                   wstep: int, ignore: int, scale: float, a: Any, begin: int, end: int) -> Any:  # fmt: skip
            bad = -1
            acc = totals()
            step = 1 if single else n
            for c in range(begin, end):
                for lane in range(count * LANES):
                    put(acc, lane, 0.0)
                start, stop, size = c * chunk, (c + 1) * chunk, step
                if stop > m:
                    stop = m
                if cut and start >= m:
                    start, stop, size = m, m + 1, rest
                for first in range(start, stop, LANES):
                    i = first * step
                    lane = group(at(t, i if dense else first), at(p, i), at(w, first * wstep), at(out, first if stored else 0), at(grad, i),
                                 at(hess, i), acc, left(first, stop, m), size, of, wstep, ignore, scale, a)  # fmt: skip
                    if lane >= 0 and bad < 0:
                        bad = first + lane
                if total:
                    for which in range(count):
                        put(out, c * count + which, sum_of_lanes(at(acc, which * LANES)))
            return bad

        return chunks

    def rows(self) -> Any:
        """The kernel over whole rows, from addresses: such chunks in `parts` by a team's threads."""
        chunks = shared(self._chunks())

        def rows(t: Any, p: Any, w: Any, out: Any, grad: Any, hess: Any, n: int, rest: int, of: float, m: int, chunk: int, begin: int,
                 end: int, team: int, parts: int, wstep: int, ignore: int, scale: float, a: Any) -> Any:  # fmt: skip
            given = (t, p, w, out, grad, hess, n, rest, of, m, chunk, wstep, ignore, scale, a)
            return chunks(team, parts, begin, end, given)

        return rows

    def entry(self) -> Any:
        """The kernel for Python: on arrays, with the numbers in a frame. Returns OTHER as well, for arrays that do not fit the frame.

        Where the frame says so, values that are stored are weighted afterwards, as the NumPy reference weights them. Weights that are not
        there may be any object, and derivatives any array.
        """
        chunks, element, total, load, store = shared(self._chunks()), self.element, self.total, self.element.load, self.element.store
        read = column(self.parameters, 1)
        elements = memory(element.type)
        targets, outputs = words if self.labelled else elements, numbers if total else elements

        @inline
        def compute(t: Any, p: Any, w: Any, out: Any, grad: Any, hess: Any, frame: Any) -> Any:
            f = words(frame)
            if f[HEADERS]:
                header = at(f, f[HEADERS])
                for_p = at(header, 3 + header[2])
                if not (fits(t, header) and fits(p, for_p) and (not f[STEP] or fits(w, at(for_p, 3 + for_p[2])))):
                    return OTHER
            x = numbers(frame)
            m, o, W = f[M], outputs(out), numbers(w) if f[STEP] else at(x, ONE)
            state = release_gil(f[LONG])
            given = (targets(t), elements(p), W, o, elements(grad), elements(hess), f[N], f[REST], x[OF], m, f[CHUNK], f[STEP], f[IGNORE],
                     x[SCALE], read(at(x, PARAMETERS), 0))  # fmt: skip
            bad = chunks(f[TEAM], f[PARTS], f[BEGIN], f[END], given)
            if not total and f[WEIGH]:
                for row in range(m):
                    put(o, row, store(load(o[row]) * W[row]))
            take_gil(state)
            return bad

        def entry(t: Any, p: Any, w: Any, out: Any, grad: Any, hess: Any, frame: Any) -> Any:
            return compute(t, p, w, out, grad, hess, frame)

        return entry

    def piece(self, index: int, careful: bool) -> Any:
        """The kernel for pass `index` over elements [begin, end) of one row: its totals, given all those of the passes before.

        If `careful`, the parts of its careful sums instead.
        """
        fold, count = self.fold.each_careful[index] if careful else self.fold.each[index], self.fold.count
        first, width = (self.fold.parts, self.fold.own - self.fold.parts) if careful else (0, count)
        totals, labels64, tail = self.fold.totals, self.lane_labels, scratch(LANES, self.element.type)

        elements = memory(self.element.type)

        def run(t: Any, p: Any, before: Any, out: Any, begin: int, end: int, a: Any) -> int:
            S, K, rest_t, rest_p, n = totals(), labels64(), tail(), tail(), end - begin
            y, x, known, found = at(elements(t), begin), at(elements(p), begin), numbers(before), numbers(out)
            for q in range(count):
                for lane in range(LANES):
                    put(S, q * LANES + lane, known[q])
            for j in range(n % LANES):
                put(rest_t, j, y[n // LANES * LANES + j])
                put(rest_p, j, x[n // LANES * LANES + j])
            fold(S, K, y, x, rest_t, rest_p, n, a)
            for q in range(width):
                put(found, q, S[(first + q) * LANES])
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
        first, last, both, elements = derive[0], derive[-1], len(derive) == 2, memory(self.element.type)

        def run(t: Any, p: Any, c: Any, grad: Any, hess: Any, begin: int, end: int, u: float, a: Any) -> int:
            y, x, constants = elements(t), elements(p), read(numbers(c), 0)
            first(constants, u, y, x, elements(grad), begin, end, a)
            if both:
                last(constants, u, y, x, elements(hess), begin, end, a)
            return -1

        return run


SIGNATURE = types.int64(*[boxed] * 7)  # of `Kernel.entry`


def piece_signature(parameters: int, gradient: bool) -> Any:
    """The Numba signature of `Kernel.piece` and of `Kernel.piece_gradient`."""
    i, f = types.int64, types.float64
    a = types.UniTuple(f, parameters) if parameters else types.Tuple(())
    return i(*[boxed] * 5, i, i, f, a) if gradient else i(*[boxed] * 4, i, i, a)


def _then(first: Any, second: Any) -> Any:
    @inline
    def both(S: Any, status: Any, W: Any, out: Any, acc: Any, lanes: int, of: float, a: Any) -> None:
        first(S, status, W, out, acc, lanes, of, a)
        second(S, status, W, out, acc, lanes, of, a)

    return both


def _whatever_e(derivative: Scalar | None) -> Scalar | None:
    """A derivative that has no use for the exponential."""
    if derivative is None:
        return None
    f = derivative

    def of_all_but_e(c: Any, t: float, p: float, e: float, *a: float) -> Any:
        return f(c, t, p, *a)

    return of_all_but_e


def _totals_themselves(s: Any, n: float, *a: float) -> Any:
    return s


def _one_or_both(derivatives: list[Any]) -> tuple[Any, Any]:
    """The gradient and the second derivative; where only one is asked for, the other does nothing."""
    if len(derivatives) == 2:
        return derivatives[0], derivatives[1]
    return derivatives[0], inline(lambda *args: None)
