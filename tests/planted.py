"""Kernels with one bug each, and the checker that must see it. `python tests/planted.py NAME` runs one, under its process' sanitizer."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from emulator import DEVICE, SCHEDULES, EmulatorError, Schedule, compile

# The sum of each row of 128 by a block of 128, once and again for all rows; and the sum of all blocks by the last one to come.
SOURCE = r"""
#define FULL 0xffffffffu
typedef long long i64;

struct Arguments {
    const float* x;
    float* out;
    float* partials;
    unsigned* ticket;
    i64 rows, n;
    int small;
};

DEVICE float warp_sum(float v, unsigned mask = FULL) {
    for (int o = 16; o; o /= 2) v += __shfl_xor_sync(mask, v, o);
    return v;
}

template <bool AFTER, bool BEFORE> DEVICE float block_sum(float v) {
    SHARED(float, part, 4);
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    if (AFTER) __syncthreads();
    v = part[0] + part[1] + part[2] + part[3];
    if (BEFORE) __syncthreads();
    return v;
}

template <bool AFTER, bool BEFORE> DEVICE void sums(const Arguments& a, int shift = 0) {
    for (i64 row = blockIdx.x; row < a.rows; row += gridDim.x) {
        float v = block_sum<AFTER, BEFORE>(a.x[row * a.n + threadIdx.x]);
        if (threadIdx.x == 0) a.out[row + shift] = v;
    }
}

enum Fence { NONE, FITTING, EARLY };

template <bool ATOMIC, Fence FENCE> DEVICE void total(const Arguments& a) {
    SHARED(int, last, 1);
    float v = block_sum<true, true>(a.x[blockIdx.x * a.n + threadIdx.x]);
    if (threadIdx.x == 0) {
        if (FENCE == EARLY) __threadfence();
        a.partials[blockIdx.x] = v;
        if (FENCE == FITTING) __threadfence();
        unsigned come = ATOMIC ? atomicInc(a.ticket, gridDim.x - 1) : (*a.ticket)++;
        if (FENCE != NONE) __threadfence();
        last[0] = come == gridDim.x - 1;
    }
    __syncthreads();
    if (!last[0]) return;
    v = threadIdx.x < gridDim.x ? a.partials[threadIdx.x] : 0.f;
    v = block_sum<true, true>(v);
    if (threadIdx.x == 0) a.out[0] = v;
}

#define KERNEL(name) extern "C" __global__ void name(const Arguments a)

KERNEL(no_bug) { sums<true, true>(a); }
KERNEL(no_bug_in_total) { total<true, FITTING>(a); }
KERNEL(no_barrier_after_a_write) { sums<false, true>(a); }
KERNEL(no_barrier_before_the_next_write) { sums<true, false>(a); }
KERNEL(one_behind_the_output) { sums<true, true>(a, 1); }
KERNEL(one_before_the_input) { if (threadIdx.x == 0) a.out[blockIdx.x] = a.x[-1]; }
KERNEL(a_page_before_the_input) { if (threadIdx.x == 0) a.out[blockIdx.x] = a.x[-1024]; }
KERNEL(ticket_without_an_atomic) { total<false, FITTING>(a); }
KERNEL(ticket_without_a_fence) { total<true, NONE>(a); }
KERNEL(ticket_fenced_too_early) { total<true, EARLY>(a); }
KERNEL(two_blocks_write_one_element) { if (threadIdx.x == 0) a.out[0] += (float)blockIdx.x; }
KERNEL(vector_load_off_its_alignment) {
    float4 v = *reinterpret_cast<const float4*>(a.x + 1 + threadIdx.x * 4 % 64);
    if (threadIdx.x == 0) a.out[blockIdx.x] = v.x;
}
KERNEL(row_offset_in_32_bits) {
    int row = a.small + blockIdx.x, n = 50257;
    if (threadIdx.x == 0) a.out[blockIdx.x] = (float)(row * n);
}
KERNEL(shuffle_in_a_branch) {
    float v = 0;
    if (threadIdx.x % 32 < 20) v = __shfl_xor_sync(FULL, 1.f, 1);
    v = warp_sum(v);
}
KERNEL(shuffle_without_some_lanes) {
    float v = threadIdx.x % 32 < 20 ? warp_sum(1.f, 0xfffffu) : 0.f;
    if (threadIdx.x == 0) a.out[blockIdx.x] = v;
}
KERNEL(barrier_after_a_return) {
    if (threadIdx.x >= 100) return;
    __syncthreads();
    if (threadIdx.x == 0) a.out[blockIdx.x] = 1;
}
KERNEL(two_barriers_at_once) {
    if (threadIdx.x < 64) __syncthreads();
    else
        __syncthreads();
}
KERNEL(shared_array_overrun) {
    SHARED(float, s, 128);
    s[threadIdx.x + a.small] = 1;
    __syncthreads();
    a.out[blockIdx.x] = s[threadIdx.x];
}
KERNEL(shared_element_never_written) {
    SHARED(float, s, 128);
    if (threadIdx.x != 77) s[threadIdx.x] = 1;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int i = 0; i < 128; i++) a.out[blockIdx.x] += s[i];
}
KERNEL(local_never_written) {
    float v[2];
    if (a.small == 0) v[1] = 0;
    if (threadIdx.x == 0) a.out[blockIdx.x] = 128 + v[a.small % 2];
}
KERNEL(division_by_zero) { if (threadIdx.x == 0) a.out[blockIdx.x] = (float)(a.rows / (a.small - 3)); }
KERNEL(endless_recursion) {
    for (volatile char* p = (char*)__builtin_frame_address(0);; p -= 64) *p = 1;
}
KERNEL(too_much_shared_memory) {
    SHARED(float, s, 13000);
    s[threadIdx.x] = 1;
}
KERNEL(dynamic_memory_that_is_not_there) {
    DYNAMIC_SHARED(s);
    s[threadIdx.x] = 1;
}
"""

ROWS, N = 9, 128


class Bug(NamedTuple):
    """What sees it, by sanitizer: a part of the report, or "wrong" where the result differs under at least one schedule."""

    seen: dict[str, str]


BUGS = {
    "no_barrier_after_a_write": Bug({"": "wrong", "thread": "data race"}),
    "no_barrier_before_the_next_write": Bug({"": "wrong", "thread": "data race"}),
    "one_behind_the_output": Bug({"": "behind the end of device memory", "address": "heap-buffer-overflow"}),
    "one_before_the_input": Bug({"address": "heap-buffer-overflow"}),
    "a_page_before_the_input": Bug({"": "4096 bytes before an array of 4608 bytes"}),
    "ticket_without_an_atomic": Bug({"thread": "data race"}),
    "ticket_without_a_fence": Bug({"thread": "data race"}),
    "ticket_fenced_too_early": Bug({"thread": "data race"}),
    "two_blocks_write_one_element": Bug({"thread": "data race"}),
    "vector_load_off_its_alignment": Bug({"address": "misaligned address"}),
    "row_offset_in_32_bits": Bug({"address": "signed integer overflow"}),
    "shuffle_in_a_branch": Bug(dict.fromkeys(("", "address", "thread"), "a warp primitive diverges")),
    "shuffle_without_some_lanes": Bug({"": "wrong"}),
    "barrier_after_a_return": Bug({"": "100 threads of block 0, but 28 have returned"}),
    "two_barriers_at_once": Bug({"": "__syncthreads diverges"}),
    "shared_array_overrun": Bug({"": "outside of its shared array s of 512 bytes", "address": "out of bounds"}),
    "shared_element_never_written": Bug({"": "wrong"}),
    "local_never_written": Bug({"": "wrong"}),
    "division_by_zero": Bug({"": "divides an integer by 0", "address": "division by zero"}),
    "endless_recursion": Bug({"": "bytes of stack"}),
    "too_much_shared_memory": Bug({"": "48 KB of static shared memory"}),
    "dynamic_memory_that_is_not_there": Bug({"": "launched with none"}),
}
SOUND = ("no_bug", "no_bug_in_total")
ORDERS = [Schedule(name, seed) for name in SCHEDULES for seed in range(1 if name in ("in order", "reverse") else 3)]


def run(name: str) -> bool:
    """Run the kernel under each schedule; whether all results were right. EmulatorError for what the emulator sees."""
    kernel = compile(SOURCE, (*SOUND, *BUGS), Path(__file__).parent)[name]
    rng = np.random.default_rng(1)
    rows = rng.integers(-8, 9, (ROWS, N)).astype(np.float32)
    right = True
    for order in ORDERS:
        x, out = DEVICE.send(rows), DEVICE.zeros(ROWS, np.float32)
        partials, ticket = DEVICE.empty(ROWS, np.float32), DEVICE.zeros(1, np.uint32)
        total = "total" in name or "ticket" in name
        grid = ROWS if total else 3
        addresses = map(DEVICE.address, (x, out, partials, ticket))
        small = 43000 if "in_32_bits" in name else 3
        kernel.launch((grid,), (N,), 0, struct.pack("<4Q2qi4x", *addresses, ROWS, N, small), order)
        wanted = rows.sum(axis=1) if not total else np.array([rows.sum(), *[0] * (ROWS - 1)])
        right &= bool(np.array_equal(DEVICE.fetch(out), wanted))
    return right


if __name__ == "__main__":
    try:
        print("right" if run(sys.argv[1]) else "wrong")
    except EmulatorError as error:
        print(f"EmulatorError: {error}")
