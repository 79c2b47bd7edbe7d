"""`python -m bench.frameworks [framework ...] [--rounds N] [--only TEXT ...]`: the table of adapters against their frameworks."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.frameworks import FRAMEWORKS, OURS, Workload

BURST = 0.02  # seconds of a contestant's turn, or one call
SETTLE = 0.01  # before it: idle threads of the one before spin for some milliseconds


def _arrays(x: Any) -> list[Any]:
    """All numbers of a result, in float64."""
    if isinstance(x, (tuple, list)):
        return [a for y in x for a in _arrays(y)]
    return [np.asarray(x, np.float64)]


def _check(workload: Workload) -> None:
    expected = _arrays(workload.expected())
    for name, function in workload.contestants.items():
        found = _arrays(function())
        for a, b in zip(found, expected, strict=True):
            error = np.max(np.abs(a - b), initial=0.0)
            if not (a.shape == b.shape and error <= workload.rtol * np.max(np.abs(b), initial=0.0) + workload.atol):
                raise SystemExit(f"{workload.name}: {name} is wrong by {error:g}")


def _race(workload: Workload, rounds: int) -> dict[str, float]:
    """Seconds of a call: the minimum over rounds in which the contestants take turns."""
    best = dict.fromkeys(workload.contestants, float("inf"))
    for _ in range(rounds):
        for name, function in workload.contestants.items():
            time.sleep(SETTLE)
            function()
            end = time.perf_counter() + BURST
            while (start := time.perf_counter()) < end:
                function()
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def _workloads(framework: str) -> Iterator[Workload]:
    try:
        yield from importlib.import_module(f"bench.frameworks.{framework}").workloads()
    except ImportError as error:
        print(f"| {framework} | absent: {error} | | |")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.frameworks", description=__doc__)
    parser.add_argument("frameworks", nargs="*", default=FRAMEWORKS, choices=[*FRAMEWORKS, []], metavar="framework")
    parser.add_argument("--rounds", type=int, default=8, help="in which all contestants take turns (default %(default)s)")
    parser.add_argument("--only", nargs="*", default=[""], metavar="TEXT", help="workloads whose name contains one of these")
    options = parser.parse_args()
    print("Milliseconds, and how many times as fast as it lossfuncs is; results were checked first.\n")
    print("| | workload | lossfuncs | others |\n| --- | --- | ---: | --- |")
    missed = []
    for framework in options.frameworks:
        for workload in _workloads(framework):
            if not any(text in workload.name for text in options.only):
                continue
            _check(workload)
            seconds = _race(workload, options.rounds)
            own = seconds.pop(OURS)
            others = ", ".join(f"{name} {s * 1e3:.4g} ({s / own:.2f})" for name, s in seconds.items())
            print(f"| {framework} | {workload.name} | {own * 1e3:.4g} | {others} |", flush=True)
            missed += [
                f"{framework}: {workload.name}: {seconds[name] / own:.2f} times as fast as {name}, {target:g} wanted"
                for name, target in workload.target.items()
                if seconds[name] < target * own
            ]
    if missed:
        print("\nBehind their targets:", *missed, sep="\n- ", file=sys.stderr)


if __name__ == "__main__":
    main()
