"""What metrics gather on a device, to be fetched when somebody reads a variable."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from .. import gpu
from ..gpu_own import launch
from ..problem import NO_CLASS, Array, Task

ADDING = struct.Struct("<2Qq")
COUNTING = struct.Struct("<6Q4q2d4i")
BLOCK = 256
TYPES = {"bool": "unsigned char", "uint8": "unsigned char", "int8": "signed char", "uint16": "unsigned short", "int16": "short",
         "uint32": "unsigned", "int32": "int", "uint64": "u64", "int64": "i64", **gpu.C_TYPES}  # fmt: skip


def _launch(device: gpu.Device, call: str, argument: str, grid: int, packed: bytes, shared: int = 0) -> None:
    launch(device, "metric", call, "metrics.cuh", argument, BLOCK, grid, shared, packed)


def _grid(device: gpu.Device, numbers: int, each: int = 1) -> int:
    """Blocks for so many numbers, of which a thread has `each` at least."""
    return max(1, min(-(-numbers // (BLOCK * each)), 8 * device.processors))


def total_and_count(call: Any) -> tuple[Any, Any]:
    """The total of weight * value of a call on a device, and what the weights sum to: there, or floats for arrays from the host."""
    device, xp, w = call.device, call.device.xp, call.weights
    problem = getattr(call, "problem", None)
    total = call.run(device.backend, Task(True, w))
    if problem is not None and problem.ignore != NO_CLASS:
        counted = problem.t != problem.ignore
        w = counted.astype(np.float64) if w is None else xp.where(counted, w, 0.0)
    if w is None:
        return gpu.given(call, total)[0], float(call.m)
    total, count = gpu.given(call, total, xp.sum(w))
    return total, count


def note(device: gpu.Device, bad: Any) -> None:
    """Let the status word tell the first row whose label is out of range."""
    xp, status = device.xp, gpu.kept(device).status
    if not len(bad):
        return
    rows = xp.where(bad, xp.arange(len(bad), dtype=np.uint64), np.uint64(gpu.NO_ROW))
    status[...] = xp.minimum(status, xp.min(rows))


class Pending:
    """Numbers on a device that variables do not have yet. `name` tells what later batches may be added to them."""

    def __init__(self, device: gpu.Device, name: Hashable) -> None:
        self.device, self.name = device, (device.backend, device.place(), name)

    def fits(self, device: gpu.Device, name: Hashable) -> bool:
        return self.name == (device.backend, device.place(), name)

    def settle(self) -> None:
        """Add them to the variables."""
        raise AssertionError("each kind does that itself")


class Sum(Pending):
    """A sum, with what rounding takes from it, for one variable."""

    def __init__(self, device: gpu.Device, variable: Any) -> None:
        super().__init__(device, "sum")
        self.variable = variable
        self.state = device.zeros((*variable.shape, 2), np.float64)

    def add(self, x: Any) -> None:
        x = self.device.xp.ascontiguousarray(self.device.xp.broadcast_to(x.astype(np.float64, copy=False), self.variable.shape))
        packed = ADDING.pack(self.device.address(x), self.device.address(self.state), x.size)
        _launch(self.device, "add_all(a)", "Additions", _grid(self.device, x.size), packed)

    def settle(self) -> None:
        found = self.device.fetch(self.state)
        self.variable.assign_add(found[..., 0][()], found[..., 1][()])


class Cells(Pending):
    """How many elements, or what weight, fell into each cell, for variables that are functions of that.

    parts: each variable, and its function of the cells as float64. bounds: the thresholds that tell the cells apart, if any.
    """

    def __init__(self, device: gpu.Device, name: Hashable, cells: int, parts: list[tuple[Any, Callable[[Array], Array]]],
                 bounds: Array | None = None) -> None:  # fmt: skip
        super().__init__(device, name)
        if cells >= 1 << 31:
            raise ValueError(f"a metric of {cells} cells is too large for a GPU: it has 2**31 at most")
        self.cells, self.parts = cells, parts
        self.bounds = None if bounds is None else device.send(bounds)
        self.counts = device.zeros((cells,), np.uint64)
        self.sums: Any = None

    def count(self, cell: str, t: Any, p: Any, w: Any, columns: int = 1, classes: int = 0, ignore: int = NO_CLASS,
              first: float = 0.0, steps: float = 0.0, lowest: bool = False) -> None:  # fmt: skip
        """Take in a batch. cell: the C++ type that says what falls where; w: float64, or None; the rest as in kernels/metrics.cuh."""
        device, xp, bounds = self.device, self.device.xp, self.bounds
        t, p = xp.ascontiguousarray(t), xp.ascontiguousarray(p)
        if not p.size:
            return
        address: Callable[[Any], int] = lambda x: 0 if x is None else device.address(x)  # noqa: E731
        size = 0 if bounds is None else -(-bounds.nbytes // 8) * 8
        staged = size <= gpu.SHARED // 2
        shared = size if staged else 0
        copies = 0 if w is not None else min(BLOCK // 32, (gpu.SHARED - shared) // (4 * self.cells))
        bits = 61 - max(1, math.ceil(math.log2(p.size)))
        largest = words = None
        if w is not None:
            w = xp.ascontiguousarray(w)
            largest, words = device.zeros((1,), np.uint64), device.zeros((self.cells, 3), np.uint64)
        packed = COUNTING.pack(
            address(t), address(p), address(w), address(bounds), address(self.counts if w is None else words), address(largest), p.size,
            columns, classes if bounds is None else bounds.size, ignore, first, steps, copies, bits, staged, lowest,
        )  # fmt: skip
        grid, shared = _grid(device, p.size, 16), max(16, shared + 4 * copies * self.cells)
        if w is not None:
            _launch(device, "largest_weight(a)", "Counting", grid, packed)
        _launch(device, f"count<{cell}, {str(w is not None).lower()}>(a)", "Counting", grid, packed, shared)
        if w is not None:
            if self.sums is None:
                self.sums = device.zeros((self.cells, 2), np.float64)
            finish = COUNTING.pack(0, 0, 0, 0, address(words), address(largest), self.cells, 1, 0, 0, 0.0, 0.0, 0, bits, 0, 0)
            into = device.address(self.sums)
            _launch(device, "add_cells(a)", "Finishing", _grid(device, self.cells), finish + struct.pack("<Q", into))

    def settle(self) -> None:
        for variable, _ in self.parts:
            variable.waiting = None
        counts = self.device.fetch(self.counts)
        found = [counts.astype(np.float64)]
        if self.sums is not None:
            found += list(self.device.fetch(self.sums).T)
        for cells in found:
            if cells.any():
                for variable, part in self.parts:
                    variable.assign_add(part(cells))
