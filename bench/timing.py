"""Fair timing on a noisy machine: contestants take turns, and each is known by its minimum and its median."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

# OpenMP's idle workers spin for some milliseconds after a parallel region; nobody should start while another's do.
SETTLE_SECONDS = 0.01
WARM_SECONDS = 0.002
# A burst this long makes the clock's own cost (about 50 ns) and its resolution invisible.
BURST_SECONDS = 100e-6
# A round in which other processes took a larger share of the cores is not counted, and measured again.
QUIET = 0.1


@dataclass(frozen=True)
class Runner:
    """What is timed: `function(*arguments)`, the arguments taken in turn, inside `context()`."""

    function: Callable[..., Any]
    arguments: Sequence[tuple[Any, ...]]
    context: Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Timing:
    """Seconds a call, over `bursts` timed bursts of `calls` calls in all."""

    minimum: float
    median: float
    bursts: int
    calls: int


def _burst(runner: Runner, arguments: Iterator[tuple[Any, ...]], calls: int) -> float:
    function, batch = runner.function, list(islice(arguments, calls))
    start = time.perf_counter()
    for each in batch:
        function(*each)
    return time.perf_counter() - start


def _busy_seconds() -> float:
    """Core-seconds that everything but this process has used, as Linux counts them; 0 elsewhere."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, stat.read_text().split(maxsplit=9)[1:9])
    own = os.times()
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK") - own.user - own.system


def watch_others() -> Callable[[], float]:
    """A function that says which share of all cores other processes have used since now."""
    start, busy = time.perf_counter(), _busy_seconds()

    def share() -> float:
        return max(0.0, _busy_seconds() - busy) / (time.perf_counter() - start) / (os.cpu_count() or 1)

    return share


@contextmanager
def _uncollected() -> Iterator[None]:
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def race(runners: Mapping[str, Runner], min_time: float, rounds: int) -> tuple[dict[str, Timing], float]:
    """Times every runner for at least `min_time` seconds, split over `rounds` in which all take turns.

    A round that other processes disturbed is repeated, up to twice `rounds` times in all; when too few are quiet, the
    quietest count. Also returns the largest share of the cores that others took during a round that counts.
    """
    if not runners:
        return {}, 0.0
    arguments = {name: cycle(runner.arguments) for name, runner in runners.items()}
    calls = dict.fromkeys(runners, 1)
    tries: list[tuple[float, dict[str, list[float]]]] = []

    def turn(name: str) -> list[float]:
        time.sleep(SETTLE_SECONDS)
        runner = runners[name]
        samples: list[float] = []
        with runner.context():
            warm = time.perf_counter() + WARM_SECONDS
            while time.perf_counter() < warm:
                _burst(runner, arguments[name], calls[name])
            while sum(samples) < min_time / rounds:
                samples.append(_burst(runner, arguments[name], calls[name]))
        return [seconds / calls[name] for seconds in samples]

    with _uncollected():
        for name, runner in runners.items():
            with runner.context():
                _burst(runner, arguments[name], 1)
                while (elapsed := _burst(runner, arguments[name], calls[name])) < BURST_SECONDS:
                    calls[name] *= max(2, min(10, int(BURST_SECONDS / elapsed)))
        names = list(runners)
        while sum(noise < QUIET for noise, _ in tries) < rounds and len(tries) < 2 * rounds:
            first = len(tries) % len(names)
            others = watch_others()
            seconds = {name: turn(name) for name in names[first:] + names[:first]}
            tries.append((others(), seconds))
            gc.collect()
    counted = sorted(tries, key=lambda each: each[0])[:rounds]

    def timing(name: str) -> Timing:
        samples = [sample for _, seconds in counted for sample in seconds[name]]
        return Timing(min(samples), statistics.median(samples), len(samples), len(samples) * calls[name])

    return {name: timing(name) for name in names}, counted[-1][0]
