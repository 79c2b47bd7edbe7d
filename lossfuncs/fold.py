"""Folding: the passes of the row contract over 64 lanes, compiled by Numba.

The two schedules of `cpu.py` share this code. In short rows a lane is a row, and step j brings element j of 64 transposed rows;
in a long row the lanes share it, step j brings elements 64 j .. 64 j + 63, and the lanes are combined in a fixed tree.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import numba
from numba import types

from . import rows, vectormath
from .lanes import (
    LANES,
    add_to,
    at,
    column,
    dense_target,
    dot_to,
    labelled_target,
    max_to,
    min_to,
    narrow,
    prefetch,
    put,
    scratch,  # fmt: skip
    set_to,
    top_to,
    widen,
)
from .rows import Pass, Rows, Scalar

AHEAD = 2048  # elements: how far memory that is read once is asked for beforehand. Hardware stops at every page of 4 KB
NEAR = 8192  # elements of the longest row whose successor's targets are fetched ahead too: four such rows are within an L2 cache

KEPT = 4096  # elements of the longest row whose exponentials are kept for the derivative: 32 KB, most of an L1 cache


def inline(part: Callable[..., Any]) -> Any:
    """What a kernel is put together from: never called from Python, so it gets no wrapper."""
    return numba.njit(nogil=True, error_model="numpy", forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)(part)


class Element:
    """A kind of array element: its Numba type, how it is read into float64 and written from it, and its vector maths."""

    def __init__(self, type_: Any, load: Any, store: Any, tier: dict[str, Any]) -> None:
        self.type, self.load, self.store = type_, load, store
        named = {name: f for name, f in tier.items() if hasattr(math, name)}
        self.replace: dict[Any, Any] = {getattr(math, name): f for name, f in named.items()}
        own = ("where", "exp_nonpositive", "sigmoid", "softplus", "log_cosh", "rel_entr")
        self.replace |= {getattr(rows, name): tier[name] for name in own}
        self.replace |= {max: tier["maximum"], min: tier["minimum"], abs: tier["fabs"]}
        self.bound: dict[Any, Any] = {}

    def bind(self, function: Scalar) -> Any:
        """The row maths `function`, compiled with this element's vector maths."""
        if function not in self.bound:
            self.bound[function] = rows.bind(function, self.replace, inline)
        return self.bound[function]


ELEMENTS = {
    "float64": Element(types.float64, widen, widen, vectormath.DOUBLE),
    "float32": Element(types.float32, widen, narrow, vectormath.SINGLE),
    "float16": Element(types.uint16, vectormath.load_half, vectormath.store_half, vectormath.SINGLE),
    "bfloat16": Element(types.uint16, vectormath.load_bfloat16, vectormath.store_bfloat16, vectormath.SINGLE),
}


class Fold:
    """The passes of one loss over 64 lanes, for one element kind, dense or labelled targets, short or long rows.

    Called as fold(S, K, t, p, tail_t, tail_p, n, a): S is where the totals go, a row of 64 lanes each, all of them valid when
    it returns (equal, for a long row). K holds each lane's label. If `kept`, what a long row of up to KEPT elements brings to its
    LogSumExp pass, exp(x - m), stands after the totals, from S[self.softmax] on.
    """

    def __init__(self, rows: Rows, element: Element, labelled: bool, long: bool, kept: bool = False) -> None:
        self.element, self.labelled, self.long, self.kept = element, labelled, long, kept
        self.stride = 0 if labelled else LANES  # labels are not walked along the row
        self.target = labelled_target(long) if labelled else dense_target(element.load)
        # Only ids that are sorted already are compared with any number; everything else needs a label that is a class.
        self.strict = labelled and any(one.op in ("dot", "pick") for one in rows.passes)
        self.count = sum(one.size for one in rows.passes)
        self.softmax = (self.count + 1) * LANES  # a pass may need one total for itself
        self.totals = scratch(self.softmax + (KEPT + LANES if kept else 0), types.float64)
        slots = itertools.accumulate((one.size for one in rows.passes), initial=0)
        self.each = [getattr(self, "_" + one.op)(one, slot) for one, slot in zip(rows.passes, slots, strict=False)]
        self.all = functools.reduce(_then, self.each)

    def _again(self, one: Pass, slot: int) -> Any:
        size, before = one.size, one.label

        @inline
        def fold(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            for lane in range(size * LANES):
                put(S, slot * LANES + lane, S[before * LANES + lane])

        return fold

    def _sweep(self, step: Any, slot: int, count: int, start: float, combine: Any, hard: Any = None) -> Any:
        """Start `count` totals, let `step(S, s, K, t, p, j, lane, wanted, a)` take in each element, combine the lanes of a long row.

        s holds the totals of the passes before: those of the lane's row. In a long row they are the same in all lanes, and what
        depends on them alone is worked out once. `hard` does the same for 64 elements whose targets are all 0 or 1.
        """
        known = column(slot)
        each = _each_lane(step, None if self.long else known)
        if hard is not None:
            each = hard_or_soft(_each_lane(hard, None if self.long else known), each, self.element.load)
        elif combine is dot_to:
            each, combine = _unless_all_zero(each, self.element.load), add_to
        stride, later, dense, alone = self.stride, slot > 0, not self.labelled, self.count == 1 and combine is add_to

        @inline
        def short(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            for lane in range(count * LANES):
                put(S, slot * LANES + lane, start)
            for j in range(n):
                each(S, (), K, at(t, j * stride), at(p, j * LANES), j, a)

        @inline
        def long(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            for lane in range(count * LANES):
                put(S, slot * LANES + lane, start)
            full, s = n // LANES, known(S, 0)
            for j in range(full):
                if alone:
                    prefetch(p, j * LANES + AHEAD)
                    if dense:
                        prefetch(t, j * LANES + AHEAD)
                elif later:  # this row is in the cache: meanwhile the next one can come
                    prefetch(p, j * LANES + n)
                    if dense and n <= NEAR:
                        prefetch(t, j * LANES + n)
                each(S, s, K, at(t, j * stride), at(p, j * LANES), j, a)
            rest = n - full * LANES
            if rest:
                for lane in range(LANES):
                    step(S, s, K, tail_t, tail_p, full, lane, lane < rest, a)
            for q in range(count):
                combined = tree(at(S, (slot + q) * LANES), combine)
                for lane in range(LANES):
                    put(S, (slot + q) * LANES + lane, combined)

        return long if self.long else short

    def _gathering(self, one: Pass, slot: int, start: float, combine: Any) -> Any:
        load, target, terms = self.element.load, self.target, self.element.bind(one.terms)

        def gathering(terms: Any) -> Any:
            @inline
            def step(S: Any, s: Any, K: Any, t: Any, p: Any, j: int, lane: int, wanted: bool, a: Any) -> None:
                x = terms(s, target(K, t, j, lane), load(p[lane]), *a)
                combine(at(S, slot * LANES), lane, x, 1.0, wanted)

            return step

        if combine is dot_to:

            @inline
            def step(S: Any, s: Any, K: Any, t: Any, p: Any, j: int, lane: int, wanted: bool, a: Any) -> None:
                dot_to(at(S, slot * LANES), lane, terms(s, load(p[lane]), *a), target(K, t, j, lane), wanted)
        else:
            step = gathering(terms)
        hard = None if one.hard is None or self.labelled else gathering(self.element.bind(one.hard))
        return self._sweep(step, slot, one.size, start, combine, hard)

    def _sum(self, one: Pass, slot: int) -> Any:
        return self._gathering(one, slot, 0.0, add_to)

    def _max(self, one: Pass, slot: int) -> Any:
        return self._gathering(one, slot, -math.inf, max_to)

    def _top(self, one: Pass, slot: int) -> Any:
        return self._gathering(one, slot, -math.inf, top_to)

    def _lse(self, one: Pass, slot: int) -> Any:
        load, target, terms = self.element.load, self.target, self.element.bind(one.terms)
        exp = self.element.replace[rows.exp_nonpositive]
        # NaN need not stay in the maximum: it comes back in the sum.
        largest = self._gathering(one._replace(size=1), slot, -math.inf, top_to)
        keep, kept = self.kept, self.softmax

        @inline
        def step(S: Any, s: Any, K: Any, t: Any, p: Any, j: int, lane: int, wanted: bool, a: Any) -> None:
            x, m = terms(s, target(K, t, j, lane), load(p[lane]), *a), s[slot]
            e = exp(x - m)
            if keep:
                put(S, kept + j * LANES + lane, e)
            add_to(at(S, (slot + 1) * LANES), lane, e, 1.0, wanted & (x != m))
            add_to(at(S, (slot + 2) * LANES), lane, 1.0, 1.0, wanted & (x == m))

        others = self._sweep(step, slot + 1, 2, 0.0, add_to)

        @inline
        def fold(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            largest(S, K, t, p, tail_t, tail_p, n, a)
            others(S, K, t, p, tail_t, tail_p, n, a)
            for lane in range(LANES):  # of the equal largest, one is the maximum itself
                put(S, (slot + 1) * LANES + lane, S[(slot + 1) * LANES + lane] + (S[(slot + 2) * LANES + lane] - 1.0))

        return fold

    def _argmax(self, one: Pass, slot: int) -> Any:
        load, target, terms, long = self.element.load, self.target, self.element.bind(one.terms), self.long
        largest = self._gathering(one, slot, -math.inf, max_to)

        @inline
        def step(S: Any, s: Any, K: Any, t: Any, p: Any, j: int, lane: int, wanted: bool, a: Any) -> None:
            x = terms(s, target(K, t, j, lane), load(p[lane]), *a)
            index = float(j * LANES + lane) if long else float(j)
            hit = index if (x == s[slot]) | (x != x) else math.inf
            min_to(at(S, (slot + 1) * LANES), lane, hit, 1.0, wanted)

        first = self._sweep(step, slot + 1, 1, math.inf, min_to)

        @inline
        def fold(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            largest(S, K, t, p, tail_t, tail_p, n, a)
            first(S, K, t, p, tail_t, tail_p, n, a)
            for lane in range(LANES):
                put(S, slot * LANES + lane, S[(slot + 1) * LANES + lane])

        return fold

    def _label(self, one: Pass, slot: int) -> Any:
        if not self.labelled:
            return self._argmax(one, slot)

        @inline
        def fold(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            for lane in range(LANES):
                put(S, slot * LANES + lane, float(K[lane]))

        return fold

    def _larger(self, one: Pass, slot: int) -> Any:
        load, value = self.element.load, one.own

        @inline
        def step(S: Any, s: Any, K: Any, t: Any, p: Any, j: int, lane: int, wanted: bool, a: Any) -> None:
            add_to(at(S, slot * LANES), lane, 1.0, 1.0, wanted & (not load(p[lane]) <= s[value]))

        return self._sweep(step, slot, 1, 0.0, add_to)

    def _earlier(self, one: Pass, slot: int) -> Any:
        load, long, label, value, larger = self.element.load, self.long, one.label, one.own, one.larger * LANES

        @inline
        def step(S: Any, s: Any, K: Any, t: Any, p: Any, j: int, lane: int, wanted: bool, a: Any) -> None:
            earlier = long | (float(j) < s[label])  # along a long row the sweep ends at the label
            add_to(at(S, slot * LANES), lane, 1.0, 1.0, wanted & (load(p[lane]) == s[value]) & earlier)

        count = self._sweep(step, slot, 1, 0.0, add_to)

        @inline
        def fold(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            none_larger = 0
            for lane in range(LANES):
                none_larger += S[larger + lane] == 0.0
                put(S, slot * LANES + lane, 0.0)
            if none_larger:
                if long:
                    k = min(max(int(S[label * LANES]), 0), n)  # of a piece of a row, the label may be in another
                    block = k // LANES * LANES
                    count(S, K, t, p, tail_t, at(p, block) if block + LANES <= n else tail_p, k, a)
                else:
                    count(S, K, t, p, tail_t, tail_p, n, a)

        return fold

    def _dot(self, one: Pass, slot: int) -> Any:
        return self._at_label(one, slot) if self.labelled else self._gathering(one, slot, 0.0, dot_to)

    def _at_label(self, one: Pass, slot: int) -> Any:
        """terms(s, p) at each lane's label, which is in range: the schedule saw to it."""
        load, terms, read = self.element.load, self.element.bind(one.terms), column(slot)

        @inline
        def short(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            for lane in range(LANES):
                set_to(at(S, slot * LANES), lane, terms(read(S, lane), load(p[K[lane] * LANES + lane]), *a))

        @inline
        def long(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            x = terms(read(S, 0), load(p[K[0]]), *a)
            for lane in range(LANES):
                set_to(at(S, slot * LANES), lane, x)

        return long if self.long else short

    def _pick(self, one: Pass, slot: int) -> Any:
        if self.labelled:
            return self._at_label(one, slot)
        load, terms, read, long, index = self.element.load, self.element.bind(one.terms), column(slot), self.long, one.label * LANES

        @inline
        def fold(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
            for lane in range(LANES):
                row = int(S[index + lane])
                put(S, slot * LANES + lane, terms(read(S, lane), load(p[row if long else row * LANES + lane]), *a))

        return fold


def _each_lane(step: Any, known: Any) -> Any:
    if known is None:

        @inline
        def each(S: Any, s: Any, K: Any, t: Any, p: Any, j: int, a: Any) -> None:
            for lane in range(LANES):
                step(S, s, K, t, p, j, lane, True, a)
    else:

        @inline
        def each(S: Any, s: Any, K: Any, t: Any, p: Any, j: int, a: Any) -> None:
            for lane in range(LANES):
                step(S, known(S, lane), K, t, p, j, lane, True, a)

    return each


def hard_or_soft(hard: Any, soft: Any, load: Any) -> Any:
    """The one if all 64 targets are 0 or 1, the other if not."""

    @inline
    def each(S: Any, s: Any, K: Any, t: Any, p: Any, j: int, a: Any) -> None:
        between = 0
        for lane in range(LANES):
            y = load(t[lane])
            between += (y != 0.0) & (y != 1.0)
        if between:
            soft(S, s, K, t, p, j, a)
        else:
            hard(S, s, K, t, p, j, a)

    return each


def _unless_all_zero(each: Any, load: Any) -> Any:
    """For a sum that is weighted by the targets: most of a one-hot row need not be looked at."""

    @inline
    def some(S: Any, s: Any, K: Any, t: Any, p: Any, j: int, a: Any) -> None:
        weights = 0
        for lane in range(LANES):
            weights += load(t[lane]) != 0.0
        if weights:
            each(S, s, K, t, p, j, a)

    return some


def _then(first: Any, second: Any) -> Any:
    @inline
    def both(S: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: int, a: Any) -> None:
        first(S, K, t, p, tail_t, tail_p, n, a)
        second(S, K, t, p, tail_t, tail_p, n, a)

    return both


@inline
def tree(x: Any, combine: Any) -> Any:
    """64 lanes to one, always in this order."""
    for lane in range(32):
        combine(x, lane, x[lane + 32], 1.0, True)
    for lane in range(16):
        combine(x, lane, x[lane + 16], 1.0, True)
    for lane in range(8):
        combine(x, lane, x[lane + 8], 1.0, True)
    for lane in range(4):
        combine(x, lane, x[lane + 4], 1.0, True)
    combine(x, 0, x[2], 1.0, True)
    combine(x, 1, x[3], 1.0, True)
    combine(x, 0, x[1], 1.0, True)
    return x[0]


