"""Keras' loss classes and ours, forward and backward, on the backend that KERAS_BACKEND names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import OURS, Workload

SIZES = ((256, 10), (4096, 1000), (1024, 32000), (65536, 1))


def workloads() -> Iterator[Workload]:
    import keras

    import lossfuncs
    from lossfuncs.frameworks.keras import losses

    rng = np.random.default_rng(0)
    backend = keras.backend.backend()
    for n, classes in SIZES:
        z = rng.normal(size=(n, classes)).astype(np.float32)
        if classes > 1:
            name, y = "SparseCategoricalCrossentropy", rng.integers(0, classes, n).astype(np.int32)
        else:
            name, y = "BinaryCrossentropy", rng.integers(0, 2, (n, 1)).astype(np.float32)
        both = {OURS: losses, f"keras on {backend}": keras.losses}
        contestants = {key: gradient(getattr(module, name)(from_logits=True), y, z) for key, module in both.items()}
        reference = getattr(lossfuncs.losses, name)(from_logits=True)

        def expected(reference: Any = reference, y: Any = y, z: Any = z) -> Any:
            with lossfuncs.backend("numpy"):
                return reference.value_and_grad(y, z.astype(np.float64))

        target = {f"keras on {backend}": 1.0} if n * classes >= 4096 * 1000 and backend == "torch" else {}
        yield Workload(f"{name}, forward + backward, {n}x{classes}", contestants, expected, target=target)


def gradient(loss: Any, y_true: Any, y_pred: Any) -> Callable[[], Any]:
    """The loss and its gradient by y_pred, as the backend's trainer has them."""
    import keras

    t, p = keras.ops.convert_to_tensor(y_true), keras.ops.convert_to_tensor(y_pred)
    if keras.backend.backend() == "torch":
        p.requires_grad_()

        def torch() -> Any:
            p.grad = None
            value = loss(t, p)
            value.backward()
            return value.detach().numpy(), p.grad.numpy()

        return torch
    if keras.backend.backend() == "jax":
        import jax

        compiled = jax.jit(jax.value_and_grad(lambda p: loss(t, p)))
        return lambda: jax.block_until_ready(compiled(p))
    import tensorflow as tf

    @tf.function
    def tensorflow(p: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(p)
            value = loss(t, p)
        return value, tape.gradient(value, p)

    return lambda: tuple(x.numpy() for x in tensorflow(p))
