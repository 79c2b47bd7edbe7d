"""Forward and backward through our losses, torch's own and those compiled, by a tensor that is not a leaf, as a model's output is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from . import OURS, Workload

SIZES = ((256, 10), (4096, 1000), (1024, 32000), (65536, 1))


def workloads() -> Iterator[Workload]:
    import torch
    import torch.nn.functional as F

    from lossfuncs.frameworks import torch as ours

    def step(loss: Callable[..., Any], p: Any, t: Any) -> Callable[[], Any]:
        leaf = p.clone().requires_grad_()

        def forward_and_backward() -> Any:
            x = leaf.view_as(leaf)
            value = loss(x, t)
            return value.detach(), torch.autograd.grad(value, x)[0]

        return forward_and_backward

    def exact(loss: Callable[..., Any], p: Any, t: Any) -> Callable[[], Any]:
        return step(loss, p.double(), t.double() if t.is_floating_point() else t)

    torch.manual_seed(0)
    for m, n in SIZES:
        p, real, labels = torch.randn(m, n), torch.rand(m, n), torch.randint(0, n, (m,))
        cases: dict[str, tuple[Any, Any, Any, bool]] = {
            "squared error": (ours.mse_loss, F.mse_loss, real, False),
            "binary cross-entropy from logits": (ours.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits, real, True),
            "cross-entropy from logits": (ours.cross_entropy, F.cross_entropy, labels, True),
        }
        for name, (mine, theirs, t, transcendental) in cases.items():
            if (n == 1 and t is labels) or (n == 32000 and t is real):
                continue
            torch._dynamo.reset()
            contestants = {OURS: step(mine, p, t), "torch": step(theirs, p, t), "torch.compile": step(torch.compile(theirs), p, t)}
            target = {"torch": 1.0, **({"torch.compile": 1.0} if transcendental else {})} if m * n >= 4096 * 1000 else {}
            yield Workload(f"{name}, {m}x{n}", contestants, exact(theirs, p, t), target=target)


