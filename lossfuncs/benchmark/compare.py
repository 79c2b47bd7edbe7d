"""Two runs: by what ratio each time grew, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.99
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
    """after / before of the rounds' least times, by their medians, and an interval around it.

    The interval is the bootstrap's, by rounds, stretched to hold the ratio of the least times of all, and by what the runs cannot
    know: that others took a share of the cores meanwhile, which slows by as much, and how code and buffers happened to lie.
    """
    x, y = np.asarray(before), np.asarray(after)
    middle, least = float(np.median(y) / np.median(x)), float(y.min() / x.min())
    rng = np.random.default_rng(0)

    def medians(z: Any) -> Any:
        return np.median(z[rng.integers(0, z.size, (RESAMPLES, z.size))], axis=1)

    low, high = np.quantile(medians(y) / medians(x), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    low = min(low, middle, least) * max(1 - noise_after, 0.01) / (1 + LUCK)
    high = max(high, middle, least) / max(1 - noise_before, 0.01) * (1 + LUCK)
    return middle, float(low), float(high)


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
                yield Change(before["identity"], each["name"], each["ours"], float(np.median(x)), float(np.median(y)), middle, low, high)


def faults(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Own results that were timed in the first run and are wrong or fail in the second, in words."""
    timed = {(result["identity"], each["name"]) for result in a["results"] for each in result["contestants"] if "fault" not in each}
    return [f"{result['identity']}: {each['name']} {each['fault']}" for result in b["results"] for each in result["contestants"]
            if each["ours"] and "fault" in each and (result["identity"], each["name"]) in timed]  # fmt: skip


def mean(found: list[Change]) -> float:
    """The geometric mean of the ratios."""
    return math.exp(math.fsum(math.log(change.ratio) for change in found) / len(found))
