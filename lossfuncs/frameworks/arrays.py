"""Arrays of other frameworks: whose an array is, and how NumPy reads it.

A framework's arrays are at home in the module of this package that bears its name, its adapter. It computes losses on them and gives
results of the same kind:

    to_numpy(x)                                                             a NumPy array on x's memory where that is possible
    call(function, y_true, y_pred, options, sample_weight, reduction)       what a public function gives for a y_pred of its own
    value_and_grad(function, y_true, y_pred, options, upstream, out, sample_weight, reduction)      likewise

Nothing is imported to find out: an array of a framework cannot exist before its framework is imported.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np

# The top module of an array's class (or of a class that it inherits from), its framework, and the framework's name for arrays.
_FRAMEWORKS = {"torch": ("torch", "Tensor"), "tensorflow": ("tensorflow", "Tensor"), "jax": ("jax", "Array"), "jaxlib": ("jax", "Array")}

_adapters: dict[type, Any] = dict.fromkeys((np.ndarray, list, tuple, float, int, np.float64, np.float32))


def adapter(x: Any) -> Any:
    """The adapter of the framework whose array x is, or None."""
    kind = type(x)
    try:
        return _adapters[kind]
    except KeyError:
        found = _adapters[kind] = _find(x)
        return found


def _find(x: Any) -> Any:
    for base in type(x).__mro__:
        name, kind = _FRAMEWORKS.get(base.__module__.partition(".")[0], ("", ""))
        if name in sys.modules and isinstance(x, getattr(sys.modules[name], kind)):
            return importlib.import_module(f".{name}", __package__)
    return None


def read(x: Any) -> Any:
    """x, of no framework, as a NumPy array: from `__array__`, the buffer protocol or DLPack, a number, or a list."""
    if hasattr(x, "__dlpack__") and not hasattr(x, "__array__"):
        return np.from_dlpack(x)
    return np.asarray(x)


def missing(framework: str, error: ImportError) -> ImportError:
    """What to raise where a framework is asked for and not installed."""
    return ImportError(f'{framework} is not installed: pip install "lossfuncs[{framework}]" ({error})')
