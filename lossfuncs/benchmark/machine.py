"""The machine: what it is, and its roofs: how many bytes a second its memory moves, how many logarithms a second it takes."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .. import threads

FLAGS = ("sse4_2", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_bf16", "avx512_fp16", "asimd", "sve", "sve2")
PACKAGES = ("numpy", "numba", "cupy", "torch", "jax", "keras", "scikit-learn")
IN_CACHE = 8192  # elements of which logarithms are taken: what they cost without the memory


def cores() -> int:
    """How many of them this process may use."""
    return threads._cores()


@functools.cache
def caches() -> dict[str, int]:
    """Bytes of each data cache of the first core, by name ("L1d", "L2", "L3"); empty without Linux's sysfs."""
    found: dict[str, int] = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind = (index / "type").read_text().strip()
        if kind != "Instruction":
            size = (index / "size").read_text().strip()
            number = int(size.rstrip("KMG")) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(size[-1], 1)
            found[f"L{(index / 'level').read_text().strip()}{'d' if kind == 'Data' else ''}"] = number
    return found


def last_level_cache() -> int:
    """Bytes; 32 MiB where it cannot be known."""
    return max(caches().values(), default=32 << 20)


def memory() -> int:
    """Bytes of the machine's memory; 8 GiB where it cannot be known."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 8 << 30


def version(package: str) -> str | None:
    """Of an installed package, which is not imported for this; None if it is not there."""
    names = _distributions().get(package.replace("scikit-learn", "sklearn"), [])
    for name in names or [package]:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    """The distributions that an importable name comes from: cupy has several."""
    return importlib.metadata.packages_distributions()


def environment() -> dict[str, Any]:
    """What a reader must know to compare figures with his own."""
    from .. import __version__

    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(errors="replace") if cpuinfo.exists() else ""
    model = re.search(r"model name\s*:\s*(.+)", text)
    flags = re.search(r"(?:flags|Features)\s*:\s*(.+)", text)
    present = set(flags[1].split()) if flags else set()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": (model[1].strip() if model else platform.processor() or platform.machine()) + _generation(),
        "cores": cores(),
        "flags": [flag for flag in FLAGS if flag in present],
        "caches": caches(),
        "memory": memory(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {"lossfuncs": __version__} | {name: version(name) for name in PACKAGES},
    }


def _generation() -> str:
    """What LLVM calls the processor, in brackets: a model's name may say less."""
    if not find_spec("llvmlite"):
        return ""
    from llvmlite import binding

    return f" ({binding.get_host_cpu_name()})"


def roofs(team: int, dtypes: set[str], repeats: int) -> dict[str, float]:
    """The best of several methods and `repeats` passes, in bytes and logarithms a second, by that many threads:
    {"read", "write", "copy", "log float32", "log float64"}.

    A read counts the bytes summed, a write the bytes stored, a copy both (not the lines that a store may fetch first). The buffers are
    eight times the last-level cache, so no pass finds them there. The logarithms are of elements in the caches.
    """
    length = min(8 * last_level_cache(), memory() // 16) // 8
    source, target = np.ones(length, np.int64), np.zeros(length, np.int64)
    sources, targets = np.array_split(source, team), np.array_split(target, team)
    best: dict[str, float] = {}

    def offer(key: str, amount: float, function: Callable[[], object]) -> None:
        best[key] = max(best.get(key, 0.0), amount / _best(function, repeats))

    with ThreadPoolExecutor(team) as pool:

        def spread(function: Callable[..., object], *pieces: Any) -> Callable[[], object]:
            return lambda: list(pool.map(function, *pieces))

        readers: list[Callable[[Any], object]] = [np.add.reduce, np.maximum.reduce]
        if find_spec("numba"):
            readers.append(_numba_sum())
        for reader in readers:
            offer("read", source.nbytes, spread(reader, sources))
        offer("write", target.nbytes, spread(lambda x: x.fill(1), targets))
        offer("copy", 2 * source.nbytes, spread(np.copyto, targets, sources))
        for name in sorted({"float64" if name == "float64" else "float32" for name in dtypes}):
            pieces = [np.linspace(0.5, 2.0, IN_CACHE, dtype=name) for _ in range(team)]
            outs = [np.empty_like(x) for x in pieces]
            for logarithm in _logarithms(name):
                times = 64  # so that handing work to threads costs next to nothing

                def many(x: Any, out: Any, logarithm: Callable[[Any, Any], object] = logarithm, times: int = times) -> None:
                    for _ in range(times):
                        logarithm(x, out)

                offer(f"log {name}", team * times * IN_CACHE, spread(many, pieces, outs))
        if "torch" in sys.modules:
            import torch

            before = torch.get_num_threads()
            torch.set_num_threads(team)
            a, b = torch.from_numpy(source.view(np.float32)), torch.from_numpy(target.view(np.float32))
            offer("read", source.nbytes, a.sum)
            offer("write", target.nbytes, lambda: b.fill_(1))
            offer("copy", 2 * source.nbytes, lambda: b.copy_(a))
            torch.set_num_threads(before)
    return best


def reading(team: int, arrays: Sequence[Any]) -> Callable[[], object]:
    """A function that reads all of these arrays, in so many threads, and adds up their bytes by eights."""
    eights = [array.reshape(-1).view(np.uint8)[: array.nbytes // 8 * 8].view(np.int64) for array in arrays]
    pieces = list(zip(*(np.array_split(each, team) for each in eights), strict=True))
    return lambda: threads.run(lambda i: [np.add.reduce(piece) for piece in pieces[i]], team, team)


def _best(function: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


@functools.cache
def _numba_sum() -> Callable[[Any], object]:
    import numba

    @numba.njit("int64(int64[::1])", nogil=True)  # type: ignore[untyped-decorator]
    def total(x: Any) -> Any:
        # Integer addition is associative: LLVM widens this into SIMD and several accumulators without being told.
        s = 0
        for i in range(x.size):
            s += x[i]
        return s

    return total  # type: ignore[no-any-return]


@functools.cache
def _logarithms(dtype: str) -> list[Callable[[Any, Any], object]]:
    """Functions (x, out): NumPy's, and that of the kernels."""
    found: list[Callable[[Any, Any], object]] = [np.log]
    if find_spec("numba"):
        import numba

        from .. import vectormath

        log = (vectormath.SINGLE if dtype == "float32" else vectormath.DOUBLE)["log"]
        kind = numba.types.Array(numba.from_dtype(np.dtype(dtype)), 1, "C")

        @numba.njit(numba.void(kind, kind), nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
        def of_each(x: Any, out: Any) -> None:
            for i in range(x.size):
                out[i] = log(x[i])

        found.append(of_each)
    return found
