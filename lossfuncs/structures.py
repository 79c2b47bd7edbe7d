"""Arrays in dicts, lists and tuples, as models with several outputs have them.

A list or tuple is a structure where it holds arrays, paths, None, or structures; a list of numbers, or of such lists, is an array itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, TypeAlias

import numpy as np

Path: TypeAlias = tuple[Any, ...]


def is_nested(x: Any) -> bool:
    """Whether x is a structure rather than one array, or whatever stands for one."""
    return isinstance(x, dict) or _is_sequence(x)


def leaves(x: Any) -> list[tuple[Path, Any]]:
    """The arrays, each with the keys and indices that lead to it. A dict's come in the order of its keys, an OrderedDict's in its own."""
    if isinstance(x, dict):
        keys: Any = x if isinstance(x, OrderedDict) else sorted(x, key=str)
        children = [(key, x[key]) for key in keys]
    elif _is_sequence(x):
        children = list(enumerate(x))
    else:
        return [((), x)]
    return [((key, *path), leaf) for key, child in children for path, leaf in leaves(child)]


def with_leaves(x: Any, found: Mapping[Path, Any], path: Path = ()) -> Any:
    """The structure of x with other arrays, by the paths of `leaves`."""
    if isinstance(x, dict):
        return {key: with_leaves(y, found, (*path, key)) for key, y in x.items()}
    if _is_sequence(x):
        return like(x, [with_leaves(y, found, (*path, i)) for i, y in enumerate(x)])
    return found[path]


def each(f: Callable[[Any], Any], x: Any) -> Any:
    """The structure of x with f of every array."""
    if isinstance(x, dict):
        return {key: each(f, y) for key, y in x.items()}
    return like(x, [each(f, y) for y in x]) if _is_sequence(x) else f(x)


def like(x: Any, items: list[Any]) -> Any:
    """A sequence of x's type."""
    return type(x)(*items) if hasattr(x, "_fields") else type(x)(items)


def _is_sequence(x: Any) -> bool:
    return isinstance(x, (list, tuple)) and any(map(_is_member, x))


def _is_member(x: Any) -> bool:
    """Whether a list with this in it is a structure."""
    array = hasattr(x, "shape") and not isinstance(x, np.generic)
    return array or x is None or isinstance(x, (dict, str, PathLike)) or _is_sequence(x)
