"""Several metrics fed with one batch: accuracy, top-5 accuracy and cross-entropy from logits, by ours and by the metric libraries.

    python -m bench.updates                      once beside Keras on torch, once beside Keras on jax: a process for each
    KERAS_BACKEND=jax python -m bench.updates    beside that one alone
    python -m bench.updates --json updates.json  and write all that was measured, into updates-torch.json and updates-jax.json

It measures as `lossfuncs bench` does: results first, in interleaved rounds. A formula updates its metrics and returns them; their
results are then the means of all batches so far. Every batch holds the same numbers, so that these stay the means of one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lossfuncs import metrics
from lossfuncs.benchmark import machine
from lossfuncs.benchmark.contestants import OURS, Contestant
from lossfuncs.benchmark.formulas import Formula
from lossfuncs.benchmark.workloads import TINY, WIDE, Array, Workload
from lossfuncs.cli import bench

KERAS_BACKENDS = ("torch", "jax")


class Update(Workload):
    """The three metrics of one batch of labels and logits."""

    @property
    def problem(self) -> str:
        return "update of accuracy, top-5 accuracy and cross-entropy"

    @property
    def functions(self) -> float:
        return 1.0  # the cross-entropy's exponential

    def reference(self, y_true: Array, y_pred: Array) -> tuple[Array, ...]:
        """Their means, in float64 and of their definitions."""
        p = y_pred.astype(np.float64)
        label = np.take_along_axis(p, y_true[:, None], 1)
        top = p.max(1, keepdims=True)
        entropy = np.log(np.exp(p - top).sum(1)) + (top - label)[:, 0]
        return (np.array([np.mean(p.argmax(1) == y_true), np.mean(np.count_nonzero(p > label, 1) < 5), entropy.mean()]),)


def workloads() -> list[Workload]:
    return [Update("loss", "sparse_categorical_crossentropy", shape, options={"from_logits": True}) for shape in (WIDE, TINY)]


def contestants() -> tuple[list[Contestant], dict[str, str]]:
    """Those that can take part, and for each that cannot, why."""
    found, absent = [Contestant(f"{OURS} numba", _ours, leave=_results)], {}
    makers: dict[str, tuple[tuple[str, ...], Callable[[], Contestant]]] = {
        "torchmetrics": (("torchmetrics", "torch"), _torchmetrics),
        f"keras ({os.environ['KERAS_BACKEND']})": (("keras", os.environ["KERAS_BACKEND"]), _keras),
    }
    for name, (needed, make) in makers.items():
        missing = [module for module in needed if not find_spec(module)]
        if missing:
            absent[name] = f"{missing[0]} is not installed"
        else:
            found.append(make())
    return found, absent


def _three(module: Any) -> list[Any]:
    """Keras' classes, of Keras or ours."""
    return [module.SparseCategoricalAccuracy(), module.SparseTopKCategoricalAccuracy(5),
            module.SparseCategoricalCrossentropy(from_logits=True)]  # fmt: skip


def _results(found: Any) -> Array:
    return np.array([float(metric.result()) for metric in found])


def _ours(workload: Workload) -> Sequence[Formula]:
    """Together, as a user would; and one after the other."""
    together, single = _three(metrics), _three(metrics)

    def update_together(t: Array, p: Array) -> Any:
        metrics.update_state(together, t, p)
        return together

    def update_each(t: Array, p: Array) -> Any:
        for metric in single:
            metric.update_state(t, p)
        return single

    return update_together, update_each


def _torchmetrics() -> Contestant:
    """As a MetricCollection. It has no cross-entropy: the mean of torch's is what its users take."""
    import torch
    from torchmetrics import MeanMetric, MetricCollection
    from torchmetrics.classification import MulticlassAccuracy

    class CrossEntropy(MeanMetric):
        def update(self, p: Any, t: Any) -> None:
            super().update(torch.nn.functional.cross_entropy(p, t), len(t))

    def build(workload: Workload) -> Sequence[Formula]:
        classes = workload.shape[-1]
        collection = MetricCollection({
            "accuracy": MulticlassAccuracy(classes, average="micro", validate_args=False),
            "top 5": MulticlassAccuracy(classes, top_k=5, average="micro", validate_args=False),
            "cross-entropy": CrossEntropy(nan_strategy="disable"),
        })  # fmt: skip

        def update(t: Any, p: Any) -> Any:
            collection.update(p, t)
            return collection

        return (update,)

    def leave(collection: Any) -> Array:
        found = collection.compute()
        return np.array([float(found[name]) for name in ("accuracy", "top 5", "cross-entropy")])

    torch.set_num_threads(machine.cores())
    return Contestant("torchmetrics", build, torch.from_numpy, leave, lambda workload: torch.no_grad())


def _keras() -> Contestant:
    """Its metrics: eager, and for jax compiled as one function too."""
    import keras

    backend = keras.backend.backend()

    def eager(awaited: Callable[[Any], Any]) -> Formula:
        found = _three(keras.metrics)

        def update(t: Any, p: Any) -> Any:
            for metric in found:
                metric.update_state(t, p)
            awaited([metric.total.value for metric in found])
            return found

        return update

    if backend != "jax":
        enter, context = keras.ops.convert_to_tensor, nullcontext
        if backend == "torch":
            import torch

            torch.set_num_threads(machine.cores())
            enter, context = torch.from_numpy, torch.no_grad
        return Contestant(f"keras ({backend})", lambda workload: (eager(lambda values: None),), enter, _results, lambda workload: context())
    import jax

    def compiled() -> Formula:
        found = _three(keras.metrics)
        state = [[variable.value for variable in metric.variables] for metric in found]

        @jax.jit
        def step(state: Any, t: Any, p: Any) -> Any:
            return [metric.stateless_update_state(values, t, p) for metric, values in zip(found, state, strict=True)]

        def update(t: Any, p: Any) -> Any:
            state[:] = jax.block_until_ready(step(state, t, p))
            return [_Stateless(*pair) for pair in zip(found, state, strict=True)]

        return update

    def enter_jax(array: Array) -> Any:
        return jax.device_put(array.astype(np.int32) if array.dtype == np.int64 else array)

    return Contestant("keras (jax)", lambda workload: (eager(jax.block_until_ready), compiled()), enter_jax, _results)


class _Stateless(NamedTuple):
    """A Keras metric whose state is kept outside."""

    metric: Any
    state: Any

    def result(self) -> Any:
        return self.metric.stateless_result(self.state)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m bench.updates", None, __doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    bench.configure_run(parser)
    options = parser.parse_args(arguments)
    if "KERAS_BACKEND" in os.environ:
        for kind in ("json", "csv", "plot", "html"):
            path = getattr(options, kind) and Path(getattr(options, kind))
            setattr(options, kind, path and path.with_stem(f"{path.stem}-{os.environ['KERAS_BACKEND']}"))
        try:
            command = f"KERAS_BACKEND={os.environ['KERAS_BACKEND']} python -m bench.updates {' '.join(arguments)}".rstrip()
            return bench.perform(command, workloads(), *contestants(), [machine.cores()], options)
        except (ValueError, ImportError) as error:
            parser.error(str(error))
    statuses = []
    for backend in KERAS_BACKENDS:
        sys.stdout.flush()
        child = [sys.executable, "-m", "bench.updates", *arguments]
        statuses.append(subprocess.run(child, env=os.environ | {"KERAS_BACKEND": backend}, check=False).returncode)
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
