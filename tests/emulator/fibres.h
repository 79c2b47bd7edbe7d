// What a kernel and the scheduler know of each other. A block runs as fibres, one for each of its threads, which change places only
// where a CUDA thread may have to wait; in between, whatever order the schedule chooses is one that a GPU could have chosen.
#pragma once
#include <cstddef>
#include <cstdint>

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

namespace emulator {

struct Place {
    const char* file;
    int line;
};

struct Thread {
    uint3 index, block;
    unsigned number, warp, lane;  // number: its place in the block
};

enum Collective { SYNC, SHUFFLE, BALLOT };

extern Thread* current;
extern dim3 block_size, grid_size;

void barrier(Place);
// Every lane in the mask brings a value; a shuffle gives back that of lane `source`, a ballot the lanes whose value is not 0.
uint64_t exchange(Collective, uint32_t mask, uint64_t value, int source, Place);
// The block's array that belongs to `key`: the same for all its threads, full of NaN when the block begins.
void* shared(const void* key, const char* name, size_t bytes);
void* dynamic_shared();
void fence();
void before_atomic(void* at);
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

using Entry = void (*)(void** arguments);

struct Launch {
    Entry entry;
    void** arguments;
    dim3 grid, block;
    unsigned shared_bytes;
    unsigned schedule;
    uint64_t seed;
    uint64_t first, last;  // only these blocks are run
};

}  // namespace emulator
