"""`python -m bench.peers`: lossfuncs against NumPy, torch, torch.compile, jax.jit, scikit-learn and metric libraries on one machine.

Every contestant gets the same numbers, already in its own array type, and its result is compared with a float64
NumPy evaluation before it is timed. Where a peer has several good ways to write a loss, all are raced and the fastest
counts. Data larger than a quarter of the last-level cache are rotated through copies that together exceed it eight
times ("RAM" in the table); smaller ones stay where the caches keep them ("cache").
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench import roofs, updates
from bench.timing import QUIET, Runner, Timing, race, watch_others
from bench.workloads import (
    UPDATE,
    WORKLOADS,
    Array,
    Formula,
    Formulas,
    Workload,
    compiled_formulas,
    jax_formulas,
    numpy_formulas,
    sklearn_formulas,
    torch_formulas,
)

# (relative, absolute) against float64. One float32 ULP is at most 2**-23 = 1.2e-7 of a value, and ours must stay within
# it; a peer may compute in float32. The absolute part of a gradient's is on the scale of its largest entry.
OURS_TOLERANCE = (1.2e-7, 1e-9)
PEER_TOLERANCE = (1e-4, 1e-5)


@dataclass(frozen=True)
class Contestant:
    """One column: how a library is called (`build` gives every way worth racing), and how arrays enter and leave it."""

    name: str
    build: Callable[[Workload], Sequence[Formula]]
    enter: Callable[[Array], Any] = lambda array: array
    leave: Callable[[Any], Array] = np.asarray
    context: Callable[[Workload], AbstractContextManager[Any]] = lambda workload: nullcontext()
    tolerance: tuple[float, float] = PEER_TOLERANCE


def _written_in(formulas: Formulas) -> Callable[[Workload], Sequence[Formula]]:
    return lambda workload: formulas.get(workload.problem, ())


def _ours(threads: int) -> Contestant:
    import lossfuncs

    def build(workload: Workload) -> Sequence[Formula]:
        if workload.problem == UPDATE:
            return updates.ours()
        name, options = workload.function, workload.options
        function = getattr(lossfuncs, "value_and_grad" if workload.gradient else name, None)
        if function is None:
            return ()
        if workload.gradient:
            return (lambda t, p: function(name, t, p, reduction="mean", **options),)
        return ((lambda t, p: function(t, p, **options)) if options else function,)

    @contextmanager
    def context(workload: Workload) -> Any:
        before = lossfuncs.get_num_threads()
        lossfuncs.set_num_threads(threads)
        try:
            yield
        finally:
            lossfuncs.set_num_threads(before)

    def leave(result: Any) -> Array:
        return updates.results(result) if isinstance(result, list) else np.asarray(result)

    return Contestant(f"ours ({threads})", build, leave=leave, context=context, tolerance=OURS_TOLERANCE)


def _metric_library(name: str, parts: updates.Parts) -> Contestant:
    formulas, enter, leave, context = parts

    def build(workload: Workload) -> Sequence[Formula]:
        return formulas(workload.shape[-1]) if workload.problem == UPDATE else ()

    return Contestant(name, build, enter, leave, lambda workload: context())


def _torch(threads: int) -> list[Contestant]:
    import torch

    torch.set_num_threads(threads)
    formulas = compiled_formulas()

    def compiled(workload: Workload) -> Sequence[Formula]:
        # Kernels of earlier shapes would add their guards to every call.
        torch.compiler.reset()
        return [torch.compile(each, fullgraph=True, dynamic=False) for each in formulas.get(workload.problem, ())]

    def context(workload: Workload) -> AbstractContextManager[Any]:
        return nullcontext() if workload.gradient else torch.inference_mode()

    def contestant(name: str, build: Callable[[Workload], Sequence[Formula]]) -> Contestant:
        return Contestant(name, build, torch.from_numpy, lambda tensor: tensor.numpy(), context)

    return [contestant("torch", _written_in(torch_formulas())), contestant("torch.compile", compiled)]


def _jax() -> Contestant:
    import jax

    formulas = jax_formulas()

    def awaited(formula: Formula, several: bool) -> Formula:
        function = jax.jit(formula)
        if several:
            return lambda t, p: jax.block_until_ready(function(t, p))  # type: ignore[no-untyped-call]
        return lambda t, p: function(t, p).block_until_ready()

    def enter(array: Array) -> Any:
        # 32-bit labels are jax's own default.
        return jax.device_put(array.astype(np.int32) if array.dtype == np.int64 else array)

    def build(workload: Workload) -> Sequence[Formula]:
        return [awaited(each, workload.gradient) for each in formulas.get(workload.problem, ())]

    return Contestant("jax.jit", build, enter)


def _sklearn(threads: int) -> Contestant:
    # Its Cython losses want labels in the scores' own type.
    formulas = _written_in(sklearn_formulas(threads))
    return Contestant("sklearn", formulas, lambda array: array.astype(np.float32, copy=False))


def contestants() -> tuple[list[Contestant], dict[str, str]]:
    """Those that can take part, in the table's order, and for each library that cannot, why."""
    threads = roofs.cores()
    found: list[Contestant] = []
    absent: dict[str, str] = {}
    if find_spec("lossfuncs") and hasattr(import_module("lossfuncs"), "mean_squared_error"):
        found += [_ours(each) for each in sorted({1, threads})]
    else:
        absent["ours"] = "lossfuncs has no mean_squared_error"
    found.append(Contestant("numpy", _written_in(numpy_formulas())))
    makers: dict[str, Callable[[], list[Contestant]]] = {
        "torch": lambda: _torch(threads),
        "jax": lambda: [_jax()],
        "sklearn": lambda: [_sklearn(threads)],
        "torchmetrics": lambda: [_metric_library("torchmetrics", parts) for parts in [updates.torchmetrics()] if parts],
        "keras": lambda: [_metric_library(f"keras/{found[0]}", found[1]) for found in [updates.keras()] if found],
    }
    for module, make in makers.items():
        if find_spec(module):
            found += make()
        else:
            absent[module] = "not installed"
    return found, absent


def _keep_freed_memory() -> None:
    """Tells glibc not to hand large freed blocks back to the kernel.

    Otherwise it depends on the history of the process whether a gradient of 16 MB costs a millisecond of page faults
    in every call; those who train on CPUs preload an allocator that keeps memory for that reason. It serves all alike.
    """
    if sys.platform == "linux":
        trim_threshold, mmap_max = -1, -4
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(trim_threshold, 2**31 - 1)
            mallopt(mmap_max, 0)


def _aligned(array: Array) -> Array:
    """The same numbers at an address divisible by 64, where jax takes them without a copy."""
    raw = np.empty(array.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    out = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    out[...] = array
    return out


def _data(workload: Workload) -> list[tuple[Array, Array]]:
    y_true, y_pred = workload.draw(np.random.default_rng(20250101), workload.shape)
    size, cache = y_true.nbytes + y_pred.nbytes, roofs.last_level_cache()
    copies = math.ceil(8 * cache / size) if size > cache / 4 else 1
    return [(_aligned(y_true), _aligned(y_pred)) for _ in range(copies)]


def _fault(contestant: Contestant, result: Any, reference: Any) -> str | None:
    """What is wrong with a result, in words; None if nothing is."""
    results, references = (each if isinstance(each, tuple) else (each,) for each in (result, reference))
    relative, absolute = contestant.tolerance
    for got, wanted in zip(results, references, strict=True):
        array, exact = np.asarray(contestant.leave(got), np.float64), np.asarray(wanted, np.float64)
        if array.shape != exact.shape:
            return f"shape {array.shape}, wanted {exact.shape}"
        scale = np.abs(exact).max() if wanted is not references[0] else 1.0
        good = np.abs(array - exact) <= absolute * scale + relative * np.abs(exact)
        if not good.all():
            at = np.unravel_index(np.argmin(good), good.shape)
            share = f"{np.count_nonzero(~good)} of {good.size} entries are off"
            return f"{array[at]:.9g} at {tuple(map(int, at))}, wanted {exact[at]:.9g}; {share}"
    return None


def measure(workload: Workload, field: list[Contestant], min_time: float, rounds: int) -> dict[str, Any]:
    """One row of the table: timings of those that are right, and in `complaints` what kept the others out."""
    data = _data(workload)
    y_true, y_pred = data[0]
    exact = y_true if y_true.dtype == np.int64 else y_true.astype(np.float64)
    reference = numpy_formulas()[workload.problem][0](exact, y_pred.astype(np.float64))
    outputs = reference if isinstance(reference, tuple) else (reference,)
    runners: dict[str, Runner] = {}
    complaints: dict[str, str] = {}
    for contestant in field:
        arguments = [(contestant.enter(t), contestant.enter(p)) for t, p in data]

        def context(contestant: Contestant = contestant) -> AbstractContextManager[Any]:
            return contestant.context(workload)

        complaints[contestant.name] = "absent"
        for number, formula in enumerate(contestant.build(workload)):
            try:
                with context():
                    fault = _fault(contestant, formula(*arguments[0]), reference)
            except NotImplementedError:
                continue
            except Exception as error:  # a contestant that fails is a line under the table, not the end of the run
                traceback.print_exc(file=sys.stderr)
                complaints[contestant.name] = f"error: {type(error).__name__}: {error}".splitlines()[0]
                continue
            if fault:
                complaints[contestant.name] = f"wrong: {fault}"
            else:
                runners[f"{contestant.name}#{number}"] = Runner(formula, arguments, context)
    raced, noise = race(runners, min_time, rounds)
    timings: dict[str, Timing] = {}
    for contestant in field:
        own = [timing for name, timing in raced.items() if name.rpartition("#")[0] == contestant.name]
        if own:
            timings[contestant.name] = min(own, key=lambda timing: timing.minimum)
            del complaints[contestant.name]
    ours = [name for name in timings if name.startswith("ours")]
    peers = {name: timing for name, timing in timings.items() if name not in ours}
    mine = timings[ours[-1]] if ours else None
    return {
        "name": workload.name,
        "bytes": y_true.nbytes + y_pred.nbytes + 4 * sum(np.size(each) for each in outputs),
        "data": "RAM" if len(data) > 1 or y_pred.nbytes > roofs.last_level_cache() else "cache",
        "copies": len(data),
        "timings": {name: asdict(timing) for name, timing in timings.items()},
        "complaints": complaints,
        "noise": noise,
        "best_peer": min(peers, key=lambda name: peers[name].minimum, default=None),
        "ratio": min(peer.minimum for peer in peers.values()) / mine.minimum if mine and peers else None,
        "median_ratio": min(peer.median for peer in peers.values()) / mine.median if mine and peers else None,
        "seconds": mine.minimum if mine else None,
    }


def _line(row: dict[str, Any], names: list[str], width: int, read_roof: float) -> str:
    def cell(name: str) -> str:
        if name not in row["timings"]:
            complaint = row["complaints"][name]
            return "-" if complaint == "absent" else complaint.split(":")[0]
        milliseconds = 1e3 * row["timings"][name]["minimum"]
        return f"{milliseconds:.{4 if milliseconds < 1 else 3 if milliseconds < 10 else 1}f}"

    rate = row["bytes"] / row["seconds"] if row["seconds"] else None
    last = (
        f"{rate / 1e9:.1f}" if rate else "-",
        f"{rate / read_roof:.0%}" if rate and row["data"] == "RAM" else "-",
        row["best_peer"] or "-",
        *("-" if row[key] is None else f"{row[key]:.2f}" for key in ("ratio", "median_ratio")),
        "*" if row["noise"] >= QUIET else "",
    )
    return _columns((row["name"], row["data"], *map(cell, names), *last), names, width)


def _columns(cells: Sequence[str], names: list[str], width: int) -> str:
    widths = (5, *(max(9, len(name)) for name in names), 6, 5, 13, 6, 6, 1)
    rest = "  ".join(f"{cell:>{each}}" for cell, each in zip(cells[1:], widths, strict=True))
    return f"{cells[0]:<{width}}  {rest}".rstrip()


def _summary(rows: list[dict[str, Any]], key: str) -> dict[str, Any] | None:
    """The worst ratio, its workload, and the geometric mean of all."""
    ratios = [(row[key], row["name"]) for row in rows if row[key] is not None]
    if not ratios:
        return None
    worst, where = min(ratios)
    mean = math.exp(math.fsum(math.log(ratio) for ratio, _ in ratios) / len(ratios))
    return {"worst": worst, "workload": where, "mean": mean}


def _describe(summary: dict[str, Any]) -> str:
    return f"worst {summary['worst']:.2f} ({summary['workload']}), geometric mean {summary['mean']:.2f}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only workloads whose name contains one of these")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to FILE")
    parser.add_argument("--quick", action="store_true", help="a tenth of the time, in 3 rounds: for a first look")
    parser.add_argument("--list", action="store_true", help="print the workloads' names and stop")
    parser.add_argument("--min-time", type=float, default=0.3, metavar="S", help="seconds a contestant and workload")
    options = parser.parse_args(arguments)
    chosen = [w for w in WORKLOADS if not options.only or any(part in w.name for part in options.only)]
    if not chosen:
        parser.error(f"--only {' '.join(options.only)}: no workload has that in its name; --list shows all names")
    if options.list:
        print(*(workload.name for workload in chosen), sep="\n")
        return 0
    min_time, rounds = (options.min_time / 10, 3) if options.quick else (options.min_time, 6)
    warnings.filterwarnings("ignore", module="torch")
    _keep_freed_memory()

    environment, others = roofs.environment(), watch_others()
    bandwidth = roofs.bandwidth()
    disturbance = others()
    for key, value in environment.items():
        print(f"{key:10} {', '.join(f'{k} {v}' for k, v in value.items()) if isinstance(value, dict) else value}")
    for key, each in bandwidth.items():
        print(f"{key:10} {each['bytes_per_second'] / 1e9:.1f} GB/s ({each['method']})")
    if disturbance >= QUIET:
        print(f"other processes used {disturbance:.0%} of the cores meanwhile: these four are lower bounds")
    field, absent = contestants()
    for name, reason in absent.items():
        print(f"{name}: absent ({reason})")
    names = [contestant.name for contestant in field]
    width = max(len(workload.name) for workload in chosen)
    print(f"""
ms, the minimum of {rounds} interleaved rounds of {min_time / rounds:.3g} s. Data: float32 in RAM (rotated past the
last-level cache) or in cache. GB/s: inputs read once and results written once, by ours on all {roofs.cores()} cores;
roof: share of 'read all'. Ratio: best peer / ours, by minima, then by medians.
*: other processes used more than {QUIET:.0%} of the cores while the row was timed; OpenMP's barriers suffer most.
""")
    print(_columns(("workload", "data", *names, "GB/s", "roof", "best peer", "ratio", "median", ""), names, width))
    rows = []
    for workload in chosen:
        rows.append(measure(workload, field, min_time, rounds))
        print(_line(rows[-1], names, width, bandwidth["read all"]["bytes_per_second"]), flush=True)
    for row in rows:
        for name, complaint in row["complaints"].items():
            if complaint != "absent":
                print(f"{row['name']}: {name}: {complaint}")

    summaries = {"minima": _summary(rows, "ratio"), "medians": _summary(rows, "median_ratio")}
    if options.json:
        report = {"environment": environment, "bandwidth": bandwidth, "bandwidth_noise": disturbance,
                  "absent": absent, "min_time": min_time, "rounds": rounds, "workloads": rows, "summary": summaries}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    told = [f"{key}: {_describe(summary)}" for key, summary in summaries.items() if summary]
    print(f"\nbest peer / ours by {'; by '.join(told)}" if told else "\nbest peer / ours: ours is absent")
    return 0


if __name__ == "__main__":
    sys.exit(main())
