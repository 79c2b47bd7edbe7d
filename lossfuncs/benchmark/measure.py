"""A run: every contestant's result checked against float64, then timed; and what follows from the times."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import statistics
import sys
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from . import cuda, machine
from .contestants import Contestant
from .timing import QUIET, Runner, Timing, race
from .workloads import Array, Workload, data, numpy_dtype

FORMAT = 1  # of the JSON file
BLOCK = 1 << 16  # entries compared at once, in the caches
UNSTABLE = 0.25  # interquartile range by median, or median by minimum less one, from which on a time is called so


def measure(workload: Workload, field: Sequence[Contestant], min_time: float, rounds: int, warm: bool = False,
            until: float = math.inf) -> dict[str, Any]:  # fmt: skip
    """One workload: for each contestant its times and largest error, or under "fault" why there are none."""
    devices = {contestant.device for contestant in field}
    if "cuda" in devices:
        cuda.release()
    cache = max(cuda.cache() if device == "cuda" else machine.last_level_cache() for device in devices)
    pairs = data(workload, warm, cache)
    y_true, y_pred = pairs[0]
    exact = workload.reference(y_true, y_pred)
    runners: dict[str, Runner] = {}
    errors: dict[str, float] = {}
    faults: dict[str, str] = {}
    for contestant in field:
        try:
            _enter(contestant, workload, pairs, exact, runners, errors, faults)
        except Exception as error:  # a contestant that fails is a line of the table, not the end of the run
            if os.environ.get("LOSSFUNCS_BENCH_TRACEBACK"):
                traceback.print_exc(file=sys.stderr)
            faults.setdefault(contestant.name, f"fails: {type(error).__name__}: {error}".splitlines()[0][:200])
    bytes_read = y_true.nbytes + y_pred.nbytes
    from_memory = len(pairs) > 1 or bytes_read > cache
    readers: dict[str, Runner] = {}
    if from_memory:  # what its memory gives a machine that is shared may be half as much in another minute
        teams = {str(each.threads or machine.cores()) for each in field if each.ours and each.device == "cpu"}
        arrays = [array for pair in pairs for array in pair]
        readers = {team: Runner(machine.reading(int(team), arrays), [()], unit=len(pairs)) for team in teams}
    raced, noise = race(runners | readers, min_time, rounds, until)
    itemsize = numpy_dtype(workload.dtype).itemsize
    values = exact[0].size * (8 if workload.gradient or workload.options.get("reduction") else itemsize)
    found: dict[str, Any] = workload.describe() | {
        "functions": workload.functions,
        "rows": workload.rows,
        "bytes_read": bytes_read,
        "bytes_written": values + (y_pred.nbytes if workload.gradient else 0),
        "data": "memory" if from_memory else "cache",
        "copies": len(pairs),
        "reading": {team: raced[team].rounds for team in readers},
        "noise": noise,
    }
    found["contestants"] = []
    for contestant in field:
        own = [name for name in raced if name.rpartition("#")[0] == contestant.name]
        if own:
            best = min(own, key=lambda name: raced[name].minimum)
            found["contestants"].append(_timed(contestant, raced[best], errors[best], runners[best].launch))
        elif contestant.name in faults:
            found["contestants"].append({"name": contestant.name, "ours": contestant.ours, "fault": faults[contestant.name]})
    return found


def _timed(contestant: Contestant, timing: Timing, error: float, launch: float | None) -> dict[str, Any]:
    about = {"name": contestant.name, "ours": contestant.ours, "device": contestant.device, "threads": contestant.threads}
    unstable = max((timing.upper - timing.lower) / timing.median, timing.median / timing.minimum - 1) > UNSTABLE
    return about | asdict(timing) | {"launch": launch, "error": error, "unstable": unstable}


def _enter(contestant: Contestant, workload: Workload, pairs: list[tuple[Array, Array]], exact: tuple[Array, ...],
           runners: dict[str, Runner], errors: dict[str, float], faults: dict[str, str]) -> None:  # fmt: skip
    """Each of a contestant's ways that is right becomes a runner."""
    arguments: list[tuple[Any, ...]] = []
    ways = contestant.build(workload)

    def context() -> AbstractContextManager[Any]:
        return contestant.context(workload)

    def checked(result: Any) -> float | None:
        """The result's largest error; None, and a fault, if it is too large."""
        results = result if isinstance(result, tuple) else (result,)
        error, fault = compare([np.asarray(contestant.leave(each)) for each in results], exact)
        tolerance = contestant.tolerance(workload.dtype)
        if fault is None and not error <= tolerance:
            fault = f"largest error {error:.1e}, more than {tolerance:.0e}"
        if fault:
            faults[contestant.name] = f"wrong: {fault}"
        return None if fault else error

    for number, way in enumerate(ways):
        arguments = arguments or [(contestant.enter(t), contestant.enter(p)) for t, p in pairs]
        try:
            with context():
                error = checked(way(*arguments[0]))
        except NotImplementedError:
            continue
        if error is None:
            continue
        runner = contestant.runner(way, arguments, context)
        if runner.result is not None:
            with context():
                runner.function(*runner.arguments[0])
            error = checked(runner.result())
            if error is None:
                continue
        errors[f"{contestant.name}#{number}"] = error
        runners[f"{contestant.name}#{number}"] = runner


def compare(results: Sequence[Array], exact: Sequence[Array]) -> tuple[float, str | None]:
    """The largest error, relative to the exact entry or to the root of the mean square of all of them, whichever is larger.

    And what is wrong beyond digits, in words, if something is.
    """
    if len(results) != len(exact):
        return math.inf, f"{len(results)} results, wanted {len(exact)}"
    worst = 0.0
    for got, wanted in zip(results, exact, strict=True):
        if got.shape != wanted.shape:
            return math.inf, f"shape {got.shape}, wanted {wanted.shape}"
        flat, right = got.reshape(-1), wanted.reshape(-1)
        blocks = [slice(begin, begin + BLOCK) for begin in range(0, right.size, BLOCK)]
        with np.errstate(all="ignore"):
            squares = math.fsum(np.square(x, where=np.isfinite(x), out=np.zeros(x.shape)).sum() for x in (right[part] for part in blocks))
            scale = math.sqrt(squares / max(1, right.size))
            for part in blocks:
                x, y = flat[part].astype(np.float64), right[part]
                same = (x == y) | (np.isnan(x) & np.isnan(y))
                comparable = same | (np.isfinite(x) & np.isfinite(y))
                if not comparable.all():
                    first = int(np.argmin(comparable))
                    at = tuple(map(int, np.unravel_index(part.start + first, wanted.shape)))
                    return math.inf, f"{x[first]:.6g} at {at}, wanted {y[first]:.6g}"
                worst = max(worst, float(np.max(np.where(same, 0.0, np.abs(x - y) / np.maximum(np.abs(y), scale)))))
    return worst, None


def figures(result: dict[str, Any], roofs: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """One line for each contestant of a measured workload: what the table, the CSV file and the page show.

    Rates are by minima. The roof is the least time in which the device could move the bytes and take the elementary functions, each
    counted as a logarithm; where the arrays were read in each round, the share is the median over the rounds of what memory gave in
    them. The ratio is to the best peer on the same device: above 1 is faster.
    """
    contestants, readings = result["contestants"], result.get("reading") or {}
    whole_team = max(readings, key=int, default="")
    lines = []
    for each in contestants:
        line = {key: result[key] for key in ("problem", "identity", "shape", "dtype", "data")} | {key: each.get(key) for key in (
            "name", "ours", "minimum", "median", "lower", "upper", "error", "launch", "unstable", "fault")}  # fmt: skip
        if "fault" not in each:
            peers = {x["name"]: ratio(x, each) for x in contestants
                     if not x["ours"] and "fault" not in x and x["device"] == each["device"]}  # fmt: skip
            best = min(peers, key=lambda name: peers[name], default=None)
            roof = roofs.get("cuda" if each["device"] == "cuda" else str(each["threads"]), roofs.get("cpu"))
            reading = readings.get(str(each["threads"]), readings.get(whole_team)) if each["device"] == "cpu" else None
            line |= {
                "rows_per_second": result["rows"] / each["minimum"],
                "bytes_per_second": (result["bytes_read"] + result["bytes_written"]) / each["minimum"],
                "share_of_roof": _share(result, each, roof, reading) if roof else None,
                "best_peer": best,
                "ratio": peers[best] if best else None,
            }
        lines.append(line)
    return lines


def ratio(one: dict[str, Any], other: dict[str, Any]) -> float:
    """How many times as long the one takes: the median over the rounds, in each of which both took their turn.

    By minima it would be luck: memory shared with other machines is half as fast again in some rounds, for whose turn it then is.
    """
    return float(statistics.median(x / y for x, y in zip(one["rounds"], other["rounds"], strict=False)))


def _share(result: dict[str, Any], each: dict[str, Any], roof: dict[str, float], reading: list[float] | None) -> float | None:
    """Of the roof, what a contestant reached; None where it is nothing."""
    if not reading:
        return shortest(result, roof) / each["minimum"] or None
    rates = [result["bytes_read"] / taken for taken in reading]
    then = [roof | {"read": rate, "write": roof["write"] * rate / roof["read"]} for rate in rates]
    return float(statistics.median(shortest(result, roof) / taken for roof, taken in zip(then, each["rounds"], strict=False)))


def shortest(result: dict[str, Any], roof: dict[str, float]) -> float:
    """Seconds that the workload takes at least under that roof. What the caches hold is not bound by the memory."""
    rate = roof.get(f"log {'float64' if result['dtype'] == 'float64' else 'float32'}")
    functions = (result["functions"] or 0) * math.prod(result["shape"]) / rate if rate else 0.0
    if result["data"] == "cache":
        return functions
    moved: float = result["bytes_read"] / roof["read"] + result["bytes_written"] / roof["write"]
    return max(functions, moved)


CSV = {
    "workload": "problem", "shape": "shape", "dtype": "dtype", "data": "data", "implementation": "name", "min_s": "minimum",
    "median_s": "median", "q1_s": "lower", "q3_s": "upper", "rows_per_s": "rows_per_second", "bytes_per_s": "bytes_per_second",
    "share_of_roof": "share_of_roof", "best_peer": "best_peer", "ratio_to_best_peer": "ratio", "max_error": "error",
    "launch_s": "launch", "unstable": "unstable", "fault": "fault",
}  # fmt: skip


def as_csv(report: dict[str, Any]) -> str:
    """The table as CSV, in SI units."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV)
    for result in report["results"]:
        for line in figures(result, report["roofs"]):
            cells = (line.get(key) for key in CSV.values())
            writer.writerow(["" if x is None else "x".join(map(str, x)) if isinstance(x, list) else x for x in cells])
    return text.getvalue()


def summary(report: dict[str, Any]) -> dict[str, Any] | None:
    """Of the library's own best contestant in each row: the worst ratio to the best peer, where, and the geometric mean."""
    best: dict[str, float] = {}
    for result in report["results"]:
        ratios = [line["ratio"] for line in figures(result, report["roofs"]) if line["ours"] and line.get("ratio")]
        if ratios:
            best[result["identity"]] = max(ratios)
    if not best:
        return None
    worst = min(best, key=lambda name: best[name])
    mean = math.exp(math.fsum(map(math.log, best.values())) / len(best))
    return {"worst": best[worst], "workload": worst, "mean": mean, "behind": sum(x < 1 for x in best.values()), "rows": len(best)}


def load(path: str) -> dict[str, Any]:
    """A report that a run wrote with --json. ValueError for anything else."""
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise ValueError(f"{path} is no JSON file that `lossfuncs bench --json` wrote") from None
    if not isinstance(report, dict) or not {"format", "results", "roofs", "environment"} <= report.keys():
        raise ValueError(f"{path} is no JSON file that `lossfuncs bench --json` wrote")
    if report["format"] != FORMAT:
        raise ValueError(f"{path} has format {report['format']}, but this lossfuncs reads format {FORMAT}: measure again")
    return report


def disturbed(result: dict[str, Any]) -> bool:
    """Whether other processes took more of the cores than a fair measurement bears."""
    return bool(result["noise"] >= QUIET)


def seconds(value: float) -> str:
    """Three significant digits with a unit."""
    scale, unit = next(((scale, unit) for scale, unit in ((1e-6, "us"), (1e-3, "ms")) if value < 1000 * scale), (1.0, "s"))
    value /= scale
    return f"{value:.{max(0, 3 - len(str(int(value))))}f} {unit}"
