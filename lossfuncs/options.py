"""The checks that the options of losses and metrics go through, and Keras' constant."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

# keras.config.epsilon(). It is the same for every dtype, and applied in float64: 1 - EPS is not rounded to float32.
EPS = 1e-7


def with_options(key: Any, options: dict[str, Any]) -> Any:
    """A key, by the options too: 1, 1.0 and True are equal, but not one option. With stars it takes 300 ns more than with this loop."""
    for name, value in options.items():
        kind = type(value)
        key = key, name, value, kind if kind is not tuple else tuple(map(type, value))
    return key


def shown(value: Any) -> str:
    """`value` as an error message names it: on one line, and not all of a large one."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """`value` as a float; ValueError unless it is a number in [low, high]. -0.0 becomes 0.0: they are one key, and so one option."""
    try:
        found = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    except OverflowError:  # a whole number or a fraction that no float is near
        found = math.nan
    if not low <= found <= high:
        if math.isinf(low) and math.isinf(high):
            wanted = "a number"
        elif math.isinf(high):
            wanted = f"a number >= {low:g}"
        else:
            wanted = f"a number in [{low:g}, {high:g}]"
        raise ValueError(f"{name} must be {wanted}, got {shown(value)}")
    return found + 0.0


def count(name: str, value: Any) -> int:
    """`value` as an int; ValueError unless it is a whole number >= 0."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} must be a whole number >= 0, got {shown(value)}")
    return int(value)


def flag(name: str, value: Any) -> bool:
    """`value`; ValueError unless it is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def axes(axis: Any) -> Any:
    """An axis option as NumPy takes it: several axes are a tuple."""
    return tuple(axis) if isinstance(axis, list) else axis
