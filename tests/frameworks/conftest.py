"""Two devices for the tests of sharding, which has to be said before JAX is imported; and the README's examples of a framework."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lossfuncs

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
README = (Path(__file__).parent.parent.parent / "README.md").read_text()


@pytest.fixture
def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The embedded digits: labels, and the logarithms of a model's probabilities, to be trained on."""
    with np.load(Path(lossfuncs.__file__).parent / "data" / "digits.npz") as file:
        return file["y_true"].astype(np.int64), np.log(file["y_pred"].clip(1e-7))


@pytest.fixture
def run_examples() -> Callable[[str], None]:
    """Run what the README shows of a framework: the blocks that import it."""

    def run(framework: str) -> None:
        blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
        examples = [block for block in blocks if re.search(rf"^import {framework}\b", block, re.M)]
        assert examples
        rng = np.random.default_rng(0)
        for example in examples:
            names = {"y_true": rng.uniform(size=(20, 5)), "y_pred": rng.uniform(size=(20, 5))}
            exec(compile(example, "README.md", "exec"), {"lossfuncs": lossfuncs, **names})

    return run
