"""Tensors on a GPU: the CUDA kernels on their memory, on torch's current stream, with results from torch's allocator.

A call that was made before for such shapes hands addresses to the kernel and nothing else. Any other goes through CuPy's arrays on the
tensors' memory, while CuPy's own stream and allocator are torch's. Nothing waits for the GPU, so that calls can be captured in a CUDA
graph once they ran. Imported when the first such tensor is met.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import gpu
from ..derivatives import value_and_grad
from ..dispatch import prepare
from .bound import Bound

_NAMES = {torch.float16: "float16", torch.float32: "float32", torch.float64: "float64", torch.bool: "bool", torch.uint8: "uint8",
          torch.int8: "int8", torch.int16: "int16", torch.int32: "int32", torch.int64: "int64"}  # fmt: skip


@functools.cache
def _numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    if dtype is torch.bfloat16:
        import ml_dtypes  # in the extras of all who need it

        return np.dtype(ml_dtypes.bfloat16)
    try:
        return np.dtype(_NAMES[dtype])
    except KeyError:
        raise TypeError(f"must hold real numbers of 64 bits at most, got {dtype}") from None


@functools.cache
def _torch_dtype(dtype: Any) -> torch.dtype:
    return getattr(torch, np.dtype(dtype).name)


class _Handle:
    """A stream of torch's, as CuPy takes streams of others."""

    def __init__(self, stream: int) -> None:
        self.stream = stream

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.stream  # version 0 of the protocol


class OnGPU:
    """Between tensors and the GPU backend: its device, and `gpu.Arrays` for tensors on the current one.

    ImportError where CuPy is missing or finds no GPU.
    """

    kind = "cuda"

    def __init__(self) -> None:
        from ..cupy_device import device

        self.device: Any = device()
        self.cupy = self.device.xp
        self.blocks: dict[int, Tensor] = {}
        self.allocator = self.cupy.cuda.PythonFunctionAllocator(self.allocate, lambda address, _: self.blocks.pop(address, None))

    # Tensors as `gpu.Arrays`

    def place(self) -> Hashable:
        return torch.cuda.current_device()

    def owns(self, x: Tensor) -> bool:
        return x.is_cuda and x.get_device() == torch.cuda.current_device()

    def home(self, x: Tensor) -> Hashable:
        return x.get_device() if x.is_cuda and x.is_contiguous() else None

    def empty(self, shape: Any, dtype: Any) -> Tensor:
        return torch.empty(shape, dtype=_torch_dtype(dtype), device=self.kind)

    def address(self, x: Tensor) -> int:
        return x.data_ptr()

    def stream(self) -> int:
        return torch.cuda.current_stream().cuda_stream

    # Tensors as the device's arrays

    def array(self, x: Tensor) -> Any:
        """The device's array on x's memory."""
        dtype = _numpy_dtype(x.dtype)
        owner = self.cupy.cuda.UnownedMemory(x.data_ptr(), x.untyped_storage().nbytes(), x, x.get_device())
        strides = tuple(step * dtype.itemsize for step in x.stride())
        return self.cupy.ndarray(tuple(x.shape), dtype, self.cupy.cuda.MemoryPointer(owner, 0), strides)

    def allocate(self, size: int, place: int) -> int:
        """Memory for an array of CuPy's: a tensor's."""
        block = torch.empty(max(size, 1), dtype=torch.uint8, device=f"{self.kind}:{place}")
        self.blocks[block.data_ptr()] = block
        return block.data_ptr()

    def tensor(self, x: Any) -> Tensor:
        """A tensor on an array's memory, which `allocate` gave; of the block's storage, so that torch knows of its streams."""
        if not x.size:
            return self.empty(x.shape, x.dtype)
        block = self.blocks[x.data.mem.ptr]
        size = x.dtype.itemsize
        strides = tuple(step // size for step in x.strides)
        first = (x.data.ptr - block.data_ptr()) // size
        return torch.empty(0, dtype=_torch_dtype(x.dtype), device=block.device).set_(block.untyped_storage(), first, x.shape, strides)

    @contextmanager
    def scope(self, x: Tensor) -> Iterator[None]:
        """The device's current stream and allocator are torch's for x's GPU."""
        cuda = self.cupy.cuda
        with (
            torch.cuda.device(x.get_device()),
            cuda.Stream.from_external(_Handle(self.stream())),
            cuda.using_allocator(self.allocator.malloc),
        ):
            yield

    def enter(self, name: str, x: Any) -> Any:
        """x as the device's array if it is a tensor there; a number, a list or an array of NumPy's as it is."""
        if not isinstance(x, Tensor):
            if name == "y_true":
                raise TypeError(f"y_true must be a tensor on the GPU as y_pred is, got {type(x).__name__}")
            return x
        if not self.owns(x):
            raise ValueError(f"{name} is on {x.device}, but y_pred is on {self.kind}:{self.place()}")
        if x.layout is not torch.strided or x.is_quantized:
            raise TypeError(f"{name} is a sparse or quantized tensor; pass it with .to_dense() or .dequantize()")
        try:
            return self.array(x.detach().resolve_neg())
        except TypeError as error:
            raise TypeError(f"{name} {error}") from None

    # Losses

    def value(self, loss: Bound, t: Any, p: Tensor, w: Any) -> Tensor:
        found = self._again(loss, 0, t, p, w)
        if found is None:

            def compute() -> Any:
                y_true, y_pred, weight = self._arguments(t, p, w)
                return self._entered(loss).value(y_true, y_pred, weight)

            found = self._long(p, compute)
            self._remember(loss, 0, t, p, w)
        return found

    def value_and_gradient(self, loss: Bound, t: Any, p: Tensor, w: Any, upstream: Any = None, out: Any = None) -> tuple[Tensor, Tensor]:
        plain = upstream is None and out is None
        found = self._again(loss, 1, t, p, w) if plain else None
        if found is None:

            def compute() -> Any:
                y_true, y_pred, weight = self._arguments(t, p, w)
                value, gradient = value_and_grad(
                    loss.function, y_true, y_pred, upstream=self.enter("upstream", upstream),
                    out=y_pred if out is p else self.enter("out", out), sample_weight=weight, reduction=loss.reduction,
                    **self._entered(loss).options,
                )  # fmt: skip
                return (value, gradient) if out is None else (value,)

            found = self._long(p, compute)
            if out is not None:
                return found[0], out
            if plain:
                self._remember(loss, 1, t, p, w)
        return found

    def gradient(self, loss: Bound, t: Any, p: Tensor, w: Any, upstream: Tensor) -> Tensor:
        """The gradient of sum(upstream * value)."""
        seed = upstream.double() if loss.reduced or upstream.dtype not in (torch.float32, torch.float64) else upstream.contiguous()
        found = self._again(loss, 1, t, p, w, seed)
        if found is not None:
            return found[1]

        def compute() -> Any:
            y_true, y_pred, weight = self._arguments(t, p, w)
            call = prepare(loss.function, y_true, y_pred, self._entered(loss).options, weight, loss.reduction)
            call.check_order(1)
            return gpu.gradient(call, self.enter("upstream", seed))

        gradient = self._long(p, compute)
        self._remember(loss, 1, t, p, w, seed)
        return gradient

    def curvature(self, loss: Bound, t: Any, p: Tensor, w: Any, upstream: Tensor) -> Tensor:
        return self._long(p, lambda: self._entered(loss).curvature(*self._arguments(t, p, w), self.enter("upstream", upstream)))

    def _arguments(self, t: Any, p: Tensor, w: Any) -> tuple[Any, Any, Any]:
        return self.enter("y_true", t), self.enter("y_pred", p), self.enter("sample_weight", w)

    def _entered(self, loss: Bound) -> Bound:
        """With options that are tensors as the device's arrays."""
        if not any(isinstance(x, Tensor) for x in loss.options.values()):
            return loss
        return Bound(loss.function, {name: self.enter(name, x) for name, x in loss.options.items()}, loss.reduction)

    def _long(self, p: Tensor, compute: Callable[[], Any]) -> Any:
        with self.scope(p):
            found = compute()
            return tuple(map(self.tensor, found)) if isinstance(found, tuple) else self.tensor(found)

    # Calls that were made before

    def _key(self, order: int, t: Any, p: Tensor, w: Any, seed: Tensor | None) -> Any:
        if w is not None or not isinstance(t, Tensor) or not (t.is_contiguous() and p.is_contiguous()) or t.is_neg() or p.is_neg():
            return None
        return order, t.shape, p.shape, t.dtype, p.dtype, p.get_device(), seed is not None and seed.dtype

    def _again(self, loss: Bound, order: int, t: Any, p: Tensor, w: Any, seed: Tensor | None = None) -> Any:
        key = self._key(order, t, p, w, seed)
        again = loss.shortcuts.get(key) if key else None
        return None if again is None else again(t, p, seed)

    def _remember(self, loss: Bound, order: int, t: Any, p: Tensor, w: Any, seed: Tensor | None = None) -> None:
        key = self._key(order, t, p, w, seed)
        if key is None or key in loss.shortcuts or self._entered(loss) is not loss:
            return
        with self.scope(p):
            y_true, y_pred, _ = self._arguments(t, p, None)
            call = prepare(loss.function, y_true, y_pred, loss.options, None, loss.reduction)
            again = gpu.shortcut(call, order, self, self.enter("upstream", seed))
        if len(loss.shortcuts) >= 256:
            loss.shortcuts.clear()
        loss.shortcuts[key] = again


@functools.cache
def on_gpu() -> OnGPU:
    """The one; see the class for what it raises."""
    return OnGPU()
