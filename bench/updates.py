"""Several metrics fed with one batch: accuracy, top-5 accuracy and cross-entropy from logits, by ours and by the metric libraries.

A formula updates its metrics and returns them; `results` then reads the means of all batches so far. Every batch holds the same
numbers, so that the means stay those of one. Keras runs on the backend of KERAS_BACKEND, "torch" by default: for another run again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from bench.workloads import Array, Formula

Parts = tuple[Callable[[int], Sequence[Formula]], Callable[[Array], Any], Callable[[Any], Array], Callable[[], AbstractContextManager[Any]]]


def ours() -> Sequence[Formula]:
    """Together, as a user would; and one after the other."""
    from lossfuncs import metrics

    def three() -> list[Any]:
        return [metrics.SparseCategoricalAccuracy(), metrics.SparseTopKCategoricalAccuracy(5),
                metrics.SparseCategoricalCrossentropy(from_logits=True)]  # fmt: skip

    together, single = three(), three()

    def update_together(t: Array, p: Array) -> Any:
        metrics.update_state(together, t, p)
        return together

    def update_each(t: Array, p: Array) -> Any:
        for metric in single:
            metric.update_state(t, p)
        return single

    return update_together, update_each


def results(metrics: Any) -> Array:
    """The means of the three."""
    return np.array([float(metric.result()) for metric in metrics])


def torchmetrics() -> Parts | None:
    """As a MetricCollection. It has no cross-entropy: the mean of torch's is what its users take."""
    if not find_spec("torchmetrics") or not find_spec("torch"):
        return None
    import torch
    from torchmetrics import MeanMetric, MetricCollection
    from torchmetrics.classification import MulticlassAccuracy

    class CrossEntropy(MeanMetric):
        def update(self, p: Any, t: Any) -> None:
            super().update(torch.nn.functional.cross_entropy(p, t), len(t))

    def build(classes: int) -> Sequence[Formula]:
        collection = MetricCollection({
            "accuracy": MulticlassAccuracy(classes, average="micro", validate_args=False),
            "top 5": MulticlassAccuracy(classes, top_k=5, average="micro", validate_args=False),
            "cross-entropy": CrossEntropy(nan_strategy="disable"),
        })  # fmt: skip

        def update(t: Any, p: Any) -> Any:
            collection.update(p, t)
            return collection

        return (update,)

    def read(collection: Any) -> Array:
        found = collection.compute()
        return np.array([float(found[name]) for name in ("accuracy", "top 5", "cross-entropy")])

    return build, torch.from_numpy, read, torch.no_grad


def keras() -> tuple[str, Parts] | None:
    """The backend's name, and its metrics: eager, and for jax compiled as one function too."""
    backend = os.environ.setdefault("KERAS_BACKEND", "torch")
    if not find_spec("keras") or not find_spec(backend):
        return None
    import keras as library

    def three() -> list[Any]:
        return [library.metrics.SparseCategoricalAccuracy(), library.metrics.SparseTopKCategoricalAccuracy(5),
                library.metrics.SparseCategoricalCrossentropy(from_logits=True)]  # fmt: skip

    def eager(awaited: Callable[[Any], Any]) -> Formula:
        metrics = three()

        def update(t: Any, p: Any) -> Any:
            for metric in metrics:
                metric.update_state(t, p)
            awaited([metric.total.value for metric in metrics])
            return metrics

        return update

    if backend != "jax":
        enter, context = library.ops.convert_to_tensor, nullcontext
        if backend == "torch":
            import torch

            enter, context = torch.from_numpy, torch.no_grad
        return backend, (lambda classes: (eager(lambda values: None),), enter, results, context)
    import jax

    def compiled() -> Formula:
        metrics = three()
        state = [[variable.value for variable in metric.variables] for metric in metrics]

        @jax.jit
        def step(state: Any, t: Any, p: Any) -> Any:
            return [metric.stateless_update_state(values, t, p) for metric, values in zip(metrics, state, strict=True)]

        def update(t: Any, p: Any) -> Any:
            state[:] = jax.block_until_ready(step(state, t, p))  # type: ignore[no-untyped-call]
            return [_Stateless(*pair) for pair in zip(metrics, state, strict=True)]

        return update

    def device(array: Array) -> Any:
        return jax.device_put(array.astype(np.int32) if array.dtype == np.int64 else array)

    return backend, (lambda classes: (eager(jax.block_until_ready), compiled()), device, results, nullcontext)


class _Stateless(NamedTuple):
    """A Keras metric whose state is kept outside."""

    metric: Any
    state: Any

    def result(self) -> Any:
        return self.metric.stateless_result(self.state)
