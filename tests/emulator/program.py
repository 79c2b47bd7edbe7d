"""Launching compiled kernels as cuLaunchKernel would, under a schedule of one's choice."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import build
from .build import CompileError as CompileError


class EmulatorError(Exception):
    """A kernel did what it must not, or was launched as it must not be."""


class Schedule(NamedTuple):
    """The order in which threads run that may run.

    in order: the lowest thread, as far as it can; reverse: the highest; random: any; priority: warps in random order, each as far ahead of
    the next as it can get.
    """

    name: str
    seed: int = 0


SCHEDULES = ("in order", "reverse", "random", "priority")
DEFAULT = Schedule("in order")


class _Dim3(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint) for name in "xyz"]


class _Launch(ctypes.Structure):
    _fields_ = [
        ("entry", ctypes.c_void_p),
        ("arguments", ctypes.c_void_p),
        ("grid", _Dim3),
        ("block", _Dim3),
        ("shared_bytes", ctypes.c_uint),
        ("schedule", ctypes.c_uint),
        ("seed", ctypes.c_uint64),
        ("first", ctypes.c_uint64),
        ("last", ctypes.c_uint64),
    ]


VARIANT = os.environ.get("EMULATOR_VARIANT", "")  # of a whole process: a sanitizer's library has to be there from the beginning
_one_at_a_time = threading.RLock()


@functools.cache
def runtime() -> ctypes.CDLL:
    """The scheduler, whose functions the kernels find because it is loaded globally."""
    library = ctypes.CDLL(str(build.runtime(VARIANT)), mode=ctypes.RTLD_GLOBAL)
    library.emulator_launch.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    library.emulator_allocate.argtypes = [ctypes.c_size_t, ctypes.c_int]
    library.emulator_allocate.restype = ctypes.c_void_p
    library.emulator_free.argtypes = [ctypes.c_void_p]
    return library


class Kernel:
    """One `extern "C" __global__` function."""

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self.name = name
        self.entry = ctypes.cast(getattr(library, f"emulated_{name}"), ctypes.c_void_p).value
        describe = getattr(library, f"parameters_of_{name}")
        describe.restype = ctypes.POINTER(ctypes.c_uint)
        self.offsets: list[int] = []
        end = 0
        for word in _until_zero(describe()):
            size, alignment = word >> 8, word & 255
            begin = -(-end // alignment) * alignment
            self.offsets.append(begin)
            end = begin + size
        self.bytes = end  # of the packed arguments, as a C structure without padding behind the last member

    def launch(self, grid: Sequence[int], block: Sequence[int], shared: int, arguments: bytes, schedule: Schedule = DEFAULT,
               blocks: range | None = None) -> None:  # fmt: skip
        """Run the kernel; of the grid only those blocks, if given. EmulatorError for what went wrong."""
        if len(arguments) != self.bytes:
            raise EmulatorError(f"{self.name} takes {self.bytes} bytes of arguments, got {len(arguments)}")
        packed = ctypes.create_string_buffer(bytes(arguments), max(1, len(arguments)))
        base = ctypes.addressof(packed)
        pointers = (ctypes.c_void_p * max(1, len(self.offsets)))(*(base + offset for offset in self.offsets))
        first, last = (0, 2**63) if blocks is None else (blocks.start, blocks.stop)
        order = SCHEDULES.index(schedule.name)
        one = _Launch(self.entry, ctypes.addressof(pointers), _dim3(grid), _dim3(block), shared, order, schedule.seed, first, last)
        message = ctypes.create_string_buffer(600)
        with _one_at_a_time:
            if runtime().emulator_launch(ctypes.byref(one), message, len(message)):
                raise EmulatorError(f"{self.name}: {message.value.decode()}")


def _until_zero(words: Any) -> Iterator[int]:
    i = 0
    while words[i]:
        yield words[i]
        i += 1


def _dim3(sizes: Sequence[int]) -> _Dim3:
    return _Dim3(*sizes, *[1] * (3 - len(sizes)))


def compile(source: str, entries: Sequence[str], folder: Path, defines: Sequence[str] = ()) -> dict[str, Kernel]:
    """The kernels of a program by name; see `build.kernels`."""
    runtime()
    library = ctypes.CDLL(str(build.kernels(source, tuple(entries), folder, VARIANT, tuple(defines))))
    return {name: Kernel(library, name) for name in entries}


def allocate(bytes: int, poison: bool = True) -> int:
    """Device memory: full of NaN, or (not poison) of zeros."""
    address = runtime().emulator_allocate(bytes, poison)
    if not address:
        raise MemoryError(f"no {bytes} bytes of device memory")
    return int(address)


def free(address: int) -> None:
    """Give device memory back. EmulatorError if the bytes behind its end were written."""
    if not runtime().emulator_free(address):
        raise EmulatorError("a kernel wrote behind the end of device memory")
