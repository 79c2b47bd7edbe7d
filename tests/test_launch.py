"""What the GPU backend asks a driver to do, by one that only writes it down."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from cases import DTYPES, by_name
from emulator.device import DeviceArray
from recording import RecordingDevice, recording

import lossfuncs
from lossfuncs import gpu

LOSSES = {
    "mean_squared_error": {},
    "categorical_crossentropy": {"from_logits": True},
    "sparse_categorical_crossentropy": {"from_logits": True},
    "cosine_similarity": {},
}
SHAPES = [(1, 1), (7, 3), (100_000, 10), (4096, 100), (3, 1000), (1000, 1024), (5000, 1025), (64, 12_001), (2, 300_000), (200, 70_000)]
TASKS = ("values", "total", "gradient", "gradient of total")


def called(device: RecordingDevice, name: str, shape: tuple[int, int], dtype: str, task: str) -> None:
    """Call the loss with arrays on the device."""
    options = LOSSES[name]
    entry = by_name("loss", name)
    p = device.zeros(shape, DTYPES[dtype])  # what is in them does not matter
    t = device.zeros(shape[:1], np.int64) if entry.targets == "index" else device.zeros(shape, DTYPES[dtype])
    reduction = "mean" if "total" in task else None
    if "gradient" in task:
        lossfuncs.value_and_grad(name, t, p, reduction=reduction, **options)
    else:
        entry.function(t, p, reduction=reduction, **options)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LOSSES)
def test_launches_are_what_a_gpu_takes(name: str, dtype: str, task: str) -> None:
    for shape in SHAPES:
        with recording() as device:
            device.stream = lambda: 77  # type: ignore[method-assign]
            waits = DeviceArray.waits
            called(device, name, shape, dtype, task)
            assert DeviceArray.waits == waits, "the host waits for the device"
            launched = list(device.launched)
            kernels = dict(device.kernels)
            called(device, name, shape, dtype, task)
        assert device.kernels == kernels and len(device.launched) == 2 * len(launched), "a second call does something else"
        for one in launched:
            assert 1 <= one.grid < 1 << 31
            assert one.block % 32 == 0 and 32 <= one.block <= 1024
            assert one.block == int(one.kernel.text.partition("__launch_bounds__(")[2].partition(")")[0].partition(",")[0])
            assert 0 <= one.shared <= device.shared
            assert len(one.arguments) == gpu.PACKED.size and one.stream == 77
        pieces = any("Pieces" in one.kernel.text for one in launched)
        assert pieces or len(launched) == 1, "one launch does it, but for few long rows"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6, 10), (300, 1000), (5, 5000)])
def test_arguments_say_where_the_arrays_are(shape: tuple[int, int], dtype: str) -> None:
    m, n = shape
    with recording() as device:
        wide = np.zeros((m, 3 * n), DTYPES[dtype])
        t, p = device.send(wide)[:, :n], device.send(wide)[:, n : 2 * n]
        lossfuncs.mean_squared_error(t, p)
        labels = device.send(np.zeros(m, np.int32))
        lossfuncs.sparse_categorical_crossentropy(labels, p, from_logits=True)
    rows, labelled = (gpu.PACKED.unpack(one.arguments) for one in device.launched)
    assert rows[:8] == (device.address(t), 3 * n, 0, 1, device.address(p), 3 * n, 0, 1)
    assert rows[16] == 0 and labelled[16] == device.address(labels)
    assert labelled[:4] == (0, 0, 0, 1) and labelled[4:8] == rows[4:8]
    assert (m, n) == rows[26:28] == labelled[26:28]
    assert rows[-4:] == labelled[-4:] == (0, 0, 0, 0)  # int32 labels, and no weights


def test_kernels_of_different_calls_have_different_names() -> None:
    found: dict[str, str] = {}
    for name, dtype, task in itertools.product(LOSSES, DTYPES, TASKS):
        with recording() as device:
            for shape in SHAPES[:6]:
                called(device, name, shape, dtype, task)
        for kernel in device.kernels.values():
            assert found.setdefault(kernel.name, kernel.text) == kernel.text
    assert len(set(found.values())) == len(found)


def test_half_types_are_computed_fast_but_in_what_users_wrote() -> None:
    users = [lossfuncs.pointwise(lambda t, p: (p - t) ** 2, name="own"), lossfuncs.pointwise(lambda t, p: p - t, name="own", cuda="""
        T value(T t, T p) const { return p - t; }""")]  # fmt: skip
    for dtype, fast in (("float16", "fast_float"), ("bfloat16", "fast_float"), ("float32", "float"), ("float64", "double")):
        with recording() as device:
            t, p = (device.zeros((3, 4), DTYPES[dtype]) for _ in range(2))
            for loss in (lossfuncs.mean_squared_error, *users):
                loss(t, p)
        computing = [kernel.text.partition("rows<Loss, ")[2].split(", ")[1] for kernel in device.kernels.values()]
        assert computing == [fast] + [fast.removeprefix("fast_")] * 2
