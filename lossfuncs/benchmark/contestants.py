"""Who takes part: the library's backends, and its peers; how each is called, and how arrays enter and leave it."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from .. import dispatch, losses, metrics
from ..cupy_device import trouble
from ..derivatives import value_and_grad
from . import cuda, formulas
from .formulas import Formula, Formulas
from .timing import Runner
from .workloads import EPSILON, Array, Workload

OURS = "lossfuncs"
PEERS = ("torch", "torch.compile", "jax", "sklearn", "keras")
ON_GPU = ("torch", "torch.compile", "jax")

# Relative to float64's result. Half a unit in the last place is at most half of EPSILON, and ours must stay within twice that, but on
# a GPU, where it computes float32 in float32; a peer may compute in its arrays' dtype.
OURS_FLOOR = 2.0**-40  # of float64: what terms that cancel leave
OURS_ON_GPU = 16 * EPSILON["float32"]
PEER_TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 1e-2, "bfloat16": 6e-2}


@dataclass(frozen=True)
class Contestant:
    """One column: how a library is called (`build` gives every way worth racing), and how arrays enter and leave it."""

    name: str
    build: Callable[[Workload], Sequence[Formula]]
    enter: Callable[[Array], Any] = lambda array: array
    leave: Callable[[Any], Any] = np.asarray
    context: Callable[[Workload], AbstractContextManager[Any]] = lambda workload: nullcontext()
    runner: Callable[[Formula, Sequence[tuple[Any, ...]], Callable[[], AbstractContextManager[Any]]], Runner] = Runner
    device: str = "cpu"
    threads: int | None = None

    @property
    def ours(self) -> bool:
        return self.name.startswith(OURS)

    def tolerance(self, dtype: str) -> float:
        if not self.ours:
            return PEER_TOLERANCE[dtype]
        return OURS_ON_GPU if self.device == "cuda" and dtype == "float32" else max(EPSILON[dtype], OURS_FLOOR)


def field(backends: Sequence[str] | None, peers: Sequence[str] | None, threads: Sequence[int], dtypes: Sequence[str],
          quick: bool = False) -> tuple[list[Contestant], dict[str, str]]:  # fmt: skip
    """Those that can take part, in the table's order, and for each that cannot, why.

    backends: those of the library; None for the best one on the CPU, and cupy where there is a GPU. peers: beside the NumPy formulas, on
    the devices of those backends; None for all that are installed (with `quick` without torch.compile, which compiles longer than
    that); "none" leaves out NumPy too. ImportError if no backend that was asked for can be used.
    """
    found: list[Contestant] = []
    absent: dict[str, str] = {}
    wanted = list(backends or ("numba" if find_spec("numba") else "numpy", "cupy"))
    for backend in wanted:
        reason = _unusable(backend)
        if reason:
            absent[f"{OURS} {backend}"] = reason
        elif backend == "numba":
            found += [_ours(backend, each, several=len(threads) > 1) for each in threads]
        else:
            found.append(_ours(backend))
    if not found:
        raise ImportError("; ".join(f"{name} cannot take part: {reason}" for name, reason in absent.items()))
    if peers is not None and "none" in peers:
        return found, absent
    makers: dict[str, tuple[str, Callable[[str], Contestant]]] = {
        "torch": ("torch", lambda device: _torch(max(threads), device, compiled=False)),
        "torch.compile": ("torch", lambda device: _torch(max(threads), device, compiled=True)),
        "jax": ("jax", lambda device: _jax("float64" in dtypes, device)),
        "sklearn": ("sklearn", lambda device: _sklearn(max(threads))),
        "keras": ("keras", lambda device: _keras()),
    }
    devices = sorted({each.device for each in found})
    for device in devices:
        found.append(_numpy() if device == "cpu" else _cupy())
        for name in PEERS if peers is None else [name for name in peers if name != "numpy"]:
            module, make = makers[name]
            shown = name if device == "cpu" else _on_gpu(name)
            if device == "cuda" and name not in ON_GPU:
                if devices == ["cuda"] and peers is not None:
                    absent[name] = "computes on the CPU, where none of lossfuncs takes part"
            elif not find_spec(module):
                absent[name] = "not installed"
            elif peers is None and quick and name in ("torch.compile", "keras"):
                absent[name] = "left out of --quick; --vs asks for it"
            else:
                try:
                    found.append(make(device))
                except ImportError as error:
                    absent[shown] = str(error)
                except Exception as error:
                    absent[shown] = f"{type(error).__name__}: {error}".splitlines()[0]
    return found, absent


def _on_gpu(name: str) -> str:
    return f"{name} (cuda)"


def _unusable(backend: str) -> str | None:
    if backend == "cupy":
        return trouble()
    return "Numba is not installed" if backend == "numba" and not find_spec("numba") else None


def _ours(backend: str, threads: int | None = None, several: bool = False) -> Contestant:
    def build(workload: Workload) -> Sequence[Formula]:
        registry = losses.REGISTRY if workload.kind == "loss" else metrics.REGISTRY
        function, options = registry.function(workload.function), workload.options
        if workload.gradient:
            with_mean = {"reduction": "mean", **options}
            return (lambda t, p: value_and_grad(function, t, p, **with_mean),)
        return ((lambda t, p: function(t, p, **options)) if options else function,)

    @contextmanager
    def context(workload: Workload) -> Iterator[None]:
        from ..threads import get_num_threads, set_num_threads

        before = get_num_threads()
        set_num_threads(threads or before)
        try:
            with dispatch.backend(backend):
                yield
        finally:
            set_num_threads(before)

    name = f"{OURS} {backend}{f' {threads}T' if several else ''}"
    if backend == "cupy":
        return Contestant(name, build, cuda.enter, cuda.leave, context, cuda.captured(cuda.cupy_graph), "cuda")
    return Contestant(name, build, context=context, threads=threads)


def _ways(written: Formulas, mean: Callable[[Any], Any], gradient: Callable[[Formula], Formula] | None = None,
          differentiable: Formulas | None = None) -> Callable[[Workload], Sequence[Formula]]:  # fmt: skip
    """From the formulas, the ways of a workload: as written for it, or the mean taken and differentiated."""

    def averaged(way: Formula) -> Formula:
        return lambda t, p: mean(way(t, p))

    def build(workload: Workload) -> Sequence[Formula]:
        problem, reduction = workload.formula, workload.options.get("reduction")
        if problem is None or reduction not in (None, "mean"):
            return ()
        if workload.gradient:
            if f"value_and_grad {problem}" in written:
                return written[f"value_and_grad {problem}"]
            if gradient is None:
                return ()
            return [gradient(averaged(way)) for way in (differentiable or written).get(problem, ())]
        if reduction is None:
            return written.get(problem, ())
        return written.get(f"{problem} total") or [averaged(way) for way in written.get(problem, ())]

    return build


def _numpy() -> Contestant:
    return Contestant("numpy", _ways(formulas.numpy_formulas(), lambda x: x.mean()))


def _cupy() -> Contestant:
    """The formulas of NumPy, on CuPy's arrays."""
    import cupy

    ways = _ways(formulas.numpy_formulas(cupy), lambda x: x.mean())
    return Contestant("cupy", ways, cuda.enter, cuda.leave, runner=cuda.captured(cuda.cupy_graph), device="cuda")


@lru_cache(maxsize=1)
def _forget_compiled(workload: str) -> None:
    """Once a workload, whatever device it runs on: kernels of earlier shapes would add their guards to every call."""
    import torch

    torch.compiler.reset()


def _torch(threads: int, device: str, compiled: bool) -> Contestant:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ImportError("torch sees no GPU")
    warnings.filterwarnings("ignore", module="torch")
    torch.set_num_threads(threads)
    fusing = formulas.compiled_formulas()
    written = fusing if compiled else formulas.torch_formulas()

    def gradient(loss: Formula) -> Formula:
        def eager(t: Any, p: Any) -> Any:
            p = p.detach().requires_grad_()
            value = loss(t, p)
            return value.detach(), torch.autograd.grad(value, p)[0]

        both = torch.func.grad_and_value(lambda p, t: loss(t, p))
        return (lambda t, p: both(p, t)[::-1]) if compiled else eager

    ways = _ways(written, lambda x: x.float().mean() if x.dtype == torch.bool else x.mean(), gradient, fusing)

    def build(workload: Workload) -> Sequence[Formula]:
        if not compiled:
            return ways(workload)
        _forget_compiled(workload.identity)
        return [torch.compile(each, fullgraph=True, dynamic=False) for each in ways(workload)]

    def enter(array: Array) -> Any:
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.view(np.int16)).to(device).view(torch.bfloat16)
        return torch.from_numpy(array).to(device)

    def leave(tensor: Any) -> Any:
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()

    def context(workload: Workload) -> AbstractContextManager[Any]:
        return nullcontext() if workload.gradient else torch.inference_mode()

    name = "torch.compile" if compiled else "torch"
    if device == "cuda":
        return Contestant(_on_gpu(name), build, enter, leave, context, cuda.captured(cuda.torch_graph), device)
    return Contestant(name, build, enter, leave, context)


def _jax(doubles: bool, device: str) -> Contestant:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # it would take three quarters of the GPU's memory
    import jax

    try:
        place = jax.devices(device)[0]
    except RuntimeError:
        raise ImportError("jax sees no GPU") from None
    if doubles:
        jax.config.update("jax_enable_x64", True)
    ways = _ways(formulas.jax_formulas(), lambda x: x.mean(), lambda loss: jax.value_and_grad(loss, argnums=1))

    def awaited(formula: Formula, several: bool) -> Formula:
        function = jax.jit(formula)
        if device == "cuda":
            return function  # type: ignore[no-any-return]
        if several:
            return lambda t, p: jax.block_until_ready(function(t, p))
        return lambda t, p: function(t, p).block_until_ready()

    def enter(array: Array) -> Any:
        # 32-bit labels are jax's own default.
        return jax.device_put(array.astype(np.int32) if array.dtype == np.int64 else array, place)

    def build(workload: Workload) -> Sequence[Formula]:
        return [awaited(each, workload.gradient) for each in ways(workload)]

    if device == "cuda":
        return Contestant(_on_gpu("jax"), build, enter, runner=cuda.queued(jax.block_until_ready), device=device)
    return Contestant("jax", build, enter)


def _sklearn(threads: int) -> Contestant:
    ways = _ways(formulas.sklearn_formulas(threads), np.mean)

    def build(workload: Workload) -> Sequence[Formula]:
        return ways(workload) if workload.dtype in ("float32", "float64") else ()

    # Its Cython losses want labels in the scores' own type.
    return Contestant("sklearn", build, lambda array: array.astype(np.float32) if array.dtype == np.int64 else array)


def _keras() -> Contestant:
    """Keras' own functions, on the backend that KERAS_BACKEND says, or else the first of jax, torch and tensorflow that is there."""
    if "keras" not in sys.modules and "KERAS_BACKEND" not in os.environ:
        there = [name for name in ("jax", "torch", "tensorflow") if find_spec(name)]
        os.environ["KERAS_BACKEND"] = there[0] if there else "numpy"
    import keras

    backend = keras.backend.backend()

    def build(workload: Workload) -> Sequence[Formula]:
        module = keras.losses if workload.kind == "loss" else keras.metrics
        function = getattr(module, workload.function, None)
        options = {name: value for name, value in workload.options.items() if name != "reduction"}
        reduction = "mean" if workload.gradient else workload.options.get("reduction")
        if function is None or reduction not in (None, "mean"):
            return ()

        def formula(t: Any, p: Any) -> Any:
            value = function(t, p, **options)
            return value if reduction is None else keras.ops.mean(value)

        if backend == "jax":
            import jax

            compute = jax.jit(jax.value_and_grad(formula, argnums=1) if workload.gradient else formula)
            return (lambda t, p: jax.block_until_ready(compute(t, p)),)
        return () if workload.gradient else (formula,)

    def context(workload: Workload) -> AbstractContextManager[Any]:
        if backend == "torch":
            import torch

            inference: AbstractContextManager[Any] = torch.inference_mode()
            return inference
        return nullcontext()

    name = f"keras ({backend})"
    return Contestant(name, build, keras.ops.convert_to_tensor, keras.ops.convert_to_numpy, context)
