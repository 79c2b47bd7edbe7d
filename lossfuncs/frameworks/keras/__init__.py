"""Keras 3: its losses and metrics, computed by lossfuncs.

    from lossfuncs.frameworks.keras import losses, metrics, patch

    model.compile("adam", loss=losses.SparseCategoricalCrossentropy(from_logits=True), metrics=[metrics.AUC()])
    with patch():
        model.compile("adam", loss="mse", metrics=["accuracy"])      # strings mean the same
        model.fit(x, y)

`losses` and `metrics` hold what `keras.losses` and `keras.metrics` hold. A class is a subclass of Keras' own, with its constructor and
configuration, and is saved with a model; import this package before such a model is loaded. Values and gradients are those of
`lossfuncs`: README.md says where they differ from Keras', on purpose. The dtype is Keras': y_pred is rounded to it, and so is the loss.

The backends are torch, jax and tensorflow, compiled or not. Where there are no numbers (symbolic tensors, torch's device "meta") Keras'
own formula tells the shapes. XLA under TensorFlow, Keras' default there, cannot call other libraries: Keras' own formula computes, and a
warning says so once. `compile(jit_compile=False)` has ours.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from . import compute, losses, metrics

TESTED = ("3.15.",)  # versions whose inner tables are known


@contextlib.contextmanager
def patch() -> Iterator[None]:
    """Inside the `with`, Keras' strings ("mse", "accuracy", "AUC") mean the losses and metrics of lossfuncs.

    Keras looks a model's strings up when it first trains or evaluates, so that `fit` belongs inside as well as `compile`. All threads
    are affected. Classes and functions that are given as such stay Keras'. RuntimeError for a version of Keras whose tables may differ.
    """
    import keras
    from keras.src import losses as their_losses
    from keras.src import metrics as their_metrics

    if not keras.__version__.startswith(TESTED):
        raise RuntimeError(f"patch() knows Keras {' and '.join(f'{v}x' for v in TESTED)} inside, and this is {keras.__version__}: "
                           "pass classes of lossfuncs.frameworks.keras instead")  # fmt: skip
    kept = []
    for module, ours in ((their_losses, losses.OURS), (their_metrics, metrics.OURS)):
        # the module's own names are what "accuracy" and "crossentropy" become
        for table in (module.ALL_OBJECTS_DICT, vars(module)):
            replaced = {name: x for name, x in table.items() if getattr(x, "__hash__", None) and x in ours}
            kept.append((table, replaced))
    try:
        for table, replaced in kept:
            owner = losses.OURS | metrics.OURS
            table.update({name: owner[x] for name, x in replaced.items()})
        yield
    finally:
        for table, replaced in kept:
            table.update(replaced)


__all__ = ["compute", "losses", "metrics", "patch"]
