"""`python -m pytest bench --benchmark-only`: every entry of the table, on its reference and on its kernel."""

from __future__ import annotations

from importlib.util import find_spec
from inspect import signature
from typing import Any

import numpy as np
import pytest

import lossfuncs
from lossfuncs.domains import draw
from lossfuncs.table import LOSSES, METRICS, Entry

# 320 elements: the cost of a call. 4 million, 16 MB an input: memory and arithmetic, past most last-level caches.
SHAPES = ((32, 10), (4096, 1000))
FRAMES = 32
# Options that have no default.
REQUIRED = {"q": 0.5}
# A loss that is also a metric has one function: it is measured once.
ENTRIES = list({entry.function: entry for entry in (*LOSSES, *METRICS)}.values())


def _inputs(entry: Entry, shape: tuple[int, int]) -> tuple[Any, Any]:
    rows, classes = shape
    lengthened = (rows // FRAMES, FRAMES, classes) if entry.targets == "sequence" else shape
    return draw(entry, lengthened, np.random.default_rng(0), np.float32)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("backend", ("numpy", "numba"))
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_call(benchmark: Any, entry: Entry, backend: str, shape: tuple[int, int]) -> None:
    if backend == "numba" and not find_spec("numba"):
        pytest.skip("numba is not installed")
    y_true, y_pred = _inputs(entry, shape)
    options = {name: value for name, value in REQUIRED.items() if name in signature(entry.function).parameters}
    benchmark.group = f"{entry.name} {shape[0]}x{shape[1]}"
    benchmark.extra_info["bytes_read"] = y_true.nbytes + y_pred.nbytes
    with lossfuncs.backend(backend):
        result = benchmark(entry.function, y_true, y_pred, **options)
    assert np.isfinite(result).all()
