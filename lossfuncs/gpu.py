"""The GPU backend: picks a schedule, writes the one-line entry of the kernel, compiles it once and launches it.

The kernels are CUDA C++ in `kernels/`. Everything here is above one seam, `Device`: CuPy's is below it (`cupy_device.py`), and the tests
run the same kernels on a CPU through another. Nothing here waits for the device, reads from it, or leaves the caller's stream.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
import struct
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from .call import Call, array, host_result, spread
from .devices import DEVICES
from .problem import NO_CLASS, Array, Problem, Task
from .rows import Rows

SOURCES = next(folder for folder in (Path(__file__).parent / "kernels", Path(__file__).parent.parent / "kernels") if folder.is_dir())

# Without fused multiply-adds a formula has the same bits in a row's totals and in its derivative, and on the CPU that emulates it.
OPTIONS = ("--std=c++17", "--fmad=false")


class Kernel(NamedTuple):
    """The source of one kernel: `#include` lines, definitions in the namespace NAME_, and one

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

    def home(self, x: Any) -> Hashable:
        """The place that holds its array x, if that is in C order without gaps; else None."""

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

    def launch(self, compiled: Any, grid: int, block: int, shared: int, arguments: bytes | bytearray, stream: int) -> None:
        """Run it: `grid` blocks of `block` threads with that many bytes of dynamic shared memory; arguments is the struct."""


# ---- what is kept on a device


class Kept:
    """Compiled kernels, the status word and workspaces of one place."""

    def __init__(self, device: Device) -> None:
        self.compiled: dict[Hashable, Any] = {}
        self.workspaces: dict[int, tuple[Any, Any]] = {}  # by stream
        self.outgrown: list[Any] = []  # a captured CUDA graph may still write there
        self.status = device.zeros((1,), np.uint64)
        self.status[...] = np.uint64(NO_ROW)

    def has_workspace(self, stream: int, numbers: int) -> bool:
        """Whether `workspace` need not ask for memory."""
        return stream in self.workspaces and self.workspaces[stream][0].shape[0] >= numbers

    def workspace(self, device: Device, stream: int, numbers: int) -> tuple[int, int]:
        """Addresses of that many doubles, and of tickets, which are zero between launches."""
        found = self.workspaces.get(stream)
        if found is None or not self.has_workspace(stream, numbers):
            if found:
                self.outgrown.append(found[0])
            tickets = found[1] if found else device.zeros((TICKETS,), np.uint32)
            found = self.workspaces[stream] = device.empty((max(numbers, 1 << 14),), np.float64), tickets
        return device.address(found[0]), device.address(found[1])


NO_ROW = 2**64 - 1
TICKETS = 1024  # a split row has one, and the grid
_kept: dict[tuple[str, Hashable], Kept] = {}


def kept(device: Device) -> Kept:
    """What is kept on the current device."""
    key = device.backend, device.place()
    found = _kept.get(key)
    if found is None:
        found = _kept[key] = Kept(device)
    return found


def bad_row(device: Device) -> int | None:
    """The first row, since this was last asked, whose label was out of range. It waits."""
    status = kept(device).status
    row = int(device.fetch(status)[0])
    if row == NO_ROW:
        return None
    status[...] = np.uint64(NO_ROW)
    return row


def check_labels() -> None:
    """ValueError if a label was out of range on a current device since this was last asked."""
    for backend in {backend for backend, _ in _kept}:
        row = bad_row(DEVICES[backend]())
        if row is not None:
            raise ValueError(f"y_true had a label out of range in row {row} of a call on the GPU; the row's value and gradient are NaN")


# ---- kernels

BLOCK = 256
PARAMETERS = 8  # of a loss, at most
C_TYPES = {"float16": "float16", "bfloat16": "bfloat16", "float32": "float", "float64": "double"}
COMPUTING = {"float16": "fast_float", "bfloat16": "fast_float", "float32": "float", "float64": "double"}


class Schedule(NamedTuple):
    """How rows run; see kernels/schedule.cuh."""

    source: str  # DIRECT, TILE, STEP; PIECES
    width: int  # lanes a row
    block: int
    per_tile: int = 1  # TILE: rows; PIECES: blocks a row


def rows_kernel(rows: Rows, dtype: str, labelled: bool, order: int, parameters: int, schedule: Schedule, index: int = 0) -> Kernel:
    """The kernel of these rows; by PIECES that of pass `index`, or of the derivatives."""
    definitions, kind = cuda_type(rows, parameters)
    own = rows.cuda is not None and not rows.written
    computing = COMPUTING[dtype] if own or dtype == "float64" else "float"  # a user's formula may need the digits
    arguments = ["Loss", C_TYPES[dtype], computing, str(parameters), str(labelled).lower(), str(order)]
    if schedule.source == "PIECES":
        call = f"Pieces<{', '.join([*arguments, str(index), str(schedule.block)])}>::run(a)"
    else:
        call = f"rows<{', '.join([*arguments, schedule.source, str(schedule.width), str(schedule.block)])}>(a)"
    # Doubles take two registers each: 128, which leave room for 512 threads, where the compiler would rather save some to memory.
    block = f"{schedule.block}, {512 // schedule.block}" if dtype == "float64" else schedule.block
    return kernel(rows.name, call, block, f"{definitions}template <class T> using Loss = {kind};")


@functools.cache
def cuda_type(rows: Rows, parameters: int) -> tuple[str, str]:
    """Definitions, and the C++ type of these rows."""
    if parameters > PARAMETERS:
        raise ValueError(f"{rows.name} has {parameters} parameters; a loss on a GPU has {PARAMETERS} at most")
    if rows.cuda is not None:
        return rows.written, rows.cuda or f"{rows.name}<T>"
    from .translate import functor

    return functor(rows, parameters, "translated") + "\n", "translated<T>"


def kernel(name: str, call: str, block: int | str, definitions: str = "", include: str = "losses.cuh", argument: str = "Task") -> Kernel:
    """An entry that does `call` with its argument `a`, by blocks of so many threads and, behind a comma, so many on a processor."""
    letters = re.sub(r"\W+", "_", f"{'' if name[0].isalpha() else 'of_'}{name}", flags=re.ASCII)
    word = f"{letters}_{hashlib.blake2b(f'{call}{definitions}'.encode(), digest_size=6).hexdigest()}"
    return Kernel(word, f"""#include "{include}"
namespace {word}_ {{
using namespace lossfuncs;
{definitions}
DEVICE void run(const {argument}& a) {{ {call}; }}
}}
extern "C" __global__ void __launch_bounds__({block}) {word}(const lossfuncs::{argument} a) {{ {word}_::run(a); }}
""")  # fmt: skip


# ---- schedules

SHARED = 48 << 10  # bytes of shared memory that every GPU has for a block without asking
TILE_BYTES = 16 << 10  # that a block reads at once: with several blocks a processor enough to keep the memory busy


def choose(device: Device, problem: Problem, order: int, total: bool, weighted: bool, flat: bool, step: bool, inner: bool) -> Schedule:
    """flat: no row ends anywhere but where the next begins; step: elements lie apart; inner: rows are not evenly spaced."""
    rows, n, m, size = problem.rows, problem.n, problem.m, problem.dtype.itemsize
    if step:
        return Schedule("STEP", 1, 128)
    passes = collective(rows, problem.labelled, order)
    reads = len(passes) + (order > 0 and not (rows.pointwise and not problem.labelled))
    per_block = 4 * BLOCK * 16 // size  # elements: four vectors a thread
    if not inner:
        if flat and total and not weighted and rows.pointwise and not problem.labelled:
            return Schedule("PIECES", BLOCK, BLOCK, min(max(1, m * n // per_block), 8 * device.processors))
        if passes and n >= 16 * per_block and m <= device.processors and m < TICKETS:
            return Schedule("PIECES", BLOCK, BLOCK, min(n // per_block, -(-8 * device.processors // m)))
    operands = 1 + (not problem.labelled) + (order == 2)
    row_bytes = n * size * operands
    if inner or (n > 64 and reads == 1) or row_bytes + 32 * operands > device.shared:
        return Schedule("DIRECT", 32, 128) if n <= 1024 else Schedule("DIRECT", BLOCK, BLOCK)
    if n <= 1024:
        width = 1 if n <= 4 else 4 if n <= 16 else 16 if n <= 64 else 32
        teams = 128 // width
        wanted = max(1, min(TILE_BYTES // row_bytes, -(-m // device.processors)))
        return Schedule("TILE", width, 128, max(1, -(-wanted // teams)) * teams)
    return Schedule("TILE", BLOCK, BLOCK) if row_bytes <= 64 << 10 else Schedule("TILE", 512, 512)


def collective(rows: Rows, labelled: bool, order: int) -> list[int]:
    """Which passes read the whole row. What is Earlier there counts with what is Larger, as one Rank."""
    passes = rows.passes if order else rows.passes[: rows.leading]
    return [i for i, one in enumerate(passes) if one.op not in ("pick", "earlier") and not (labelled and one.op in ("label", "dot"))]


# ---- operands


class Operand(NamedTuple):
    """Row r begins at (r // inner) * outer + (r % inner) * side, and its elements are `step` apart; in elements."""

    address: int
    outer: int
    side: int
    step: int
    inner: int


NOTHING = Operand(0, 0, 0, 1, 1)


def operand(device: Device, x: Any, m: int, n: int) -> Operand | None:
    """x, whose last axes are a row, as an operand; None where its strides are too many."""
    size = x.dtype.itemsize
    kept = 0
    rows = 1
    while rows < m or math.prod(x.shape[kept:]) != n:
        rows *= x.shape[kept]
        kept += 1
    outer, inner = (_collapsed(x.shape[axes], x.strides[axes]) for axes in (slice(kept), slice(kept, None)))
    if len(outer) > 2 or len(inner) > 1:
        return None
    step = inner[0][1] // size if inner else 1
    if len(outer) == 2:
        return Operand(device.address(x), outer[0][1] // size, outer[1][1] // size, step, outer[1][0])
    return Operand(device.address(x), outer[0][1] // size if outer else n, 0, step, 1)


def _collapsed(shape: tuple[int, ...], strides: tuple[int, ...]) -> list[tuple[int, int]]:
    """(size, stride) of as few axes as reach the same elements in the same order."""
    found: list[tuple[int, int]] = []
    for size, stride in zip(shape, strides, strict=True):
        if size == 1:
            continue
        if found and found[-1][1] == size * stride:
            found[-1] = found[-1][0] * size, stride
        else:
            found.append((size, stride))
    return found


def _agreeing(operands: list[Operand | None]) -> list[Operand] | None:
    """The same operands with one `inner` for all, if they can have one."""
    if any(x is None for x in operands):
        return None
    found = [x for x in operands if x is not None]
    inner = max(x.inner for x in found)
    if any(x.inner not in (1, inner) for x in found):
        return None
    return [x if x.inner == inner else x._replace(outer=x.outer * inner, side=x.outer, inner=inner) for x in found]


# ---- running

# The fields of `Task` in kernels/schedule.cuh: four operands, ten addresses, six counts, ten numbers, four switches; and where the
# addresses are that differ from one call of a kind to the next.
PACKED = struct.Struct("<" + "Qqqq" * 4 + "10Q" + "6q" + "10d" + "4i")
ADDRESS = struct.Struct("<Q")
WORKSPACE = struct.Struct("<QQ")
AT_T, AT_P, AT_GRADIENT, AT_LABELS, AT_VALUES, AT_TOTAL, AT_WEIGHTS, AT_DIVISOR, AT_WORKSPACE = 0, 32, 64, 128, 136, 144, 152, 168, 184


class Plan(NamedTuple):
    """How a task on rows of these shapes is launched: all kernels with the same arguments."""

    kernels: tuple[Any, ...]  # compiled
    grid: int
    block: int
    shared: int
    numbers: int  # doubles of workspace
    schedule: Schedule
    one_row: bool  # all rows are one, of as many elements


def plan(device: Device, problem: Problem, order: int, total: bool, weighted: bool, flat: bool, step: bool, inner: bool) -> Plan:
    """The plan; flat, step and inner as in `choose`. Compiles what is not yet."""
    schedule = choose(device, problem, order, total, weighted, flat, step, inner)
    rows, m, n, labelled = problem.rows, problem.m, problem.n, problem.labelled
    whole = rows.pointwise and not labelled  # in one read
    one_row, passes, shared = False, [0], 0
    if schedule.source == "PIECES":
        one_row = flat and total and not weighted and whole
        m = 1 if one_row else m
        grid = m * schedule.per_tile
        numbers = m * (sum(one.size for one in rows.passes) + 1) + 8 * grid
        passes = collective(rows, labelled, order)
        if order and not whole:
            passes = [*passes, len(rows.passes)]
    else:
        per_tile = schedule.per_tile if schedule.source == "TILE" else schedule.block // schedule.width
        grid = numbers = min(-(-m // per_tile), 8 * device.processors if total else (1 << 31) - 1)
        if schedule.source == "TILE":
            room = per_tile * n * problem.dtype.itemsize
            shared = (1 + (not labelled) + (order == 2)) * (-(-room // 16) * 16 + 16)
    compiled, parameters = kept(device).compiled, len(problem.parameters)
    kernels = []
    for index in passes:
        key = rows, problem.dtype, labelled, order, schedule[:3], index
        found = compiled.get(key)
        if found is None:
            text = rows_kernel(rows, problem.dtype.name, labelled, order, parameters, schedule, index)
            found = compiled[key] = device.compile(text)
        kernels.append(found)
    return Plan(tuple(kernels), grid, schedule.block, shared, numbers if total or schedule.source == "PIECES" else 0, schedule, one_row)


def run(device: Device, problem: Problem, task: Task) -> Any:
    """Do the task; returns the total, an array of one number on the device, or None. Arrays are the device's."""
    order, m, n = len(task.derivatives), problem.m, problem.n
    p = _as(problem.p, problem.dtype)
    t = problem.t if problem.labelled else _as(problem.t, problem.dtype)
    into = list(task.derivatives)
    arrays = [p, *([] if problem.labelled else [t]), *into]
    found = _agreeing([operand(device, x, m, n) for x in arrays]) if all(d.dtype == problem.dtype for d in into) else None
    if found is None or _too_few(found, m, n):
        p, t = _dense(device, p), t if problem.labelled else _dense(device, t)
        into = [device.empty(d.shape, problem.dtype) for d in into]
        arrays = [p, *([] if problem.labelled else [t]), *into]
        found = _agreeing([operand(device, x, m, n) for x in arrays])
        assert found is not None
    step, inner = any(x.step != 1 for x in found), found[0].inner
    flat = inner == 1 and not step and all(x.outer == n for x in found)
    how = plan(device, problem, order, task.total, task.weights is not None, flat, step, inner != 1)

    values = task.values
    if values is not None and values.dtype != problem.dtype:
        values = device.empty((m,), problem.dtype)
    total = device.empty((), np.float64) if task.total else None
    operands = [NOTHING, *found] if problem.labelled else [found[1], found[0], *found[2:]]
    operands += [NOTHING] * (4 - len(operands))
    arguments = bytearray(_packed(device, problem, task, how, operands, inner, values, total))
    _go(device, kept(device), how, arguments, device.stream())
    if values is not task.values and task.values is not None:
        task.values[...] = values
    for d, x in zip(task.derivatives, into, strict=True):
        if d is not x:
            d[...] = x
    return total


def _go(device: Device, own: Kept, how: Plan, arguments: bytearray, stream: int) -> None:
    """Launch the kernels of a plan."""
    if how.numbers:
        WORKSPACE.pack_into(arguments, AT_WORKSPACE, *own.workspace(device, stream, how.numbers))
    for kernel in how.kernels:
        device.launch(kernel, how.grid, how.block, how.shared, arguments, stream)


def _packed(device: Device, problem: Problem, task: Task, how: Plan, operands: list[Operand], inner: int, values: Any,
            total: Any) -> bytes:  # fmt: skip
    """The arguments, but for the workspace."""
    m, n, a = problem.m, problem.n, problem.parameters
    if how.one_row:
        operands = [x._replace(outer=m * n) for x in operands]

    def address(x: Any) -> int:
        return 0 if x is None else device.address(x)

    def wide(x: Any) -> int:
        return int(x is not None and x.dtype.itemsize == 8)

    late = hasattr(task.divisor, "dtype")
    return PACKED.pack(
        *(number for x in operands for number in x[:4]),
        address(problem.t) if problem.labelled else 0, address(values), address(total), address(task.weights), address(task.value_weights),
        address(task.divisor) if late else 0, address(task.parameters), 0, 0, device.address(kept(device).status),
        1 if how.one_row else m, m * n if how.one_row else n, inner, n, problem.ignore, how.schedule.per_tile,
        task.scale, 1.0 if late else task.divisor, *a, *(0.0,) * (8 - len(a)),
        wide(problem.t) if problem.labelled else 0, wide(task.weights), wide(task.value_weights), int(problem.free_labels),
    )  # fmt: skip


def _as(x: Any, dtype: Any) -> Any:
    return x if x.dtype == dtype else x.astype(dtype)


def _dense(device: Device, x: Any) -> Any:
    return device.xp.ascontiguousarray(x)


def _too_few(operands: list[Operand], m: int, n: int) -> bool:
    """Whether elements lie apart, and rows not side by side or not in sufficient number for a thread a row."""
    apart = any(x.step != 1 for x in operands)
    beside = all(x.inner >= 32 and x.side == 1 or n <= 16 for x in operands)
    return apart and not (beside and m >= 256) and n > 1


class Arrays(Protocol):
    """What `shortcut` asks of arrays: of a device's own, or of others that lie in its memory."""

    def place(self) -> Hashable:
        """As `Device`."""

    def home(self, x: Any) -> Hashable:
        """As `Device`, likewise the rest."""

    def empty(self, shape: Any, dtype: Any) -> Any: ...

    def address(self, x: Any) -> int: ...

    def stream(self) -> int: ...


def shortcut(call: Any, order: int, arrays: Arrays | None = None, upstream: Any = None) -> Callable[..., Any] | None:
    """The same call, without weights and `out`, for other arrays of the same shapes and dtypes in C order.

    All that does not depend on addresses is worked out here. With an upstream, the function wants one more array of that dtype: for a
    reduction one number in float64, else the values' shape in float32 or float64; the value is then no use. None if there is no such way;
    the function itself gives None on another device than this one, and where others' arrays come on a stream that has no workspace yet.
    """
    problem = getattr(call, "problem", None)
    if problem is None or problem.m * problem.n == 0 or call.labels01 or call.by_class or call.order is not None:
        return None
    device, dtype, labelled = call.device, call.dtype, problem.labelled
    if problem.p.size != call.y_pred.size or {problem.dtype, call.y_pred.dtype} != {dtype}:
        return None
    if call.y_true.dtype not in ((np.int32, np.int64) if labelled else (dtype,)):
        return None
    m, n, shape, full = problem.m, problem.n, call.shape, call.y_pred.shape
    total, seeded = call.reduction is not None, upstream is not None
    counted = total and call.reduction != "sum" and problem.ignore != NO_CLASS  # the divisor depends on the labels
    weights = upstream if seeded and not total else None
    how = plan(device, problem, order, total, weights is not None, True, False, False)
    row = Operand(0, n, 0, 1, 1)
    operands = [NOTHING if labelled else row, row, row if order else NOTHING, NOTHING]
    constant = divisor(call) if total and not counted else 1.0
    by = device.zeros((), np.float64) if counted or (seeded and total) else constant
    template = _packed(device, problem, Task(total, weights, divisor=by), how, operands, 1, None, None)
    count = _auxiliary(device, *COUNT, m, m, None, call.y_true.reshape(-1), None, problem.ignore) if counted else None
    numbers = max(how.numbers, count.grid if count else 0)
    place, own, at_t = device.place(), kept(device), AT_LABELS if labelled else AT_T
    result = ((), np.float64, AT_TOTAL) if total else (shape, dtype, AT_VALUES)
    here: Arrays = device if arrays is None else arrays

    def again(t: Any, p: Any, upstream: Any = None) -> Any:
        if not here.place() == place == here.home(t) == here.home(p):
            return None
        stream = here.stream()
        if arrays is not None and numbers and not own.has_workspace(stream, numbers):
            return None
        arguments = bytearray(template)

        def put(at: int, x: Any) -> None:
            ADDRESS.pack_into(arguments, at, here.address(x))

        by = constant
        if count is not None:
            by = here.empty((), np.float64)
            count.launch(device, here.address(t), here.address(by), stream)
        if seeded and total:
            by = by / upstream
        elif seeded:
            put(AT_WEIGHTS, upstream)
        if hasattr(by, "dtype"):
            put(AT_DIVISOR, by)
        value = here.empty(result[0], result[1])
        put(at_t, t)
        put(AT_P, p)
        put(result[2], value)
        gradient = here.empty(full, dtype) if order else None
        if order:
            put(AT_GRADIENT, gradient)
        _go(device, own, how, arguments, stream)
        return (value, gradient) if order else value

    return again


# ---- calls


def result(call: Call) -> Any:
    """What the user gets for a call of a loss or metric on a device."""
    return given(call, _done(call, None, ()))[0]


def total_and_divisor(call: Call) -> tuple[float, float]:
    """The weighted sum of a call's values, and what its reduction divides it by, on the host."""
    total, by = call.run(call.device.backend, Task(True, call.weights)), divisor(call)
    found = given(call, total, *([by] if call.device.owns(by) else []))
    return float(found[0]), float(found[-1] if len(found) > 1 else by)


def derive(call: Call, upstream: Any, outs: tuple[Any, ...]) -> tuple[Any, list[Any]]:
    """The value and, for each of outs, a derivative; see `derivatives.py`."""
    device = call.device
    derivatives = [_into(call, None if call.host_labels is not None else out) for out in outs]
    inputs = (call.y_pred, call.y_true)
    in_place = len(derivatives) == 1 and derivatives[0] is call.y_pred and not _overlap(device, *inputs)
    apart = list(derivatives)
    if not in_place:
        for i, d in enumerate(derivatives):
            if any(_overlap(device, d, x) for x in (*inputs, *derivatives[:i])):
                apart[i] = device.empty(d.shape, d.dtype)
    values = _done(call, upstream, tuple(call.view(d) for d in apart))
    for d, x in zip(derivatives, apart, strict=True):
        if d is not x:
            d[...] = x
    value, *found = given(call, values, *derivatives)
    if call.host_labels is None:
        return value, derivatives
    for i, out in enumerate(outs):
        if out is not None:
            host = host_result(call, out)
            host[...] = found[i]
            found[i] = host
    return value, found


def gradient(call: Call, upstream: Any) -> Any:
    """The gradient alone, upstream being an array on the device: one pass, where `derive` needs a second for one number's sake."""
    if call.reduction is None:
        return derive(call, upstream, (None,))[1][0]
    into = _into(call, None)
    by = divisor(call) / upstream.astype(np.float64)
    call.run(call.device.backend, Task(True, call.weights, 1.0, None, (call.view(into),), divisor=by))
    return into


def _done(call: Call, upstream: Any, into: tuple[Any, ...]) -> Any:
    """The values or the total, and derivatives written."""
    device = call.device
    if call.reduction is None:
        values = device.empty((call.m,), call.dtype)
        weights = call.weights
        if upstream is not None:
            weights = spread("upstream", upstream, call.shape, device)
            weights = weights if call.weights is None else weights * call.weights
        call.run(device.backend, Task(False, weights, 1.0, values, into, call.weights))
        return values.reshape(call.shape)
    seed = array("upstream", 1.0 if upstream is None else upstream)
    if seed.ndim:
        raise ValueError(f"upstream must be a number where there is a reduction, got shape {seed.shape}")
    late = device.owns(seed)
    total = call.run(device.backend, Task(True, call.weights, 1.0 if late else float(seed), None, into, divisor=divisor(call)))
    if late:
        for d in into:
            d *= seed
    return total


def _into(call: Call, out: Any) -> Any:
    """The array for a derivative: out, if given and fit."""
    if out is None:
        return call.device.empty(call.y_pred.shape, call.dtype)
    if not call.device.owns(out):
        raise ValueError(f"out must be an array on the GPU as y_pred is, got {type(out).__name__}")
    if out.shape != call.y_pred.shape or out.dtype != call.dtype:
        got = f"{out.dtype} of shape {out.shape}"
        raise ValueError(f"out must be a {call.dtype} array of y_pred's shape {call.y_pred.shape}, got {got}")
    if any(step == 0 and size > 1 for step, size in zip(out.strides, out.shape, strict=True)):
        raise ValueError(f"out must have its elements apart, got strides {out.strides}")
    return out


def _overlap(device: Device, x: Any, y: Any) -> bool:
    """Whether the memory from the first to the last element of either is also the other's."""
    (a, b), (c, d) = (_extent(device, z) for z in (x, y))
    return a < d and c < b


def _extent(device: Device, x: Any) -> tuple[int, int]:
    if not x.size:
        return 0, 0
    ends = [step * (size - 1) for size, step in zip(x.shape, x.strides, strict=True)]
    first = device.address(x)
    return first + sum(e for e in ends if e < 0), first + sum(e for e in ends if e > 0) + x.dtype.itemsize


def given(call: Call, *found: Any) -> list[Any]:
    """Results as the user gets them: on the host, for arrays that came from there; then a label out of range is found at once."""
    if call.host_labels is None:
        return list(found)
    host = [call.device.fetch(x)[()] for x in found]
    row = bad_row(call.device)
    if row is not None:
        raise call.bad_label(row, call.host_labels.reshape(-1)[row])
    return host


def divisor(call: Call) -> Any:
    """What a total is divided by: a number or, where that depends on data, an array of one number on the device."""
    if call.reduction == "sum" or not call.m:
        return 1.0 if call.reduction == "sum" else math.nan
    weights = call.weights if call.reduction == "mean_with_sample_weight" else None
    problem: Any = getattr(call, "problem", None)
    ignore = NO_CLASS if problem is None else problem.ignore
    labels = None if ignore == NO_CLASS else problem.t
    if weights is None and labels is None:
        return float(call.m)
    out = call.device.empty((), np.float64)
    found = _auxiliary(call.device, *COUNT, call.m, call.m, None, labels, weights, ignore)
    found.launch(call.device, 0 if labels is None else call.device.address(labels), call.device.address(out), call.device.stream())
    return out


def run_rows(call: Any, task: Task) -> Any:
    """Do a task of a `RowsCall`."""
    device, problem = call.device, call.problem
    if call.labels01:
        t = _dense(device, _as(problem.t, problem.dtype))
        parameters = device.empty((2,), np.float64)
        kind = C_TYPES[problem.dtype.name]
        found = _auxiliary(device, "signs", f"signs<{kind}, {BLOCK}>(a)", 1, t.size, t, None, None, NO_CLASS)
        found.launch(device, 0, device.address(parameters), device.stream())
        task = task._replace(parameters=parameters)
    return run(device, problem, task)


COUNT = "divisors", f"divisors<{BLOCK}>(a)"


class Auxiliary(NamedTuple):
    """A kernel whose result a row kernel needs, but for addresses."""

    compiled: Any
    grid: int
    template: bytes

    def launch(self, device: Device, labels: int, out: int, stream: int) -> None:
        arguments = bytearray(self.template)
        ADDRESS.pack_into(arguments, AT_LABELS, labels)
        ADDRESS.pack_into(arguments, AT_TOTAL, out)
        WORKSPACE.pack_into(arguments, AT_WORKSPACE, *kept(device).workspace(device, stream, self.grid))
        device.launch(self.compiled, self.grid, BLOCK, 0, arguments, stream)


def _auxiliary(device: Device, name: str, call: str, m: int, n: int, t: Any, labels: Any, weights: Any, ignore: int) -> Auxiliary:
    here = kept(device)
    compiled = here.compiled.get(call)
    if compiled is None:
        compiled = here.compiled[call] = device.compile(kernel(name, call, BLOCK))
    grid = min(-(-max(m, n) // (4 * BLOCK)), 4 * device.processors)
    wide = [int(x is not None and x.dtype.itemsize == 8) for x in (labels, weights)]
    t_address, w_address = (0 if x is None else device.address(x) for x in (t, weights))
    template = PACKED.pack(
        t_address, 0, 0, 1, *(0, 0, 0, 1) * 3, 0, 0, 0, w_address, 0, 0, 0, 0, 0, device.address(here.status),
        m, n, 1, n, ignore, 1, *(0.0,) * 10, *wide, 0, 0,
    )  # fmt: skip
    return Auxiliary(compiled, grid, template)
