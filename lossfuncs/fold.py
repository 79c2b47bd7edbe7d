"""Folding: the passes of the row contract over 64 lanes, compiled by Numba.

The two schedules of `cpu.py` share this code. In short rows a lane is a row, and step j brings element j of 64 transposed rows;
in a long row the lanes share it, step j brings elements 64 j .. 64 j + 63, and the lanes are combined in a fixed tree.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import types

from . import exact, rows, vectormath
from .front import inline
from .lanes import (
    LANES,
    WITHIN,
    above,
    above_or_nan,
    add_to,
    add_to_eight,
    all_negative,
    at,
    besides,
    bits_of_rows,
    column,
    dense_target,
    dot_to,
    equal,
    factor_to,
    first_max_to,
    first_one,
    labelled_target,
    larger_to,
    largest,
    max_of_lanes,
    max_to,
    nan,
    narrow,
    ones,
    parts_to,
    places_of,
    prefetch,
    prefetch_far,
    put,
    rarely,
    scratch,  # fmt: skip
    set_to,
    sum_of_eight,
    sum_of_lanes,
    top_of_lanes,
    top_to,
    two_product,
    two_sum,
    widen,
)
from .rows import FACTORS, Careful, Pass, Rows, Scalar, looks_at_target, looks_back

AHEAD = 1280  # elements: how far memory that is read once is asked for beforehand, 5 KB of float32. Hardware stops at every page of 4 KB
NEXT = 512  # elements of the longest row beside which the one after it still fits into an L1 cache
NEAR = 8192  # elements of the longest row whose successor's targets are fetched ahead, not its own: four such rows are within an L2 cache

TREES = {add_to: sum_of_lanes, dot_to: sum_of_lanes, factor_to: sum_of_lanes, max_to: max_of_lanes, top_to: top_of_lanes}

LIMIT = 2.0**864  # less than exp(vectormath.BOUND): a smaller sum of exponentials has no larger one in it
FEW = 4  # elements of the shortest row of which it pays to look for the label
BLOCK = 16  # elements of a short row that are compared at once: 512 bits of float32

SHORT = 96  # elements of the longest row that is laid across lanes
KEPT = 4096  # elements of the longest row whose exponentials are kept for the derivative: 32 KB, most of an L1 cache


class Element:
    """A kind of array element: its Numba type, how it is read into float64 and written from it, and its vector maths."""

    def __init__(self, type_: Any, load: Any, store: Any, tier: dict[str, Any], one: int) -> None:
        self.type, self.load, self.store = type_, load, store
        halves = type_ is types.uint16
        self.exact = types.float64 if halves else type_  # what its numbers can be compared in: float32 has twice as many lanes
        self.compared = load if halves else inline(lambda x: x)
        self.nonzero, self.any_soft = besides(0), besides(0, one)  # of 64: -0, too, is to be looked at
        named = {name: f for name, f in tier.items() if hasattr(math, name)}
        self.replace: dict[Any, Any] = {getattr(math, name): f for name, f in named.items()}
        own = ("where", "product", "exp_nonpositive", "sigmoid", "softplus", "log_cosh", "coshm1", "log_of_sum", "rel_entr")
        self.replace |= {getattr(rows, name): tier[name] for name in own}
        self.replace |= {exact.two_sum: two_sum, exact.two_product: two_product}
        self.exps = vectormath.exps_double if tier is vectormath.DOUBLE else vectormath.exps_single
        self.exps_bounded: Any = None if tier is vectormath.DOUBLE else vectormath.exps_single_bounded
        self.replace |= {max: tier["maximum"], min: tier["minimum"], abs: tier["fabs"], float: tier["float"]}
        self.replace |= {getattr(math, name): getattr(np, name) for name in ("cbrt", "fmod") if hasattr(math, name)}  # not Numba's math
        self.bound: dict[Any, Any] = {}

    def bind(self, function: Scalar) -> Any:
        """The row maths `function`, compiled with this element's vector maths."""
        if function not in self.bound:
            self.bound[function] = rows.bind(function, self.replace, inline)
        return self.bound[function]

    def first_largest(self, nan_too: bool) -> Any:
        """search(x, tail, n): the largest of a row's n elements and its place, the first of equals, or (-inf, 0).

        NaN is passed over or, with `nan_too`, larger than all.
        """
        load, is_larger, block = self.load, above_or_nan if nan_too else above, scratch(0 if self.exact == self.type else LANES, self.exact)

        @inline
        def loaded(x: Any, room: Any) -> Any:
            for lane in range(LANES):
                put(room, lane, load(x[lane]))
            return room

        as_floats = inline(lambda x, room: x) if self.exact == self.type else loaded

        @inline
        def search(x: Any, tail: Any, n: int) -> Any:
            m, k, j, full, room = -math.inf, 0, 0, n // LANES, block()
            while j < full + (n % LANES != 0):
                y = as_floats(at(x, j * LANES) if j < full else tail, room)
                prefetch(x, j * LANES + AHEAD)
                if is_larger(y, m):
                    count, first = min(n - j * LANES, LANES), first_one(nan(y, m))
                    best = largest(y, count)
                    if nan_too and first < count:
                        m, k, j = math.nan, j * LANES + first, n
                    elif best > m:
                        m, k = best, j * LANES + first_one(equal(y, best))
                j += 1
            return m, k

        return search

    def exponentials(self, one: Pass) -> Any:
        """exponentials(E, t, p, a): those of 64 elements, into E. Scratch of its own would end with it."""
        assert one.exponent is not None
        load, exponent, exps = self.load, self.bind(one.exponent), self.exps

        @inline
        def exponentials(E: Any, t: Any, p: Any, a: Any) -> None:
            for lane in range(LANES):
                put(E, lane, exponent((), load(t[lane]), load(p[lane]), *a))
            exps(E, E)

        return exponentials


ELEMENTS = {
    "float64": Element(types.float64, widen, widen, vectormath.DOUBLE, 0x3FF0 << 48),
    "float32": Element(types.float32, widen, narrow, vectormath.SINGLE, 0x3F80 << 16),
    "float16": Element(types.uint16, vectormath.load_half, vectormath.store_half, vectormath.SINGLE, 0x3C00),
    "bfloat16": Element(types.uint16, vectormath.load_bfloat16, vectormath.store_bfloat16, vectormath.SINGLE, 0x3F80),
}


class Sweep(NamedTuple):
    """What is gathered in a walk along the row: each(S, s, K, t, p, j, count, a) takes in the first `count` of 64 elements.

    The totals from `slot` on start with `starts`; finish(S) makes them valid at the end, which in a long row combines its lanes, and
    settle(S) is called after every FACTORS steps, but for the last elements of a long row, which may be one step
    more. A sweep that is `alone` uses places of totals that come later; a `slow` one takes
    longer than memory; to a `sparse` one across rows, targets of 0 bring nothing.
    """

    each: Any
    slot: int
    starts: tuple[float, ...]
    finish: Any
    settle: Any = None
    alone: bool = False
    slow: bool = False
    sparse: bool = False


class Fold:
    """The passes of one loss over 64 lanes, for one element kind, dense or labelled targets, short or long rows.

    Called as fold(S, K, t, p, tail_t, tail_p, n, a): S is where the totals go, 64 lanes each, valid when it returns: all of them, or the
    first `lanes` = 1 for a long row. K holds each lane's label. For short rows tail_p are the predictions as they lie, row by row, of which
    `beside` elements behind are read; p is only looked at `across` rows. If `gathers`, 64 short rows may be one-hot, as `labels` says:
    then t is not looked at, but what stands at the labels, behind the n columns of t and p. If `kept`, what a row of up to KEPT elements
    brings to its LogSumExp pass, exp(x - m), stands after the totals, from S[self.softmax] on. If `curved`, there is a second
    derivative to be taken.
    """

    def __init__(self, rows: Rows, element: Element, labelled: bool, long: bool, kept: bool = False, single: bool = False,
                 curved: bool = False) -> None:  # fmt: skip
        self.element, self.labelled, self.long, self.kept, self.curved = element, labelled, long, kept, curved
        self.lanes = 1 if long else LANES
        self.stride = 0 if labelled else LANES  # labels are not walked along the row
        self.target = labelled_target(long) if labelled else dense_target(element.load)
        # Only ids that are sorted already are compared with any number; everything else needs a label that is a class.
        self.strict = labelled and any(one.op in ("dot", "pick") for one in rows.passes)
        self.count = sum(one.size for one in rows.passes)
        self.parts = self.count + 1  # where the parts of careful sums stand; a pass may need one total for itself
        self.own = self.parts + 3 * max([one.careful.size for one in rows.passes if one.careful], default=0)
        self.width = self.own + 1  # the last is for the prediction at the label, of a pass that has read it
        self.own_is_known = False
        self.targets_are_read = False  # by what is no sweep, and asks for them itself
        self.label_is_known = False  # K is the place of the row's only target that is not 0, or negative where there are several
        self.softmax = self.width * LANES
        self.block = 1 if single else BLOCK
        self.beside = self.block - 1 if any(one.op in ("larger", "earlier") for one in rows.passes) and not long else 0
        of_both = [one for one in rows.passes if one.op in ("sum", "logs", "max", "top", "lse") and not one.sparse]
        of_labels = any(one.sparse or one.op == "label" for one in rows.passes)
        self.gathers = of_labels and not (labelled or long or single or any(map(looks_at_target, of_both)))
        self.across = any(one.op not in ("label", "pick", "larger", "earlier", "again") for one in rows.passes)
        self.totals = scratch(self.softmax + ((KEPT if long else LANES * SHORT) + LANES if kept else 0), types.float64)
        slots = list(itertools.accumulate((one.size for one in rows.passes), initial=0))
        self.picks = {slot: one for one, slot in zip(rows.passes, slots, strict=False) if one.op == "pick"}
        parts = [getattr(self, "_" + one.op)(one, slot) for one, slot in zip(rows.passes, slots, strict=False)]
        self.gatherings = parts
        self.each = [self._one_after_the_other(part) for part in parts]
        self.each_careful = {k: self._carefully(one.careful) for k, one in enumerate(rows.passes) if one.careful}
        together: list[Any] = []  # sweeps that need nothing of each other walk along the row together
        in_doubt: list[Any] = []  # what is still to be done behind them
        for one, part in zip(rows.passes, parts, strict=True):
            for k, piece in enumerate(part):
                joins = not looks_back(one) or one.op == "earlier"  # which needs nothing of how many are larger but whether to be counted
                if isinstance(piece, Sweep) and together and isinstance(together[-1], list) and not k and joins:
                    if not piece.alone and not together[-1][-1].alone and piece.sparse == together[-1][-1].sparse:
                        together[-1].append(piece)
                        continue
                together += [*in_doubt, [piece] if isinstance(piece, Sweep) else piece]
                in_doubt = []
            in_doubt += [self._settling(one.careful)] if one.careful else []
        self.all = self._one_after_the_other(together + in_doubt)

    def _one_after_the_other(self, parts: list[Any]) -> Any:
        """Walks, and what is done between them.

        Memory is asked for beforehand. Along a long row: in the only walk, further along it; otherwise that of the next row, in the walk
        that takes longest, or of equal ones predictions in the last but one and targets in the last. Across short rows: that of the next
        64, in the walk that takes longest, or the last.
        """
        walks = [part if isinstance(part, list) else [part] for part in parts if isinstance(part, list | Sweep)]
        last = len(walks) - 1
        ahead = dict.fromkeys(range(len(walks)), nothing_ahead)
        slow = next((k for k, walk in enumerate(walks) if walk[0].slow), None)
        if not self.long:
            ahead[last if slow is None else slow] = of_next_predictions if self.labelled else of_next_rows
        elif not last:
            ahead[0] = further_ahead if self.labelled or self.targets_are_read else both_further_ahead
        elif slow is not None:
            ahead[slow] = next_predictions if self.labelled else next_of_both
        elif last > 0 and self.labelled:
            ahead[last] = next_predictions
        elif last > 0:
            ahead[last - 1], ahead[last] = next_predictions, next_targets
        numbered = iter(range(len(walks)))
        steps = []
        for part in parts:
            walk = part if isinstance(part, list) else [part]
            steps.append(self._walk(walk, ahead[next(numbered)]) if isinstance(walk[0], Sweep) else part)
        return functools.reduce(_then, steps)

    def _again(self, one: Pass, slot: int) -> list[Any]:
        lanes, first, last = self.lanes, slot * LANES, (slot + one.size) * LANES
        back = first - one.label * LANES

        @inline
        def fold(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            for total in range(first, last, LANES):
                for lane in range(lanes):
                    put(S, total + lane, S[total + lane - back])

        return [fold]

    def _walk(self, sweeps: list[Sweep], ahead: Any) -> Any:
        """One walk along the row, in which each of the sweeps takes in every element.

        s holds the totals of the passes before: those of the lane's row. In a long row they are the same in all lanes, and what
        depends on them alone is worked out once.
        """
        known, stride, sparse = column(sweeps[0].slot), self.stride, sweeps[0].sparse
        each = functools.reduce(_each_then, [one.each for one in sweeps])
        start = functools.reduce(_call_then, [_start(one.slot + q, x) for one in sweeps for q, x in enumerate(one.starts)])
        finish = functools.reduce(_call_then, [one.finish for one in sweeps])
        settle = settling([one.settle for one in sweeps if one.settle])

        @inline
        def short(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            start(S)
            first, end = 0, n
            if sparse and K[LANES]:
                first, end = n, n + 1
            for j in range(first, end):
                ahead(tail_t, tail_p, j * LANES, n * LANES)
                settle(S, j)
                each(S, (), K, at(t, j * stride), at(p, j * LANES), j, LANES, a)
            finish(S)

        @inline
        def long(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            start(S)
            full, s = n // LANES, known(S, 0)
            for j in range(full):
                ahead(t, p, j * LANES, n)
                settle(S, j)
                each(S, s, K, at(t, j * stride), at(p, j * LANES), j, LANES, a)
            if n % LANES:
                ahead(t, p, full * LANES, n)
                each(S, s, K, tail_t, tail_p, full, n % LANES, a)
            finish(S)

        return long if self.long else short

    def labels(self) -> Any:
        """labels(K, t, n, into): whether 64 rows of FEW to WITHIN targets, as they lie, are one-hot, or 0 altogether.

        Then K says where, and the targets there are written behind the n columns of `into`: to a sparse pass they are all.
        """
        if not self.gathers:
            return inline(lambda K, t, n, into: False)
        store, nonzero, soft, words = self.element.store, self.element.nonzero, self.element.any_soft, scratch(LANES + 1, types.int64)

        @inline
        def labels(K: Any, t: Any, n: int, into: Any) -> bool:
            i, others, B, R = 0, 0 if (n >= FEW) & (n <= WITHIN) else 1, words(), words()
            while i < n and not others:
                others = soft(at(t, i * LANES))
                put(B, i, nonzero(at(t, i * LANES)))
                i += 1
            if not others:
                put(B, n, 0)
                bits_of_rows(B, n, R)
                for lane in range(LANES):
                    put(K, lane, first_one(R[lane]) % LANES)
                    put(into, n * LANES + lane, store(float(R[lane] != 0)))
                    others |= R[lane] & (R[lane] - 1)
            put(K, LANES, 0 if others else 1)
            return others == 0

        return labels

    def _merging(self, slot: int, count: int, combine: Any) -> Any:
        return _merging(slot, count, TREES[combine]) if self.long else nothing_to_do

    def _each(self, step: Any, slot: int) -> Any:
        """A sweep's `each` from step(S, s, K, t, p, j, lane, wanted, a), which takes in one element; s holds the totals before `slot`."""
        if self.long:

            @inline
            def each(S: Any, s: Any, K: Any, t: Any, p: Any, j: int, count: int, a: Any) -> None:
                for lane in range(LANES):
                    step(S, s, K, t, p, j, lane, lane < count, a)
        else:
            known = column(slot)

            @inline
            def each(S: Any, s: Any, K: Any, t: Any, p: Any, j: int, count: int, a: Any) -> None:
                for lane in range(LANES):
                    step(S, known(S, lane), K, t, p, j, lane, True, a)

        return each

    def _gathering(self, one: Pass, slot: int, start: float, combine: Any) -> list[Any]:
        load, target, bind = self.element.load, self.target, self.element.bind

        def gathering(terms: Any) -> Any:
            @inline
            def step(S: Any, s: Any, K: Any, t: Any, p: Any, j: int, lane: int, wanted: bool, a: Any) -> None:
                x = terms(s, target(K, t, j, lane), load(p[lane]), *a)
                combine(at(S, slot * LANES), lane, x, 1.0, wanted)

            return self._each(step, slot)

        if combine is dot_to:
            terms = bind(one.terms)

            @inline
            def step(S: Any, s: Any, K: Any, t: Any, p: Any, j: int, lane: int, wanted: bool, a: Any) -> None:
                dot_to(at(S, slot * LANES), lane, terms(s, load(p[lane]), *a), target(K, t, j, lane), wanted)

            each = self._each(step, slot)
        elif one.exponent is not None:
            terms, exponentials, room = bind(one.terms), self.element.exponentials(one), scratch(LANES, types.float64)

            @inline
            def each(S: Any, s: Any, K: Any, t: Any, p: Any, j: int, count: int, a: Any) -> None:
                E = room()
                exponentials(E, t, p, a)
                for lane in range(LANES):
                    x = terms((), load(t[lane]), load(p[lane]), E[lane], *a)
                    combine(at(S, slot * LANES), lane, x, 1.0, lane < count)
        else:
            each = gathering(bind(one.terms))
        if one.hard is not None and not self.labelled:
            each = hard_or_soft(gathering(bind(one.hard)), each, self.element.any_soft)
        if one.sparse and not self.labelled:
            each = _unless_all_zero(each, self.element.nonzero)
        return [Sweep(each, slot, (start,) * one.size, self._merging(slot, one.size, combine), sparse=one.sparse and self.gathers)]

    def _sum(self, one: Pass, slot: int) -> list[Any]:
        return self._gathering(one, slot, 0.0, add_to)

    def _logs(self, one: Pass, slot: int) -> list[Any]:
        log1p = self.element.replace[math.log1p]
        [sweep] = self._gathering(one, slot, 0.0, factor_to)
        if not self.long:
            return [sweep._replace(finish=_logs(slot, log1p), settle=_logs(slot, log1p))]
        take, merge = _logs_of_pairs(slot, log1p), _merging(slot, 1, sum_of_lanes)
        finish = functools.reduce(_call_then, [take, merge, _start(slot + 1, 0.0, 1)])
        return [sweep._replace(finish=finish, settle=_call_then(take, _start(slot + 1, 0.0)))]

    def _carefully(self, careful: Careful) -> Any:
        """The walk that gathers a careful sum's parts."""
        load, target, stride, long = self.element.load, self.target, self.stride, self.long
        terms, read = self.element.bind(careful.terms), column(self.count)
        first, size = self.parts * LANES, 3 * careful.size * LANES

        @inline
        def gather(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            X = at(S, first)
            for i in range(size):
                put(X, i, 0.0)
            steps = n // LANES if long else n
            for j in range(steps):
                y, x = at(t, j * stride), at(p, j * LANES)
                for lane in range(LANES):
                    parts_to(X, lane, terms(read(S, 0 if long else lane), target(K, y, j, lane), load(x[lane]), *a))
            if long:
                for lane in range(n - steps * LANES):
                    parts_to(X, lane, terms(read(S, 0), target(K, tail_t, steps, lane), load(tail_p[lane]), *a))
                half = LANES // 2
                while half:
                    for first_part in range(0, size, 3 * LANES):
                        for i in range(first_part, first_part + 3 * LANES, LANES):
                            for lane in range(half):
                                parts_to(at(X, first_part), lane, X[i + lane + half])
                    half //= 2

        return gather

    def _settling(self, careful: Careful) -> Any:
        """After a careful sum: whether a lane's totals are in doubt, and what they are then."""
        which, gather, read, scratch = careful.which, self._carefully(careful), column(self.count), self.totals
        parts, first = column(3 * careful.size), self.parts * LANES
        doubt, settle = self.element.bind(careful.doubt), self.element.bind(careful.settle)

        @inline
        def settled(S: Any, lane: int, a: Any) -> Any:
            s, x = read(S, lane), settle(parts(at(S, first), lane), *a)
            return x if (x == x) & doubt(s, *a) else s[which]

        @inline
        def rows(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> float:
            gather(S, K, t, p, tail_t, tail_p, n, a)
            for lane in range(LANES):
                put(S, which * LANES + lane, settled(S, lane, a))
            return 0.0

        @inline
        def row(s: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> Any:
            S = scratch()
            set_to(S, 0, s)
            gather(S, K, t, p, tail_t, tail_p, n, a)
            return settled(S, 0, a)

        in_parts, in_parts_of_row = rarely(rows), rarely(row)

        @inline
        def short(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            doubts = 0
            for lane in range(LANES):
                doubts += doubt(read(S, lane), *a)
            if doubts:
                in_parts(S, K, t, p, tail_t, tail_p, n, a)

        @inline
        def long(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            s = read(S, 0)
            if doubt(s, *a):  # not of S itself: then all lanes would have to be in memory, whether in doubt or not
                put(S, which * LANES, in_parts_of_row(s, K, t, p, tail_t, tail_p, n, a))

        return long if self.long else short

    def _max(self, one: Pass, slot: int) -> list[Any]:
        return self._gathering(one, slot, -math.inf, max_to)

    def _top(self, one: Pass, slot: int) -> list[Any]:
        return self._gathering(one, slot, -math.inf, top_to)

    def _lse(self, one: Pass, slot: int) -> list[Any]:
        if one.by_label and not self.curved and self.element.exps_bounded and (self.labelled or self.long):
            self.own_is_known, self.label_is_known = self.labelled, not self.labelled
            return [self._around_label(slot)]
        load, target, terms = self.element.load, self.target, self.element.bind(one.terms)
        keep, kept, lanes = self.kept, self.softmax, self.lanes

        known, exps = column(slot + 1), self.element.exps
        room, room_for_exps = scratch(LANES, types.float64), scratch(0 if keep else LANES, types.float64)

        @inline
        def along(S: Any, s: Any, K: Any, t: Any, p: Any, j: int, count: int, a: Any) -> None:
            """Most of a row has no largest element in it: nothing is counted there."""
            X, m = room(), s[slot]
            for lane in range(LANES):
                put(X, lane, terms(s, target(K, t, j, lane), load(p[lane]), *a) - m)
            has_largest = not all_negative(X)
            E = at(S, kept + j * LANES) if keep else X
            exps(X, E)
            if has_largest:
                for lane in range(LANES):
                    x = terms(s, target(K, t, j, lane), load(p[lane]), *a)
                    add_to(at(S, (slot + 1) * LANES), lane, E[lane], 1.0, (x != m) & (lane < count))
                    add_to(at(S, (slot + 2) * LANES), lane, 1.0, 1.0, (x == m) & (lane < count))
            else:
                for lane in range(LANES):
                    add_to(at(S, (slot + 1) * LANES), lane, E[lane], 1.0, lane < count)

        @inline
        def across(S: Any, s: Any, K: Any, t: Any, p: Any, j: int, count: int, a: Any) -> None:
            """The same where a lane is a row with a largest of its own."""
            X, E = room(), at(S, kept + j * LANES) if keep else room_for_exps()
            for lane in range(LANES):
                put(X, lane, terms(known(S, lane), target(K, t, j, lane), load(p[lane]), *a) - S[slot * LANES + lane])
            exps(X, E)
            for lane in range(LANES):
                x, m = terms(known(S, lane), target(K, t, j, lane), load(p[lane]), *a), S[slot * LANES + lane]
                add_to(at(S, (slot + 1) * LANES), lane, E[lane], 1.0, x != m)
                add_to(at(S, (slot + 2) * LANES), lane, 1.0, 1.0, x == m)

        @inline
        def without_the_largest(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            for lane in range(lanes):  # of the equal largest, one is the maximum itself
                put(S, (slot + 1) * LANES + lane, S[(slot + 1) * LANES + lane] + (S[(slot + 2) * LANES + lane] - 1.0))

        tops, compared = scratch(LANES, self.element.exact), self.element.compared

        @inline
        def largest_across(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            """Of p itself, in its own precision: twice as many at once."""
            T = tops()
            for lane in range(LANES):
                put(T, lane, -math.inf)
            for j in range(n):
                for lane in range(LANES):
                    larger_to(T, lane, compared(p[j * LANES + lane]))
            for lane in range(LANES):
                put(S, slot * LANES + lane, float(T[lane]))

        # NaN need not stay in the maximum: it comes back in the sum.
        largest: list[Any] = self._gathering(one._replace(size=1), slot, -math.inf, top_to)
        if one.by_label and not self.long and self.block > 1:
            largest = [largest_across]
        each = along if self.long else across
        others = Sweep(each, slot + 1, (0.0, 0.0), self._merging(slot + 1, 2, add_to), alone=True, slow=True)
        return [*largest, others, without_the_largest]

    def _around_label(self, slot: int) -> Any:
        """LogSumExp in one walk: m is the prediction at the label. Where that is too small or not finite, another takes the largest.

        A long row of targets has a label if one of them is not 0; if several are, it is around the largest at once.
        """
        load, exps, keep, kept = self.element.load, self.element.exps_bounded, self.kept, self.softmax
        own = self.own * LANES
        room, eight, others = scratch(LANES, types.float64), scratch(8, types.float64), scratch(LANES, types.int64)
        search, label_of = self.element.first_largest(nan_too=False), self._label_along()
        ahead = further_ahead if self.labelled else both_of_next

        @inline
        def search_across(p: Any, n: int, stride: int) -> Any:
            m, k = -math.inf, 0
            for i in range(n):
                x = load(p[i * stride])
                if x > m:
                    m, k = x, i
            return m, k

        @inline
        def of_infinite(r: float, m: float, p: Any, n: int, stride: int) -> float:
            """The sum r, counted where m is infinite: inf - inf is NaN."""
            if (m == math.inf) | (m == -math.inf):
                r = -1.0
                for i in range(n):
                    x = load(p[i * stride])
                    r += 1.0 if x == m else (0.0 if x == x else x)
            return r

        @inline
        def along(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            full, R, r = n // LANES, eight(), 0.0
            k = label_of(K, t, tail_t, n)
            if k < 0:
                m, k = search(p, tail_p, n)
            else:
                m = load(p[k])
            put(S, own, m)
            attempts = 0
            while attempts < 2:
                attempts += 1
                for i in range(8):
                    put(R, i, 0.0)
                for j in range(full + (n % LANES != 0)):
                    x, X = at(p, j * LANES) if j < full else tail_p, room()
                    ahead(t, p, j * LANES, n)
                    for lane in range(LANES):
                        put(X, lane, load(x[lane]) - m)
                    E = at(S, kept + j * LANES) if keep else X
                    exps(X, E)
                    if (j == k // LANES) | (j == full):
                        for lane in range(LANES):
                            i = j * LANES + lane
                            put(X, lane, E[lane] if (i != k) & (i < n) else 0.0)
                        add_to_eight(R, X)
                    else:
                        add_to_eight(R, E)
                r = sum_of_eight(R)
                if r < LIMIT:
                    attempts = 2
                elif attempts == 2:
                    r = of_infinite(r, m, p, n, 1)
                else:
                    m, k = search(p, tail_p, n)
            put(S, slot * LANES, m)
            put(S, (slot + 1) * LANES, r)

        @inline
        def across(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            M, R, L, X = at(S, slot * LANES), at(S, (slot + 1) * LANES), others(), room()
            for lane in range(LANES):
                m = load(p[K[lane] * LANES + lane])
                put(L, lane, K[lane])
                put(M, lane, m)
                put(S, own + lane, m)
            attempts = 0
            while attempts < 2:
                attempts += 1
                for lane in range(LANES):
                    put(R, lane, 0.0)
                for j in range(n):
                    of_next_predictions(tail_t, tail_p, j * LANES, n * LANES)
                    for lane in range(LANES):
                        put(X, lane, load(p[j * LANES + lane]) - M[lane])
                    E = at(S, kept + j * LANES) if keep else X
                    exps(X, E)
                    for lane in range(LANES):
                        put(R, lane, R[lane] + (E[lane] if j != L[lane] else 0.0))
                doubts = 0
                for lane in range(LANES):
                    doubts += not R[lane] < LIMIT
                if not doubts:
                    attempts = 2
                else:
                    for lane in range(LANES):
                        if not R[lane] < LIMIT:
                            if attempts == 2:
                                put(R, lane, of_infinite(R[lane], M[lane], at(p, lane), n, LANES))
                            else:
                                m, k = search_across(at(p, lane), n, LANES)
                                put(M, lane, m)
                                put(L, lane, k)

        return along if self.long else across

    def _label_along(self) -> Any:
        """label(K, t, tail_t, n): the label of a long row, which K[0] becomes: where one target alone is not 0, its place; else -1."""
        if self.labelled:
            return inline(lambda K, t, tail_t, n: K[0])
        nonzero = self.element.nonzero

        @inline
        def label(K: Any, t: Any, tail_t: Any, n: int) -> int:
            k, j, full, found = -1, 0, n // LANES, 0
            while j < full + (n % LANES != 0):
                if n > NEAR:
                    prefetch(t, j * LANES + AHEAD)
                bits = nonzero(at(t, j * LANES) if j < full else tail_t)
                if bits:
                    some = ones(bits, min(n - j * LANES, LANES))
                    found += some
                    k = j * LANES + first_one(bits) if some else k
                    if found > 1:
                        j = n
                j += 1
            k = k if found == 1 else -1
            put(K, 0, k)
            return k

        return label

    def _argmax(self, one: Pass, slot: int) -> list[Any]:
        if not self.long:
            best, compared = scratch(2 * LANES, self.element.exact), self.element.compared

            @inline
            def given(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
                if K[LANES]:
                    for lane in range(LANES):
                        put(S, slot * LANES + lane, float(K[lane]))
                else:
                    each(S, K, t, p, tail_t, tail_p, n, a)

            @inline
            def each(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
                B = best()
                for lane in range(LANES):
                    put(B, lane, 0.0)
                    put(B, LANES + lane, -math.inf)
                for j in range(n):
                    for lane in range(LANES):
                        first_max_to(B, lane, compared(t[j * LANES + lane]), j)
                for lane in range(LANES):
                    put(K, lane, int(B[lane]))
                    put(S, slot * LANES + lane, float(B[lane]))

            return [given if self.gathers else each]

        self.targets_are_read = True
        search = self.element.first_largest(nan_too=True)

        @inline
        def first(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            _, k = search(t, tail_t, n)
            put(S, slot * LANES, float(k))

        return [first]

    def _label(self, one: Pass, slot: int) -> list[Any]:
        if not self.labelled:
            return self._argmax(one, slot)
        lanes = self.lanes

        @inline
        def fold(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            for lane in range(lanes):
                put(S, slot * LANES + lane, float(K[lane]))

        return [fold]

    def _larger(self, one: Pass, slot: int) -> list[Any]:
        load, value = self.element.load, one.own
        if not self.long:
            return [self._ranked(slot, one.own, slot)]

        @inline
        def step(S: Any, s: Any, K: Any, t: Any, p: Any, j: int, lane: int, wanted: bool, a: Any) -> None:
            add_to(at(S, slot * LANES), lane, 1.0, 1.0, wanted & (not load(p[lane]) <= s[value]))

        return [Sweep(self._each(step, slot), slot, (0.0,), self._merging(slot, 1, add_to))]

    def _earlier(self, one: Pass, slot: int) -> list[Any]:
        load, label, value, larger = self.element.load, one.label * LANES, one.own, one.larger * LANES
        if not self.long:  # both once more; where they follow each other, LLVM drops the other's
            return [self._ranked(one.larger, one.own, slot)]

        @inline
        def step(S: Any, s: Any, K: Any, t: Any, p: Any, j: int, lane: int, wanted: bool, a: Any) -> None:
            add_to(at(S, slot * LANES), lane, 1.0, 1.0, wanted & (load(p[lane]) == s[value]))

        count = self._walk([Sweep(self._each(step, slot), slot, (0.0,), self._merging(slot, 1, add_to))], nothing_ahead)

        @inline
        def fold(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            put(S, slot * LANES, 0.0)
            if S[larger] == 0.0:  # along a long row the walk ends at the label
                k = min(max(int(S[label]), 0), n)  # of a piece of a row, the label may be in another
                block = k // LANES * LANES
                count(S, K, t, p, tail_t, at(p, block) if block + LANES <= n else tail_p, k, a)

        return [fold]

    def _ranked(self, larger: int, own: int, earlier: int) -> Any:
        """Totals `larger` and `earlier` (or the first alone, where they are the same) of short rows, from the rows as they lie."""
        places, label = places_of(self.element.load, self.block), self._label_of(self.picks[own])
        room, both = scratch(LANES, types.int64), earlier != larger

        @inline
        def fold(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            above, beside = room(), room()
            for lane in range(LANES):
                places_above, places_beside = places(at(tail_p, lane * n), n, label(S, K, lane))
                put(above, lane, places_above)
                put(beside, lane, places_beside)
            for lane in range(LANES):
                put(S, larger * LANES + lane, float(ones(above[lane], n)))
            if both:
                for lane in range(LANES):
                    put(S, earlier * LANES + lane, float(ones(beside[lane], label(S, K, lane))))

        return fold

    def _dot(self, one: Pass, slot: int) -> list[Any]:
        if self.labelled:
            return self._at_label(one, slot)
        gathering = self._gathering(one, slot, 0.0, dot_to)
        if not self.label_is_known:
            return gathering
        walk = self._walk(gathering, nothing_ahead)

        @inline
        def fold(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            """Only the 64 elements with the label are looked at, if there is one."""
            begin = max(K[0], 0) // LANES * LANES
            walk(S, K, at(t, begin), at(p, begin), tail_t, tail_p, n if K[0] < 0 else min(n - begin, LANES), a)

        return [fold]

    def _at_label(self, one: Pass, slot: int) -> list[Any]:
        """terms(s, p) at each lane's label, which is in range: the schedule saw to it."""
        load, terms, read, label = self.element.load, self.element.bind(one.terms), column(slot), self._label_of(one)
        of_rows = inline(lambda p, tail_p: p) if self.long else inline(lambda p, tail_p: tail_p)
        lanes, first = self.lanes, self.own * LANES

        own = inline(lambda S, K, rows, n, lane: load(rows[lane * n + label(S, K, lane)]))
        if self.own_is_known:
            own = inline(lambda S, K, rows, n, lane: S[first + lane])

        @inline
        def fold(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            rows = of_rows(p, tail_p)
            for lane in range(lanes):
                set_to(at(S, slot * LANES), lane, terms(read(S, lane), own(S, K, rows, n, lane), *a))

        return [fold]

    _pick = _at_label

    def _label_of(self, one: Pass) -> Any:
        """label(S, K, lane): the label of a Pick, or of a Dot with labels."""
        label = one.label * LANES
        return inline(lambda S, K, lane: K[lane]) if self.labelled or not self.long else inline(lambda S, K, lane: int(S[label + lane]))


def hard_or_soft(hard: Any, soft: Any, any_soft: Any) -> Any:
    """The one if all 64 targets are 0 or 1, the other if not."""

    @inline
    def each(S: Any, s: Any, K: Any, t: Any, p: Any, j: int, count: int, a: Any) -> None:
        if any_soft(t):
            soft(S, s, K, t, p, j, count, a)
        else:
            hard(S, s, K, t, p, j, count, a)

    return each


def _unless_all_zero(each: Any, nonzero: Any) -> Any:
    """For a sum that is weighted by the targets: most of a one-hot row need not be looked at."""

    @inline
    def some(S: Any, s: Any, K: Any, t: Any, p: Any, j: int, count: int, a: Any) -> None:
        if nonzero(t):
            each(S, s, K, t, p, j, count, a)

    return some


def settling(settles: Sequence[Any]) -> Any:
    """settle(S, j): what is to be done where j steps are taken and another 64 elements follow, if FACTORS are since it last was."""
    if not settles:
        return inline(lambda S, j: None)
    all_of_them = functools.reduce(_call_then, settles)

    @inline
    def settle(S: Any, j: int) -> None:
        if (j % FACTORS == 0) & (j > 0):
            all_of_them(S)

    return settle


def _then(first: Any, second: Any) -> Any:
    @inline
    def both(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
        first(S, K, t, p, tail_t, tail_p, n, a)
        second(S, K, t, p, tail_t, tail_p, n, a)

    return both


def _each_then(first: Any, second: Any) -> Any:
    @inline
    def both(S: Any, s: Any, K: Any, t: Any, p: Any, j: int, count: int, a: Any) -> None:
        first(S, s, K, t, p, j, count, a)
        second(S, s, K, t, p, j, count, a)

    return both


def _call_then(first: Any, second: Any) -> Any:
    @inline
    def both(S: Any) -> None:
        first(S)
        second(S)

    return both


def _start(slot: int, x: float, lanes: int = LANES) -> Any:
    @inline
    def start(S: Any) -> None:
        for lane in range(lanes):
            put(S, slot * LANES + lane, x)

    return start


def _merging(slot: int, count: int, tree: Any) -> Any:
    """The end of a long row: its lanes combined, in the first."""

    @inline
    def merge(S: Any) -> None:
        for q in range(slot, slot + count):
            put(S, q * LANES, tree(at(S, q * LANES)))

    return merge


def _logs(slot: int, log1p: Any) -> Any:
    """Each lane's product becomes its logarithm, in the total."""

    @inline
    def take(S: Any) -> None:
        X, E = at(S, slot * LANES), at(S, (slot + 1) * LANES)
        for lane in range(LANES):
            put(X, lane, X[lane] + log1p(E[lane]))
            put(E, lane, 0.0)

    return take


def _logs_of_pairs(slot: int, log1p: Any) -> Any:
    """Likewise in a long row, where two lanes' product becomes one logarithm. The products stay."""

    @inline
    def take(S: Any) -> None:
        X, E, half = at(S, slot * LANES), at(S, (slot + 1) * LANES), LANES // 2
        for lane in range(half):
            factor_to(X, lane, (X[half + lane], E[half + lane]), 1.0, True)
        for lane in range(half):
            put(X, lane, X[lane] + log1p(E[lane]))
            put(X, half + lane, 0.0)

    return take


@inline
def nothing_to_do(S: Any) -> None:
    """The totals are valid."""


@inline
def nothing_ahead(t: Any, p: Any, i: int, n: int) -> None:
    """All is in the cache."""


@inline
def further_ahead(t: Any, p: Any, i: int, n: int) -> None:
    prefetch(p, i + AHEAD)


@inline
def both_further_ahead(t: Any, p: Any, i: int, n: int) -> None:
    prefetch(p, i + AHEAD)
    prefetch(t, i + AHEAD)


@inline
def of_next_predictions(t: Any, p: Any, i: int, n: int) -> None:
    """Those of the 64 rows after these of n elements."""
    prefetch_far(p, i + n)


@inline
def of_next_rows(t: Any, p: Any, i: int, n: int) -> None:
    prefetch_far(p, i + n)
    prefetch_far(t, i + n)


@inline
def of_next(x: Any, i: int, n: int) -> None:
    """Those of the row after one of n elements."""
    if (n > NEXT) & (n <= NEAR):
        prefetch_far(x, i)
    else:
        prefetch(x, i)


@inline
def next_predictions(t: Any, p: Any, i: int, n: int) -> None:
    of_next(p, i + n + AHEAD, n)


@inline
def both_of_next(t: Any, p: Any, i: int, n: int) -> None:
    prefetch(p, i + n + AHEAD)
    if n <= NEAR:
        prefetch(t, i + n)


@inline
def next_of_both(t: Any, p: Any, i: int, n: int) -> None:
    prefetch(p, i + n + AHEAD)
    prefetch(t, i + n if n <= NEAR else i)  # targets of a longer row are to come just before they are looked at, in the walk after this


@inline
def next_targets(t: Any, p: Any, i: int, n: int) -> None:
    if n <= NEAR:
        of_next(t, i + n, n)
    else:
        prefetch(t, i + AHEAD)
