"""Every loss and metric of the table once on the emulated device, on small awkward shapes: for checkers that are too slow for more.

`python tests/sweep.py PART OF` runs that part of the whole, under its process' sanitizer, and compares with the NumPy reference.
With OF = 0 it runs a few that need every barrier, under all schedules; with `cupy` behind, on a GPU.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np
from cases import CASES, DTYPES, inputs
from emulator import DEVICE, SCHEDULES, Schedule, program
from emulator.device import prepare
from recording import recording

import lossfuncs
from lossfuncs import devices
from lossfuncs.table import Entry

# By what each schedule of lossfuncs/gpu.py is chosen, with rows that end in the middle of a vector.
SHAPES = {
    "tile of 1 lane": (131, 3),
    "tile of 2 lanes": (70, 7),
    "tile of 4 lanes": (37, 13),
    "tile of 8 lanes": (19, 30),
    "tile of 16 lanes": (11, 61),
    "a warp a row": (6, 131),
    "a block a row": (17, 1030),  # with two processors more rows than blocks for a total
    "a large block a row": (2, 9001),
    "pieces": (2, 0),  # of the least length that is shared by several blocks, and a few
}
TASKS = ("values", "total", "gradient", "gradient of total", "curve")


class Run(NamedTuple):
    entry: Entry
    options: dict[str, Any]
    dtype: str
    schedule: str
    task: str

    def __str__(self) -> str:
        options = "".join(f" {name}={value}" for name, value in self.options.items())
        return f"{self.entry.name}{options} {self.dtype}, {self.schedule}, {self.task}"

    def arguments(self) -> tuple[Any, Any]:
        """y_true and y_pred."""
        m, n = SHAPES[self.schedule]
        return inputs(self.entry, self.options, (m, n or (1 << 18) // DTYPES[self.dtype].itemsize + 5), DTYPES[self.dtype], seed=1)

    def of(self, t: Any, p: Any) -> tuple[Any, ...]:
        f, options = self.entry.function, self.options
        weight = np.linspace(0.5, 2.0, len(p))
        if self.task == "values":
            return (f(t, p, **options, sample_weight=weight if np.ndim(f(t, p, **options)) else None),)
        if self.task == "total":
            return (f(t, p, **options, reduction="mean"),)
        if self.task == "curve":
            return lossfuncs.grad_and_hess(f, t, p, **options)
        return lossfuncs.value_and_grad(f, t, p, **options, reduction="mean" if "total" in self.task else None)


def runs() -> list[Run]:
    """For every case a few, so that all dtypes, schedules and tasks come up with every family."""
    found = []
    for i, case in enumerate(CASES):
        entry, options = case.values
        for j, task in enumerate(TASKS):
            schedules = list(SHAPES)
            kinds = list(DTYPES)
            run = Run(entry, options, kinds[(i + j) % 4], schedules[(2 * i + 3 * j) % len(schedules)], task)
            if possible(run):
                found.append(run)
    return found


def synchronised() -> list[Run]:
    """Few that together come by every barrier and every fence of kernels/schedule.cuh."""
    sparse = next(case.values for case in CASES if case.id == "losses-sparse_categorical_crossentropy-from_logits=True")
    dense = next(case.values for case in CASES if case.id == "losses-categorical_crossentropy-from_logits=True")
    pointwise = next(case.values for case in CASES if case.id == "losses-huber")
    return [
        Run(*sparse, "float64", "a block a row", "gradient of total"),
        Run(*sparse, "float64", "a block a row", "total"),
        Run(*sparse, "float32", "tile of 4 lanes", "gradient"),
        Run(*dense, "float32", "a warp a row", "curve"),
        Run(*sparse, "float64", "pieces", "gradient of total"),
        Run(*pointwise, "float64", "pieces", "total"),
    ]


def possible(run: Run) -> bool:
    try:
        with lossfuncs.backend("numpy"):
            run.of(*inputs(run.entry, run.options, (3, 5)))
    except ValueError as error:
        if "derivative" in str(error):
            return False
        raise
    return True


def check(run: Run, backend: str = "emulated") -> None:
    """On the device as by the NumPy reference, to what the dtype allows."""
    t, p = run.arguments()
    with lossfuncs.backend(backend):
        found = run.of(t, p)
    with lossfuncs.backend("numpy"):
        wanted = run.of(t, p)
    for got, right in zip(found, wanted, strict=True):
        got, right = (np.asarray(x).astype(np.float64) for x in (got, right))
        digits = {"float64": 1e-12, "float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}[run.dtype]
        scale = np.max(np.abs(right[np.isfinite(right)]), initial=0.0)
        np.testing.assert_allclose(got, right, rtol=digits, atol=digits * scale, err_msg=str(run))


def main(part: int, of: int, backend: str = "emulated") -> None:
    """Part `part` of `of`; the synchronised ones if that is 0."""
    mine = runs()[part::of] if of else synchronised()
    if backend == "cupy":
        for run in mine:
            check(run, backend)
        return
    with recording() as device:
        device.processors = DEVICE.processors = 2
        for run in mine:
            run.of(*run.arguments())
    prepare(device.kernels.values())
    for i, run in enumerate(mine):
        print(run, flush=True)
        # ThreadSanitizer sees that nothing orders two accesses in whatever order they come.
        several = [] if of or program.VARIANT == "thread" else [Schedule(name, seed) for seed in range(3) for name in SCHEDULES]
        for order in several or [Schedule(SCHEDULES[i % 4], i)]:
            DEVICE.schedule = order
            check(run)
    print(f"{len(mine)} runs of {len(device.kernels)} kernels were right")


if __name__ == "__main__":
    devices.add("emulated", "emulator", lambda: DEVICE)
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
