"""The GPU's part, through CuPy: arrays there and back, time by its own events, its roofs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

from .timing import Runner

GRAPH_CALLS = 20  # so many calls at least are captured in one graph: what its launch costs is shared by them
LAUNCHES = 200  # enough for a steady queue, and fewer than a stream holds before the host must wait
ROOF_BYTES = 1 << 30  # past every cache of a GPU
LOGARITHMS = 256  # a thread takes one after the other, so that memory counts for nothing


def unusable() -> str | None:
    """Why there is no GPU for CuPy, in words; None if there is one."""
    if not find_spec("cupy"):
        return "CuPy is not installed"
    try:
        import cupy

        return None if cupy.cuda.runtime.getDeviceCount() else "CuPy finds no GPU"
    except Exception as error:
        return f"CuPy finds no GPU ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'})"


def environment() -> dict[str, Any] | None:
    """The GPU that CuPy uses; None if there is none."""
    if unusable():
        return None
    import cupy

    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(runtime.getDevice())
    return {
        "name": properties["name"].decode(),
        "capability": f"{properties['major']}.{properties['minor']}",
        "memory": int(properties["totalGlobalMem"]),
        "multiprocessors": int(properties["multiProcessorCount"]),
        "cache": int(properties["l2CacheSize"]),
        "driver": runtime.driverGetVersion(),
        "runtime": runtime.runtimeGetVersion(),
    }


def enter(array: Any) -> Any:
    import cupy

    return cupy.asarray(array)


def leave(array: Any) -> Any:
    return array.get() if hasattr(array, "get") else array


def by_events(function: Callable[..., Any], batch: Sequence[tuple[Any, ...]]) -> float:
    """Seconds on the GPU, from before the first call of the batch to after the last."""
    import cupy

    start, stop = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    for each in batch:
        function(*each)
    stop.record()
    stop.synchronize()
    return float(cupy.cuda.get_elapsed_time(start, stop)) / 1e3


@dataclass(frozen=True)
class DeviceRunner(Runner):
    """A runner that also knows what the host spends on a call."""

    launch: float | None = None  # seconds


def runner(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]],
           context: Callable[[], AbstractContextManager[Any]]) -> Runner:  # fmt: skip
    """The calls captured in a graph, so that the GPU never waits for the host; where they cannot be, one after the other.

    What the host needs for a call is measured apart: the time in which a few hundred are queued.
    """
    import cupy

    with context():
        function(*arguments[0])
        launch = _launch_seconds(function, arguments)
        repeats = max(1, -(-GRAPH_CALLS // len(arguments)))
        stream = cupy.cuda.Stream(non_blocking=True)
        results: list[Any] = []  # what is captured must outlive the graph

        def call_all() -> None:
            results.extend(function(*each) for _ in range(repeats) for each in arguments)

        try:
            with stream:
                call_all()  # so that the memory pool need not ask for more while it is captured, which is forbidden
                stream.synchronize()
                results.clear()
                stream.begin_capture()
                try:
                    call_all()
                finally:
                    graph = stream.end_capture()
        except Exception:
            return DeviceRunner(function, arguments, context, by_events, 1, launch)

    def replay(keep: Any = results) -> None:
        graph.launch(cupy.cuda.get_current_stream())

    return DeviceRunner(replay, [()], context, by_events, repeats * len(arguments), launch)


def _launch_seconds(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> float:
    import cupy

    synchronize = cupy.cuda.get_current_stream().synchronize
    best = float("inf")
    for _ in range(5):
        synchronize()
        start = time.perf_counter()
        for i in range(LAUNCHES):
            function(*arguments[i % len(arguments)])
        best = min(best, (time.perf_counter() - start) / LAUNCHES)
        synchronize()
    return best


def roofs(dtypes: set[str], repeats: int) -> dict[str, float]:
    """As `machine.roofs`, of the GPU."""
    import cupy

    source, target = (cupy.ones(ROOF_BYTES // 4, cupy.float32) for _ in range(2))
    best: dict[str, float] = {}

    def offer(key: str, amount: float, function: Callable[[], object]) -> None:
        function()
        seconds = min(by_events(function, [()]) for _ in range(repeats))
        best[key] = max(best.get(key, 0.0), amount / seconds)

    offer("read", source.nbytes, source.sum)
    offer("read", source.nbytes, source.max)
    offer("write", target.nbytes, lambda: target.fill(1))
    offer("copy", 2 * source.nbytes, lambda: cupy.copyto(target, source))
    for name in sorted({"float64" if name == "float64" else "float32" for name in dtypes}):
        logarithms = cupy.ElementwiseKernel(
            "T x", "T y", f"T v = x; for (int i = 0; i < {LOGARITHMS}; ++i) v = log(v) + T(3); y = v", "lossfuncs_log_rate"
        )
        x = cupy.ones(1 << 22, name)
        y = cupy.empty_like(x)
        offer(f"log {name}", x.size * LOGARITHMS, partial(logarithms, x, y))
    return best
