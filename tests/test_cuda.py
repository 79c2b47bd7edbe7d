"""The CUDA kernels against the NumPy reference, on the emulated device: over the table, schedules, dtypes, tasks and layouts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cases import BASES, CASES, DIFFERENTIABLE, DTYPES, Array, assert_equal, bits, by_name, edges, inputs
from emulator.device import DEVICE, DeviceArray
from test_equivalence import TASKS, largest, possible, reference, run

import lossfuncs
from lossfuncs import gpu
from lossfuncs.call import RowsCall
from lossfuncs.domains import draw
from lossfuncs.problem import Problem, Task
from lossfuncs.table import LOSSES, Entry

# Terms are computed in float32 and added in float64: a result is within so much of the largest term, beside the rounding to its dtype.
DIGITS = {"float64": 2.0**-46, "float32": 2.0**-20, "float16": 2.0**-20, "bfloat16": 2.0**-20}

# Shapes that bring about each schedule; of the second the rows are one vector and more, unaligned, and several tiles.
SHAPES = {
    "tile": [(1, 1), (130, 3), (7, 9), (70, 33), (9, 101)],
    "long": [(3, 1000), (2, 1501), (5, 4099)],
    "pieces": [(2, 70_001)],
}


@pytest.fixture(autouse=True)
def emulated() -> Iterator[None]:
    with lossfuncs.backend("emulated"):
        yield


def device(*arrays: Any) -> list[DeviceArray]:
    return [DEVICE.send(np.asarray(x)) for x in arrays]


def scale_of(wanted: Any) -> Any:
    """What the terms of a result are as large as: the row's largest derivative, the value itself."""
    return largest(wanted, -1 if np.ndim(wanted) == 2 else None) if np.ndim(wanted) else abs(float(wanted))


def chosen() -> list[Any]:
    """Every case with every dtype, schedule and task; those that are quick bring every loss, dtype, schedule and task about."""
    found = []
    for i, one in enumerate(CASES):
        every = [(kind, shapes, task) for kind, shapes, task in itertools.product(DTYPES, SHAPES, TASKS) if possible(*one.values, task)]
        first = next(task for task in ("gradient", "values") if possible(*one.values, task))
        quick = {("float32", ("tile", "long")[i % 2], first), every[11 * i % len(every)]}
        for combination in every:
            marks = () if combination in quick else (pytest.mark.slow,)
            found.append(pytest.param(*one.values, *combination, marks=marks, id="-".join([one.id, *combination])))
    return found


@pytest.mark.parametrize(("entry", "options", "kind", "shapes", "task"), chosen())
def test_kernels_equal_the_reference(entry: Entry, options: dict[str, Any], kind: str, shapes: str, task: str) -> None:
    dtype = DTYPES[kind]
    for seed, shape in enumerate(SHAPES[shapes]):
        if options.get("k", 0) > shape[-1]:
            continue
        if entry.shape == "element":
            shape = (shape[0] * shape[1],)
        t, p = inputs(entry, options, shape, dtype, seed)
        rng = np.random.default_rng(seed)
        weight, upstream = rng.integers(0, 4, shape[0]).astype(np.float64), rng.normal(size=shape[0])
        t64 = t if entry.targets == "index" else t.astype(np.float64)
        wanted = reference(run, entry, options, task, t64, p.astype(np.float64), weight, upstream)
        got = run(entry, options, task, t, p, weight, upstream)
        for g, w in zip(got, wanted, strict=True):
            what = f"{task} of {kind} {shape}"
            if np.ndim(w) == 0 and "total" in task:
                assert g.dtype == np.float64 and g == pytest.approx(w, rel=4 * DIGITS[kind], abs=4 * DIGITS[kind]), what
            else:
                assert_equal(g, w, dtype, scale_of(w), what, DIGITS[kind])


@pytest.mark.parametrize(("entry", "options"), DIFFERENTIABLE)
def test_nan_infinities_and_edges_come_out_as_in_the_reference(entry: Entry, options: dict[str, Any]) -> None:
    found = list(edges(entry, options, np.float32))
    t, p = (np.concatenate([pair[i] for pair in found]) for i in (0, 1))
    t64 = t if entry.targets == "index" else t.astype(np.float64)
    got = lossfuncs.value_and_grad(entry.function, t, p, **options)
    wanted = reference(lossfuncs.value_and_grad, entry.function, t64, p.astype(np.float64), **options)
    for g, w in zip(got, wanted, strict=True):
        scale = np.maximum(np.maximum(largest(p, -1), largest(w, -1) if np.ndim(w) == 2 else np.abs(w)[:, None]), 1.0)
        if "correlation" in entry.name:  # the gradient is a difference of unit vectors over the spread of p
            with np.errstate(all="ignore"):
                scale = np.maximum(scale, 1.0 / np.std(p.astype(np.float64), axis=-1, keepdims=True))
        assert_equal(g, w, np.dtype(np.float32), scale if np.ndim(w) == 2 else scale[:, 0], "edges", DIGITS["float32"])
