"""The machine: what it is, and how many bytes a second its memory gives."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

FLAGS = ("sse4_2", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_bf16", "avx512_fp16", "asimd")


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def environment() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    model = re.search(r"model name\s*:\s*(.+)", text)
    flags = re.search(r"(?:flags|Features)\s*:\s*(.+)", text)
    present = set(flags[1].split()) if flags else set()
    names = ("numpy", "numba", "torch", "jax", "sklearn")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": model[1].strip() if model else platform.processor() or platform.machine(),
        "flags": [flag for flag in FLAGS if flag in present],
        "caches": caches(),
        "cores": cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: import_module(name).__version__ if find_spec(name) else None for name in names},
    }


def _best(function: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def bandwidth(repeats: int = 50) -> dict[str, dict[str, Any]]:
    """Best bytes a second over several methods and `repeats` passes: {"read 1", "read all", "copy 1", "copy all"}.

    A read counts the bytes of the buffer summed; a copy counts the bytes read plus the bytes written (not the line
    that a store may fetch first). The buffers are eight times the last-level cache, so no pass finds them there.
    """
    length = 8 * last_level_cache() // 8
    source, target = np.ones(length, np.int64), np.zeros(length, np.int64)
    results: dict[str, dict[str, Any]] = {}

    def offer(key: str, method: str, size: int, function: Callable[[], object]) -> None:
        rate = size / _best(function, repeats)
        if rate > results.get(key, {"bytes_per_second": 0.0})["bytes_per_second"]:
            results[key] = {"bytes_per_second": rate, "method": method}

    readers: dict[str, Callable[[Any], object]] = {"numpy sum": np.add.reduce, "numpy maximum": np.maximum.reduce}
    if find_spec("numba"):
        readers["numba sum"] = _numba_sum()
    for threads, label in ((1, "1"), (cores(), "all")):
        sources, targets = np.array_split(source, threads), np.array_split(target, threads)
        with ThreadPoolExecutor(threads) as pool:

            def spread(function: Callable[..., object], *pieces: Any, pool: ThreadPoolExecutor = pool) -> None:
                list(pool.map(function, *pieces))

            for method, reader in readers.items():
                offer(f"read {label}", method, source.nbytes, partial(spread, reader, sources))
            offer(f"copy {label}", "numpy copyto", 2 * source.nbytes, partial(spread, np.copyto, targets, sources))
        if find_spec("torch"):
            import torch

            torch.set_num_threads(threads)
            a, b = torch.from_numpy(source.view(np.float32)), torch.from_numpy(target.view(np.float32))
            offer(f"read {label}", "torch sum", source.nbytes, a.sum)
            offer(f"copy {label}", "torch copy_", 2 * source.nbytes, partial(b.copy_, a))
    return results


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
