"""On a real GPU, by `-m gpu`: what the emulator cannot know."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sweep
from cases import CASES, DTYPES
from emulator import DEVICE

import lossfuncs
from lossfuncs.benchmark import measure
from lossfuncs.cli import main
from lossfuncs.cupy_device import trouble

HERE = Path(__file__).parent


@pytest.fixture
def cupy() -> Any:
    """CuPy; a test that was asked for by -m gpu fails where there is no GPU, and says why."""
    missing = trouble()
    if missing:
        pytest.fail(f"the GPU tests need a GPU: {missing}", pytrace=False)
    import cupy

    return cupy


def runs() -> list[Any]:
    """Every case by every schedule, with its value and gradient, dtypes in turn."""
    found = []
    for i, case in enumerate(CASES):
        for j, schedule in enumerate(sweep.SHAPES):
            for task in ("values", "gradient"):
                run = sweep.Run(*case.values, list(DTYPES)[(i + j) % 4], schedule, task)
                if task == "values" or sweep.possible(run):
                    found.append(pytest.param(run, id=f"{case.id}-{schedule}-{task}"))
    return found


@pytest.mark.gpu
@pytest.mark.parametrize("run", runs())
def test_a_gpu_computes_what_the_reference_does(run: sweep.Run, cupy: Any) -> None:
    sweep.check(run, "cupy")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shape", [(1000, 1000), (3, 1_000_003), (100_000, 10)])
def test_results_have_the_same_bits_from_run_to_run(shape: tuple[int, int], dtype: Any, cupy: Any) -> None:
    rng = cupy.random.default_rng(0)
    labels, p = rng.integers(0, shape[1], shape[0]), rng.standard_normal(shape, dtype=np.float32).astype(dtype)

    def once() -> tuple[bytes, ...]:
        value, gradient = lossfuncs.value_and_grad("sparse_categorical_crossentropy", labels, p, from_logits=True, reduction="mean")
        total = lossfuncs.mean_squared_error(p, p[::-1].copy(), reduction="sum")
        return value.get().tobytes(), gradient.get().tobytes(), total.get().tobytes()

    first = once()
    assert all(once() == first for _ in range(20))


@pytest.mark.gpu
def test_arithmetic_has_the_emulators_bits(cupy: Any) -> None:
    rng = np.random.default_rng(0)
    t, p = (rng.standard_normal((37, 1003)).astype(np.float32) for _ in range(2))
    for name in ("mean_squared_error", "mean_absolute_error", "huber"):
        found = lossfuncs.value_and_grad(name, cupy.asarray(t), cupy.asarray(p))
        wanted = lossfuncs.value_and_grad(name, DEVICE.send(t), DEVICE.send(p))
        assert all(got.get().tobytes() == right.get().tobytes() for got, right in zip(found, wanted, strict=True)), name


@pytest.mark.gpu
@pytest.mark.parametrize("reduction", [None, "mean"])
def test_calls_are_captured_in_a_cuda_graph(reduction: str | None, cupy: Any) -> None:
    labels, p = cupy.arange(100) % 7, cupy.random.default_rng(0).standard_normal((100, 7), dtype=np.float32)

    def call() -> Any:
        return lossfuncs.value_and_grad("sparse_categorical_crossentropy", labels, p, from_logits=True, reduction=reduction)

    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        call()  # compiles, and takes memory from the driver
        stream.synchronize()
        stream.begin_capture()
        value, gradient = call()
        graph = stream.end_capture()
        p *= 2
        for _ in range(3):  # each time the tickets must be as they were
            graph.launch(stream)
        wanted = call()
        stream.synchronize()
    assert value.get().tobytes() == wanted[0].get().tobytes()
    assert gradient.get().tobytes() == wanted[1].get().tobytes()


@pytest.mark.gpu
def test_a_label_out_of_range_is_told_when_asked(cupy: Any) -> None:
    p = cupy.zeros((5, 3), np.float32)
    value, gradient = lossfuncs.value_and_grad("sparse_categorical_crossentropy", cupy.asarray([0, 1, 3, -1, 2]), p, from_logits=True)
    assert np.isnan(value.get()).tolist() == [False, False, True, True, False]
    assert np.isnan(gradient.get()).all(axis=1).tolist() == [False, False, True, True, False]
    with pytest.raises(ValueError, match="2"):
        lossfuncs.check()
    lossfuncs.check()


@pytest.mark.gpu
def test_rows_beyond_the_reach_of_32_bits_are_right(cupy: Any) -> None:
    rows, n = 43_000, 50_257  # 2.16e9 elements
    p = cupy.zeros((rows, n), np.float16)
    p[-1, 7] = 20
    labels = cupy.full(rows, 7)
    values = lossfuncs.sparse_categorical_crossentropy(labels, p, from_logits=True)
    assert values[:-1].get().astype(np.float64) == pytest.approx(np.log(n), rel=1e-3)
    assert float(values[-1]) == pytest.approx(np.log1p((n - 1) * np.exp(-20.0)), rel=2e-3)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_compute_sanitizer_finds_nothing(tool: str, cupy: Any) -> None:
    found = shutil.which("compute-sanitizer")
    assert found, "compute-sanitizer is not on the PATH: it comes with the CUDA toolkit"
    command = [found, "--tool", tool, "--error-exitcode", "99", sys.executable, str(HERE / "sweep.py"), "0", "4", "cupy"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]


@pytest.mark.gpu
def test_the_benchmark_measures_all_that_see_the_gpu(cupy: Any, tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    names = ("mse", "sparse_categorical_crossentropy:from_logits=true", "categorical_accuracy")
    status = main(["bench", *names, "--mode", "both", "--backend", "cupy", "--dtype", "float32,bfloat16", "--shape", "32x10,65536x1000",
                   "--min-time", "0.01", "--json", str(path)])  # fmt: skip
    report = measure.load(str(path))
    assert status == 0 and report["roofs"]["cuda"]["launch"] < report["roofs"]["cuda"]["launch and wait"]
    assert len(report["results"]) == 2 * 2 * (2 + 2 + 1)
    for result in report["results"]:
        lines = {line["name"]: line for line in measure.figures(result, report["roofs"])}
        ours = lines["lossfuncs cupy"]
        assert ours["fault"] is None and ours["launch"] > 0
        assert ours["share_of_roof"] is None or ours["share_of_roof"] < 1.1  # faster than the memory is a wrong clock
        assert all("fails" not in (line["fault"] or "") for line in lines.values()), lines
