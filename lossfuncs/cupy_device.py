"""CuPy as the device of the GPU backend; imported when the first CuPy array, or the backend "cupy", is met."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import zlib
from collections.abc import Callable
from typing import Any

from .gpu import OPTIONS, SOURCES, Kernel
from .problem import Array

INSTALL = "install lossfuncs[cuda13] for a driver of CUDA 13, lossfuncs[cuda12] for one of CUDA 12"


class _Arguments(threading.local):
    """A thread's: a kernel's one argument, at an address that stays, and the list of pointers that a launch takes.

    `bind` gives the thread the GPU's context, which the driver does not do by itself, and CuPy only where it launches.
    """

    def __init__(self, bind: Callable[[], Any]) -> None:
        bind()
        self.struct = ctypes.create_string_buffer(1024)
        self.view = memoryview(self.struct).cast("B")
        self.pointers = (ctypes.c_void_p * 1)(ctypes.addressof(self.struct))
        self.list = ctypes.addressof(self.pointers)


class CuPyDevice:
    """`gpu.Device` on CuPy's current device and stream.

    ImportError where CuPy is not installed, finds no GPU, or is for another CUDA than the driver's.
    """

    backend = "cupy"

    def __init__(self) -> None:
        missing = trouble()
        if missing:
            raise ImportError(missing)
        import cupy
        from cupy_backends.cuda.api import driver, runtime

        self.xp: Any = cupy
        self._launch = driver.launchKernel
        self._device = runtime.getDevice
        self._stream = cupy.cuda.get_current_stream
        self._forked = False
        os.register_at_fork(after_in_child=self._was_forked)
        self._arguments = _Arguments(lambda: runtime.free(0))
        self._options = (*OPTIONS, f"-I{SOURCES}", f"-DSOURCES={_checksum()}")

    @property
    def shared(self) -> int:
        return _attributes(self.place())[0]

    @property
    def processors(self) -> int:
        return _attributes(self.place())[1]

    def _was_forked(self) -> None:
        self._forked = True

    def place(self) -> int:
        if self._forked:
            raise RuntimeError(
                "this process was forked after its parent had begun to use the GPU, and cannot use it: start it by the method "
                "'spawn', or fork before the first call"
            )
        return int(self._device())

    def owns(self, x: Any) -> bool:
        if not isinstance(x, self.xp.ndarray):
            return False
        here = self.place()
        if x.data.device_id != here:
            raise ValueError(f"an array is on GPU {x.data.device_id}, but the current one is GPU {here}: call it with "
                             f"cupy.cuda.Device({x.data.device_id}), or move the array")  # fmt: skip
        return True

    def home(self, x: Any) -> int | None:
        return x.data.device_id if x._c_contiguous else None

    def send(self, x: Array) -> Any:
        return self.xp.array(x)

    def fetch(self, x: Any) -> Array:
        return self.xp.asnumpy(x)  # type: ignore[no-any-return]

    def empty(self, shape: Any, dtype: Any) -> Any:
        return self.xp.ndarray(shape, dtype)

    def zeros(self, shape: Any, dtype: Any) -> Any:
        return self.xp.zeros(shape, dtype)

    def address(self, x: Any) -> int:
        return x.data.ptr  # type: ignore[no-any-return]

    def stream(self) -> int:
        return self._stream().ptr  # type: ignore[no-any-return]

    def compile(self, kernel: Kernel) -> Any:
        module = self.xp.RawModule(code=kernel.text, options=self._options)
        try:
            function = module.get_function(kernel.name)
        except self.xp.cuda.compiler.CompileException as error:
            raise ValueError(f"{kernel.name} cannot be compiled: {first_error(str(error))}") from None
        function.max_dynamic_shared_size_bytes = self.shared
        return module, function, function.kernel.ptr  # the first two keep the third alive

    def launch(self, compiled: Any, grid: int, block: int, shared: int, arguments: bytes | bytearray, stream: int) -> None:
        ours = self._arguments
        ours.view[: len(arguments)] = arguments
        self._launch(compiled[2], grid, 1, 1, block, 1, 1, shared, stream, ours.list, 0)


@functools.cache
def _attributes(place: int) -> tuple[int, int]:
    """Bytes of shared memory a block, and multiprocessors."""
    import cupy

    found = cupy.cuda.Device(place).attributes
    return found["MaxSharedMemoryPerBlockOptin"] - STATIC_SHARED, found["MultiProcessorCount"]


STATIC_SHARED = 4 << 10  # bytes that kernels declare beside the dynamic ones, at most


@functools.cache
def _checksum() -> int:
    """Of all sources: CuPy keeps compiled kernels by their text and options, and does not look into what they include."""
    crc = 0
    for path in sorted(SOURCES.glob("*.cuh")):
        crc = zlib.crc32(path.read_bytes(), crc)
    return crc


def first_error(log: str) -> str:
    """The compiler's first complaint."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else "the compiler does not say why")


def trouble() -> str | None:
    """In a sentence, why CUDA kernels cannot run here; None if they can."""
    try:
        import cupy
    except ImportError as error:
        if error.name == "cupy":
            return f"CuPy is not installed: {INSTALL}"
        return f"CuPy cannot be imported ({error}): {INSTALL}"
    runtime = cupy.cuda.runtime
    try:
        has, wants = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    except runtime.CUDARuntimeError as error:
        return f"the CUDA driver does not answer: {error}"
    if has == 0:
        return "no NVIDIA driver is installed, or none that CuPy can load"
    if has // 1000 < wants // 1000:
        return f"CuPy is built for CUDA {wants // 1000}, but the driver is one of CUDA {has // 1000}: {INSTALL}"
    if not cupy.cuda.is_available():
        return "the CUDA driver finds no GPU"
    return None


@functools.cache
def device() -> CuPyDevice:
    """The device; see the class for what it raises."""
    return CuPyDevice()
