"""Each adapter against its framework's own functions: `python -m bench.frameworks` prints the table.

A module of this package is named after its framework and has `workloads() -> Iterator[Workload]`. It imports its framework there, not at
its top, so that an ImportError says what is absent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

FRAMEWORKS = ("torch", "jax", "keras", "sklearn", "boosting", "dask")
OURS = "lossfuncs"


class Workload(NamedTuple):
    """The same result by several ways, each a function without arguments; one of them is `OURS`.

    Every contestant is called once before it is timed, and its result (numbers or arrays, in tuples) must agree with `expected()`: see
    `lossfuncs.benchmark.measure.compare` for the error that must not be more than `tolerance`.
    """

    name: str  # what is computed, and the size: "cross entropy, forward + backward, 4096x1000"
    contestants: Mapping[str, Callable[[], Any]]
    expected: Callable[[], Any]  # in float64, by a way of its own
    tolerance: float = 1e-4
    target: Mapping[str, float] = {}  # contestant: at least this many times as fast as it
