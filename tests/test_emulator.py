"""The emulator of the CUDA kernels' tests: it does what a GPU does, and sees what a kernel does wrong."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import planted
import pytest
from emulator import DEVICE, SCHEDULES, DeviceArray, EmulatorError, Schedule, build, compile, program

HERE = Path(__file__).parent

VOCABULARY = r"""
struct Arguments { int* out; double* sums; };

// A line of 8 results a thread, of 2 x 3 blocks of 40 x 2 threads: two warps and a half.
extern "C" __global__ void vocabulary(const Arguments a, char shift, double half) {
    int thread = threadIdx.x + blockDim.x * threadIdx.y, block = blockIdx.x + gridDim.x * blockIdx.y;
    int lane = thread % warpSize, threads = blockDim.x * blockDim.y;
    unsigned mask = thread < 64 ? ~0u : 0xffffu;
    int* out = a.out + (block * threads + thread) * 8;
    out[0] = thread + 1000 * block;
    out[1] = __shfl_xor_sync(mask, thread, 5);
    out[2] = __shfl_down_sync(mask, thread, shift, 16);
    out[3] = __shfl_up_sync(mask, thread, 3);
    out[4] = __shfl_sync(mask, thread, 2, 8);
    out[5] = (int)__ballot_sync(mask, lane % 3 == 0);
    __syncwarp(mask);
    DYNAMIC_SHARED(bytes);
    int* turned = reinterpret_cast<int*>(bytes);
    turned[threads - 1 - thread] = thread;
    __syncthreads();
    out[6] = turned[thread];
    double wide = __shfl_sync(mask, half * thread, 0);
    out[7] = (int)(2 * wide) + 100 * __any_sync(mask, thread == 70) + 1000 * __all_sync(mask, thread < 64);
    atomicAdd(a.sums, half);
    atomicMax(a.out + 480 * 8, block * 100 + thread);
    atomicMin(a.out + 480 * 8 + 1, block * 100 + thread);
    atomicInc(reinterpret_cast<unsigned*>(a.out) + 480 * 8 + 2, 478u);
    atomicOr(a.out + 480 * 8 + 3, 1 << lane);
}
"""


@pytest.mark.parametrize("order", [Schedule(name, seed) for name in SCHEDULES for seed in (0, 7)], ids=str)
def test_a_kernel_computes_what_it_computes_on_a_gpu(order: Schedule) -> None:
    out, sums = DEVICE.zeros(480 * 8 + 4, np.int32), DEVICE.zeros(1, np.float64)
    kernel = compile(VOCABULARY, ["vocabulary"], HERE)["vocabulary"]
    kernel.launch((2, 3), (40, 2), 320, struct.pack("<2Qb7xd", DEVICE.address(out), DEVICE.address(sums), 5, 0.5), order)
    t = np.arange(80)
    lane, warp = t % 32, t // 32 * 32
    lines = DEVICE.fetch(out)[: 480 * 8].reshape(6, 80, 8)
    full = t < 64
    votes = np.where(full, sum(1 << i for i in range(0, 32, 3)), sum(1 << i for i in range(0, 16, 3))).astype(np.uint32).astype(np.int32)
    for block in range(6):
        assert np.array_equal(lines[block, :, 0], t + 1000 * block)
        assert np.array_equal(lines[block, :, 1], warp + (lane ^ 5))
        assert np.array_equal(lines[block, :, 2], np.where(t % 16 + 5 < 16, t + 5, t))
        assert np.array_equal(lines[block, :, 3], np.where(lane >= 3, t - 3, t))
        assert np.array_equal(lines[block, :, 4], t // 8 * 8 + 2)
        assert np.array_equal(lines[block, :, 5], votes)
        assert np.array_equal(lines[block, :, 6], 79 - t)
        assert np.array_equal(lines[block, :, 7], warp + np.where(full, 1000, 100))
    assert DEVICE.fetch(out)[-4:].tolist() == [579, 0, 1, -1]
    assert DEVICE.fetch(sums) == 240.0


def test_schedules_differ_in_order_and_a_seed_repeats_one() -> None:
    source = 'extern "C" __global__ void order(int* out, int* next) { out[atomicAdd(next, 1)] = blockIdx.x * 64 + threadIdx.x; }'
    kernel = compile(source, ["order"], HERE)["order"]

    def order(schedule: Schedule, blocks: range | None = None) -> list[int]:
        out, following = DEVICE.zeros(256, np.int32), DEVICE.zeros(1, np.int32)
        kernel.launch((4,), (64,), 0, struct.pack("<2Q", DEVICE.address(out), DEVICE.address(following)), schedule, blocks)
        return DEVICE.fetch(out)[: int(following[0])].tolist()  # type: ignore[no-any-return]

    assert order(Schedule("in order")) == list(range(256))
    assert order(Schedule("reverse")) == list(range(255, -1, -1))
    assert order(Schedule("random", 1)) == order(Schedule("random", 1)) != order(Schedule("random", 2))
    several = [order(Schedule("priority", seed)) for seed in range(8)]
    assert len(set(map(tuple, several))) > 1
    for found in several:
        assert sorted(found) == list(range(256))
        assert all(found[i : i + 32] == list(range(found[i], found[i] + 32)) for i in range(0, 256, 32))
    assert order(Schedule("in order"), range(1, 3)) == list(range(64, 192))


@pytest.mark.parametrize("name", planted.SOUND)
def test_a_kernel_without_a_bug_has_none(name: str) -> None:
    assert planted.run(name)


@pytest.mark.parametrize("name", [name for name, bug in planted.BUGS.items() if "" in bug.seen])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_planted_bug_is_seen(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    seen = planted.BUGS[name].seen[""]
    if seen == "behind the end of device memory":  # told when the memory is given back, which here nobody would hear
        with pytest.raises(EmulatorError, match=seen):
            address = program.allocate(36)
            ctypes.memset(address + 36, 0, 4)
            program.free(address)
    elif seen == "wrong":
        assert not planted.run(name)
    else:
        with pytest.raises(EmulatorError, match=seen):
            planted.run(name)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_emulator_goes_on_after_a_bug() -> None:
    for name in ("shuffle_in_a_branch", "endless_recursion", "division_by_zero"):
        with pytest.raises(EmulatorError):
            planted.run(name)
        assert planted.run("no_bug")


def test_fibres_of_other_cpus_do_the_same() -> None:
    environment = {**os.environ, "EMULATOR_VARIANT": "ucontext"}
    for name, wanted in (("no_bug", "right"), ("no_bug_in_total", "right"), ("no_barrier_after_a_write", "wrong")):
        done = subprocess.run([sys.executable, str(HERE / "planted.py"), name], env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == wanted, done.stderr


@pytest.mark.parametrize("grid, block, shared", [(1, 0, 0), (1, 1025, 0), (0, 32, 0), (1, 32, 1 << 20)])
def test_a_launch_that_a_gpu_refuses_is_refused(grid: int, block: int, shared: int) -> None:
    kernel = compile('extern "C" __global__ void nothing() {}', ["nothing"], HERE)["nothing"]
    with pytest.raises(EmulatorError, match="invalid launch"):
        kernel.launch((grid,), (block,), shared, b"")


def test_arguments_of_another_size_are_refused() -> None:
    kernel = compile('extern "C" __global__ void two(int a, double b) {}', ["two"], HERE)["two"]
    kernel.launch((1,), (1,), 0, bytes(16))
    with pytest.raises(EmulatorError, match="two takes 16 bytes of arguments, got 12"):
        kernel.launch((1,), (1,), 0, bytes(12))


def test_a_program_that_does_not_compile_says_where() -> None:
    with pytest.raises(program.CompileError, match="x_that_is_not_there"):
        compile('extern "C" __global__ void wrong(int* a) { *a = x_that_is_not_there; }', ["wrong"], HERE)
    with pytest.raises(program.CompileError, match="SHARED"):
        compile('extern "C" __global__ void wrong(int* a) { __shared__ int s[3]; *a = s[0]; }', ["wrong"], HERE)


def test_what_was_compiled_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    source = 'extern "C" __global__ void kept() {}'
    compile(source, ["kept"], HERE)
    monkeypatch.setattr(build.subprocess, "run", None)
    compile(source, ["kept"], HERE)
    with pytest.raises(TypeError):
        compile(source + " ", ["kept"], HERE)


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.shutil, "which", lambda _: None)
    with pytest.raises(RuntimeError, match=r"install g\+\+"):
        build.compiler.__wrapped__()


def test_device_arrays_mix_with_none_of_the_hosts() -> None:
    x = DEVICE.send(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert isinstance(x * 2 + x.sum(axis=0), DeviceArray)
    assert np.array_equal(DEVICE.fetch(DEVICE.xp.maximum(x, 3)[1, ::2]), [3, 5])
    assert x.shape == (2, 3) and x.dtype == np.float32 and x[0].strides == (4,)
    for mixed in (lambda: x + np.ones(3), lambda: np.ones(3) + x, lambda: np.asarray(x), lambda: DEVICE.xp.add(x, np.ones(3))):
        with pytest.raises(TypeError):
            mixed()
    waits = DeviceArray.waits
    assert float(x.sum()) == 15.0 and bool(x[0, 1]) and DeviceArray.waits == waits + 2


def test_what_nobody_wrote_is_nan() -> None:
    assert np.isnan(DEVICE.fetch(DEVICE.empty((3, 5), np.float32))).all()
    assert not DEVICE.fetch(DEVICE.zeros(1000, np.float64)).any()
