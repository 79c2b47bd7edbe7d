"""What the README shows runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

import lossfuncs

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_every_example_runs_as_it_stands() -> None:
    rng = np.random.default_rng(0)
    names = {
        "y_true": np.eye(5)[rng.integers(0, 5, 20)],
        "y_pred": rng.uniform(0.01, 0.99, (20, 5)),
        "labels": rng.integers(0, 5, 20),
        "logits": rng.normal(size=(20, 5)),
        "w": rng.uniform(size=20),
        "prices": rng.normal(size=(20, 1)),
        "predicted_prices": rng.normal(size=(20, 1)),
        "kinds": rng.integers(0, 5, 20),
        "predicted_kinds": rng.dirichlet(np.ones(5), 20),
        "batches": [(np.eye(2)[rng.integers(0, 2, 30)], rng.uniform(size=(30, 2))) for _ in range(3)],
    }
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    examples = [block for block in blocks if "@loss" not in block]  # that one shows how a loss is written in the library
    examples = [block for block in examples if not set(re.findall("^(?:import|from) ([a-z]+)", block, re.M)) - {"lossfuncs"}]  # frameworks'
    assert len(examples) >= 3
    try:
        for example in examples:
            exec(compile(example, "README.md", "exec"), {"lossfuncs": lossfuncs, **names})
    finally:
        lossfuncs.losses.REGISTRY.registered.pop("pinball", None)
