"""XLA's foreign function interface (jax/ffi: xla/ffi/api/c_api.h, version 0.x): handlers in Python, and what a call frame holds.

A handler gets the address of a call frame and gives 0, or the address of an error that XLA frees. The structures are read as 64-bit
words, at these places:

    call frame   1 extension  2 api  7 number of arguments  9 arguments  12 number of results  14 results  17, 19, 20 attributes
    buffer       2 dtype (32 bits)  3 data  4 rank  5 dims
    extension    1 type (1 asks for metadata)  3 metadata, in 32-bit words: 6 major version  7 minor version  8 traits
    api          6 the function that makes an error
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from ..problem import Array

VERSION = (0, 1)  # what is used here has been there since, and a runtime accepts older minor versions
INVALID_ARGUMENT = 3

# XLA_FFI_DataType
_DTYPES: dict[int, Any] = {1: "?", 2: "i1", 3: "i2", 4: "i4", 5: "i8", 6: "u1", 7: "u2", 8: "u4", 9: "u8", 10: "f2", 11: "f4", 12: "f8"}
_BFLOAT16 = 16

_FRAME, _ATTRIBUTES = struct.Struct("22q"), struct.Struct("6q")
_BUFFER = struct.Struct("2qi4x3q")
_Handler = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)


class _ErrorArguments(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t), ("extension", ctypes.c_void_p), ("message", ctypes.c_char_p), ("code", ctypes.c_int32)
    )  # fmt: skip


def _words(address: int, count: int) -> tuple[int, ...]:
    return struct.unpack(f"{count}q", ctypes.string_at(address, 8 * count))


def _array(address: int) -> Array:
    """A buffer as an array on its memory."""
    _, _, kind, data, rank, dims = _BUFFER.unpack(ctypes.string_at(address, _BUFFER.size))
    shape = _words(dims, rank) if rank else ()
    if kind == _BFLOAT16:
        import ml_dtypes

        dtype = np.dtype(ml_dtypes.bfloat16)
    else:
        dtype = np.dtype(_DTYPES[kind])
    size = dtype.itemsize
    for n in shape:
        size *= n
    if not size:
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, (ctypes.c_char * size).from_address(data))


def _string(attributes: tuple[int, ...]) -> str:
    """The value of the one attribute, a string."""
    (span,) = _words(attributes[-1], 1)
    return ctypes.string_at(*_words(span, 2)).decode()


def _answer_metadata(extension: int) -> bool:
    _, kind, _, metadata = _words(extension, 4)
    if kind & 0xFFFFFFFF != 1:
        return False
    words = (ctypes.c_int32 * 9).from_address(metadata)
    words[6], words[7], words[8] = *VERSION, 0
    return True


def _error(api: int, message: str) -> int:
    create = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_ErrorArguments))(_words(api, 7)[6])
    arguments = _ErrorArguments(ctypes.sizeof(_ErrorArguments), None, message.encode(), INVALID_ARGUMENT)
    return int(create(ctypes.byref(arguments)))


def handler(compute: Callable[[str, list[Array], list[Array]], None]) -> Any:
    """A handler that calls compute(attribute, arguments, results), which writes to the results. Keep it as long as XLA may call it."""

    def handle(frame: int) -> int:
        words = _FRAME.unpack(ctypes.string_at(frame, _FRAME.size))
        if words[1] and _answer_metadata(words[1]):
            return 0
        try:
            arguments = [_array(a) for a in _words(words[9], words[7])]
            results = [_array(a) for a in _words(words[14], words[12])]
            compute(_string(words[15:21]), arguments, results)
        except Exception as error:
            return _error(words[2], str(error))
        return 0

    return _Handler(handle)


def refusal(message: str) -> Any:
    """A handler that fails with this message."""

    def handle(frame: int) -> int:
        words = _FRAME.unpack(ctypes.string_at(frame, _FRAME.size))
        return 0 if words[1] and _answer_metadata(words[1]) else _error(words[2], message)

    return _Handler(handle)
