"""How fast is lossfuncs on a GPU, beside the memory itself and beside torch, torch.compile, CuPy expressions and jax.jit?

    python -m bench.gpu                        everything, in about an hour
    python -m bench.gpu --only huber --quick   what has that in its name, at three sizes
    python -m bench.gpu --json gpu.json        and write all that was measured

First the roofs are measured, a copy within the GPU's memory and a read of it, and what a launch costs. Then all contestants run
every workload in float32 and bfloat16, with rows of 7 to 128256 elements, at five sizes; results are checked against float64 before
they are timed, and data that is larger than the cache is rotated past it. Contestants take turns; each is known by its minimum.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from . import roofs
from .workloads import WORKLOADS, Array, Formula, Workload, compiled_formulas, jax_formulas, numpy_formulas, torch_formulas

LENGTHS = (7, 10, 1000, 32000, 50257, 128256)  # of a row
SIZES = tuple(1 << k for k in (16, 20, 23, 26, 28))  # elements: from what a launch costs to what only memory can hold
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
PAST_CACHE = 4 * (60 << 20)  # bytes: four times the L2 cache of an H200
BURST = 2e-3  # seconds: beside it the cost of waiting for the GPU is small
# (relative, and absolute on the scale of the largest) against float64 by the dtype of the data; a peer may add up in it.
TOLERANCE = {"float32": (1e-4, 1e-5), "bfloat16": (3e-2, 2e-2)}


@dataclass(frozen=True)
class Contestant:
    """How a library is called, how arrays come to it and back, and how one waits for a result."""

    name: str
    build: Callable[[Workload], Sequence[Formula]]
    enter: Callable[[Array], Any]
    leave: Callable[[Any], Array]
    wait: Callable[[Any], Any]


def workloads(lengths: Sequence[int] = LENGTHS, sizes: Sequence[int] = SIZES) -> Iterator[Workload]:
    """Every problem of the CPU benchmark, once for each length and size; a total has no rows."""
    problems = {workload.problem: workload for workload in WORKLOADS}
    for one in problems.values():
        for size in sizes:
            if len(one.shape) == 1:
                yield replace(one, shape=(size,))
                continue
            for n in lengths:
                if size >= 4 * n:
                    yield replace(one, shape=(size // n, n))


def drawn(workload: Workload, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """The data on the host: labels stay labels."""
    y_true, y_pred = workload.draw(np.random.default_rng(20261120), workload.shape)
    return (y_true if y_true.dtype.kind == "i" else y_true.astype(dtype)), y_pred.astype(dtype)


def traffic(workload: Workload, y_true: Array, y_pred: Array) -> int:
    """Bytes that must move at least: each input is read once, each result written once."""
    results = y_pred.nbytes if workload.gradient else 0
    values = 1 if workload.gradient or len(workload.shape) == 1 else workload.shape[0]
    return y_true.nbytes + y_pred.nbytes + results + values * y_pred.itemsize


def fault(workload: Workload, dtype: str, y_true: Array, y_pred: Array, result: Any) -> str | None:
    """What is wrong with a result on the host, in words. Of many rows the first and the last are looked at, of a total all."""
    relative, absolute = TOLERANCE[dtype]
    formula = numpy_formulas()[workload.problem][0]
    results = result if isinstance(result, tuple) else (result,)
    exact = [np.float64(0.0), None]
    step = max(1, (1 << 20) // math.prod(workload.shape[1:]))
    whole = workload.gradient or len(workload.shape) == 1
    for begin in range(0, len(y_pred), step):
        part = slice(begin, min(len(y_pred), begin + step))
        if not whole and begin not in (0, (len(y_pred) - 1) // step * step):
            continue
        t = y_true[part] if y_true.dtype.kind == "i" else y_true[part].astype(np.float64)
        wanted = formula(t, y_pred[part].astype(np.float64))
        share = (part.stop - part.start) / len(y_pred)
        if not whole:
            wrong = _apart(results[0][part], wanted, relative, absolute)
        elif workload.gradient:
            exact[0] += share * wanted[0]
            wrong = _apart(results[1][part], share * wanted[1], relative, absolute)
        else:
            exact[0] += share * wanted
            wrong = None
        if wrong:
            return wrong
    return _apart(results[0], exact[0], relative, absolute) if whole else None


def _apart(got: Any, wanted: Any, relative: float, absolute: float) -> str | None:
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    if got.shape != wanted.shape:
        return f"shape {got.shape}, wanted {wanted.shape}"
    near = np.abs(got - wanted) <= relative * np.abs(wanted) + absolute * np.max(np.abs(wanted), initial=0.0)
    if near.all():
        return None
    at = np.unravel_index(int(np.argmin(near)), near.shape)
    return f"{got[at]:.6g} at {tuple(map(int, at))}, wanted {wanted[at]:.6g}; {np.count_nonzero(~near)} of {near.size} are off"


# ---- contestants


def contestants() -> list[Contestant]:
    """All that are installed and see the GPU; lossfuncs first."""
    import cupy

    import lossfuncs

    def ours(workload: Workload) -> Sequence[Formula]:
        options, name = workload.options, workload.function
        if workload.gradient:
            return (lambda t, p: lossfuncs.value_and_grad(name, t, p, reduction="mean", **options),)
        function = getattr(lossfuncs, name)
        reduction = "mean" if len(workload.shape) == 1 else None
        return (lambda t, p: function(t, p, reduction=reduction, **options),)

    def synchronize(_: Any) -> None:
        cupy.cuda.get_current_stream().synchronize()

    expressions = numpy_formulas(_LikeNumPy(cupy))
    found = [
        Contestant("lossfuncs", ours, cupy.asarray, cupy.asnumpy, synchronize),
        Contestant("CuPy", lambda workload: expressions.get(workload.problem, ()), cupy.asarray, cupy.asnumpy, synchronize),
    ]
    for add in (_torch, _jax):
        try:
            found += add()
        except ImportError as error:
            print(f"absent: {error}")
    return found


class _LikeNumPy:
    """CuPy, with the one function of NumPy that it lacks."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cupy, name)

    def vecdot(self, x: Any, y: Any) -> Any:
        return (x * y).sum(-1)


def _torch() -> list[Contestant]:
    import torch

    if not torch.cuda.is_available():
        raise ImportError("torch sees no GPU")
    eager, fused = torch_formulas(), compiled_formulas()

    def enter(x: Array) -> Any:
        if x.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(x.view(np.int16)).cuda().view(torch.bfloat16)
        return torch.from_numpy(x).cuda()

    def leave(x: Any) -> Array:
        return x.double().cpu().numpy()  # type: ignore[no-any-return]

    def compiled(workload: Workload) -> Sequence[Formula]:
        torch.compiler.reset()  # kernels of earlier shapes would add their guards to every call
        return [torch.compile(each, fullgraph=True, dynamic=False) for each in fused.get(workload.problem, ())]

    def wait(_: Any) -> None:
        torch.cuda.synchronize()

    return [
        Contestant("torch", lambda workload: eager.get(workload.problem, ()), enter, leave, wait),
        Contestant("torch.compile", compiled, enter, leave, wait),
    ]


def _jax() -> list[Contestant]:
    import jax

    if jax.default_backend() != "gpu":
        raise ImportError("jax sees no GPU")
    formulas = jax_formulas()

    def build(workload: Workload) -> Sequence[Formula]:
        return [jax.jit(each) for each in formulas.get(workload.problem, ())]

    def enter(x: Array) -> Any:
        return jax.device_put(x.astype(np.int32) if x.dtype == np.int64 else x)

    return [Contestant("jax.jit", build, enter, np.asarray, jax.block_until_ready)]


# ---- measuring


def seconds(runners: dict[str, tuple[Formula, Iterator[tuple[Any, Any]], Callable[[Any], Any]]], rounds: int) -> dict[str, float]:
    """The least time of a call, over rounds in which all take turns."""

    def burst(name: str, calls: int) -> float:
        formula, arguments, wait = runners[name]
        batch = list(islice(arguments, calls))
        start = time.perf_counter()
        for each in batch:
            result = formula(*each)
        wait(result)
        return (time.perf_counter() - start) / calls

    calls = {}
    for name in runners:
        burst(name, 3)
        calls[name] = max(1, min(1000, int(BURST / burst(name, 3))))
    best = dict.fromkeys(runners, math.inf)
    for _ in range(rounds):
        for name in runners:
            best[name] = min(best[name], burst(name, calls[name]))
    return best


def measure(workload: Workload, dtype: str, field: Sequence[Contestant], rounds: int) -> dict[str, Any]:
    """Seconds of those that are right, and what kept the others out."""
    y_true, y_pred = drawn(workload, DTYPES[dtype])
    copies = max(1, min(16, math.ceil(PAST_CACHE / (y_true.nbytes + y_pred.nbytes)) if y_pred.nbytes > PAST_CACHE / 64 else 1))
    runners: dict[str, Any] = {}
    complaints: dict[str, str] = {}
    for contestant in field:
        data = None
        for number, formula in enumerate(contestant.build(workload)):
            try:
                data = data or [(contestant.enter(y_true), contestant.enter(y_pred)) for _ in range(copies)]
                result = formula(*data[0])
                host = tuple(map(contestant.leave, result)) if isinstance(result, tuple) else contestant.leave(result)
                wrong = fault(workload, dtype, y_true, y_pred, host)
            except Exception as error:  # one that fails is a line in the table, not the end of the run
                wrong = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            if wrong:
                complaints[contestant.name] = wrong
            else:
                runners[f"{contestant.name}#{number}"] = (formula, cycle(data or ()), contestant.wait)
    best: dict[str, float] = {}
    for name, found in seconds(runners, rounds).items():
        one = name.partition("#")[0]
        best[one] = min(found, best.get(one, math.inf))
    return {"name": workload.name, "dtype": dtype, "bytes": traffic(workload, y_true, y_pred), "seconds": best, "complaints": complaints}


READ = r"""
extern "C" __global__ void read(const float4* x, float* out, long long n) {
    float s = 0;
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; i += 4ll * gridDim.x * blockDim.x)
#pragma unroll
        for (int k = 0; k < 4; k++) {
            long long at = i + (long long)k * gridDim.x * blockDim.x;
            if (at < n) { float4 v = x[at]; s += v.x + v.y + v.z + v.w; }
        }
    if (s == 12345.678f) out[0] = s;
}
"""


def gpu_roofs() -> dict[str, float]:
    """Bytes a second of a copy, read and written, and of a read; and seconds of a launch, without waiting and until it is done."""
    import cupy

    x, y = cupy.ones(1 << 28, np.float32), cupy.empty(1 << 28, np.float32)
    read = cupy.RawKernel(READ, "read")
    blocks = 8 * cupy.cuda.Device().attributes["MultiProcessorCount"]
    stream = cupy.cuda.get_current_stream()
    tiny = cupy.ones(32, np.float32)

    def best(function: Callable[[], Any], wait: bool = True, calls: int = 1) -> float:
        times = []
        for _ in range(30):
            stream.synchronize()
            start = time.perf_counter()
            for _ in range(calls):
                function()
            if wait:
                stream.synchronize()
            times.append((time.perf_counter() - start) / calls)
        return min(times)

    def launch() -> None:
        read((1,), (32,), (tiny, y, np.int64(8)))

    launch()
    return {
        "copy": 2 * x.nbytes / best(lambda: cupy.copyto(y, x)),
        "read": x.nbytes / best(lambda: read((blocks,), (256,), (x, y, np.int64(x.size // 4)))),
        "launch": best(launch, wait=False, calls=100),
        "launch and wait": best(launch),
    }


def line(row: dict[str, Any], names: Sequence[str], roof: float) -> str:
    """Microseconds of each, the share of the roof and the ratio to the best peer."""
    times = row["seconds"]
    cells = [f"{1e6 * times[name]:.1f}" if name in times else "-" for name in names]
    mine = times.get("lossfuncs")
    peer = min((found for name, found in times.items() if name != "lossfuncs"), default=None)
    share = f"{row['bytes'] / mine / roof:.0%}" if mine else "-"
    ratio = f"{peer / mine:.2f}" if mine and peer else "-"
    return f"{row['name']:<58}{row['dtype']:<10}" + "".join(f"{cell:>14}" for cell in (*cells, share, ratio))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="only workloads whose name contains one of these")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to FILE")
    parser.add_argument("--quick", action="store_true", help="the first three sizes, and three rounds instead of ten")
    parser.add_argument("--list", action="store_true", help="print the workloads' names and stop")
    options = parser.parse_args(arguments)
    chosen = [w for w in workloads(sizes=SIZES[:3] if options.quick else SIZES) if any(part in w.name for part in options.only)]
    if not chosen:
        parser.error(f"--only {' '.join(options.only)}: no workload has that in its name; --list shows all names")
    if options.list:
        print(*(workload.name for workload in chosen), sep="\n")
        return 0
    from lossfuncs.cupy_device import trouble

    missing = trouble()
    if missing:
        print(f"bench.gpu needs a GPU: {missing}", file=sys.stderr)
        return 1
    import cupy

    gpu = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()
    found = gpu_roofs()
    print(f"{gpu}: copy {found['copy'] / 1e9:.0f} GB/s, read {found['read'] / 1e9:.0f} GB/s, "
          f"a launch {1e6 * found['launch']:.1f} us, until it is done {1e6 * found['launch and wait']:.1f} us\n")  # fmt: skip
    field = contestants()
    names = [contestant.name for contestant in field]
    print("microseconds; roof: share of the copy's bytes a second; ratio: best peer / lossfuncs\n")
    print(f"{'workload':<68}" + "".join(f"{name:>14}" for name in (*names, "roof", "ratio")))
    rows = []
    for workload in chosen:
        for dtype in DTYPES:
            rows.append(measure(workload, dtype, field, 3 if options.quick else 10))
            print(line(rows[-1], names, found["copy"]), flush=True)
            for name, complaint in rows[-1]["complaints"].items():
                print(f"    {name}: {complaint}")
    if options.json:
        report = {"gpu": gpu, "environment": roofs.environment(), "roofs": found, "workloads": rows}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
