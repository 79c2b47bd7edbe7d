"""Parts of a kernel, taken by the threads that a caller has enlisted, without the interpreter."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from .lanes import intrinsic
from .threads import _CONDUCT

_WORD = ir.IntType(64)


@intrinsic
def shared(typing: Any, body: Any, team: Any, parts: Any, begin: Any, end: Any, arguments: Any) -> Any:
    """The least of body(*arguments, lo, hi) that is not negative, or -1, where [lo, hi) are `parts` parts of [begin, end).

    `team` is what `threads.enlist` gave; with 0 it is body(*arguments, begin, end). `body` is compiled with `fold.inline`,
    and once, in a function of its own.
    """
    signature = types.int64(body, team, parts, begin, end, arguments)
    inner = body.get_call_type(typing, (*arguments.types, types.intp, types.intp), {})

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, team, parts, begin, end, arguments = args
        compiled = body.dispatcher.get_compile_result(inner)
        context.active_code_library.add_linking_library(compiled.library)
        fields = [builder.extract_value(arguments, i) for i in range(len(signature.args[5].types))]
        frame = ir.LiteralStructType([_WORD] * 3 + [field.type for field in fields])
        bytes_, word = ir.IntType(8).as_pointer(), ir.FunctionType(_WORD, [ir.IntType(8).as_pointer(), _WORD])

        # A function of its own, whose arguments LLVM knows to be no scratch of the body's: what is loaded from a frame might be.
        own = ir.Function(builder.module, ir.FunctionType(_WORD, [*(field.type for field in fields), _WORD, _WORD]),
                          builder.module.get_unique_name("body"))  # fmt: skip
        own.linkage = "internal"
        own.attributes.add("noinline")
        inside = ir.IRBuilder(own.append_basic_block())
        function = context.declare_function(builder.module, compiled.fndesc)
        _, found = context.call_conv.call_function(inside, function, inner.return_type, inner.args, own.args)
        inside.ret(found)

        part = ir.Function(builder.module, word, builder.module.get_unique_name("part"))
        part.linkage = "internal"
        inside = ir.IRBuilder(part.append_basic_block())
        packed = inside.bitcast(part.args[0], frame.as_pointer())
        count, first, last, *values = (
            inside.load(inside.gep(packed, [ir.IntType(32)(0), ir.IntType(32)(k)])) for k in range(3 + len(fields)))  # fmt: skip
        size = inside.sub(last, first)
        bounds = [inside.add(first, inside.sdiv(inside.mul(size, i), count)) for i in (part.args[1], inside.add(part.args[1], _WORD(1)))]
        inside.ret(inside.call(own, [*values, *bounds]))

        with builder.goto_entry_block():
            place = builder.alloca(frame)
        for k, value in enumerate([parts, begin, end, *fields]):
            builder.store(value, builder.gep(place, [ir.IntType(32)(0), ir.IntType(32)(k)]))
        packed_here = builder.bitcast(place, bytes_)
        conduct_at = builder.inttoptr(builder.add(team, _WORD(8 * _CONDUCT)), _WORD.as_pointer())
        alone = builder.icmp_signed("==", team, _WORD(0))
        result = builder.alloca(_WORD)
        with builder.if_else(alone) as (serial, together):
            with serial:
                builder.store(_WORD(1), builder.gep(place, [ir.IntType(32)(0), ir.IntType(32)(0)]))
                builder.store(builder.call(part, [packed_here, _WORD(0)]), result)
            with together:
                kind = ir.FunctionType(_WORD, [bytes_, part.type, bytes_, _WORD]).as_pointer()
                conduct = builder.inttoptr(builder.load(conduct_at), kind)
                builder.store(builder.call(conduct, [builder.inttoptr(team, bytes_), part, packed_here, parts]), result)
        return builder.load(result)

    return signature, emit
