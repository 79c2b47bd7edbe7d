"""Value and gradient under jit: our losses against the same formulas in jax.numpy, as XLA compiles them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import OURS, Workload

SIZES = ((8, 10), (256, 10), (4096, 1000), (1024, 32000), (65536, 1))


def workloads() -> Iterator[Workload]:
    import jax
    import jax.numpy as jnp

    import lossfuncs

    def step(loss: Callable[..., Any], t: Any, p: Any) -> Callable[[], Any]:
        run = jax.jit(jax.value_and_grad(loss, 1))
        t, p = jnp.asarray(t), jnp.asarray(p)
        return lambda: jax.block_until_ready(run(t, p))

    def squared(t: Any, p: Any) -> Any:
        return jnp.mean((p - t) ** 2)

    def binary(t: Any, p: Any) -> Any:
        return jnp.mean(jnp.maximum(p, 0) - p * t + jnp.log1p(jnp.exp(-jnp.abs(p))))

    def categorical(t: Any, p: Any) -> Any:
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(p), t[:, None], 1))

    mine = {
        "mse": lambda t, p: lossfuncs.mean_squared_error(t, p, reduction="mean"),
        "bce": lambda t, p: lossfuncs.binary_crossentropy(t, p, from_logits=True, reduction="mean"),
        "ce": lambda t, p: lossfuncs.sparse_categorical_crossentropy(t, p, from_logits=True, reduction="mean"),
    }
    rng = np.random.default_rng(0)
    for m, n in SIZES:
        p, real = rng.normal(size=(m, n)).astype(np.float32), rng.uniform(size=(m, n)).astype(np.float32)
        labels = rng.integers(0, n, m, np.int32)
        cases: dict[str, tuple[str, Any, Any, bool]] = {
            "squared error": ("mse", squared, real, False),
            "binary cross-entropy from logits": ("bce", binary, real, True),
            "cross-entropy from logits": ("ce", categorical, labels, True),
        }
        for name, (key, theirs, t, transcendental) in cases.items():
            if (n == 1 and t is labels) or (n == 32000 and t is real):
                continue
            target = {"jax.jit": 1 / 1.5} if m * n <= 100 else {"jax.jit": 1.0} if m * n >= 4096 * 1000 and transcendental else {}
            options = {} if key == "mse" else {"from_logits": True}
            function = {"mse": "mse", "bce": "binary_crossentropy", "ce": "sparse_categorical_crossentropy"}[key]
            wanted = lambda f=function, t=t, p=p, o=options: lossfuncs.value_and_grad(f, t, np.float64(p), reduction="mean", **o)  # noqa: E731
            yield Workload(f"{name}, {m}x{n}", {OURS: step(mine[key], t, p), "jax.jit": step(theirs, t, p)}, wanted, target=target)
