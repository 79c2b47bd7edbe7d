"""The device of the GPU backend, on the CPU: its memory is guarded, and as strict as CuPy's about what is the host's and what is not."""

from __future__ import annotations

import operator
import os
import weakref
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from lossfuncs.cupy_device import STATIC_SHARED, first_error
from lossfuncs.gpu import SOURCES

from . import program


class _Memory:
    """Device memory that an array keeps alive, and gives back."""

    def __init__(self, nbytes: int, poison: bool) -> None:
        address = program.allocate(nbytes, poison)
        self.__array_interface__ = {"data": (address, False), "shape": (nbytes,), "typestr": "|u1", "version": 3}
        # An EmulatorError from there is one that nobody catches: pytest makes a warning of it, and so it fails the test.
        weakref.finalize(self, program.free, address).atexit = False


class DeviceArray:
    """An array in device memory: NumPy's methods and operators, on other such arrays and on numbers.

    As CuPy's it is no NumPy array, mixes with none, and has no scalars: what would be one has no axes. Reading a number waits.
    """

    waits = 0  # how often the host read what a kernel may still have been computing

    def __init__(self, host: np.ndarray[Any, Any]) -> None:
        self._host = host

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self._host, name)
        return _on_device(found) if callable(found) else _given(found)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return _on_device(getattr(ufunc, method))(*inputs, **options)

    def __array_function__(self, function: Any, _types: Any, args: Any, options: Any) -> Any:
        return _on_device(function)(*args, **options)

    def __getitem__(self, index: Any) -> Any:
        return _given(self._host[_taken(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        with np.errstate(all="ignore"):  # a device has no warnings
            self._host[_taken(index)] = _taken(value)

    def __len__(self) -> int:
        return len(self._host)

    def __bool__(self) -> bool:
        return bool(self._read())

    def __float__(self) -> float:
        return float(self._read())

    def __int__(self) -> int:
        return int(self._read())

    def __index__(self) -> int:
        return operator.index(self._read())

    def _read(self) -> Any:
        DeviceArray.waits += 1
        return self._host[()] if self._host.ndim == 0 else self._host

    def item(self, *index: int) -> Any:
        DeviceArray.waits += 1
        return self._host.item(*index)

    def get(self) -> np.ndarray[Any, Any]:
        """A copy on the host."""
        DeviceArray.waits += 1
        return self._host.copy()

    def __repr__(self) -> str:
        return f"DeviceArray({self._host!r})"

    __hash__ = None  # type: ignore[assignment]


def _operator(name: str) -> Any:
    def method(self: DeviceArray, *others: Any) -> Any:
        with np.errstate(all="ignore"):  # a GPU does not warn
            return _given(getattr(self._host, name)(*map(_taken, others)))

    method.__name__ = name
    return method


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift", "matmul"):
    for _prefix in ("", "r"):
        setattr(DeviceArray, f"__{_prefix}{_name}__", _operator(f"__{_prefix}{_name}__"))
for _name in ("lt", "le", "eq", "ne", "gt", "ge", "neg", "pos", "abs", "invert"):
    setattr(DeviceArray, f"__{_name}__", _operator(f"__{_name}__"))


def _in_place(name: str) -> Any:
    def method(self: DeviceArray, other: Any) -> DeviceArray:
        getattr(self._host, name)(_taken(other))
        return self

    return method


for _name in ("iadd", "isub", "imul", "itruediv"):
    setattr(DeviceArray, f"__{_name}__", _in_place(f"__{_name}__"))


def _taken(x: Any) -> Any:
    """An argument for NumPy. TypeError for a host array: CuPy does not take one either."""
    if isinstance(x, DeviceArray):
        return x._host
    if isinstance(x, np.ndarray) and x.ndim:
        raise TypeError(f"Unsupported type {np.ndarray}")
    if isinstance(x, (tuple, list)):
        return type(x)(map(_taken, x))
    return x


def _given(x: Any) -> Any:
    """A result of NumPy's, on the device if it is an array."""
    if isinstance(x, np.ndarray):
        return DeviceArray(x)
    if isinstance(x, np.generic):
        return DeviceArray(np.asarray(x))
    if isinstance(x, (tuple, list)) and any(isinstance(item, np.ndarray) for item in x):
        return type(x)(map(_given, x))
    return x


def _on_device(function: Callable[..., Any]) -> Callable[..., Any]:
    def on_device(*args: Any, **options: Any) -> Any:
        return _given(function(*map(_taken, args), **{name: _taken(value) for name, value in options.items()}))

    return on_device


class Namespace:
    """NumPy's functions for device arrays."""

    ndarray = DeviceArray

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        return _on_device(found) if callable(found) and not isinstance(found, type) else found

    @staticmethod
    def asnumpy(x: DeviceArray) -> np.ndarray[Any, Any]:
        return x.get()


class EmulatedDevice:
    """`lossfuncs.gpu.Device`. A test may choose the schedule, and have only some blocks of a grid run."""

    backend = "emulated"
    shared = (227 << 10) - STATIC_SHARED  # an H200's
    processors = 4  # few, so that blocks have more than one thing to do

    def __init__(self) -> None:
        self.xp = Namespace()
        self.schedule = program.DEFAULT
        self.blocks: range | None = None
        self.launches = 0

    def place(self) -> Hashable:
        return "emulated"

    def owns(self, x: Any) -> bool:
        return isinstance(x, DeviceArray)

    def home(self, x: DeviceArray) -> Hashable:
        return self.place() if x.flags.c_contiguous else None

    def send(self, x: np.ndarray[Any, Any]) -> DeviceArray:
        out = self.empty(x.shape, x.dtype)
        out._host[...] = x
        return out

    def fetch(self, x: DeviceArray) -> np.ndarray[Any, Any]:
        return x.get()

    def empty(self, shape: Any, dtype: Any) -> DeviceArray:
        return self._new(shape, dtype, poison=True)

    def zeros(self, shape: Any, dtype: Any) -> DeviceArray:
        return self._new(shape, dtype, poison=False)  # fresh memory is zero, and takes no room until it is written

    def _new(self, shape: Any, dtype: Any, poison: bool) -> DeviceArray:
        dtype = np.dtype(dtype)
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        nbytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        return DeviceArray(np.asarray(_Memory(nbytes, poison)).view(dtype).reshape(shape))

    def address(self, x: DeviceArray) -> int:
        return int(x._host.__array_interface__["data"][0])

    def stream(self) -> int:
        return 0

    def compile(self, kernel: Any) -> program.Kernel:
        if kernel.name in _prepared:
            return _prepared[kernel.name]
        try:
            return program.compile(kernel.text, [kernel.name], SOURCES)[kernel.name]
        except program.CompileError as error:
            raise ValueError(f"{kernel.name} cannot be compiled: {first_error(str(error))}") from error

    def launch(self, compiled: program.Kernel, grid: int, block: int, shared: int, arguments: bytes, stream: int) -> None:
        self.launches += 1
        compiled.launch((grid,), (block,), shared, arguments, self.schedule, self.blocks)




_prepared: dict[str, program.Kernel] = {}


def prepare(kernels: Iterable[Any], together: int = 8) -> None:
    """Compile what will be asked for, several kernels in one file and several files at once: for less than one by one."""
    wanted = sorted(kernels, key=lambda kernel: kernel.name)
    groups = [wanted[i : i + together] for i in range(0, len(wanted), together)]

    def load(group: list[Any]) -> dict[str, program.Kernel]:
        return program.compile("".join(kernel.text for kernel in group), [kernel.name for kernel in group], SOURCES)

    if groups:
        _prepared.update(load(groups[0]))  # precompiles what they include
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(load, groups[1:]):
            _prepared.update(found)


DEVICE = EmulatedDevice()
