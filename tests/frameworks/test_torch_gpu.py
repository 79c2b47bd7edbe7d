"""Tensors on a GPU. Here those of the CPU are taken for such: the emulator runs the kernels on their memory. With -m gpu, a GPU does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from cases import DIFFERENTIABLE, Entry, case, inputs
from emulator import DEVICE, DeviceArray

import lossfuncs
from lossfuncs.cupy_device import trouble
from lossfuncs.frameworks import torch as lt
from lossfuncs.frameworks.torch_gpu import OnGPU, _Handle, _numpy_dtype
from lossfuncs.table import LOSSES

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # by torch's own compiler

ENTRIES = {entry.name: entry for entry in LOSSES}
LOGITS = {"from_logits": True}
SOME = [case(ENTRIES[name], options) for name, options in (
    ("mean_squared_error", {}), ("hinge", {}), ("binary_crossentropy", {**LOGITS, "axis": 0}), ("cosine_similarity", {}),
    ("sparse_categorical_crossentropy", LOGITS), ("categorical_focal_crossentropy", {}), ("dice", {}), ("circle", {}), ("ctc", {}),
)]  # fmt: skip


class OnEmulator(OnGPU):
    """The CPU's tensors, as if they lay on the emulated device. `streams` and `tensors` are what launches and allocations were seen."""

    kind = "cpu"

    def __init__(self) -> None:
        self.device = DEVICE
        self.current = 11
        self.entered = 0
        self.streams: list[int] = []

    def place(self) -> Any:
        return DEVICE.place()

    def owns(self, x: torch.Tensor) -> bool:
        return x.device.type == "cpu"

    def home(self, x: torch.Tensor) -> Any:
        return DEVICE.place() if x.is_contiguous() else None

    def stream(self) -> int:
        return self.current

    def array(self, x: torch.Tensor) -> DeviceArray:
        self.entered += 1
        _numpy_dtype(x.dtype)
        return DeviceArray(lt.to_numpy(x))

    def tensor(self, x: DeviceArray) -> torch.Tensor:
        return lt.from_numpy(x._host)

    @contextmanager
    def scope(self, x: torch.Tensor) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DEVICE, "stream", self.stream)
            yield


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> OnEmulator:
    found = OnEmulator()
    launch = DEVICE.launch

    def seen(*args: Any) -> None:
        found.streams.append(args[-1])
        launch(*args)

    def refuse(x: torch.Tensor) -> Any:
        raise AssertionError("a number of the GPU's was read")

    monkeypatch.setattr(lt, "_gpu", lambda x: found if x.is_cpu else None)
    monkeypatch.setattr(DEVICE, "launch", seen)
    monkeypatch.setattr(torch.Tensor, "item", refuse)
    for bound in list(lt.bind.__globals__["_bounds"].values()):
        bound.shortcuts.clear()
    return found


def draw(entry: Entry, options: dict[str, Any], dtype: Any = np.float32) -> tuple[torch.Tensor, torch.Tensor]:
    t, p = inputs(entry, options, (5, 6, 4) if entry.name == "ctc" else (5, 6), dtype)
    return torch.from_numpy(np.array(t)), torch.from_numpy(np.array(p))


def wanted(entry: Entry, t: torch.Tensor, p: torch.Tensor, **options: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """As the same kernels give them of the device's own arrays."""
    host = (lt.to_numpy(x) for x in (t, p))
    value, gradient = lossfuncs.value_and_grad(entry.function, *map(DEVICE.send, host), **options)
    return value.get(), gradient.get()


@pytest.mark.parametrize("reduction", [None, "mean"])
@pytest.mark.parametrize("entry, options", SOME)
def test_a_kernel_computes_on_tensors_memory_on_torchs_stream(
    entry: Entry, options: dict[str, Any], reduction: str | None, gpu: OnEmulator
) -> None:
    t, p = draw(entry, options)
    value, gradient = wanted(entry, t, p, reduction=reduction, **options)
    gpu.streams.clear()
    waits = DeviceArray.waits
    for stream in (11, 12, 12):
        gpu.current = stream
        x = p.clone().requires_grad_()
        found = entry.function(t, x, reduction=reduction, **options)
        found.backward(torch.ones_like(found))
        plain = entry.function(t, p, reduction=reduction, **options)
        again, by_p = lossfuncs.value_and_grad(entry.function, t, p, reduction=reduction, **options)
        for one in (found.detach(), plain, again):
            assert np.array_equal(one.numpy(), value.astype(np.float32), equal_nan=True)
        for one in (x.grad, by_p):
            np.testing.assert_allclose(one.numpy(), gradient, rtol=1e-6, atol=1e-7)  # upstream joins the divisor
        assert set(gpu.streams) == {stream}
        gpu.streams.clear()
    assert DeviceArray.waits == waits


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_call_seen_before_hands_over_addresses_alone(dtype: torch.dtype, gpu: OnEmulator) -> None:
    entry = ENTRIES["sparse_categorical_crossentropy"]
    for labels in (torch.int32, torch.int64):
        t, p = torch.tensor([0, 3, 2], dtype=labels), torch.randn(3, 6).to(dtype)
        value, gradient = lossfuncs.value_and_grad(entry.function, t, p, **LOGITS)
        gpu.entered = 0
        other = p.flip(0).contiguous()
        again = lossfuncs.value_and_grad(entry.function, t.flip(0).contiguous(), other, **LOGITS)
        assert gpu.entered == 0 and again[1].dtype == dtype
        assert torch.equal(again[0].flip(0), value) and torch.equal(again[1].flip(0), gradient)
        assert gpu.streams[-1] == 11
        lossfuncs.value_and_grad(entry.function, t, p.T.contiguous().T, **LOGITS)
        assert gpu.entered == 2  # of other strides


@pytest.mark.parametrize("reduction", [None, "sum", "mean"])
@pytest.mark.parametrize("options", [{}, {"ignore_class": 3}])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_forward_and_backward_seen_before_hand_over_addresses_alone(
    dtype: torch.dtype, options: dict[str, Any], reduction: str | None, gpu: OnEmulator
) -> None:
    torch.manual_seed(0)
    found = []
    for i in range(3):
        p = torch.randn(5, 6).to(dtype).requires_grad_()
        t, upstream = torch.tensor([0, 3, 2, 3, i]), torch.rand(() if reduction else 5).to(torch.float32 if reduction else dtype)
        exact = p.detach().double().requires_grad_()
        gpu.entered = 0
        value = lossfuncs.sparse_categorical_crossentropy(t, p, **LOGITS, **options, reduction=reduction)
        value.backward(upstream)
        found.append(gpu.entered)
        kept = t != options.get("ignore_class", -1)
        plain = torch.nn.functional.cross_entropy(exact, t, reduction="none") * kept
        total = plain if reduction is None else plain.sum() / (kept.sum() if reduction == "mean" else 1.0)
        total.backward(upstream.to(total.dtype))
        close = {"rtol": 2e-3, "atol": 1e-3} if dtype is torch.float16 else {"rtol": 1e-5, "atol": 1e-6}
        torch.testing.assert_close(value.double(), total, **close)
        torch.testing.assert_close(p.grad.double(), exact.grad, **close)
    assert found[0] and found[1:] == [0, 0]


def test_a_stream_without_a_workspace_goes_the_long_way_once(gpu: OnEmulator) -> None:
    t, p = torch.rand(64, 100), torch.rand(64, 100)
    counts = []
    for stream in (21, 21, 22, 22):
        gpu.current, gpu.entered = stream, 0
        lossfuncs.mean_squared_error(t, p, reduction="mean")
        counts.append(gpu.entered > 0)
    assert counts == [True, False, True, False]


@pytest.mark.parametrize("how", ["transposed", "expanded", "every other", "a slice"])
def test_strides_are_those_of_the_tensor(how: str, gpu: OnEmulator) -> None:
    torch.manual_seed(0)
    full = torch.randn(12, 12)
    p = {"transposed": full.T, "expanded": full[:1].expand(12, 12), "every other": full[:, ::2], "a slice": full[3:, 5:]}[how]
    t = torch.rand(p.shape)
    value, gradient = lossfuncs.value_and_grad("mse", t, p, reduction="sum")
    dense = lossfuncs.value_and_grad("mse", t, p.contiguous(), reduction="sum")
    assert torch.equal(gradient, dense[1])
    torch.testing.assert_close(value, dense[0])


def test_weights_upstream_and_out_lie_there_too(gpu: OnEmulator) -> None:
    torch.manual_seed(0)
    t, p, w, u = torch.rand(5, 6), torch.rand(5, 6), torch.rand(5), torch.rand(5)
    gradient = 2 * (p - t) / 6 * (w * u)[:, None]
    value, found = lossfuncs.value_and_grad("mse", t, p, sample_weight=w, upstream=u)
    torch.testing.assert_close(found, gradient)
    torch.testing.assert_close(value, ((p - t) ** 2).mean(1) * w)
    for out in (torch.empty(5, 6), torch.empty(6, 5).T, p):
        assert lossfuncs.value_and_grad("mse", t, p, sample_weight=w, upstream=u, out=out)[1] is out
        torch.testing.assert_close(out, gradient)
    references, labels = torch.nn.functional.normalize(torch.rand(4, 6)), torch.tensor([0, 1, 0, 1])
    options = {"ref_labels": labels, "ref_embeddings": references, "remove_diagonal": False}
    x = torch.nn.functional.normalize(torch.rand(5, 6))
    circle = lossfuncs.circle(torch.tensor([0, 1, 0, 1, 1]), x, **options)
    host = {name: x.numpy() if isinstance(x, torch.Tensor) else x for name, x in options.items()}
    np.testing.assert_allclose(circle, lossfuncs.circle(np.array([0, 1, 0, 1, 1]), x.numpy(), **host), rtol=1e-6)


def test_a_gradient_without_a_node_is_written_to_the_logits(gpu: OnEmulator) -> None:
    layer, x, labels = torch.nn.Linear(4, 6), torch.randn(8, 4), torch.randint(0, 6, (8,))
    torch.nn.functional.cross_entropy(layer(x), labels).backward()
    plain, layer.weight.grad = layer.weight.grad, None
    logits = layer(x)
    lt.SparseCategoricalCrossentropy(from_logits=True).backward_(logits, labels)
    torch.testing.assert_close(layer.weight.grad, plain)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_torchs_own_losses_are_computed_there(reduction: str, gpu: OnEmulator) -> None:
    torch.manual_seed(0)
    labels = torch.tensor([0, -100, 2, 4, -100])
    for name, t, more in (("cross_entropy", labels, {}), ("cross_entropy", labels.clamp(0), {"label_smoothing": 0.1}),
                          ("mse_loss", torch.rand(5, 6), {}), ("binary_cross_entropy_with_logits", torch.rand(5, 6), {})):  # fmt: skip
        p = torch.randn(5, 6, requires_grad=True)
        found, right = (getattr(module, name)(p, t, reduction=reduction, **more) for module in (lt, torch.nn.functional))
        torch.testing.assert_close(found, right)
        upstream = torch.rand_like(right)
        torch.testing.assert_close(*(torch.autograd.grad(x, p, upstream)[0] for x in (found, right)))


@pytest.mark.parametrize("name", ["log_cosh", "sparse_categorical_crossentropy"])
def test_second_derivatives_are_right(name: str, gpu: OnEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # gradcheck reads numbers
    monkeypatch.setattr(lt, "_gpu", lambda x: gpu)
    p = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    t = torch.tensor([0, 1, 4, 2]) if name.startswith("sparse") else torch.randn(4, 5, dtype=torch.float64)
    for reduction in (None, "mean"):
        options = {"reduction": reduction, **(LOGITS if name.startswith("sparse") else {})}
        assert torch.autograd.gradgradcheck(lambda x, o=options: getattr(lossfuncs, name)(t, x, **o), (p,))


def test_it_compiles_as_one_graph(gpu: OnEmulator) -> None:
    torch._dynamo.reset()
    p, t = torch.randn(5, 6, requires_grad=True), torch.rand(5, 6)
    compiled = torch.compile(lambda x: lt.huber(x * 2.0, t), fullgraph=True, backend="aot_eager")
    found, right = (torch.autograd.grad(f(p), p)[0] for f in (compiled, lambda x: lt.huber(x * 2.0, t)))
    torch.testing.assert_close(found, right)
    assert gpu.streams


@pytest.mark.parametrize("given, error, sentence", [
    ({"y_true": torch.rand(5, 6, device="meta")}, ValueError, "y_true is on meta, but y_pred is on cpu"),
    ({"out": torch.rand(5, 6, device="meta")}, ValueError, "out is on meta, but y_pred is on cpu"),
    ({"upstream": torch.rand((), device="meta")}, ValueError, "upstream is on meta, but y_pred is on cpu"),
    ({"y_true": np.zeros((5, 6))}, TypeError, "y_true must be a tensor on the GPU as y_pred is, got ndarray"),
    ({"y_pred": torch.zeros(5, 6, dtype=torch.complex64)}, TypeError, "y_pred must hold real numbers of 64 bits at most, got torch.comp"),
    ({"y_true": torch.zeros(5, 6).to_sparse()}, TypeError, "y_true is a sparse or quantized tensor"),
    ({"out": torch.zeros(5, 5)}, ValueError, "out must be a float32 array of y_pred's shape"),
])  # fmt: skip
def test_bad_input_is_named(given: dict[str, Any], error: type[Exception], sentence: str, gpu: OnEmulator) -> None:
    arguments = {"y_true": torch.rand(5, 6), "y_pred": torch.rand(5, 6), "reduction": "mean", **given}
    with pytest.raises(error, match=sentence):
        lossfuncs.value_and_grad("mse", **arguments)


def test_a_tensor_elsewhere_is_refused_without_a_gradient_too(gpu: OnEmulator) -> None:
    for given in ({"y_true": torch.rand(5, 6, device="meta")}, {"sample_weight": torch.rand(5, device="meta")}):
        with pytest.raises(ValueError, match=f"{next(iter(given))} is on meta, but y_pred is on cpu"):
            lossfuncs.huber(**{"y_true": torch.rand(5, 6), "y_pred": torch.rand(5, 6), **given})


def test_an_array_is_made_of_a_tensors_address_strides_and_gpu() -> None:
    memory = SimpleNamespace(UnownedMemory=lambda *args: args, MemoryPointer=lambda *args: args)
    bridge: OnGPU = object.__new__(OnGPU)
    bridge.cupy = SimpleNamespace(cuda=memory, ndarray=lambda *args: args)
    storage = SimpleNamespace(nbytes=lambda: 4096)
    x: Any = SimpleNamespace(dtype=torch.bfloat16, shape=torch.Size((3, 4)), stride=lambda: (1, 8), data_ptr=lambda: 1 << 40,
                             untyped_storage=lambda: storage, get_device=lambda: 2)  # fmt: skip
    shape, dtype, (owner, offset), strides = bridge.array(x)
    assert (shape, dtype.name, strides, owner, offset) == ((3, 4), "bfloat16", (2, 16), (1 << 40, 4096, x, 2), 0)
    assert _Handle(99).__cuda_stream__() == (0, 99)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_an_arrays_memory_is_a_tensors(dtype: torch.dtype) -> None:
    bridge: OnGPU = object.__new__(OnGPU)
    bridge.kind, bridge.blocks = "cpu", {}
    size = dtype.itemsize
    address = bridge.allocate(12 * size, 0)
    block = bridge.blocks[address]
    block.view(dtype)[:] = torch.arange(12)
    data = SimpleNamespace(ptr=address + size, mem=SimpleNamespace(ptr=address))
    x = bridge.tensor(SimpleNamespace(dtype=_numpy_dtype(dtype), size=6, shape=(2, 3), strides=(2 * size, 3 * size), data=data))
    assert torch.equal(x, torch.tensor([[1, 4, 7], [3, 6, 9]], dtype=dtype))
    assert x.untyped_storage().data_ptr() == address
    del bridge.blocks[address], block
    assert x[1, 2] == 9  # the storage is the tensor's too


# On a GPU


@pytest.fixture
def cuda() -> OnGPU:
    missing = trouble() or ("" if torch.cuda.is_available() else "torch finds none")
    if missing:
        pytest.fail(f"the GPU tests need a GPU: {missing}", pytrace=False)
    return lt._gpu(torch.zeros(1, device="cuda"))  # type: ignore[no-any-return]


@pytest.mark.gpu
@pytest.mark.parametrize("reduction", [None, "mean"])
@pytest.mark.parametrize("entry, options", [x for x in DIFFERENTIABLE if x.values[0].name in ENTRIES and "metrics" not in x.id])
def test_a_gpu_gives_what_the_reference_gives(entry: Entry, options: dict[str, Any], reduction: str | None, cuda: OnGPU) -> None:
    t, p = draw(entry, options)
    with lossfuncs.backend("numpy"):
        value, gradient = lossfuncs.value_and_grad(entry.function, t.numpy(), p.numpy(), reduction=reduction, **options)
    for _ in range(2):
        x = p.cuda().requires_grad_()
        found = entry.function(t.cuda(), x, reduction=reduction, **options)
        found.backward(torch.ones_like(found))
        assert found.is_cuda and x.grad.is_cuda
        np.testing.assert_allclose(found.detach().cpu(), value, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(x.grad.cpu(), gradient, rtol=2e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_work_on_torchs_stream_is_waited_for(dtype: torch.dtype, cuda: OnGPU) -> None:
    for _ in range(2):
        with torch.cuda.stream(torch.cuda.Stream()):
            t, p = torch.randn(2, 1 << 12, 1 << 10, device="cuda").to(dtype).unbind()
            for _ in range(20):  # work that is still to be done when lossfuncs is called
                p = p.sin() + t
            value, gradient = lossfuncs.value_and_grad("mse", t, p, reduction="mean")
            torch.testing.assert_close(gradient.double() * 1.0, 2 * (p.double() - t.double()) / p.numel(), rtol=1e-2, atol=1e-6)
            torch.testing.assert_close(value.double(), ((p.double() - t.double()) ** 2).mean(), rtol=1e-5, atol=0)


@pytest.mark.gpu
def test_memory_is_torchs(cuda: OnGPU) -> None:
    t, p = torch.rand(2, 1000, 1000, device="cuda").unbind()
    lossfuncs.value_and_grad("mse", t, p, reduction="mean")
    pool = cuda.cupy.get_default_memory_pool().used_bytes()
    before = torch.cuda.memory_allocated()
    kept = lossfuncs.value_and_grad("mse", t, p, reduction="mean")
    assert torch.cuda.memory_allocated() - before >= kept[1].nbytes
    weighted = lossfuncs.value_and_grad("mse", t, p, sample_weight=torch.rand(1000, device="cuda"))
    assert torch.cuda.memory_allocated() - before >= kept[1].nbytes + weighted[1].nbytes
    assert cuda.cupy.get_default_memory_pool().used_bytes() == pool


@pytest.mark.gpu
def test_forward_and_backward_are_captured_in_a_cuda_graph(cuda: OnGPU) -> None:
    labels, p = torch.arange(100, device="cuda") % 7, torch.randn(100, 7, device="cuda", requires_grad=True)

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        value = lt.sparse_categorical_crossentropy(p, labels, from_logits=True)
        return value.detach(), torch.autograd.grad(value, p)[0]

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
        step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        value, gradient = step()
    with torch.no_grad():
        p *= 2
    for _ in range(3):
        graph.replay()
    right = step()
    assert torch.equal(value, right[0]) and torch.equal(gradient, right[1])
