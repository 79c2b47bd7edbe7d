"""The mean of many float32 squared errors, against whole-number arithmetic."""

from __future__ import annotations

import os
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

import lossfuncs

Array = np.ndarray[Any, Any]

MEAN_BOUND = 1e-15  # relative
GRID = 1 << 24  # the numbers are multiples of 2^-24, so that squares of differences are whole numbers of 2^-48


def mean_error(count: int, peers: bool = True) -> dict[str, float]:
    """Relative errors of the mean of `count` float32 squared errors, against whole-number arithmetic."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    with tempfile.TemporaryDirectory() as folder:

        def array(name: str) -> Array:
            if 16 * count < free:  # two arrays, what a peer needs, and room for others
                return np.empty(count, np.float32)
            return np.memmap(Path(folder) / name, np.float32, "w+", shape=(count,))

        t, p = array("y_true"), array("y_pred")
        total, step = 0, 1 << 20
        for lo in range(0, count, step):
            k = np.random.default_rng(lo).integers(0, GRID, (2, min(step, count - lo)), np.int32)
            t[lo : lo + step], p[lo : lo + step] = k.astype(np.float32) / np.float32(GRID)
            d = (k[1] - k[0]).astype(np.int64)
            total += sum(np.add.reduceat(d * d, np.arange(0, d.size, 1 << 14)).tolist())
        exact = Fraction(total, count) / GRID**2
        found = {"lossfuncs": lossfuncs.losses.mean_squared_error(t, p, reduction="mean")}
        if peers:
            e = np.subtract(p, t, out=array("error"))
            found["numpy"] = np.mean(np.square(e, out=e))
            del e
            try:
                import torch

                found["torch"] = torch.nn.functional.mse_loss(torch.from_numpy(p), torch.from_numpy(t)).item()
            except ImportError:
                pass
        return {key: float(abs(Fraction(float(value)) / exact - 1)) for key, value in found.items()}


def means(count: int) -> bool:
    """Prints the errors of the mean; whether ours is within MEAN_BOUND."""
    print(f"\nmean squared error of {count} float32 pairs: relative errors against whole-number arithmetic")
    errors = mean_error(count)
    print("   ".join(f"{name} {error:.2g}" for name, error in errors.items()), flush=True)
    return errors["lossfuncs"] <= MEAN_BOUND
