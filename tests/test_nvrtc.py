"""What NVRTC and ptxas make of the CUDA kernels, without a GPU: they compile, for every GPU, into few registers, and the loops that stream
are within what a GPU can issue while its memory moves their bytes.

`-m "nvrtc and not slow"` takes a kernel of every case by every other schedule, `-m nvrtc` all, for many minutes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import own_sweep
import ptxas
import pytest
import sweep
from cases import CASES, DTYPES
from recording import recording

from lossfuncs.cupy_device import STATIC_SHARED

pytestmark = pytest.mark.nvrtc

ARCHITECTURES = (75, 80, 90, 100, 120)
CASE = {case.id: case.values for case in CASES}
BUDGETS = Path(__file__).parent / "budgets.json"


def kernels(runs: list[sweep.Run]) -> list[Any]:
    """What the GPU backend asks its device to compile for these."""
    with recording() as device:
        for run in runs:
            run.of(*run.arguments())
    return list(device.kernels.values())


def runs_of(name: str) -> list[sweep.Run]:
    """A case by all schedules and tasks, with dtypes in turn."""
    entry, options = CASE[name]
    kinds = list(DTYPES)
    first = list(CASE).index(name)
    tasks = [task for task in sweep.TASKS if sweep.possible(sweep.Run(entry, options, "float32", "pieces", task))]
    return [
        sweep.Run(entry, options, kinds[(first + i + j) % len(kinds)], schedule, task)
        for i, schedule in enumerate(sweep.SHAPES)
        for j, task in enumerate(tasks)
    ]


@pytest.mark.parametrize("name", CASE)
def test_kernels_compile_for_hopper(name: str) -> None:
    """A few of every case, so that all schedules and tasks come up with every family."""
    check(ptxas.compiled(kernels(runs_of(name)[list(CASE).index(name) % 9 :: 9]), 90))


@pytest.mark.parametrize("architecture", [each for each in ARCHITECTURES if each != 90])
@pytest.mark.parametrize("part", range(4))
def test_kernels_of_every_family_compile_for_every_gpu(part: int, architecture: int) -> None:
    chosen = [runs_of(name)[(5 * list(CASE).index(name)) % 9] for name in list(CASE)[part::8]]
    check(ptxas.compiled(kernels(chosen), architecture))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", CASE)
def test_every_kernel_compiles_for_every_gpu(name: str, architecture: int) -> None:
    everything = [run._replace(dtype=dtype) for run in runs_of(name) for dtype in DTYPES]
    check(ptxas.compiled(kernels(everything), architecture))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_that_are_no_rows_compile_for_every_gpu(architecture: int) -> None:
    kernels = own_sweep.kernels()[:: 1 if architecture == 90 else 3]
    check(ptxas.compiled(kernels, architecture))


SAVED = 144  # bytes, around the calls of divisions: the most that any kernel does


def check(reports: list[ptxas.Report]) -> None:
    """Enough threads fit on a processor, where 128 registers leave room for 512; and only what is saved around a call goes to memory."""
    assert reports
    assert not [(report.name, report.spilled) for report in reports if report.spilled > SAVED]
    assert not [(report.name, report.registers) for report in reports if report.registers > 128]
    assert not [(report.name, report.shared) for report in reports if report.shared > STATIC_SHARED]


# ---- the loops

HOT = {  # case: tasks, of which each streams
    "losses-mean_squared_error": ("values", "total", "gradient"),
    "losses-huber": ("values", "gradient"),
    "losses-log_cosh": ("values",),
    "losses-poisson": ("values",),
    "losses-kl_divergence": ("values", "gradient"),
    "losses-hinge": ("values",),
    "losses-cosine_similarity": ("values",),
    "losses-binary_crossentropy": ("values", "gradient"),
    "losses-binary_crossentropy-from_logits=True": ("values", "gradient"),
    "losses-categorical_crossentropy": ("values",),
    "losses-categorical_crossentropy-from_logits=True": ("values", "gradient"),
    "losses-sparse_categorical_crossentropy-from_logits=True": ("values", "gradient"),
    "metrics-categorical_accuracy": ("values",),
    "metrics-sparse_categorical_accuracy": ("values",),
    "metrics-sparse_top_k_categorical_accuracy": ("values",),
}
ISSUE, SPECIAL = 0.5, 0.7  # of what an H200 can do in the time its memory takes: with so much to spare that memory is the limit


def measured(name: str, dtype: str) -> dict[str, dict[str, float]]:
    """By kernel: the largest shares of its loops, and what it reads and writes by less than 16 bytes in them."""
    entry, options = CASE[name]
    found = {}
    for task in HOT[name]:
        schedules = ("a block a row", "pieces") if task != "total" else ("pieces",)
        of_task = kernels([sweep.Run(entry, options, dtype, schedule, task) for schedule in schedules])
        for report in ptxas.compiled(of_task, 90, loops=True):
            text = next(kernel.text for kernel in of_task if kernel.name == report.name)
            call = next(line for line in text.splitlines() if "void run" in line).partition("{ ")[2].rstrip(" ;}")
            if report.hot:
                found[f"{name} {dtype}: {call}"] = {
                    "issue": round(max(loop.issue for loop in report.hot), 2),
                    "special": round(max(loop.special_functions for loop in report.hot), 2),
                    "scalars": max(loop.scalars for loop in report.hot),
                    "local": max(loop.local for loop in report.hot),
                }
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", HOT)
def test_loops_stay_within_their_budget(name: str, dtype: str) -> None:
    """That of a GPU's memory, or where that is beyond reach what was reviewed: budgets.json, which `python tests/test_nvrtc.py` writes."""
    reviewed = json.loads(BUDGETS.read_text())
    found = measured(name, dtype)
    assert found
    for kernel, shares in found.items():
        assert shares["scalars"] == shares["local"] == 0, kernel
        for what, rule in {"issue": ISSUE, "special": SPECIAL}.items():
            assert shares[what] <= max(rule, 1.1 * reviewed.get(kernel, {}).get(what, 0.0)), f"{kernel}: {what}"


def test_no_budget_is_reviewed_that_a_kernel_does_not_need() -> None:
    assert all(shares["issue"] > ISSUE or shares["special"] > SPECIAL for shares in json.loads(BUDGETS.read_text()).values())


if __name__ == "__main__":
    over = {}
    for one in HOT:
        for kind in ("float32", "bfloat16"):
            for kernel, shares in measured(one, kind).items():
                print(kernel, shares, flush=True)
                if shares["issue"] > ISSUE or shares["special"] > SPECIAL:
                    over[kernel] = {what: shares[what] for what in ("issue", "special")}
    BUDGETS.write_text(json.dumps(over, indent=1) + "\n")
