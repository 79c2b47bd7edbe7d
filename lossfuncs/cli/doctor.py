"""`lossfuncs doctor`: what this installation runs on, and whether it works."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import time
from pathlib import Path
from typing import Any

from . import show

# What each optional package is for.
OPTIONAL = {"pyarrow": "reads .parquet", "rich": "tables and progress bars", "ml_dtypes": "bfloat16 in NumPy arrays"}
FEATURES = ("sse4.2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512bf16", "avx512fp16", "neon", "sve", "sve2")
TOLERANCE = 1e-6  # of float32 results; they are exact to half a unit in the last place, 6e-8


def configure(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    broken = 0
    for title, check in (("versions", _versions), ("processor", _processor), ("backend", _backend), ("GPU", _gpu), ("threads", _threads),
                         ("kernel cache", _cache), ("self-test", _self_test)):  # fmt: skip
        try:
            facts, sound = check()
        except Exception as error:
            facts, sound = [f"{type(error).__name__}: {error}"], False
        broken += not sound
        print(show.bold(title) + ("" if sound else "  BROKEN"))
        print(*(f"  {fact}" for fact in facts), sep="\n", flush=True)
    print(f"\n{show.count(broken, 'part')} of this installation broken" if broken else "\neverything works")
    return 1 if broken else 0


def _versions() -> tuple[list[str], bool]:
    from .. import __file__ as here
    from .. import __version__

    own = f"lossfuncs {__version__} in {Path(here).parent}"
    needed = [f"{name} {_version(name) or 'is missing'}" for name in ("numpy", "numba", "llvmlite", "platformdirs")]
    optional = [f"{name} {_version(name) or f'is not installed ({use})'}" for name, use in OPTIONAL.items()]
    missing = [name for name in ("numpy", "platformdirs") if not _version(name)]
    system = f"Python {platform.python_version()}, {platform.platform()}"
    return [own, system, ", ".join(needed), ", ".join(optional)], not missing


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> tuple[list[str], bool]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        model = platform.processor()
    facts = [model or platform.machine()]
    if importlib.util.find_spec("llvmlite"):
        from llvmlite import binding

        has = binding.get_host_cpu_features()
        names = [name for name in FEATURES if has.get(name)]
        facts.append(f"kernels are compiled for {binding.get_host_cpu_name()}: {' '.join(names)}")
    return facts, True


def _backend() -> tuple[list[str], bool]:
    from .. import current_backend

    chosen = current_backend()
    if os.environ.get("LOSSFUNCS_BACKEND"):
        why = "LOSSFUNCS_BACKEND says so"
    else:
        why = "the default" if chosen == "numba" else "Numba is not installed, so that the slow reference answers"
    return [f"{chosen}: {why}"], True


def _gpu() -> tuple[list[str], bool]:
    """No GPU is no fault, unless it is to be used."""
    from ..cupy_device import device, trouble

    missing = trouble()
    if missing:
        return [f"none: {missing}"], os.environ.get("LOSSFUNCS_BACKEND") != "cupy"
    import cupy

    runtime = cupy.cuda.runtime
    facts = [f"CuPy {cupy.__version__}, CUDA {runtime.runtimeGetVersion() // 1000}, driver of CUDA {runtime.driverGetVersion() // 1000}"]
    for number in range(runtime.getDeviceCount()):
        properties = runtime.getDeviceProperties(number)
        facts.append(f"{number}: {properties['name'].decode()}, {properties['totalGlobalMem'] / 2**30:.0f} GB, "
                     f"compute capability {properties['major']}.{properties['minor']}")  # fmt: skip
    here = device()
    return [*facts, f"{show.count(here.processors, 'multiprocessor')}, {here.shared >> 10} KB of shared memory a block"], True


def _threads() -> tuple[list[str], bool]:
    from .. import get_num_threads
    from ..threads import run

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    number = get_num_threads()
    chosen = os.environ.get("LOSSFUNCS_NUM_THREADS", "").strip()
    why = "LOSSFUNCS_NUM_THREADS says so" if chosen else "one for each core that this process may use"
    facts = [f"{number}: {why}"]
    if number > cores:
        facts.append(f"but there are {show.count(cores, 'core')}: more threads than cores is slower")
    return facts, run(lambda i: i * i, 100) == [i * i for i in range(100)]


def _cache() -> tuple[list[str], bool]:
    """A cache that cannot be used is no fault: kernels are then compiled in each process."""
    from .. import cache

    info = cache.info()
    if info.directory is None:
        return [f"nothing is kept on disk, so each process compiles anew: {info.reason}"], True
    return [f"{info.directory}: {show.count(info.entries, 'kernel')}, {info.bytes / 2**20:.1f} MB of {cache.LIMIT >> 20}"], True


def _self_test() -> tuple[list[str], bool]:
    """Value and gradient of one loss with exp, log and a sum, by the backend in use and by the reference."""
    import numpy as np

    from .. import backend, cache, current_backend, value_and_grad

    rng = np.random.default_rng(0)
    y_pred = rng.normal(0, 3, (4096, 100)).astype(np.float32)
    y_true = rng.integers(0, 100, 4096)

    def compute() -> Any:
        return value_and_grad("sparse_categorical_crossentropy", y_true, y_pred, reduction="mean", from_logits=True)

    before = cache.info()
    first, (value, gradient) = _timed(compute)
    after = cache.info()
    again = min(_timed(compute)[0] for _ in range(5))
    with backend("numpy"):
        reference, (right, right_gradient) = _timed(compute)
    difference = max(abs(value - right) / abs(right), float(np.max(np.abs(gradient - right_gradient)) / np.max(np.abs(right_gradient))))
    if current_backend() in ("numpy", "cupy"):
        how = "no kernel" if current_backend() == "numpy" else "compiling its kernels, or finding them in CuPy's cache"
    elif after.compiled > before.compiled:
        how = "compiling its kernel"
    else:
        how = "loading its kernel from the cache" if after.loaded > before.loaded else "its kernel was there"
    sound = bool(difference <= TOLERANCE)
    facts = [f"sparse_categorical_crossentropy of 4096 x 100 logits, value and gradient: first call {first * 1e3:.0f} ms ({how}), "
             f"then {again * 1e3:.2f} ms; the NumPy reference takes {reference * 1e3:.1f} ms",
             f"largest difference from the reference: {difference:.1e}" + ("" if sound else f", more than {TOLERANCE:.0e}")]  # fmt: skip
    return facts, sound


def _timed(function: Any) -> tuple[float, Any]:
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result
