"""Fair timing on a noisy machine: contestants take turns, and each is known by its minimum, its median and its quartiles."""

from __future__ import annotations

import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
LEAST_ROUNDS = 2


def by_clock(function: Callable[..., Any], batch: Sequence[tuple[Any, ...]]) -> float:
    """Seconds that function(*arguments) takes for all arguments of the batch."""
    start = time.perf_counter()
    for each in batch:
        function(*each)
    return time.perf_counter() - start


@dataclass(frozen=True)
class Runner:
    """What is timed: `function(*arguments)`, the arguments taken in turn, inside `context()`.

    `burst(function, batch)` gives the seconds of a batch of calls: the wall clock's, or a device's own. `unit` is how many calls of
    interest a call of the function stands for. `launch` is what the host spends on one of them, in seconds, where a device does the work.
    `result()` is what the last of them left, where the function itself returns nothing.
    """

    function: Callable[..., Any]
    arguments: Sequence[tuple[Any, ...]]
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    burst: Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], float] = by_clock
    unit: int = 1
    launch: float | None = None
    result: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Timing:
    """Seconds a call: over all bursts, and the least of each round."""

    minimum: float
    lower: float  # the first quartile
    median: float
    upper: float  # the third
    bursts: int
    calls: int
    rounds: list[float]


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
        return min(1.0, max(0.0, _busy_seconds() - busy) / (time.perf_counter() - start) / (os.cpu_count() or 1))

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


def race(runners: Mapping[str, Runner], min_time: float, rounds: int, until: float = math.inf) -> tuple[dict[str, Timing], float]:
    """Times every runner for at least `min_time` seconds, split over `rounds` in which all take turns.

    A round that other processes disturbed is repeated, up to twice `rounds` in all; when too few are quiet, the quietest count. When
    time.monotonic() passes `until`, LEAST_ROUNDS are enough. Also returns the largest share of the cores that others took during a
    round that counts.
    """
    if not runners:
        return {}, 0.0
    arguments = {name: cycle(runner.arguments) for name, runner in runners.items()}
    calls = dict.fromkeys(runners, 1)
    tries: list[tuple[float, dict[str, list[float]]]] = []

    def burst(name: str) -> float:
        runner = runners[name]
        return runner.burst(runner.function, list(islice(arguments[name], calls[name])))

    def turn(name: str) -> list[float]:
        time.sleep(SETTLE_SECONDS)
        samples: list[float] = []
        with runners[name].context():
            warm = time.perf_counter() + WARM_SECONDS
            while time.perf_counter() < warm:
                burst(name)
            while sum(samples) < min_time / rounds:
                samples.append(burst(name))
        return [seconds / calls[name] / runners[name].unit for seconds in samples]

    with _uncollected():
        for name, runner in runners.items():
            with runner.context():
                burst(name)
                while (elapsed := burst(name)) < BURST_SECONDS:
                    calls[name] *= max(2, min(10, int(BURST_SECONDS / max(elapsed, 1e-9))))
        names = list(runners)
        while sum(noise < QUIET for noise, _ in tries) < rounds and len(tries) < 2 * rounds:
            if len(tries) >= LEAST_ROUNDS and time.monotonic() > until:
                break
            first = len(tries) % len(names)
            others = watch_others()
            seconds = {name: turn(name) for name in names[first:] + names[:first]}
            tries.append((others(), seconds))
            gc.collect(0)  # what this round left; a whole collection would take longer than a round
    counted = sorted(tries, key=lambda each: each[0])[:rounds]

    def timing(name: str) -> Timing:
        samples = sorted(sample for _, seconds in counted for sample in seconds[name])
        lower, median, upper = statistics.quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else samples * 3
        least = [min(seconds[name]) for _, seconds in counted]
        return Timing(samples[0], lower, median, upper, len(samples), len(samples) * calls[name] * runners[name].unit, least)

    return {name: timing(name) for name in names}, counted[-1][0]
