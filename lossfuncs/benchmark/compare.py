"""Two runs: by what ratio each time grew, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .timing import QUIET

RESAMPLES = 1000
CONFIDENCE = 0.95
# Two processes that do the same differ by so much: where their code and their buffers lie is luck.
LUCK = 0.03


@dataclass(frozen=True)
class Change:
    """One contestant on one workload: seconds in either run, their ratio (above 1 is slower) and the interval that it lies in."""

    workload: str
    name: str
    ours: bool
    before: float
    after: float
    ratio: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        if self.low > 1:
            return "slower"
        if self.high < 1:
            return "faster"
        return "same" if self.high / self.low < 1.25 else "unclear"


def ratio(before: list[float], after: list[float], noise_before: float = 0.0, noise_after: float = 0.0) -> tuple[float, float, float]:
    """after / before, and an interval around it.

    What disturbs a measurement only ever adds to it: so a time is the minimum, and how sure it is shows by the minima of random halves
    of the rounds. The interval is of their ratios, stretched by what the rounds cannot show: how code and buffers happened to lie, and
    that others took more of the cores in all of one run than in all of the other, which slows by as much.
    """
    x, y = (_halves(rounds, np.random.default_rng(seed)) for seed, rounds in enumerate((before, after)))
    low, high = np.quantile(y / x, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    more = noise_after - noise_before
    low *= (1 - more if more > QUIET else 1) / (1 + LUCK)
    high *= (1 + LUCK) / (1 + more if more < -QUIET else 1)
    return min(after) / min(before), float(low), float(high)


def _halves(rounds: list[float], rng: np.random.Generator) -> Any:
    """The minima of random halves."""
    shuffled = rng.permuted(np.tile(rounds, (RESAMPLES, 1)), axis=1)
    return shuffled[:, : max(1, len(rounds) // 2)].min(axis=1)


def changes(a: dict[str, Any], b: dict[str, Any]) -> Iterator[Change]:
    """Of all that both runs measured."""
    others = {result["identity"]: result for result in b["results"]}
    for before in a["results"]:
        after = others.get(before["identity"])
        if after is None:
            continue
        timed = {each["name"]: each for each in after["contestants"] if "fault" not in each}
        for each in before["contestants"]:
            if "fault" not in each and each["name"] in timed:
                x, y = each["rounds"], timed[each["name"]]["rounds"]
                middle, low, high = ratio(x, y, before["noise"], after["noise"])
                yield Change(before["identity"], each["name"], each["ours"], min(x), min(y), middle, low, high)


def faults(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Own results that were timed in the first run and are wrong or fail in the second, in words."""
    timed = {(result["identity"], each["name"]) for result in a["results"] for each in result["contestants"] if "fault" not in each}
    return [f"{result['identity']}: {each['name']} {each['fault']}" for result in b["results"] for each in result["contestants"]
            if each["ours"] and "fault" in each and (result["identity"], each["name"]) in timed]  # fmt: skip


def mean(found: list[Change]) -> float:
    """The geometric mean of the ratios."""
    return math.exp(math.fsum(math.log(change.ratio) for change in found) / len(found))
