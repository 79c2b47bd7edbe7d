"""Metrics of lossfuncs under torch.distributed, and as metrics of torchmetrics.

    lossfuncs.frameworks.torchmetrics.all_reduce(accuracy, auc, loss)         after this, each has seen what it saw on any rank
    lossfuncs.frameworks.torchmetrics.Metric(lossfuncs.metrics.AUC())         in a MetricCollection, in Lightning's self.log
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..metrics import AUC
from ..metrics import Metric as OurMetric
from ..options import shown
from .arrays import missing

try:
    import torch
    import torchmetrics
except ImportError as error:
    raise missing("torchmetrics" if error.name == "torchmetrics" else "torch", error) from None


def _adds(metric: OurMetric) -> bool:
    """Whether the sum of two states, whose shape is known beforehand, is that of all data."""
    if isinstance(metric, AUC):
        return not metric.exact and not metric.multi_label
    kind = type(metric)
    return kind._absorb is OurMetric._absorb and kind._make_room is OurMetric._make_room


def all_reduce(*metrics: OurMetric, group: Any = None) -> None:
    """Let each of the metrics have seen what it saw on any rank of the group. All ranks pass the same metrics, in the same order.

    All states that add are one all-reduce of float64 together. Those of other metrics (exact AUC, R2Score, and metrics that learn the
    number of classes or of outputs from their data) are gathered as objects and merged in the order of the ranks.
    """
    for metric in metrics:
        if not isinstance(metric, OurMetric):
            raise TypeError(f"metrics must be metrics of lossfuncs, got {shown(metric)}")
    adding, others = [m for m in metrics if _adds(m)], [m for m in metrics if not _adds(m)]
    if adding:
        vectors = [m.state_vector() for m in adding]
        packed = torch.from_numpy(np.concatenate(vectors))
        if torch.distributed.get_backend(group) == "nccl":
            packed = packed.cuda()
        torch.distributed.all_reduce(packed, group=group)
        parts = np.split(packed.cpu().numpy(), np.cumsum([v.size for v in vectors])[:-1])
        for metric, part in zip(adding, parts, strict=True):
            metric.load_state_vector(part)
    if others:
        gathered: list[Any] = [None] * torch.distributed.get_world_size(group)
        torch.distributed.all_gather_object(gathered, others, group)
        for i, metric in enumerate(others):
            metric.reset_state()
            metric.merge_state([each[i] for each in gathered])


class Metric(torchmetrics.Metric):
    """A metric of lossfuncs as one of torchmetrics: update(preds, target, sample_weight=None), compute(), forward, reset, sync.

    Its state is one float64 tensor, which torchmetrics adds up over ranks and batches. ValueError for a metric whose states do not add:
    that is for `all_reduce`.
    """

    full_state_update = False
    is_differentiable = False
    state: torch.Tensor

    def __init__(self, metric: OurMetric, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(metric, OurMetric):
            raise TypeError(f"metric must be a metric of lossfuncs, got {shown(metric)}")
        if not _adds(metric):
            raise ValueError(f"the states of {metric.name} do not add up; use lossfuncs.frameworks.torchmetrics.all_reduce")
        self.metric = metric
        metric.reset_state()
        self.add_state("state", torch.from_numpy(metric.state_vector()), dist_reduce_fx="sum")

    def update(self, preds: Any, target: Any, sample_weight: Any = None) -> None:
        """Take in a batch, on any device."""
        self.metric.load_state_vector(self.state.cpu().numpy())
        self.metric.update_state(*(x.cpu() if isinstance(x, torch.Tensor) else x for x in (target, preds, sample_weight)))
        self.state = torch.from_numpy(self.metric.state_vector()).to(self.state.device)

    def compute(self) -> torch.Tensor:
        """The metric of everything seen, in float64."""
        self.metric.load_state_vector(self.state.cpu().numpy())
        return torch.as_tensor(self.metric.result())
