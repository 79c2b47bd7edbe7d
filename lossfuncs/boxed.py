"""What a kernel is given by Python: NumPy arrays as objects, read where NumPy's ABI has their fields, and numbers in a frame.

Numba's own conversion of an array takes 30 ns, of a number 8, and handing over the GIL 40: as much together as a kernel for 32 rows.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import NativeValue, models, register_model, unbox

from .lanes import intrinsic
from .problem import NO_CLASS, Array

# Words of an object. The type is the last that all objects have; then comes what NumPy's macros read in the extensions compiled against it.
_TYPE = object.__basicsize__ // 8 - 1
_DATA, _AXES, _SHAPE, _DTYPE, _FLAGS = (_TYPE + k for k in (1, 2, 3, 6, 7))
_FLAT = 0x101  # of the flags: C-contiguous and aligned

SMALL = 4096  # elements, some microseconds' work: no other thread is worth handing the GIL to for less
_INTEGER = np.dtype(np.int64)

OTHER = -2  # what a kernel returns for arrays that do not fit its frame

# Words of a frame; the loss's parameters follow, and then the headers of the arrays that it is for: all of them, or none.
N, REST, M, CHUNK, BEGIN, END, TEAM, PARTS, STEP, IGNORE, WEIGH, LONG, HEADERS, ONE, OF, SCALE, PARAMETERS = range(17)

Kind = tuple[np.dtype[Any], tuple[int, ...]]  # of arrays: their dtype and their shape


class Boxed(types.Type):  # type: ignore[misc]
    """A Python object, as it is."""

    def __init__(self) -> None:
        super().__init__("Boxed")


boxed = Boxed()
register_model(Boxed)(models.OpaqueModel)


@unbox(Boxed)  # type: ignore[untyped-decorator]
def _as_it_is(kind: Any, x: Any, context: Any) -> Any:
    return NativeValue(x)


def frame(n: int, m: int, chunk: int, begin: int, end: int, team: int = 0, parts: int = 1, step: int = 0, ignore: int = NO_CLASS,
          scale: float = 1.0, parameters: tuple[float, ...] = (), rest: int = 0, of: int | None = None, weigh: bool = False,
          arrays: Sequence[Kind] = ()) -> Array:  # fmt: skip
    """The numbers of a kernel's call, for `Kernel.entry`: `of` elements make a row, n unless it is cut, which may leave a rest.

    With arrays, the targets, the predictions and, for step 1, the weights of calls that it is for, the kernel returns OTHER without a look
    at the memory of any that are not flat arrays of these shapes and of these very dtypes, which are to be kept alive.
    """
    headers = [x for dtype, shape in arrays for x in (id(np.ndarray), id(dtype), len(shape), *shape)] if arrays else ()
    known, long = PARAMETERS + len(parameters) if arrays else 0, team != 0 or min(m, (end - begin) * chunk) * n + rest > SMALL
    words = struct.pack(f"={ONE}q{3 + len(parameters)}d{len(headers)}q", n, rest, m, chunk, begin, end, team, parts, step, ignore, weigh,
                        long, known, 1.0, n if of is None else of, scale, *parameters, *headers)  # fmt: skip
    return np.frombuffer(words, _INTEGER)


def _field(word: int, kind: Any) -> Any:
    """An intrinsic that reads a field of an object."""

    @intrinsic
    def read(typing: Any, x: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            words = builder.bitcast(args[0], ir.IntType(64).as_pointer())
            place = builder.gep(words, [ir.IntType(64)(word)])
            return builder.load(builder.bitcast(place, context.get_value_type(kind).as_pointer()))

        return kind(x), emit

    return read


words, numbers = (_field(_DATA, types.CPointer(kind)) for kind in (types.int64, types.float64))


def memory(element: Any) -> Any:
    """An intrinsic that gives the address of an array's elements."""
    return _field(_DATA, types.CPointer(element))


@intrinsic
def fits(typing: Any, x: Any, header: Any) -> Any:
    """Whether x, any object, is a flat array with the header at that address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word, half = ir.IntType(64), ir.IntType(32)
        fields = builder.bitcast(args[0], word.as_pointer())
        wanted = [builder.load(builder.gep(args[1], [word(k)])) for k in range(3)]
        found = cgutils.alloca_once_value(builder, ir.IntType(1)(0))

        def field(which: int, kind: Any = word) -> Any:
            return builder.load(builder.bitcast(builder.gep(fields, [word(which)]), kind.as_pointer()))

        with builder.if_then(builder.icmp_signed("==", field(_TYPE), wanted[0])):  # any other object may be shorter
            flat = builder.icmp_signed("==", builder.and_(field(_FLAGS, half), half(_FLAT)), half(_FLAT))
            dtype = builder.icmp_signed("==", field(_DTYPE), wanted[1])
            axes = builder.icmp_signed("==", builder.sext(field(_AXES, half), word), wanted[2])
            with builder.if_then(builder.and_(flat, builder.and_(dtype, axes))):
                memory = ir.IntType(8).as_pointer()
                compare = cgutils.get_or_insert_function(builder.module, ir.FunctionType(half, [memory, memory, word]), "memcmp")
                shape = builder.bitcast(builder.gep(args[1], [word(3)]), memory)
                differ = builder.call(compare, [field(_SHAPE, memory), shape, builder.mul(wanted[2], word(8))])
                builder.store(builder.icmp_signed("==", differ, half(0)), found)
        return builder.load(found)

    return types.boolean(x, header), emit


@intrinsic
def release_gil(typing: Any, wanted: Any) -> Any:
    """Let other threads have the GIL, if wanted, until `take_gil` of what this returns."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        state = ir.IntType(8).as_pointer()
        save = cgutils.get_or_insert_function(builder.module, ir.FunctionType(state, []), "PyEval_SaveThread")
        held = cgutils.alloca_once_value(builder, ir.Constant(state, None))
        with builder.if_then(cgutils.is_not_null(builder, args[0])):
            builder.store(builder.call(save, []), held)
        return builder.load(held)

    return types.voidptr(wanted), emit


@intrinsic
def take_gil(typing: Any, state: Any) -> Any:
    """Go on with the GIL."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        restore = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), [args[0].type]), "PyEval_RestoreThread")
        with builder.if_then(cgutils.is_not_null(builder, args[0])):
            builder.call(restore, args)
        return context.get_dummy_value()

    return types.void(state), emit
