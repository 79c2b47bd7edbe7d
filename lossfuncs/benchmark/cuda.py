"""The GPU's part: arrays there and back, time by its own events, its roofs."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from ..cupy_device import trouble
from .timing import Runner, by_clock

GRAPH_CALLS = 20  # so many calls at least are captured in one graph, unless one takes long: what its launch costs is shared by them
GRAPH_SECONDS = 1e-3  # a launch costs nothing beside it
QUEUE_SECONDS = 2e-3  # beside it the cost of waiting for the GPU is small
LAUNCHES = 30  # enough for a steady queue, and fewer than any library queues before the host must wait
ROOF_BYTES = 1 << 30  # past every cache of a GPU
LOGARITHMS = 256  # a thread takes one after the other, so that memory counts for nothing
READ = r"""
extern "C" __global__ void lossfuncs_read(const float4* x, float* out, long long n) {
    long long step = (long long)gridDim.x * blockDim.x;
    float sum = 0;
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; i += 4 * step)
#pragma unroll
        for (int k = 0; k < 4; ++k)
            if (i + k * step < n) {
                float4 v = x[i + k * step];
                sum += v.x + v.y + v.z + v.w;
            }
    if (sum == 12345.678f) out[0] = sum;  // never: the loads are kept
}
"""

Function = Callable[..., Any]
Arguments = Sequence[tuple[Any, ...]]
Context = Callable[[], AbstractContextManager[Any]]


def environment() -> dict[str, Any] | None:
    """The GPU that CuPy uses; None if there is none."""
    if trouble():
        return None
    import cupy

    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(runtime.getDevice())
    return {
        "name": properties["name"].decode(),
        "capability": f"{properties['major']}.{properties['minor']}",
        "memory": int(properties["totalGlobalMem"]),
        "multiprocessors": int(properties["multiProcessorCount"]),
        "cache": cache(),
        "driver": runtime.driverGetVersion(),
        "runtime": runtime.runtimeGetVersion(),
    }


def cache() -> int:
    """Bytes of the GPU's last-level cache."""
    import cupy

    return int(cupy.cuda.Device().attributes["L2CacheSize"])


def release() -> None:
    """Gives back the memory that CuPy and torch keep for themselves, each of which would lack it for the other."""
    import cupy

    cupy.get_default_memory_pool().free_all_blocks()
    if "torch" in sys.modules:
        sys.modules["torch"].cuda.empty_cache()


def enter(array: Any) -> Any:
    import cupy

    return cupy.asarray(array)


def leave(array: Any) -> Any:
    return array.get() if hasattr(array, "get") else array


def by_events(function: Function, batch: Arguments) -> float:
    """Seconds on the GPU, from before the first call of the batch to after the last."""
    import cupy

    start, stop = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    for each in batch:
        function(*each)
    stop.record()
    stop.synchronize()
    return float(cupy.cuda.get_elapsed_time(start, stop)) / 1e3


def cupy_graph(call: Callable[[], Any], calls: Callable[[], Any]) -> tuple[Callable[[], Any], Any]:
    """What replays `calls` captured in a graph, and what they returned; `call` is one of them, for kernels to be compiled."""
    import cupy

    stream, pool = _capturing(), cupy.cuda.MemoryPool()  # what was captured writes there at every replay, so none of it may be lent again
    with stream:
        call()
        stream.synchronize()
        with cupy.cuda.using_allocator(pool.malloc):
            stream.begin_capture()
            try:
                result = calls()
            finally:
                graph = stream.end_capture()

    def replay(keep: Any = pool) -> None:
        graph.launch(cupy.cuda.get_current_stream())

    return replay, result


@functools.cache
def _capturing() -> Any:
    """One stream for all captures: this library keeps a workspace for each that it meets."""
    import cupy

    return cupy.cuda.Stream(non_blocking=True)


def torch_graph(call: Callable[[], Any], calls: Callable[[], Any]) -> tuple[Callable[[], Any], Any]:
    """As `cupy_graph`, by torch, which keeps the memory with the graph."""
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = calls()
    return graph.replay, result


def captured(capture: Callable[..., tuple[Callable[[], Any], Any]]) -> Callable[[Function, Arguments, Context], Runner]:
    """Runners whose calls are captured in a graph, so that the GPU never waits for the host; where they cannot be, one after the other.

    What the host needs for a call is measured apart.
    """

    def runner(function: Function, arguments: Arguments, context: Context) -> Runner:
        import cupy

        with context():
            launch = _launch_seconds(function, arguments, lambda _: cupy.cuda.get_current_stream().synchronize())
            long = by_events(function, arguments) >= GRAPH_SECONDS
            repeats = 1 if long else -(-GRAPH_CALLS // len(arguments))

            def calls() -> Any:
                for _ in range(repeats):
                    for each in arguments:
                        result = function(*each)
                return result

            try:
                replay, result = capture(lambda: function(*arguments[0]), calls)
            except Exception:
                return Runner(function, arguments, context, by_events, 1, launch)

        def again(keep: Any = arguments) -> None:
            replay()

        return Runner(again, [()], context, by_events, repeats * len(arguments), launch, lambda: result)

    return runner


def queued(wait: Callable[[Any], Any]) -> Callable[[Function, Arguments, Context], Runner]:
    """Runners that queue calls and then wait for the last, by the clock: for a library whose stream no graph can capture."""

    def runner(function: Function, arguments: Arguments, context: Context) -> Runner:
        def some(count: int) -> None:
            for i in range(count):
                result = function(*arguments[i % len(arguments)])
            wait(result)

        with context():
            launch = _launch_seconds(function, arguments, wait)
            turn = by_clock(some, [(len(arguments),)])
        calls = len(arguments) * max(1, min(1000, int(QUEUE_SECONDS / turn)))
        return Runner(partial(some, calls), [()], context, by_clock, calls, launch)

    return runner


def _launch_seconds(function: Function, arguments: Arguments, wait: Callable[[Any], Any]) -> float:
    """What the host spends on a call: the time in which some are queued."""
    wait(function(*arguments[0]))
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for i in range(LAUNCHES):
            result = function(*arguments[i % len(arguments)])
        best = min(best, (time.perf_counter() - start) / LAUNCHES)
        wait(result)
    return best


def roofs(dtypes: set[str], repeats: int) -> dict[str, float]:
    """As `machine.roofs`, of the GPU; and the seconds of a launch, "launch" without waiting and "launch and wait" until it is done."""
    import cupy

    source, target = (cupy.ones(ROOF_BYTES // 4, cupy.float32) for _ in range(2))
    best: dict[str, float] = {}

    def offer(key: str, amount: float, function: Callable[[], object]) -> None:
        function()
        seconds = min(by_events(function, [()]) for _ in range(repeats))
        best[key] = max(best.get(key, 0.0), amount / seconds)

    read = cupy.RawKernel(READ, "lossfuncs_read")
    for waves in (4, 8, 32):
        blocks = waves * cupy.cuda.Device().attributes["MultiProcessorCount"]
        offer("read", source.nbytes, partial(read, (blocks,), (256,), (source, target, cupy.int64(source.size // 4))))
    offer("read", source.nbytes, source.sum)
    offer("write", target.nbytes, lambda: target.fill(1))
    offer("copy", 2 * source.nbytes, lambda: cupy.copyto(target, source))
    for name in sorted({"float64" if name == "float64" else "float32" for name in dtypes}):
        logarithms = cupy.ElementwiseKernel(
            "T x", "T y", f"T v = x; for (int i = 0; i < {LOGARITHMS}; ++i) v = log(v) + T(3); y = v", "lossfuncs_log_rate"
        )
        x = cupy.ones(1 << 22, name)
        y = cupy.empty_like(x)
        offer(f"log {name}", x.size * LOGARITHMS, partial(logarithms, x, y))

    def wait(_: Any = None) -> None:
        cupy.cuda.get_current_stream().synchronize()

    tiny = partial(read, (1,), (32,), (source, target, cupy.int64(8)))
    best["launch"] = _launch_seconds(tiny, [()], wait)
    best["launch and wait"] = min(by_clock(lambda: wait(tiny()), [()]) for _ in range(10 * repeats))
    return best
