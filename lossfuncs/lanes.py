"""What the Numba schedules are made of: raw pointers, scratch on the stack, 64 lanes, and transposes.

A lane is one of 64 float64 accumulators side by side. A loop over the lanes has a fixed length and stride one, so LLVM turns it
into SIMD of whatever width the CPU has, and as each lane adds its own elements in order, the result has the same bits on all of
them. 64 lanes are eight AVX-512 registers: enough to hide the latency of an addition.

Everything here is an `@intrinsic`: a few LLVM instructions with a Numba type.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba.extending
from llvmlite import ir
from numba import types
from numba.core import cgutils

from .front import apart
from .target import scalar

LANES = 64
EIGHTS = 16  # elements of the shortest row that is added up eight at a time
WITHIN = 57  # bits, wherever they begin, are within 64 that begin with a byte
_INDEX = ir.IntType(64)
_BYTES = {ir.DoubleType(): 8, ir.FloatType(): 4, ir.IntType(16): 2, ir.IntType(64): 8}


def intrinsic(emit: Callable[..., Any]) -> Any:
    """A few LLVM instructions as a function that kernels can call."""
    return numba.extending.intrinsic(emit)


@intrinsic
def pointer(typing: Any, array: Any) -> Any:
    """The address of a contiguous array's first element; an address is one already."""
    if isinstance(array, types.CPointer):
        return array(array), lambda context, builder, signature, args: args[0]

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.make_array(signature.args[0])(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), emit


@intrinsic
def at(typing: Any, p: Any, i: Any) -> Any:
    """p + i elements."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]])

    return p(p, types.intp), emit


@intrinsic
def put(typing: Any, p: Any, i: Any, value: Any) -> Any:
    """p[i] = value."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], builder.gep(args[0], [args[1]]))
        return context.get_dummy_value()

    return types.void(p, types.intp, p.dtype), emit


def scratch(count: int, element: Any) -> Any:
    """An intrinsic that gives `count` elements on the stack, aligned to a cache line and unknown to any other pointer."""
    llvm = {types.float64: ir.DoubleType(), types.float32: ir.FloatType(), types.uint16: ir.IntType(16), types.int64: _INDEX}[element]

    @intrinsic
    def allocate(typing: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            with builder.goto_entry_block():
                block = builder.alloca(ir.ArrayType(llvm, max(count, 1)))
                block.align = 64
            return builder.bitcast(block, llvm.as_pointer())

        return types.CPointer(element)(), emit

    return allocate


def column(count: int, stride: int = LANES) -> Any:
    """An intrinsic (p, lane) -> the tuple of `count` totals of one lane, `stride` apart."""

    @intrinsic
    def read(typing: Any, p: Any, lane: Any) -> Any:
        out = types.UniTuple(types.float64, count)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            p, lane = args
            values = [builder.load(builder.gep(p, [builder.add(lane, _INDEX(q * stride))])) for q in range(count)]
            return context.make_tuple(builder, out, values)

        return out(p, types.intp), emit

    return read


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    name = "llvm.fma.f64" if a.type == ir.DoubleType() else f"llvm.fma.v{a.type.count}f64"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(a.type, [a.type] * 3), name)
    return builder.call(function, [a, b, c])


def rarely(body: Any) -> Any:
    """An intrinsic (s, K, ...): the number body(s, K, ...), from code apart, as it is rarely run. `body` is made with `inline`."""

    @intrinsic
    def called(typing: Any, s: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, n: Any, a: Any) -> Any:
        arguments = (s, K, t, p, tail_t, tail_p, n, a)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.call(apart(typing, context, builder.module, body, arguments, [x.type for x in args]), args)

        return types.float64(*arguments), emit

    return called


def _each_number(context: Any, builder: Any, kind: Any, values: Any) -> list[Any]:
    """The numbers of a tuple, or the only one, as float64."""
    if not isinstance(kind, types.BaseTuple):
        return [context.cast(builder, values, kind, types.float64)]
    return [context.cast(builder, builder.extract_value(values, q), each, types.float64) for q, each in enumerate(kind.types)]


def _taken_in(builder: Any, op: str, old: Any, x: Any) -> Any:
    """What a total becomes with x, or totals side by side."""
    if op == "add":
        return builder.fadd(old, x, flags=("contract",))  # with rows.product
    if op == "top":  # a maximum that passes over NaN
        return builder.select(builder.fcmp_ordered(">", x, old), x, old)
    # max: a NaN on either side stays
    keep = builder.or_(builder.fcmp_ordered(">=", old, x), builder.fcmp_unordered("uno", old, old))
    return builder.select(keep, old, x)


def _vector(builder: Any, p: Any, count: int) -> Any:
    """The address of `count` float64 as one of a vector."""
    return builder.bitcast(p, ir.VectorType(ir.DoubleType(), count).as_pointer())


def _halved(builder: Any, op: str, x: Any, count: int) -> Any:
    """A vector, its halves combined until `count` elements are left."""
    while (half := x.type.count // 2) >= count:
        parts = [ir.Constant(ir.VectorType(ir.IntType(32), half), [k + i for i in range(half)]) for k in (0, half)]
        x = _taken_in(builder, op, *(builder.shuffle_vector(x, x, part) for part in parts))
    return x


def _of_lanes(op: str, count: int = LANES) -> Any:
    """An intrinsic: 64 lanes to one number, always in this order. As a loop LLVM would make 63 scalar operations of it."""

    @intrinsic
    def combined(typing: Any, p: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x = _halved(builder, op, builder.load(_vector(builder, args[0], count), align=8), 1)
            return builder.extract_element(x, ir.IntType(32)(0))

        return types.float64(p), emit

    return combined


sum_of_lanes, max_of_lanes, top_of_lanes = (_of_lanes(op) for op in ("add", "max", "top"))
sum_of_eight = _of_lanes("add", 8)


@intrinsic
def add_to_eight(typing: Any, into: Any, p: Any) -> Any:
    """Add 64 lanes to eight sums, always in this order: one register, where 64 sums would take eight."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place, x = _vector(builder, args[0], 8), builder.load(_vector(builder, args[1], LANES), align=8)
        builder.store(builder.fadd(builder.load(place, align=8), _halved(builder, "add", x, 8)), place, align=8)
        return context.get_dummy_value()

    return types.void(into, p), emit


def _gather(op: str) -> Any:
    @intrinsic
    def gather(typing: Any, p: Any, lane: Any, values: Any, weight: Any, wanted: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            p, lane, values, weight, wanted = args
            double = ir.DoubleType()
            if op == "dot":  # 0 * inf is nothing: what has no weight does not count
                wanted = builder.and_(wanted, builder.fcmp_unordered("!=", weight, double(0.0)))
            for q, x in enumerate(_each_number(context, builder, signature.args[2], values)):
                slot = builder.gep(p, [builder.add(lane, _INDEX(q * LANES))])
                old = builder.load(slot)
                adds = op in ("add", "factor") and not isinstance(x, ir.Constant)
                if adds:  # no select of what is stored: LLVM would store parts of vectors, and a CPU cannot soon load these as a whole
                    x = builder.select(wanted, x, double(0.0))
                if op == "dot":
                    new = _fma(builder, weight, x, old)
                elif op == "factor" and q:
                    new = _fma(builder, x, old, builder.fadd(old, x))
                else:
                    new = _taken_in(builder, "add" if op == "factor" else op, old, x)
                builder.store(new if adds else builder.select(wanted, new, old), slot)
            return context.get_dummy_value()

        return types.void(p, types.intp, values, types.float64, types.boolean), emit

    return gather


@intrinsic
def larger_to(typing: Any, p: Any, lane: Any, x: Any) -> Any:
    """The lane's largest so far, or x where that is larger."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.gep(args[0], [args[1]])
        builder.store(_taken_in(builder, "top", builder.load(place), args[2]), place)
        return context.get_dummy_value()

    return types.void(p, types.intp, p.dtype), emit


@intrinsic
def first_max_to(typing: Any, p: Any, lane: Any, x: Any, index: Any) -> Any:
    """Where x is larger than the lane's largest so far, or the first NaN, write down its index; the largest stands 64 places behind."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        p, lane, x, index = args
        index = builder.sitofp(index, p.type.pointee)
        places = [builder.gep(p, [lane]), builder.gep(p, [builder.add(lane, _INDEX(LANES))])]
        first, largest = (builder.load(place) for place in places)
        better = builder.and_(builder.fcmp_unordered(">", x, largest), builder.fcmp_ordered("ord", largest, largest))
        for place, new, old in zip(places, (index, x), (first, largest), strict=True):
            builder.store(builder.select(better, new, old), place)
        return context.get_dummy_value()

    return types.void(p, types.intp, p.dtype, types.intp), emit


def places_of(load: Any, block: int) -> Any:
    """An intrinsic (p, n, i): at which j p[j] is larger than p[i], or NaN, and at which they are equal, as bits j of two numbers.

    For n <= 64. `block` elements are read at once, and those past the last may leave bits behind.
    """
    bits, integer = ir.IntType(block), ir.IntType(32)

    @intrinsic
    def places(typing: Any, p: Any, n: Any, i: Any) -> Any:
        is_float = isinstance(p.dtype, types.Float)
        _, read = load._defn(typing, p.dtype)
        result = types.UniTuple(types.int64, 2)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            p, n, i = args
            vector = ir.VectorType(p.type.pointee if is_float else ir.DoubleType(), block)
            empty = ir.Constant(vector, ir.Undefined)

            def value(p: Any, i: Any) -> Any:
                x = builder.load(builder.gep(p, [i]))
                return x if is_float else read(context, builder, signature, [x])

            def values(p: Any) -> Any:
                if block == 1:
                    return value(p, _INDEX(0))
                if is_float:
                    return builder.load(builder.bitcast(p, vector.as_pointer()), align=_BYTES[vector.element])
                found = empty
                for i in range(block):
                    found = builder.insert_element(found, value(p, _INDEX(i)), integer(i))
                return found

            own = value(p, i)
            if block > 1:
                own = builder.insert_element(empty, own, integer(0))
                own = builder.shuffle_vector(own, empty, ir.Constant(ir.VectorType(integer, block), [0] * block))

            def here(i: Any) -> list[Any]:
                x = values(builder.gep(p, [i]))
                holds = builder.fcmp_unordered(">", x, own), builder.fcmp_ordered("==", x, own)
                return [builder.shl(builder.zext(builder.bitcast(each, bits), _INDEX), i) for each in holds]

            found = [cgutils.alloca_once_value(builder, x) for x in here(_INDEX(0))]  # in no loop: many rows have no more than these
            with cgutils.for_range_slice(builder, _INDEX(block), n, _INDEX(block)) as (i, _):
                for place, x in zip(found, here(i), strict=True):
                    builder.store(builder.or_(builder.load(place), x), place)
            return context.make_tuple(builder, result, [builder.load(place) for place in found])

        return result(p, types.intp, types.intp), emit

    return places


@intrinsic
def bits_of_rows(typing: Any, bits: Any, n: Any, into: Any) -> Any:
    """into[r] = the n bits from bit r n on, for 64 rows r and 0 < n <= WITHIN; up to 7 bytes behind them are read."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits, n, into = args
        before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
        mask = builder.lshr(_INDEX(-1), builder.sub(_INDEX(LANES), n))
        builder.branch(loop)
        builder.position_at_end(loop)
        r, start = builder.phi(_INDEX), builder.phi(_INDEX)
        place = builder.gep(builder.bitcast(bits, ir.IntType(8).as_pointer()), [builder.lshr(start, _INDEX(3))])
        found = builder.lshr(builder.load(builder.bitcast(place, _INDEX.as_pointer()), align=1), builder.and_(start, _INDEX(7)))
        builder.store(builder.and_(found, mask), builder.gep(into, [r]))
        following = builder.add(r, _INDEX(1))
        for phi, first, then in ((r, _INDEX(0), following), (start, _INDEX(0), builder.add(start, n))):
            phi.add_incoming(first, before)
            phi.add_incoming(then, loop)
        jump = builder.cbranch(builder.icmp_unsigned("<", following, _INDEX(LANES)), loop, after)
        scalar(builder.module, jump)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return types.void(bits, n, into), emit


@intrinsic
def ones(typing: Any, bits: Any, count: Any) -> Any:
    """How many of the lowest `count` bits are set, of 64."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits, count = args
        zero = _INDEX(0)
        upper = builder.shl(bits, builder.and_(builder.sub(zero, count), _INDEX(63)))  # by 64 for 0 is not defined
        return builder.ctpop(builder.select(builder.icmp_signed("==", count, zero), zero, upper))

    return types.int64(types.int64, types.int64), emit


add_to, dot_to, max_to, top_to, factor_to = (_gather(op) for op in ("add", "dot", "max", "top", "factor"))
"""gather(p, lane, values, weight, wanted): take the values of one element into that lane's totals, where wanted.

factor_to takes a pair (x, e): it adds x, and makes the second total E, of the product 1 + E, (1 + E)(1 + e) - 1."""


def _two_sum(builder: Any, x: Any, y: Any) -> tuple[Any, Any]:
    total = builder.fadd(x, y)
    of_y = builder.fsub(total, x)
    return total, builder.fadd(builder.fsub(x, builder.fsub(total, of_y)), builder.fsub(y, of_y))


def _two_product(builder: Any, x: Any, y: Any) -> tuple[Any, Any]:
    product = builder.fmul(x, y)
    return product, _fma(builder, x, y, builder.fneg(product))


def _exactly(operation: Callable[..., tuple[Any, Any]]) -> Any:
    @intrinsic
    def both(typing: Any, x: Any, y: Any) -> Any:
        result = types.UniTuple(types.float64, 2)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return context.make_tuple(builder, result, operation(builder, *args))

        return result(types.float64, types.float64), emit

    return both


two_sum, two_product = _exactly(_two_sum), _exactly(_two_product)
"""`exact.two_sum` and `exact.two_product`."""


@intrinsic
def parts_to(typing: Any, p: Any, lane: Any, values: Any) -> Any:
    """Add the values of one element to that lane's sums, of three parts each: `exact.add_to_parts`."""
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        p, lane, values = args
        for q, x in enumerate(_each_number(context, builder, signature.args[2], values)):
            places = [builder.gep(p, [builder.add(lane, _INDEX((3 * q + k) * LANES))]) for k in range(3)]
            for place in places[:2]:
                total, x = _two_sum(builder, builder.load(place), x)
                builder.store(total, place)
            builder.store(builder.fadd(builder.load(places[2]), x), places[2])
        return context.get_dummy_value()

    return types.void(p, types.intp, values), emit


@intrinsic
def set_to(typing: Any, p: Any, lane: Any, values: Any) -> Any:
    """Write a tuple (or a number) to the totals of one lane."""
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        p, lane, values = args
        for q, x in enumerate(_each_number(context, builder, signature.args[2], values)):
            builder.store(x, builder.gep(p, [builder.add(lane, _INDEX(q * LANES))]))
        return context.get_dummy_value()

    return types.void(p, types.intp, values), emit


@intrinsic
def widen(typing: Any, x: Any) -> Any:
    """A float32 or float64 as float64."""
    return types.float64(x), lambda context, builder, signature, args: context.cast(builder, args[0], x, types.float64)


@intrinsic
def narrow(typing: Any, x: Any) -> Any:
    """A float64 rounded to float32."""
    return types.float32(types.float64), lambda context, builder, signature, args: builder.fptrunc(args[0], ir.FloatType())


def dense_target(load: Any) -> Any:
    """An intrinsic (K, t, j, lane) -> the target at element j of that lane; t is the address of the first lane's."""

    @intrinsic
    def target(typing: Any, K: Any, t: Any, j: Any, lane: Any) -> Any:
        _, read = load._defn(typing, t.dtype)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return read(context, builder, signature, [builder.load(builder.gep(args[1], [args[3]]))])

        return types.float64(K, t, types.intp, types.intp), emit

    return target


def labelled_target(long: bool) -> Any:
    """The same of a one-hot row that is given by its label K[lane]. In a long row, step j and the lane make the element."""

    @intrinsic
    def target(typing: Any, K: Any, t: Any, j: Any, lane: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            K, _, j, lane = args
            element = builder.add(builder.mul(j, _INDEX(LANES)), lane) if long else j
            hit = builder.icmp_signed("==", builder.load(builder.gep(K, [lane])), element)
            return builder.uitofp(hit, ir.DoubleType())

        return types.float64(K, t, types.intp, types.intp), emit

    return target


VALID, IGNORED, BAD = 0.0, 1.0, 2.0


def judge(labelled: bool) -> Any:
    """An intrinsic (x, status): x of a valid row, 0 of an ignored one, NaN of one whose label is out of range."""

    @intrinsic
    def judged(typing: Any, x: Any, status: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, status = args
            if not labelled:
                return x
            double = ir.DoubleType()
            is_valid, is_ignored = (builder.fcmp_ordered("==", status, double(k)) for k in (VALID, IGNORED))
            return builder.select(is_valid, x, builder.select(is_ignored, double(0.0), double(float("nan"))))

        return types.float64(types.float64, types.float64), emit

    return judged


@intrinsic
def no_labels(typing: Any, t: Any, row: Any, classes: Any, ignore: Any, K: Any, status: Any) -> Any:
    """There is nothing to check: -1."""
    return types.int64(t, row, classes, ignore, K, status), lambda *_: _INDEX(-1)


@intrinsic
def no_weights(typing: Any, w: Any, lanes: Any, step: Any, W: Any) -> Any:
    """Values that are stored are not weighted."""
    return types.void(w, lanes, step, W), lambda context, *_: context.get_dummy_value()


@intrinsic
def no_derivative(typing: Any, S: Any, W: Any, status: Any, K: Any, t: Any, p: Any, tail_t: Any, tail_p: Any, grad: Any, hess: Any,
                  n: Any, of: Any, scale: Any, a: Any) -> Any:  # fmt: skip
    """Nothing is asked for."""
    result = types.void(S, W, status, K, t, p, tail_t, tail_p, grad, hess, n, of, scale, a)
    return result, lambda context, *_: context.get_dummy_value()


@intrinsic
def move(typing: Any, into: Any, p: Any) -> Any:
    """into[i] = p[i], 64 elements, eight at a time, as lanes are stored: to load what several stores wrote, a CPU waits for them."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = args[0].type.pointee
        eight = ir.VectorType(element, 8).as_pointer()
        for i in range(0, LANES, 8):
            to, source = (builder.bitcast(builder.gep(x, [_INDEX(i)]), eight) for x in args)
            builder.store(builder.load(source, align=_BYTES[element]), to, align=_BYTES[element])
        return context.get_dummy_value()

    return types.void(into, p), emit


def besides(*patterns: int) -> Any:
    """An intrinsic (p): which of the 64 elements from p on have bits that are none of these, as bits of a number."""

    @intrinsic
    def found(typing: Any, p: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            integer = ir.IntType(8 * _BYTES[args[0].type.pointee])
            vector = ir.VectorType(integer, LANES)
            bits = builder.load(builder.bitcast(args[0], vector.as_pointer()), align=integer.width // 8)
            each = [builder.icmp_unsigned("!=", bits, ir.Constant(vector, [pattern] * LANES)) for pattern in patterns]
            return builder.bitcast(functools.reduce(builder.and_, each), _INDEX)

        return types.int64(p), emit

    return found


def _compared(holds: Callable[[Any, Any, Any], Any]) -> Any:
    """An intrinsic (p, y): for which of the 64 numbers from p on it holds, as bits of a number. y is one of their type."""

    @intrinsic
    def found(typing: Any, p: Any, y: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            p, y = args
            y = y if y.type == p.type.pointee else builder.fptrunc(y, p.type.pointee)
            return builder.bitcast(holds(builder, _elements(builder, p), _everywhere(builder, y)), _INDEX)

        return types.int64(p, types.float64), emit

    return found


def _elements(builder: Any, p: Any) -> Any:
    """The 64 elements from p on."""
    return builder.load(builder.bitcast(p, ir.VectorType(p.type.pointee, LANES).as_pointer()), align=_BYTES[p.type.pointee])


def _everywhere(builder: Any, x: Any) -> Any:
    """x 64 times."""
    empty = ir.Constant(ir.VectorType(x.type, LANES), ir.Undefined)
    first = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(builder.insert_element(empty, x, ir.IntType(32)(0)), empty, first)


above = _compared(lambda builder, x, y: builder.fcmp_ordered(">", x, y))
above_or_nan = _compared(lambda builder, x, y: builder.fcmp_unordered(">", x, y))
equal = _compared(lambda builder, x, y: builder.fcmp_ordered("==", x, y))
nan = _compared(lambda builder, x, y: builder.fcmp_unordered("uno", x, x))


@intrinsic
def first_one(typing: Any, bits: Any) -> Any:
    """The place of the lowest bit that is set, or 64."""
    return types.int64(types.int64), lambda context, builder, signature, args: builder.cttz(args[0], ir.IntType(1)(0))


@intrinsic
def largest(typing: Any, p: Any, count: Any) -> Any:
    """The largest of the first `count` of 64 numbers, or -inf; NaN is passed over."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        p, count = args
        x, byte = _elements(builder, p), ir.IntType(8)
        places, end = ir.Constant(ir.VectorType(byte, LANES), list(range(LANES))), _everywhere(builder, builder.trunc(count, byte))
        counts = builder.and_(builder.icmp_signed("<", places, end), builder.fcmp_ordered("ord", x, x))
        none = ir.Constant(x.type, [float("-inf")] * LANES)
        x = _halved(builder, "top", builder.select(counts, x, none), 1)
        return context.cast(builder, builder.extract_element(x, ir.IntType(32)(0)), signature.args[0].dtype, types.float64)

    return types.float64(p, types.intp), emit


@intrinsic
def all_below(typing: Any, p: Any, end: Any, besides: Any) -> Any:
    """Whether the 64 integers from p on are all in [0, end), -1 standing for 2^64 - 1, and none is `besides`."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        p, *limits = args
        vector, integer = ir.VectorType(_INDEX, LANES), ir.IntType(32)
        x = builder.load(builder.bitcast(p, vector.as_pointer()), align=8)
        empty, first = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(integer, LANES), [0] * LANES)
        end, besides = (builder.shuffle_vector(builder.insert_element(empty, y, integer(0)), empty, first) for y in limits)
        good = builder.and_(builder.icmp_unsigned("<", x, end), builder.icmp_unsigned("!=", x, besides))
        return builder.icmp_unsigned("==", builder.bitcast(good, _INDEX), _INDEX(-1))

    return types.boolean(p, types.int64, types.int64), emit


@intrinsic
def all_negative(typing: Any, p: Any) -> Any:
    """Whether the 64 float64 from p on are all below 0."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(ir.DoubleType(), LANES)
        x = builder.load(builder.bitcast(args[0], vector.as_pointer()), align=8)
        negative = builder.fcmp_ordered("<", x, ir.Constant(vector, [0.0] * LANES))
        return builder.icmp_unsigned("==", builder.bitcast(negative, ir.IntType(LANES)), _INDEX(-1))

    return types.boolean(p), emit


def _prefetch(locality: int) -> Any:
    """An intrinsic (p, i): ask for the 64 elements from p + i on, wherever that may be."""

    @intrinsic
    def prefetch(typing: Any, p: Any, i: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            i8, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
            function = builder.module.declare_intrinsic("llvm.prefetch", [i8], ir.FunctionType(ir.VoidType(), [i8, i32, i32, i32]))
            for line in range(LANES * _BYTES[args[0].type.pointee] // 64):
                place = builder.gep(builder.bitcast(builder.gep(args[0], [args[1]]), i8), [_INDEX(64 * line)])
                builder.call(function, [place, i32(0), i32(locality), i32(1)])
            return context.get_dummy_value()

        return types.void(p, types.intp), emit

    return prefetch


prefetch, prefetch_far = _prefetch(3), _prefetch(2)
"""Into the first cache and, for what is looked at after that has taken in much else, into the second one."""


def _transpose(tall: int, wide: int) -> Any:
    registers = min(tall, wide)  # of 16 lanes: two or four rows of 8 or 4 elements share one, before or after

    @intrinsic
    def transpose(typing: Any, into: Any, into_stride: Any, source: Any, source_stride: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            into, into_stride, source, source_stride = args
            element = source.type.pointee

            def line(base: Any, stride: Any, r: int, size: int) -> Any:
                return builder.bitcast(builder.gep(base, [builder.mul(stride, _INDEX(r))]), ir.VectorType(element, size).as_pointer())

            def shuffle(x: Any, y: Any, lanes: Any) -> Any:
                return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes)))

            rows = [builder.load(line(source, source_stride, r, wide), align=_BYTES[element]) for r in range(tall)]
            while len(rows) > registers:
                first = [r for r in range(len(rows)) if not r & registers]
                rows = [shuffle(rows[r], rows[r + registers], range(2 * rows[r].type.count)) for r in first]
            for k in (4, 2, 1)[8 // registers - 1 :]:  # swap the off-diagonal k x k blocks of every 2k x 2k block
                low = [j if not j & k else 16 + (j ^ k) for j in range(16)]
                high = [j | k if not j & k else 16 + j for j in range(16)]
                rows = [shuffle(rows[r], rows[r | k], low) if not r & k else shuffle(rows[r ^ k], rows[r], high) for r in range(registers)]
            for j in range(wide):
                part = range(j // registers * tall, (j // registers + 1) * tall)
                x = rows[j % registers]
                builder.store(x if tall == 16 else shuffle(x, x, part), line(into, into_stride, j, tall), align=_BYTES[element])
            return context.get_dummy_value()

        return types.void(into, types.intp, source, types.intp), emit

    return transpose


transpose16x8, transpose16x4, transpose8x16, transpose4x16 = (_transpose(*shape) for shape in ((16, 8), (16, 4), (8, 16), (4, 16)))
"""transpose(into, into_stride, source, source_stride): into[j*into_stride + r] = source[r*source_stride + j] for as many rows r and
columns j: two or three rounds of swaps, no gather."""


def _of_rows8(combine: Callable[[Any, Any, Any], Any], whole: bool) -> Any:
    """Four partial sums a row, two rows to a register, then rounds in which twice as many rows share one.

    Of rows from EIGHTS elements on, eight at first. A load that lies across two of the cache lines just written waits for both, and four
    elements of a shorter row seldom do.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        into, source, n = args
        vector = {size: ir.VectorType(ir.DoubleType(), size) for size in (8, 4)}

        def constant(numbers: Any, bits: int = 32) -> Any:
            return ir.Constant(ir.VectorType(ir.IntType(bits), 8), list(numbers))

        def halved(x: list[Any], y: list[Any], k: int) -> list[Any]:
            """Of every 2k partial sums the first and the last k, of two rows side by side."""
            low = [i if not i & k else 8 + (i ^ k) for i in range(8)]
            return [[builder.shuffle_vector(*rows, constant(i | part for i in low)) for rows in zip(x, y, strict=True)] for part in (0, k)]

        def joined(x: list[Any], y: list[Any]) -> list[Any]:
            return [combine(builder, *pair) for pair in zip(x, y, strict=True)]

        def elements(j: Any, size: int) -> list[Any]:
            """Of every row those from j on, zeros behind the end; of four, rows r and r + 4 side by side."""
            places = [builder.bitcast(builder.gep(row, [j]), vector[size].as_pointer()) for row in rows]
            found = [builder.load(place, align=8) for place in places]
            if size == 4:
                found = [builder.shuffle_vector(*pair, constant(range(8))) for pair in zip(found[:4], found[4:], strict=True)]
            left = builder.insert_element(constant([0] * 8, 64), builder.sub(n, j), ir.IntType(32)(0))
            left = builder.shuffle_vector(left, left, constant([0] * 8))
            counts = builder.icmp_signed("<", constant([i % size for i in range(8)], 64), left)
            return [builder.select(counts, x, ir.Constant(vector[8], [0.0] * 8)) for x in found]

        def partial(size: int) -> list[Any]:
            """So many partial sums of each row."""
            places = [cgutils.alloca_once_value(builder, x) for x in elements(_INDEX(0), size)]
            with cgutils.for_range_slice(builder, _INDEX(size), n, _INDEX(size)) as (j, _):
                keep(places, joined([builder.load(place) for place in places], elements(j, size)))
            return [builder.load(place) for place in places]

        def keep(places: list[Any], numbers: list[Any]) -> None:
            for place, x in zip(places, numbers, strict=True):
                builder.store(x, place)

        rows = [source]
        for _ in range(7):
            rows.append(builder.gep(rows[-1], [n]))
        fours = [cgutils.alloca_once(builder, vector[8]) for _ in range(4)]
        with builder.if_else(builder.icmp_signed(">=", n, _INDEX(EIGHTS))) as (long, short):
            with long:
                eights = partial(8)
                keep(fours, joined(*halved(eights[:4], eights[4:], 4)))
            with short:
                keep(fours, partial(4))
        sums = [builder.load(place) for place in fours]
        sums = joined(*halved(sums[::2], sums[1::2], 1))
        halves = halved(sums[:1], sums[1:], 2)
        for which, [x] in enumerate([joined(*halves)] if whole else halves):
            place = builder.gep(into, [_INDEX(which * LANES)])
            builder.store(x, builder.bitcast(place, vector[8].as_pointer()), align=8)
        return context.get_dummy_value()

    return emit


@intrinsic
def sums_of_rows8(typing: Any, into: Any, source: Any, n: Any) -> Any:
    """into[r] = sum of source[r*n ... r*n + n - 1] for 8 rows of float64, in an order that depends on n alone.

    Up to 7 elements past the last row are read, and do not count.
    """
    return types.void(into, source, types.intp), _of_rows8(lambda builder, x, y: builder.fadd(x, y), True)


@intrinsic
def products_of_rows8(typing: Any, into: Any, source: Any, n: Any) -> Any:
    """Likewise E of the product 1 + E of all 1 + e, in two halves of a row's elements, into[r] and into[64 + r]."""
    return types.void(into, source, types.intp), _of_rows8(lambda builder, x, y: _fma(builder, x, y, builder.fadd(x, y)), False)
