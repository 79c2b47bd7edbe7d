"""Metrics over two processes, and in torchmetrics."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics

import lossfuncs
from lossfuncs.frameworks import torchmetrics as ours

RNG = np.random.default_rng(0)
LABELS, SCORES = RNG.integers(0, 2, 101), RNG.uniform(size=101)
PARTS = (slice(0, 60), slice(60, 101))


def all_metrics() -> list[Any]:
    m = lossfuncs.metrics
    return [m.AUC(), m.BinaryAccuracy(), m.MeanSquaredError(), m.Precision(), m.AUC(exact=True), m.R2Score()]


def of(metrics: list[Any], part: slice) -> list[Any]:
    for metric in metrics:
        column = (LABELS[part, None], SCORES[part, None])
        metric.update_state(*column)
    return metrics


def rank(i: int, meeting: Path, queue: Any) -> None:
    torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=i, world_size=2)
    calls = []
    original = torch.distributed.all_reduce
    torch.distributed.all_reduce = lambda *args, **kwargs: (calls.append(1), original(*args, **kwargs))
    metrics = of(all_metrics(), PARTS[i])
    ours.all_reduce(*metrics)
    wrapped = ours.Metric(lossfuncs.metrics.AUC())
    wrapped.update(torch.from_numpy(SCORES[PARTS[i]]), torch.from_numpy(LABELS[PARTS[i]]))
    results = [float(m.result()) for m in metrics], float(wrapped.compute())
    torch.distributed.destroy_process_group()
    alive = [name for name in Path("/proc/self/task").glob("*/comm") if "gloo" in name.read_text()]
    queue.put((i, len(calls), *results, len(alive)))


def test_ranks_share_what_they_saw_by_one_all_reduce(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=rank, args=(i, tmp_path / "meeting", queue)) for i in range(2)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    wanted = [float(m.result()) for m in of(all_metrics(), slice(None))]
    for _, calls, results, wrapped, alive in found:
        assert calls == 1
        assert alive == 0  # the group ended: a thread of it that is left may take the interpreter down with it
        np.testing.assert_allclose(results, wanted, rtol=1e-14)
        assert wrapped == wanted[0]


def test_a_metric_of_torchmetrics() -> None:
    metric = ours.Metric(lossfuncs.metrics.BinaryAccuracy())
    theirs = torchmetrics.classification.BinaryAccuracy()
    collection = torchmetrics.MetricCollection({"ours": metric, "theirs": theirs})
    for part in PARTS:
        p, t = torch.from_numpy(SCORES[part]).float(), torch.from_numpy(LABELS[part])
        both = collection(p, t)
        torch.testing.assert_close(both["ours"].float(), both["theirs"])
    both = collection.compute()
    torch.testing.assert_close(both["ours"].float(), both["theirs"])
    metric.reset()
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert metric.compute() == 0.0


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="the states of auc.* do not add up"):
        ours.Metric(lossfuncs.metrics.AUC(exact=True))
    with pytest.raises(TypeError, match="metric must be a metric of lossfuncs"):
        ours.Metric("auc")
    with pytest.raises(TypeError, match="metrics must be metrics of lossfuncs"):
        ours.all_reduce("auc")
