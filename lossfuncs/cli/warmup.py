"""`lossfuncs warmup`: compile the usual kernels into the cache, where every later process finds them."""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Iterator
from typing import Any

from . import show

DTYPES = ("float16", "bfloat16", "float32", "float64")
SHAPES = ((3, 10), (3, 100))  # rows that are laid across lanes, and rows that are run along: each has kernels of its own


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="losses and metrics; by default all")
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="of y_pred and y_true; again for more; by default float32")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar on a terminal")


def run(args: argparse.Namespace) -> int:
    from .. import backend, cache
    from ..threads import get_num_threads

    jobs = list(_jobs(args.names, args.dtype or ["float32"]))
    with backend("numba"):  # ImportError without it
        before = cache.info()
    if before.directory is None:
        raise ValueError(f"there is no directory to keep kernels in ({before.reason}), so that warming up would serve nobody")
    began = time.monotonic()
    compiled = loaded = done = 0
    try:
        with show.Progress("jobs", not args.no_progress) as progress:
            # Numba compiles under one lock, so that only processes compile side by side
            for done, (new, old) in enumerate(_run(jobs, min(get_num_threads(), len(jobs) // 4)), 1):
                compiled, loaded = compiled + new, loaded + old
                progress(done, len(jobs))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"after {done} of {len(jobs)} jobs, whose kernels are kept") from None
    after = cache.info()
    print(f"{show.count(compiled, 'kernel')} compiled, {loaded:,} found, in {time.monotonic() - began:.1f} s; "
          f"{after.directory} holds {after.entries:,}, {after.bytes / 2**20:.1f} MB")  # fmt: skip
    return 0


def _jobs(names: list[str], dtypes: list[str]) -> Iterator[tuple[str, str, str, bool]]:
    """(kind, name, dtype, from logits)."""
    from ..table import LOSSES, METRICS

    functions: dict[Any, Any] = {entry.function: ("metric", entry) for entry in METRICS}
    functions |= {entry.function: ("loss", entry) for entry in LOSSES}
    chosen = {function for name in names for function in _functions(name)}
    for function, (kind, entry) in functions.items():
        if not names or function in chosen:
            for dtype in dtypes:
                for logits in (False, True) if "from_logits" in function.defaults else (False,):
                    yield kind, entry.name, dtype, logits


def _functions(name: str) -> set[Any]:
    """What that is as a loss, and what as a metric."""
    from .. import losses, metrics

    found, faults = set(), []
    for module in (losses, metrics):
        try:
            found.add(module.REGISTRY.function(name))
        except ValueError as error:
            faults.append(error)
    if not found:
        raise faults[0]
    return found


def _run(jobs: list[Any], processes: int) -> Iterator[tuple[int, int]]:
    if processes < 2:
        yield from map(_job, jobs)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _ignore_interrupt) as pool:
        futures = [pool.submit(_job, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _ignore_interrupt() -> None:
    """Ctrl-C is for the parent, which then drops what is not begun."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _job(job: tuple[str, str, str, bool]) -> tuple[int, int]:
    """Call one function in all the usual ways; how many kernels were compiled, and how many loaded."""
    import numpy as np

    from .. import backend, cache, losses, metrics, value_and_grad
    from ..call import REQUIRED
    from ..domains import draw

    kind, name, dtype, logits = job
    if dtype == "bfloat16":
        import ml_dtypes  # noqa: F401, it gives NumPy the type
    function = (losses if kind == "loss" else metrics).REGISTRY.function(name)
    options: dict[str, Any] = {name: 0.5 for name, value in function.defaults.items() if value is REQUIRED}
    if logits:
        options["from_logits"] = True
    before = cache.info()
    entry = function.entry
    with backend("numba"):
        for rows, n in SHAPES:
            shape = (rows, 4, n) if entry.targets == "sequence" else (rows, n)
            y_true, y_pred = draw(entry, shape, np.random.default_rng(0), np.dtype(dtype), **options)
            function(y_true, y_pred, **options)
            function(y_true, y_pred, reduction="mean", **options)
            try:
                value_and_grad(function, y_true, y_pred, reduction="mean", **options)
            except ValueError:
                pass  # an accuracy
    after = cache.info()
    return after.compiled - before.compiled, after.loaded - before.loaded
