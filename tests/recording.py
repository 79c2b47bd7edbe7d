"""A device that runs nothing, and remembers what it was asked to compile and launch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from emulator.device import DEVICE, DeviceArray, EmulatedDevice

import lossfuncs
from lossfuncs import devices


class Launched(NamedTuple):
    """What cuLaunchKernel would have got."""

    kernel: Any
    grid: int
    block: int
    shared: int
    arguments: bytes
    stream: int


class RecordingDevice(EmulatedDevice):
    """Its arrays are of zeros."""

    processors = 132  # an H200's

    def __init__(self) -> None:
        super().__init__()
        self.kernels: dict[str, Any] = {}
        self.launched: list[Launched] = []

    def place(self) -> Any:
        return self  # which is kept, and so unlike any later one: nothing is there yet

    def _new(self, shape: Any, dtype: Any, poison: bool) -> DeviceArray:
        return DeviceArray(np.zeros(shape, dtype))

    def compile(self, kernel: Any) -> Any:
        self.kernels[kernel.name] = kernel
        return kernel

    def launch(self, compiled: Any, grid: int, block: int, shared: int, arguments: bytes, stream: int) -> None:
        self.launched.append(Launched(compiled, grid, block, shared, bytes(arguments), stream))


@contextmanager
def recording() -> Iterator[RecordingDevice]:
    """A new such device in the place of the emulated one."""
    device = RecordingDevice()
    devices.add("emulated", "emulator", lambda: device)
    devices.SHORTCUTS.clear()  # they know their device
    try:
        with lossfuncs.backend("emulated"):
            yield device
    finally:
        devices.SHORTCUTS.clear()
        devices.add("emulated", "emulator", lambda: DEVICE)
