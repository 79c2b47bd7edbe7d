"""Parts of a kernel, taken by the threads that a caller has enlisted, without the interpreter."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from .front import apart
from .lanes import intrinsic
from .threads import _CONDUCT

_WORD, _BYTES = ir.IntType(64), ir.IntType(8).as_pointer()
_PART = ir.FunctionType(_WORD, [_BYTES, _WORD])  # (frame, number of the part) -> what the body gives
_CONDUCTOR = ir.FunctionType(_WORD, [_BYTES, _PART.as_pointer(), _BYTES, _WORD])


def shared(body: Any) -> Any:
    """An intrinsic (team, parts, begin, end, arguments): the least of body(*arguments, lo, hi) that is not negative, or -1.

    [lo, hi) are `parts` parts of [begin, end). `team` is what `threads.enlist` gave; with 0 it is body(*arguments, begin, end). `body` is
    compiled with `front.inline`, once.
    """

    @intrinsic
    def sharing(typing: Any, team: Any, parts: Any, begin: Any, end: Any, arguments: Any) -> Any:
        kinds = (*arguments.types, types.intp, types.intp)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            team, parts, begin, end, arguments = args
            fields = [builder.extract_value(arguments, i) for i in range(len(kinds) - 2)]
            frame = ir.LiteralStructType([_WORD, _WORD, _WORD, *(field.type for field in fields)])
            own = apart(typing, context, builder.module, body, kinds, [*(field.type for field in fields), _WORD, _WORD])
            part = _part(builder.module, frame, own)

            place, result = cgutils.alloca_once(builder, frame), cgutils.alloca_once(builder, _WORD)
            alone = builder.icmp_signed("==", team, _WORD(0))
            for k, value in enumerate([builder.select(alone, _WORD(1), parts), begin, end, *fields]):
                builder.store(value, _field(builder, place, k))
            packed = builder.bitcast(place, _BYTES)
            with builder.if_else(alone) as (serial, together):
                with serial:
                    builder.store(builder.call(part, [packed, _WORD(0)]), result)
                with together:
                    word = builder.inttoptr(builder.add(team, _WORD(8 * _CONDUCT)), _WORD.as_pointer())
                    conduct = builder.inttoptr(builder.load(word), _CONDUCTOR.as_pointer())
                    builder.store(builder.call(conduct, [builder.inttoptr(team, _BYTES), part, packed, parts]), result)
            return builder.load(result)

        return types.int64(team, parts, begin, end, arguments), emit

    return sharing


def _part(module: Any, frame: Any, own: Any) -> Any:
    """(frame, i): own(*arguments, lo, hi) of part i, from a frame of the number of parts, begin, end and the arguments.

    Parts become smaller, so that all threads end together: before part i, a share of ((parts - i)/parts)^2 is left.
    """
    function = ir.Function(module, _PART, module.get_unique_name("part"))
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block())
    place = builder.bitcast(function.args[0], frame.as_pointer())
    parts, begin, end, *arguments = (builder.load(_field(builder, place, k)) for k in range(len(frame.elements)))
    size, i = builder.sub(end, begin), function.args[1]
    left = [builder.sub(parts, k) for k in (i, builder.add(i, _WORD(1)))]
    square = builder.mul(parts, parts)
    bounds = [builder.sub(end, builder.sdiv(builder.mul(size, builder.mul(k, k)), square)) for k in left]
    builder.ret(builder.call(own, [*arguments, *bounds]))
    return function


def _field(builder: Any, place: Any, k: int) -> Any:
    return builder.gep(place, [ir.IntType(32)(0), ir.IntType(32)(k)])
