"""Which arrays live on a device, and which device a backend means: imported by all, it imports none of them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from .options import told_apart


def _cupy() -> Any:
    return importlib.import_module(".cupy_device", __package__).device()


# By backend, what gives its `gpu.Device`.
DEVICES: dict[str, Callable[[], Any]] = {"cupy": _cupy}
_HOMES = {"cupy": "cupy"}  # by the top-level module of an array's type, the backend


def device_of(x: Any) -> Any:
    """The device in whose memory the array x is, or None."""
    if type(x) is np.ndarray or isinstance(x, (int, float, list, tuple)):
        return None
    backend = _HOMES.get(type(x).__module__.partition(".")[0])
    if backend is None or backend not in DEVICES or (backend == "cupy" and "cupy" not in sys.modules):
        return None
    device = DEVICES[backend]()
    return device if device.owns(x) else None


def add(backend: str, home: str, device: Callable[[], Any]) -> None:
    """A backend whose arrays' types come from the top-level module `home`."""
    DEVICES[backend] = device
    _HOMES[home] = backend


def home_of(y_true: Any, y_pred: Any) -> Any:
    """The device in whose memory both arrays are, or None. TypeError where they are in different memories."""
    homes = [device_of(x) for x in (y_true, y_pred)]
    if homes[0] is not homes[1]:
        one, other = ("y_true", "y_pred") if homes[0] is not None else ("y_pred", "y_true")
        kind = (homes[0] or homes[1]).backend
        raise TypeError(f"{one} is an array of {kind!r}, on its device, but {other} is not: move one of them")
    return homes[0]


def work_on(backend: str, y_true: Any, y_pred: Any) -> tuple[Any, bool]:
    """The device on which a call is computed, or None for the host; and whether its arrays came from the host.

    Arrays on a device are computed there. TypeError where y_true and y_pred are in different memories.
    """
    home = home_of(y_true, y_pred)
    if home is not None:
        return home, False
    return (DEVICES[backend](), True) if backend in DEVICES else (None, False)


# Calls that were made before, for arrays of the same shapes: `gpu.shortcut`.
SHORTCUTS: dict[Any, Callable[[Any, Any], Any]] = {}
MET: set[type] = set()  # of the types of y_pred among their arrays


def key(function: Any, order: int, y_true: Any, y_pred: Any, reduction: Any, options: dict[str, Any]) -> Any:
    """What a shortcut is found by."""
    kinds = told_apart(options) if options else ()
    return function, order, type(y_true), type(y_pred), y_true.shape, y_pred.shape, y_true.dtype, y_pred.dtype, reduction, kinds


def at_once(function: Any, order: int, y_true: Any, y_pred: Any, reduction: Any, options: dict[str, Any]) -> Any:
    """The result of a call for which there is a shortcut, or None."""
    try:
        again = SHORTCUTS.get(key(function, order, y_true, y_pred, reduction, options))
    except (TypeError, AttributeError):  # an option that cannot be a key; y_true is no array
        return None
    return None if again is None else again(y_true, y_pred)


def remember(function: Any, order: int, y_true: Any, y_pred: Any, reduction: Any, options: dict[str, Any], again: Any) -> None:
    """Keep a shortcut for calls like this one."""
    if len(SHORTCUTS) >= 1024:
        SHORTCUTS.clear()
    try:
        SHORTCUTS[key(function, order, y_true, y_pred, reduction, options)] = again
    except TypeError:
        return
    MET.add(type(y_pred))
