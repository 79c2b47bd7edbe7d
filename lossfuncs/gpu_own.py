"""circle and ctc on a GPU: the calls that are not rows of y_true and y_pred."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from . import gpu
from .problem import NO_CLASS, Problem, Task
from .rows import Rows

SIMILARITIES = 1 << 23  # that are held at a time, each with its kind: two doubles
WORKSPACE = 256 << 20  # bytes that the sequences computed together may take
TILES = 2 * 16 * 65 * 8  # bytes of shared memory for a block of a product: two tiles of 16 lines
PRODUCT = struct.Struct("<3Q3q2q2q3Qq2i")
RESULTS = struct.Struct("<3Qq")
SEQUENCES = struct.Struct("<9Q5q3q3qd")


def launch(device: gpu.Device, name: str, call: str, include: str, argument: str, block: int, grid: int, shared: int,
           packed: bytes) -> None:  # fmt: skip
    """Run the kernel that does `call`."""
    here, key = gpu.kept(device), (call, block)
    compiled = here.compiled.get(key)
    if compiled is None:
        compiled = here.compiled[key] = device.compile(gpu.kernel(name, call, block, include=include, argument=argument))
    device.launch(compiled, grid, block, shared, packed, device.stream())


def _steps(x: Any) -> tuple[int, ...]:
    return tuple(step // x.dtype.itemsize for step in x.strides)


def product(device: gpu.Device, a: Any, b: Any, out: Any, more: bool = False, kinds: Any = None, labels: Any = None,
            reference_labels: Any = None, first: int = 0, remove_diagonal: bool = False) -> None:  # fmt: skip
    """out = a @ b, or (more) out + that, in float64; kinds receives the targets of the circle loss' rows, which begin with row `first`."""
    (m, k), n = a.shape, b.shape[1]
    if not m * n:
        return

    def address(x: Any) -> int:
        return 0 if x is None else device.address(x)

    packed = PRODUCT.pack(address(a), address(b), address(out), m, n, k, *_steps(a), *_steps(b), address(labels), address(reference_labels),
                          address(kinds), first, more, remove_diagonal)  # fmt: skip
    types = ", ".join(gpu.C_TYPES[x.dtype.name] for x in (a, b))
    tiles = -(-m // 64) * -(-n // 64)
    launch(device, "product", f"product<{types}>(a)", "product.cuh", "Product", 256, min(tiles, (1 << 31) - 1), TILES, packed)


def circle(device: gpu.Device, rows: Rows, parameters: tuple[float, ...], p: Any, references: Any, labels: Any, reference_labels: Any,
           remove_diagonal: bool, own: bool, task: Task) -> Any:  # fmt: skip
    """The circle loss of embeddings p; `own` if the references are these themselves. As `gpu.run`, which does a block of rows."""
    m, n = len(p), len(references)
    values = device.zeros((m,), np.float64)
    gradient = device.zeros(p.shape, np.float64) if task.derivatives else None
    block = max(1, SIMILARITIES // max(n, 1))
    for lo in range(0, m if n else 0, block):
        hi = min(m, lo + block)
        similarity, kinds = device.empty((hi - lo, n), np.float64), device.empty((hi - lo, n), np.float64)
        product(device, p[lo:hi], references.T, similarity, False, kinds, labels, reference_labels, lo, remove_diagonal)
        problem = Problem(rows, parameters, kinds, similarity, hi - lo, n, False, NO_CLASS, np.dtype(np.float64))
        w = None if task.weights is None else task.weights[lo:hi]
        of_similarity = () if gradient is None else (similarity,)
        here = task._replace(total=False, weights=w, values=values[lo:hi], value_weights=None, derivatives=of_similarity)
        gpu.run(device, problem, here)
        if gradient is not None:
            product(device, similarity, references, gradient[lo:hi], True)
            if own:
                product(device, similarity.T, p[lo:hi], gradient, True)
    for into in task.derivatives:
        _give(device, gradient, None, into)
    return _results(device, values, task)


def ctc(device: gpu.Device, labels: Any, logits: Any, task: Task) -> Any:
    """The ctc loss of logits (B, T, C) and labels int64 (B, L). As `gpu.run`; a label out of range is told by the status word."""
    (batch, frames, classes), length = logits.shape, labels.shape[1]
    values = device.empty((batch,), np.float64)
    gradient: Any = task.derivatives[0] if task.derivatives else None
    apart = gradient is not None and (gradient.dtype != logits.dtype or device.address(gradient) == device.address(logits))
    into = device.empty(logits.shape, logits.dtype) if apart else gradient
    room = 2 * length + 1
    shared = 72 * room if 72 * room <= device.shared else 0
    each = 8 * frames * (2 + (2 * room if task.derivatives else 0)) + (0 if shared else 72 * room)
    together = max(1, min(batch, WORKSPACE // max(each, 1)))
    norms = device.empty((together, frames, 2), np.float64)
    alpha = device.empty((together, frames, room, 2), np.float64) if task.derivatives else None
    steps = None if shared else device.empty((together, room, 9), np.float64)
    block = next(size for size in (64, 128, 256, 512) if size >= room or size == 512)
    weights, scale = task.weights, task.scale
    if hasattr(task.divisor, "dtype"):  # known to the device alone
        weights = (1.0 if weights is None else weights) / task.divisor * device.xp.ones((batch,))
    else:
        scale = scale / task.divisor
    if weights is not None:
        weights = weights.astype(np.float64, copy=False)

    def address(x: Any) -> int:
        return 0 if x is None else device.address(x)

    for first in range(0, batch, together):
        packed = SEQUENCES.pack(
            address(logits), address(labels), address(values), address(into), address(weights), address(norms), address(alpha),
            address(steps), address(gpu.kept(device).status), batch, frames, classes, length, first, *_steps(logits),
            *(_steps(into) if into is not None else (0, 0, 0)), scale,
        )  # fmt: skip
        call = f"ctc<{gpu.C_TYPES[logits.dtype.name]}>(a)"
        launch(device, "ctc", call, "ctc.cuh", "Sequences", block, min(together, batch - first), shared or 16, packed)
    if apart:
        gradient[...] = into
    return _results(device, values, task)


def _give(device: gpu.Device, x: Any, weights: Any, out: Any) -> None:
    """out = x * weights, rounded to its dtype."""
    if not x.size:
        return
    to = out if out.flags.c_contiguous else device.empty(out.shape, out.dtype)
    w = None if weights is None else weights.astype(np.float64, copy=False)
    packed = RESULTS.pack(device.address(x), 0 if w is None else device.address(w), device.address(to), x.size)
    grid = min(-(-x.size // gpu.BLOCK), 8 * device.processors)
    launch(device, "give", f"give<{gpu.C_TYPES[out.dtype.name]}>(a)", "results.cuh", "Results", gpu.BLOCK, grid, 0, packed)
    if to is not out:
        out[...] = to


def _results(device: gpu.Device, values: Any, task: Task) -> Any:
    """Values to where they are wanted; returns the total, divided."""
    if task.values is not None:
        _give(device, values, task.value_weights, task.values)
    if not task.total:
        return None
    return device.xp.sum(values if task.weights is None else values * task.weights) / task.divisor
