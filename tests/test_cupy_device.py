"""CuPy's side of the seam without a GPU: what is handed to the driver, and what is said where something is missing."""

from __future__ import annotations

import ctypes
import sys
import threading
import types
from typing import Any

import pytest

import lossfuncs
from lossfuncs import cupy_device
from lossfuncs.cupy_device import CuPyDevice, _Arguments, first_error, trouble


def fake(driver: int = 13000, built: int = 13000, available: bool = True) -> Any:
    """As much of CuPy as is asked before anything is computed."""
    runtime = types.SimpleNamespace(driverGetVersion=lambda: driver, runtimeGetVersion=lambda: built, CUDARuntimeError=OSError)
    return types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime, is_available=lambda: available))


@pytest.mark.parametrize(("module", "message"), [
    (None, "CuPy is not installed: install lossfuncs[cuda13] for a driver of CUDA 13, lossfuncs[cuda12] for one of CUDA 12"),
    (fake(driver=0), "no NVIDIA driver is installed, or none that CuPy can load"),
    (fake(driver=12040), f"CuPy is built for CUDA 13, but the driver is one of CUDA 12: {cupy_device.INSTALL}"),
    (fake(available=False), "the CUDA driver finds no GPU"),
])  # fmt: skip
def test_what_is_missing_is_said_in_a_sentence(module: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", module)
    assert trouble() == message
    cupy_device.device.cache_clear()
    with pytest.raises(ImportError) as error, lossfuncs.backend("cupy"):
        pass
    assert str(error.value) == message


def test_a_newer_driver_than_cupy_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake(driver=13010, built=12090))
    assert trouble() is None


def bare() -> CuPyDevice:
    """The device without CuPy."""
    device: CuPyDevice = object.__new__(CuPyDevice)
    device._arguments = _Arguments(lambda: None)
    device._forked = False
    device._device = lambda: 0
    device.xp = types.SimpleNamespace(ndarray=types.SimpleNamespace)
    return device


def test_a_launch_hands_the_driver_a_pointer_to_the_struct() -> None:
    device, seen = bare(), []

    def launch(*args: int) -> None:
        (pointer,) = (ctypes.c_void_p * 1).from_address(args[9])
        seen.append((args[:9], ctypes.string_at(pointer, 12), args[10]))

    device._launch = launch
    for content in (b"first bytes!", bytearray(b"other bytes!")):
        device.launch((None, None, 4711), 5, 128, 1024, content, 99)
    numbers = (4711, 5, 1, 1, 128, 1, 1, 1024, 99)
    assert seen == [(numbers, b"first bytes!", 0), (numbers, b"other bytes!", 0)]


def test_every_thread_is_given_the_context_once() -> None:
    bound: list[int] = []
    arguments = _Arguments(lambda: bound.append(threading.get_ident()))
    threads = [threading.Thread(target=lambda: (arguments.list, arguments.list)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bound) == 3 and bound[0] == threading.get_ident()


def test_a_forked_process_is_told_that_it_cannot_use_the_gpu() -> None:
    device = bare()
    device._was_forked()
    with pytest.raises(RuntimeError, match="^this process was forked after its parent had begun to use the GPU, and cannot use it"):
        device.place()


def test_an_array_on_another_gpu_is_refused() -> None:
    device = bare()
    assert device.owns(types.SimpleNamespace(data=types.SimpleNamespace(device_id=0)))
    assert not device.owns([1.0])
    with pytest.raises(ValueError, match="^an array is on GPU 1, but the current one is GPU 0"):
        device.owns(types.SimpleNamespace(data=types.SimpleNamespace(device_id=1)))


def test_the_first_error_of_a_compiler_is_found() -> None:
    assert first_error("\nk.cu(3): warning: unused\nk.cu(4): error: expected a ';'\n1 error detected") == "k.cu(4): error: expected a ';'"
    assert first_error("") == "the compiler does not say why"


def test_sources_have_a_checksum_of_what_they_hold() -> None:
    first = cupy_device._checksum()
    assert first == cupy_device._checksum() and 0 < first < 1 << 32
