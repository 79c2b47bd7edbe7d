"""Dask: `lossfuncs.evaluate` on collections and files that are more than one machine's.

    lossfuncs.evaluate(y_true, y_pred, loss="crossentropy", metrics=["accuracy"])        dask arrays, dataframes or series
    dask.evaluate(["labels0.npy", "labels1.npy"], ["scores0.npy", "scores1.npy"])        files, which the workers open themselves

Each chunk is folded where it lies, and the states, a few numbers each, are merged in a fixed tree: the result is that of one machine, up
to the last bits of sums and to the bit of counts, whatever the scheduler and its workers. Chunks are taken as `evaluate` takes arrays.
"""

from __future__ import annotations

import copy
import itertools
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..evaluate import Evaluation, batches
from ..files import open_rows

try:
    import dask
    import dask.array
except ImportError as error:
    raise ImportError(f'Dask is not installed: pip install "lossfuncs[dask]" ({error})') from None

FAN_IN = 8  # states that are merged by one task
PART = 1 << 28  # bytes of a file that are one task: seconds of reading


def evaluate(
    y_true: Any,
    y_pred: Any,
    *,
    loss: Any = (),
    metrics: Any = (),
    sample_weight: Any = None,
    batch_size: int | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """What `lossfuncs.evaluate` gives, by the tasks of the scheduler that Dask would use here.

    y_true, y_pred and sample_weight are dask arrays, dataframes or series with equally many rows, in which an array's chunks follow
    y_pred's; or paths, or equally many lists of paths, which all workers can open: .npy files are read in parts, others file by file. The
    rest, `more` included, is as there; what suits the data is decided by the first chunk, and progress is called once, at the end.
    ValueError for what differs in rows or in partitions.
    """
    data = {"y_true": y_true, "y_pred": y_pred}
    if sample_weight is not None:
        data["sample_weight"] = sample_weight
    if y_pred is None:
        raise ValueError("y_pred is missing: dask collections are given one by one")
    settings = {"loss": loss, "metrics": metrics, "options": options, **more}
    Evaluation(**settings)  # an unknown name should not wait for a cluster
    of_files = [_is_path(x) for x in data.values()]
    if any(of_files) and not all(of_files):
        raise ValueError("y_true, y_pred and sample_weight must be all files or all dask collections")
    parts = list(_file_parts(data) if of_files[0] else _chunk_parts(data))
    if not parts:
        raise ValueError("there is nothing to evaluate: the data have no rows")
    if more.get("bootstrap") and any(begin < 0 for begin, _ in parts):
        raise ValueError("a bootstrap needs to know how many rows each partition has: see to_dask_array(lengths=True)")
    like = dask.delayed(_resolved)(parts[0][1], settings, batch_size)
    states = [dask.delayed(_folded)(part, start, settings, batch_size, like) for start, part in parts]
    while len(states) > 1:
        states = [dask.delayed(_merged)(states[i : i + FAN_IN]) for i in range(0, len(states), FAN_IN)]
    try:
        total: Evaluation = states[0].compute()
    except TypeError as error:
        if "serialize" in str(error):
            raise TypeError("what is to be computed cannot be sent to other processes: a function in it holds what only this process "
                            "has, and can be evaluated by its schedulers alone") from error  # fmt: skip
        raise
    if progress:
        progress(total.rows, total.rows)
    return total.result()


def _is_path(x: Any) -> bool:
    return isinstance(x, (str, os.PathLike)) or isinstance(x, (list, tuple)) and bool(x) and all(map(_is_path, x))


def _chunk_parts(data: dict[str, Any]) -> Iterator[tuple[int, list[Any]]]:
    """The chunks of collections that belong together, as delayed objects, and where their rows begin; -1 where that is not known."""
    sizes: tuple[Any, ...] = getattr(data["y_pred"], "chunks", ((math.nan,),))[0]
    found = []
    for name, x in data.items():
        if hasattr(x, "chunks"):
            if x.ndim == 0:
                raise ValueError(f"{name} must have rows, got a single number")
            own = x.chunks[0]
            if _known(sizes) and _known(own):
                if sum(own) != sum(sizes):
                    raise ValueError(f"{name} has {sum(own):,} rows, but y_pred has {sum(sizes):,}")
                own = sizes
            found.append(list(x.rechunk({0: own, **dict.fromkeys(range(1, x.ndim), -1)}).to_delayed().reshape(-1)))
        elif hasattr(x, "to_delayed"):
            found.append(list(x.to_delayed()))
        else:
            raise TypeError(f"{name} must be a collection of dask, as the others are, got {type(x).__name__}; see dask.array.from_array")
    counts = [len(x) for x in found]
    if len(set(counts)) > 1:
        what = ", ".join(f"{name} {count}" for name, count in zip(data, counts, strict=True))
        raise ValueError(f"collections must have equally many partitions where their rows are not known, got {what}")
    begins = itertools.accumulate(sizes[:-1], initial=0) if _known(sizes) else itertools.repeat(-1)
    for begin, chunks in zip(begins, zip(*found, strict=True), strict=False):
        yield begin, list(chunks)


def _known(sizes: tuple[Any, ...]) -> bool:
    return not any(map(math.isnan, sizes))


def _file_parts(data: dict[str, Any]) -> Iterator[tuple[int, list[Any]]]:
    """Parts of files, (path, begin, end) each, and where their rows begin in all."""
    lists = {name: [x] if isinstance(x, (str, os.PathLike)) else list(x) for name, x in data.items()}
    if len({len(x) for x in lists.values()}) > 1:
        raise ValueError("equally many files are wanted, got " + ", ".join(f"{name} {len(x)}" for name, x in lists.items()))
    before = 0
    for paths in zip(*lists.values(), strict=True):
        sources = [open_rows(path, name) for name, path in zip(lists, paths, strict=True)]
        rows = {source.rows for source in sources}
        width = sum(source.row_bytes for source in sources)
        for source in sources:
            source.close()
        if len(rows) > 1:
            raise ValueError(f"{sources[0].name} has {sources[0].rows:,} rows, but "
                             + ", ".join(f"{s.name} has {s.rows:,}" for s in sources[1:] if s.rows != sources[0].rows))  # fmt: skip
        (count,) = rows
        size = max(1, PART // width) if all(str(path).lower().endswith(".npy") for path in paths) else max(1, count)
        for begin in range(0, count, size):
            yield before + begin, [(os.fspath(path), begin, min(count, begin + size)) for path in paths]
        before += count


def _batches(part: Sequence[Any], batch_size: int | None) -> Iterator[Any]:
    """The batches of a part: of its chunks as they came, of its files opened here."""
    y_true, y_pred, *weight = map(_opened, part)
    for batch, _ in batches(y_true, y_pred, weight[0] if weight else None, batch_size):
        yield batch


def _opened(x: Any) -> Any:
    if not (isinstance(x, tuple) and len(x) == 3 and isinstance(x[0], str)):
        return x
    path, begin, end = x
    return np.load(path, mmap_mode="r")[begin:end] if path.lower().endswith(".npy") else path


def _resolved(part: Sequence[Any], settings: dict[str, Any], batch_size: int | None) -> Any:
    """What is computed, by the first batch: the evaluation's functions, having seen nothing."""
    fold = Evaluation(**settings)
    for batch in _batches(part, batch_size):
        fold.update(*batch)
        break
    return fold.functions


def _folded(part: Sequence[Any], start: int, settings: dict[str, Any], batch_size: int | None, functions: Any) -> Evaluation:
    """The evaluation of one part."""
    fold = Evaluation(**(settings | {"first_row": start} if settings.get("bootstrap") else settings))
    fold.functions = {label: type(one)(one.function, one.options) for label, one in functions.items()}
    for batch in _batches(part, batch_size):
        try:
            fold.update(*batch)
        except ValueError as error:
            if start < 0:
                raise
            raise ValueError(re.sub(r"^y_true\[(\d+)", lambda found: f"y_true[{start + int(found[1])}", str(error))) from None
    return fold


def _merged(states: Sequence[Evaluation]) -> Evaluation:
    total = copy.deepcopy(states[0])  # what a task was given is not its own to change
    for other in states[1:]:
        total.merge(other)
    return total
