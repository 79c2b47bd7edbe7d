"""What a call costs on the host before the GPU has something to do: python -m bench.launch, with CuPy, but no GPU.

The arrays are CuPy's own, at no address, and CuPy's allocator is asked for results; only the driver is none, which would add its launch
(1.6 us from C++). Calls are timed as a user makes them: the second and later ones with arrays of the same shapes.
"""

from __future__ import annotations

import timeit
import types
from collections.abc import Callable
from typing import Any

import numpy as np

import lossfuncs
from lossfuncs import cupy_device, devices

try:
    import cupy
    from cupy.cuda import memory
except ImportError:
    raise SystemExit(f"bench.launch needs CuPy, though no GPU: {cupy_device.INSTALL}") from None

ROUNDS, CALLS = 300, 100
STREAM = types.SimpleNamespace(ptr=0)


class Status:
    """The status word, which nobody reads here."""

    data = types.SimpleNamespace(ptr=0)

    def __setitem__(self, at: Any, value: Any) -> None:
        pass


class WithoutDriver(cupy_device.CuPyDevice):
    """CuPy's device, whose driver does nothing."""

    shared, processors = 223 << 10, 132  # an H200's

    def __init__(self) -> None:
        self.xp = cupy
        self._launch = lambda *numbers: None
        self._device = lambda: 0
        self._stream = lambda: STREAM
        self._forked = False
        self._arguments = cupy_device._Arguments(lambda: None)

    def zeros(self, shape: Any, dtype: Any) -> Any:
        return Status()

    def compile(self, kernel: Any) -> Any:
        return None, None, 0


def microseconds(call: Callable[[], Any]) -> float:
    call()
    return min(timeit.repeat(call, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6


def main() -> None:
    nowhere = memory.MemoryPointer(memory.BaseMemory(), 0)
    cupy.cuda.set_allocator(lambda size: nowhere)
    device = WithoutDriver()
    devices.add("cupy", "cupy", lambda: device)
    t, p = (cupy.empty((32, 10), np.float32) for _ in range(2))
    labels = cupy.empty((32,), np.int64)
    squares, entropy, both = lossfuncs.mean_squared_error, lossfuncs.sparse_categorical_crossentropy, lossfuncs.value_and_grad
    calls = {
        "cupy.empty": lambda: cupy.empty((32,), np.float32),
        "mean_squared_error(t, p)": lambda: squares(t, p),
        'mean_squared_error(t, p, reduction="mean")': lambda: squares(t, p, reduction="mean"),
        "sparse_categorical_crossentropy(t, p, from_logits=True)": lambda: entropy(labels, p, from_logits=True),
        'value_and_grad("mean_squared_error", t, p)': lambda: both("mean_squared_error", t, p),
        'value_and_grad(..., reduction="mean", from_logits=True)': lambda: both(entropy, labels, p, reduction="mean", from_logits=True),
    }
    for name, call in calls.items():
        print(f"{microseconds(call):8.2f} us  {name}")


if __name__ == "__main__":
    main()
