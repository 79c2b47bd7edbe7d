"""The GPU backend: picks a schedule, writes the one-line entry of the kernel, compiles it once and launches it.

The kernels are CUDA C++ in `kernels/`. Everything here is above one seam, `Device`: CuPy's is below, and the tests run the same kernels
on a CPU through another.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from .problem import Array

SOURCES = next(folder for folder in (Path(__file__).parent / "kernels", Path(__file__).parent.parent / "kernels") if folder.is_dir())


class Kernel(NamedTuple):
    """The source of one kernel: `#include` lines, definitions in a namespace called as the kernel, and one

        extern "C" __global__ void NAME(const STRUCT arguments) { ... }

    Sources of several kernels may be put one after the other into one file. Every kernel has one parameter, a struct by value.
    """

    name: str  # a C identifier, unlike any other's
    text: str


class Device(Protocol):
    """Where kernels run. All of it is meant for the current device and the caller's current stream, and nothing waits but `fetch`."""

    backend: str  # its name among the backends
    xp: Any  # the namespace of its arrays: NumPy's functions by NumPy's names
    shared: int  # bytes of shared memory that a block may ask for
    processors: int  # how many blocks of full size run at once

    def place(self) -> Hashable:
        """The current device: what is kept there, compiled kernels and workspaces, is kept by it."""

    def owns(self, x: Any) -> bool:
        """Whether x is an array in this kind of device's memory."""

    def send(self, x: Array) -> Any:
        """A copy of a NumPy array on the device."""

    def fetch(self, x: Any) -> Array:
        """A copy of a device array on the host, when it is computed."""

    def empty(self, shape: Any, dtype: Any) -> Any:
        """A new array on the device."""

    def zeros(self, shape: Any, dtype: Any) -> Any:
        """A new array of zeros."""

    def address(self, x: Any) -> int:
        """Of x's first element."""

    def stream(self) -> int:
        """The handle of the caller's current stream."""

    def compile(self, kernel: Kernel) -> Any:
        """What `launch` takes for it. ValueError with the compiler's first line where the text is wrong."""

    def launch(self, compiled: Any, grid: int, block: int, shared: int, arguments: bytes, stream: int) -> None:
        """Run it: `grid` blocks of `block` threads with that many bytes of dynamic shared memory; arguments is the struct."""
