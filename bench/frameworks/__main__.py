"""`python -m bench.frameworks [framework ...] [--rounds N] [--only TEXT ...]`: the table of adapters against their frameworks."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.frameworks import FRAMEWORKS, OURS, Workload
from lossfuncs.benchmark.measure import compare
from lossfuncs.benchmark.timing import QUIET, Runner, race


def _arrays(x: Any) -> list[Any]:
    """All numbers of a result, in float64."""
    if isinstance(x, (tuple, list)):
        return [a for y in x for a in _arrays(y)]
    return [np.asarray(x, np.float64)]


def _check(workload: Workload) -> None:
    expected = _arrays(workload.expected())
    for name, function in workload.contestants.items():
        error, fault = compare(_arrays(function()), expected)
        if fault or not error <= workload.tolerance:
            raise SystemExit(f"{workload.name}: {name} is wrong: {fault or f'largest error {error:.1e}'}")


def _workloads(framework: str) -> Iterator[Workload]:
    try:
        yield from importlib.import_module(f"bench.frameworks.{framework}").workloads()
    except ImportError as error:
        print(f"| {framework} | absent: {error} | | |")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.frameworks", description=__doc__)
    parser.add_argument("frameworks", nargs="*", default=FRAMEWORKS, choices=[*FRAMEWORKS, []], metavar="framework")
    parser.add_argument("--rounds", type=int, default=8, help="in which all contestants take turns (default %(default)s)")
    parser.add_argument("--min-time", type=float, default=0.2, metavar="SECONDS", help="for each of them in all (default %(default)s)")
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
            runners = {name: Runner(function, [()]) for name, function in workload.contestants.items()}
            times, noise = race(runners, options.min_time, options.rounds)
            seconds = {name: time.minimum for name, time in times.items()}
            own = seconds.pop(OURS)
            others = ", ".join(f"{name} {s * 1e3:.4g} ({s / own:.2f})" for name, s in seconds.items())
            busy = f" (others took {noise:.0%} of the cores)" if noise > QUIET else ""
            print(f"| {framework} | {workload.name} | {own * 1e3:.4g} | {others}{busy} |", flush=True)
            missed += [
                f"{framework}: {workload.name}: {seconds[name] / own:.2f} times as fast as {name}, {target:g} wanted"
                for name, target in workload.target.items()
                if seconds[name] < target * own
            ]
    if missed:
        print("\nBehind their targets:", *missed, sep="\n- ", file=sys.stderr)


if __name__ == "__main__":
    main()
