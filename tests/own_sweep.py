"""What has kernels of its own, circle, ctc, the cells of metrics and a user's losses, once on the emulated device: for slow checkers.

`python tests/own_sweep.py PART OF` runs that part under its process' sanitizer and compares with the host.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from emulator import DEVICE, SCHEDULES, Schedule
from emulator.device import prepare
from recording import recording

import lossfuncs
from lossfuncs import devices, metrics

DTYPES = {"float32": np.float32, "float64": np.float64, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
Results = list[Any]
RUNS: dict[str, Callable[[Callable[[Any], Any], Any], Results]] = {}  # of what brings an array to its device, and a dtype


def run(f: Callable[[Callable[[Any], Any], Any], Results]) -> Callable[[Callable[[Any], Any], Any], Results]:
    RUNS[f.__name__] = f
    return f


@run
def circle(sent: Callable[[Any], Any], dtype: Any) -> Results:
    rng = np.random.default_rng(1)
    labels, p = rng.integers(0, 3, 67), (rng.normal(size=(67, 18)) / 4.0).astype(dtype)
    return list(lossfuncs.value_and_grad("circle", sent(labels), sent(p), gamma=8.0))


@run
def circle_with_references(sent: Callable[[Any], Any], dtype: Any) -> Results:
    rng = np.random.default_rng(2)
    labels, p, of, references = rng.integers(0, 3, 5), rng.normal(size=(5, 3)) / 4.0, rng.integers(0, 3, 70), rng.normal(size=(70, 3)) / 4.0
    options = {"ref_labels": sent(of), "ref_embeddings": sent(references.astype(dtype)), "gamma": 8.0}
    return [lossfuncs.losses.circle(sent(labels), sent(p.astype(dtype)), **options)]


@run
def ctc(sent: Callable[[Any], Any], dtype: Any) -> Results:
    rng = np.random.default_rng(3)
    labels, logits = rng.integers(1, 40, (3, 35)), rng.normal(size=(3, 75, 40)).astype(dtype)
    labels[1, 3:], labels[2, ::3] = 0, 7
    return list(lossfuncs.value_and_grad("ctc", sent(labels), sent(logits)))


@run
def ctc_of_bad_labels(sent: Callable[[Any], Any], dtype: Any) -> Results:
    rng = np.random.default_rng(4)
    labels, logits = np.array([[1, 2], [2, 1]]), rng.normal(size=(2, 6, 3)).astype(dtype)
    if sent is not np.asarray:
        labels[1, 1] = 99
    found = lossfuncs.value_and_grad("ctc", sent(labels), sent(logits))
    return [x[:1] for x in found]


def _scores(dtype: Any) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(5)
    return rng.integers(0, 2, (1201, 3)), rng.uniform(size=(1201, 3)).astype(dtype), rng.uniform(0.1, 5.0, 1201)


def _states(sent: Callable[[Any], Any], dtype: Any, *made: Any) -> Results:
    t, p, w = (sent(x) for x in _scores(dtype))
    found = []
    for metric in made:
        metric.update_state(t, p)
        metric.update_state(t, p, w)
        found.append(np.array([metric.result(), *np.ravel(metric.state_vector()[:4])]))
    return found


@run
def thresholds(sent: Callable[[Any], Any], dtype: Any) -> Results:
    return _states(sent, dtype, metrics.AUC(), metrics.AUC(multi_label=True, num_thresholds=5), metrics.PrecisionAtRecall(0.5, 9000))


@run
def classes(sent: Callable[[Any], Any], dtype: Any) -> Results:
    return _states(sent, dtype, metrics.BinaryIoU())


@run
def means(sent: Callable[[Any], Any], dtype: Any) -> Results:
    return _states(sent, dtype, metrics.MeanSquaredError(), metrics.BinaryAccuracy())


OWN = lossfuncs.pointwise(
    lambda t, p, tau=0.3: max(tau * (t - p), (tau - 1) * (t - p)) if t != p else 0.0,
    lambda t, p, tau=0.3: 1 - tau if p > t else -tau,
    name="own",
)


@run
def translated(sent: Callable[[Any], Any], dtype: Any) -> Results:
    t, p = np.random.default_rng(6).normal(size=(2, 9, 1031)).astype(dtype)
    return list(lossfuncs.value_and_grad(OWN, sent(t), sent(p)))


CASES = [(name, kind) for name in RUNS for kind in DTYPES if kind in ("float32", "bfloat16") or name in ("circle", "ctc", "thresholds")]


def check(name: str, kind: str) -> None:
    """On the device as on the host, to what the dtype allows."""
    wanted, found = RUNS[name](np.asarray, DTYPES[kind]), RUNS[name](lambda x: DEVICE.send(np.asarray(x)), DTYPES[kind])
    for got, right in zip(found, wanted, strict=True):
        got, right = (np.asarray(x, np.float64) for x in (DEVICE.fetch(got) if DEVICE.owns(got) else got, right))
        digits = {"float64": 1e-11, "float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}[kind]
        scale = np.max(np.abs(right[np.isfinite(right)]), initial=0.0)
        np.testing.assert_allclose(got, right, rtol=digits, atol=digits * scale, err_msg=f"{name} {kind}")


def kernels() -> list[Any]:
    """All that these ask their device to compile."""
    with recording() as device:
        for name, kind in CASES:
            RUNS[name](lambda x: device.send(np.asarray(x)), DTYPES[kind])
    return list(device.kernels.values())


def main(part: int, of: int) -> None:
    """Part `part` of `of`, with all schedules in turn."""
    mine = CASES[part::of]
    prepare(kernels())
    for i, (name, kind) in enumerate(mine):
        print(name, kind, flush=True)
        DEVICE.schedule = Schedule(SCHEDULES[i % 4], i)
        check(name, kind)
    print(f"{len(mine)} kernels were right")


if __name__ == "__main__":
    devices.add("emulated", "emulator", lambda: DEVICE)
    main(int(sys.argv[1]), int(sys.argv[2]))
