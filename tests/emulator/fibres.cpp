// The scheduler: runs the blocks of a launch one after the other, the threads of a block as fibres.
#include "fibres.h"

#include <cstdarg>
#include <cstdio>

#include "faults.h"
#include "memory.h"
#include "sanitizers.h"
#include "switch.h"

namespace emulator {

Thread* current;
dim3 block_size, grid_size;

namespace {

constexpr size_t STACK = 256 << 10, GUARD_PAGE = 4096;
constexpr unsigned MOST_THREADS = 1024, WARP = 32, MOST_WARPS = MOST_THREADS / WARP;
constexpr unsigned MOST_ARRAYS = 64;
constexpr size_t MOST_STATIC = 48 << 10, MOST_SHARED = 227 << 10;  // bytes of shared memory that a block may have, on sm_90
constexpr unsigned MOST_POOLS = 16, WATCHED = 3 * MOST_THREADS;  // ThreadSanitizer knows about 8000 threads at most

enum Schedule { IN_ORDER, REVERSE, RANDOM, WARP_PRIORITY };
enum Wait { NOTHING, BARRIER, COLLECTIVE };

struct Fibre : Thread {
    Context context;
    char* stack = nullptr;
    void* watched = nullptr;     // ThreadSanitizer's idea of it
    void* fake_stack = nullptr;  // AddressSanitizer's
    Wait waits = NOTHING;
    bool finished = false, fenced = false;
    void* courier = nullptr;  // for ThreadSanitizer another thread, which knows what this one had done at its last fence
    char fence_order;
    void* touched[8];  // by its latest atomics
    unsigned touches = 0;
    Place place{};
};

// Lanes that meet at one warp primitive, named by the lowest of them. Values of two meetings are kept: a lane may begin the next
// before another has read its result of this one.
struct Meeting {
    uint32_t mask = 0, arrived = 0;
    Collective operation{};
    Place place{};
    unsigned parity = 0;
    uint64_t values[2][WARP];
    char order[2];
};

struct Warp {
    uint32_t ready = 0, returned = 0;
    Meeting meetings[WARP];
};

struct Block {
    Warp warps[MOST_WARPS];
    unsigned waiting = 0, returned = 0, parity = 0;
    Place place{};
    char order[2];
};

const Launch* launch;
Fibre* fibres;  // of the block
Fibre host;
Fibre* previous;  // that ran before the one that runs
const void *previous_stack, *host_stack;  // not locals of a fibre's first function: that never returns, and would leave redzones behind
size_t previous_stack_size, host_stack_size;
Block* block;
unsigned threads;
SharedArray arrays[MOST_ARRAYS];  // the first is the dynamic one
uint32_t ready_warps;  // by position
unsigned position_of[MOST_WARPS], warp_at[MOST_WARPS];
uint64_t random_state;
char message[512];
bool failed, stacks_dirty;
char launch_begins, launch_ends;

uint64_t next_random() {  // splitmix64
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

unsigned nth_bit(uint32_t bits, unsigned n) {
    while (n--) bits &= bits - 1;
    return static_cast<unsigned>(__builtin_ctz(bits));
}

void make_ready(unsigned warp, unsigned lane) {
    block->warps[warp].ready |= 1u << lane;
    ready_warps |= 1u << position_of[warp];
}

// The fibre that the schedule lets run now: the host where none can.
Fibre& next() {
    if (!ready_warps) return host;
    bool random = launch->schedule == RANDOM;
    unsigned warp = warp_at[random ? nth_bit(ready_warps, next_random() % __builtin_popcount(ready_warps)) : __builtin_ctz(ready_warps)];
    uint32_t& ready = block->warps[warp].ready;
    unsigned lane = random                        ? nth_bit(ready, next_random() % __builtin_popcount(ready))
                    : launch->schedule == REVERSE ? 31 - __builtin_clz(ready)
                                                  : __builtin_ctz(ready);
    ready &= ~(1u << lane);
    if (!ready) ready_warps &= ~(1u << position_of[warp]);
    return fibres[warp * WARP + lane];
}

void run(Fibre& to) {
    Fibre& from = current ? static_cast<Fibre&>(*current) : host;
    if (&from == &to) return;
    previous = &from;
    current = &to == &host ? nullptr : &to;
    bool to_host = &to == &host;
    __sanitizer_start_switch_fiber(from.finished ? nullptr : &from.fake_stack, to_host ? host_stack : to.stack, to_host ? host_stack_size : STACK);
    __tsan_switch_to_fiber(to.watched, no_order);
    change(from.context, to.context);
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
}

void wait(Wait what, Place place) {
    Fibre& self = static_cast<Fibre&>(*current);
    self.waits = what;
    self.place = place;
    run(next());
}

void main_of_fibre() {
    __sanitizer_finish_switch_fiber(nullptr, &previous_stack, &previous_stack_size);
    if (previous == &host) host_stack = previous_stack, host_stack_size = previous_stack_size;
    __tsan_acquire(&launch_begins);
    launch->entry(launch->arguments);
    __tsan_release(&launch_ends);
    Fibre& self = static_cast<Fibre&>(*current);
    self.finished = true;
    block->returned++;
    block->warps[self.warp].returned |= 1u << self.lane;
    if (block->waiting && block->waiting + block->returned == threads)
        fail("__syncthreads at %s:%d is waited for by %u threads of block %u, but %u have returned", block->place.file, block->place.line,
             block->waiting, self.block.x, block->returned);
    run(next());
    __builtin_trap();
}

char* stack_of_current() { return current ? static_cast<Fibre*>(current)->stack + STACK : nullptr; }

void report_fault() {
    char where[160];
    uintptr_t at = Faults::address, stack = reinterpret_cast<uintptr_t>(static_cast<Fibre*>(current)->stack);
    snprintf(where, sizeof where, "touches 0x%zx, which is no device memory", at);
    if (Faults::signal_number == SIGFPE) snprintf(where, sizeof where, "divides an integer by 0");
    else if (at - stack < GUARD_PAGE) snprintf(where, sizeof where, "needs more than %zu bytes of stack", STACK);
    for (const auto& [data, one] : allocations()) {
        uintptr_t begin = reinterpret_cast<uintptr_t>(data), mapping = reinterpret_cast<uintptr_t>(one.mapping);
        if (at - mapping < one.mapped)
            snprintf(where, sizeof where, "touches device memory %zu bytes %s an array of %zu bytes", at < begin ? begin - at : at - begin - one.bytes,
                     at < begin ? "before" : "behind", one.bytes);
    }
    fail("thread %u of block %u %s", current->number, current->block.x, where);
}

uint32_t lanes_of(unsigned warp) {
    unsigned lanes = threads - warp * WARP;
    return lanes >= WARP ? ~0u : (1u << lanes) - 1;
}

void order_warps(unsigned warps) {
    for (unsigned i = 0; i < warps; i++) warp_at[i] = launch->schedule == REVERSE ? warps - 1 - i : i;
    if (launch->schedule == WARP_PRIORITY)
        for (unsigned i = warps; i > 1; i--) {
            unsigned j = next_random() % i, other = warp_at[j];
            warp_at[j] = warp_at[i - 1];
            warp_at[i - 1] = other;
        }
    for (unsigned i = 0; i < warps; i++) position_of[warp_at[i]] = i;
}

// What a block runs on. ThreadSanitizer is to see blocks that run at the same time, so there each has, but for those long before it,
// fibres, stacks and orderings of its own.
struct Pool {
    Block block;
    Fibre fibres[MOST_THREADS];
};
Pool* pools[MOST_POOLS];

Pool& pool_for(uint64_t turn) {
    unsigned count = threads_watched ? WATCHED / threads : 1;
    Pool*& pool = pools[turn % (count > MOST_POOLS ? MOST_POOLS : count)];
    if (!pool) pool = new Pool;
    for (unsigned i = 0; i < threads; i++) {
        Fibre& fibre = pool->fibres[i];
        if (!fibre.stack) {
            void* mapping = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (mapping == MAP_FAILED || mprotect(mapping, GUARD_PAGE, PROT_NONE)) abort();  // a stack that is too small faults
            fibre.stack = static_cast<char*>(mapping);
            fibre.watched = __tsan_create_fiber(0);
            fibre.courier = __tsan_create_fiber(0);
        } else if (stacks_dirty) {
            __asan_unpoison_memory_region(fibre.stack, STACK);  // frames that were left by a launch that failed
        }
    }
    stacks_dirty = false;
    return *pool;
}

void run_block(uint64_t number, uint64_t turn) {
    Pool& pool = pool_for(turn);
    block = &pool.block;
    fibres = pool.fibres;
    unsigned warps = (threads + WARP - 1) / WARP;
    for (unsigned w = 0; w < warps; w++) {
        block->warps[w].ready = block->warps[w].returned = 0;
        for (Meeting& meeting : block->warps[w].meetings) meeting.arrived = meeting.parity = 0;
    }
    block->waiting = block->returned = block->parity = 0;
    ready_warps = 0;
    order_warps(warps);
    uint3 where = {static_cast<unsigned>(number % grid_size.x), static_cast<unsigned>(number / grid_size.x % grid_size.y),
                   static_cast<unsigned>(number / grid_size.x / grid_size.y)};
    for (unsigned i = 0; i < threads; i++) {
        Fibre& fibre = fibres[i];
        fibre.index = {i % block_size.x, i / block_size.x % block_size.y, i / block_size.x / block_size.y};
        fibre.block = where;
        fibre.number = i;
        fibre.warp = i / WARP;
        fibre.lane = i % WARP;
        fibre.waits = NOTHING;
        fibre.finished = fibre.fenced = false;
        fibre.touches = 0;
        // Stacks begin at different distances from their pages' ends; otherwise all of them compete for the same sets of the cache.
        begin_on(fibre.context, fibre.stack, STACK - i % 61 * 1088, main_of_fibre);
        make_ready(fibre.warp, fibre.lane);
    }
    run(next());
    if (!failed && block->returned != threads) {
        unsigned waiting = threads - block->returned;
        for (unsigned i = 0; i < threads; i++) {
            const Fibre& fibre = fibres[i];
            if (!fibre.finished) {
                snprintf(message, sizeof message, "deadlock: %u of %u threads of block %u wait for ever, thread %u at %s, %s:%d", waiting, threads, where.x,
                         fibre.number, fibre.waits == BARRIER ? "__syncthreads" : "a warp primitive", fibre.place.file, fibre.place.line);
                failed = true;
                break;
            }
        }
    }
    for (SharedArray& array : arrays) {
        if (array.in_use && array.overrun() && !failed) {
            snprintf(message, sizeof message, "block %u has written outside of its shared array %s of %zu bytes", where.x, array.name, array.bytes);
            failed = true;
        }
        array.in_use = false;
    }
}

}  // namespace

void fail(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    __tsan_release(&launch_ends);
    failed = true;
    run(host);  // and nobody comes back
    __builtin_trap();
}

void barrier(Place place) {
    Block& b = *block;
    if (b.waiting && (b.place.line != place.line || b.place.file != place.file))
        fail("__syncthreads diverges in block %u: thread %u is at %s:%d, others at %s:%d", current->block.x, current->number, place.file, place.line,
             b.place.file, b.place.line);
    b.place = place;
    char* order = &b.order[b.parity];
    __tsan_release(order);
    b.waiting++;
    if (b.waiting + b.returned == threads) {
        if (b.returned)
            fail("__syncthreads at %s:%d is waited for by %u threads of block %u, but %u have returned", place.file, place.line, b.waiting,
                 current->block.x, b.returned);
        b.waiting = 0;
        b.parity ^= 1;
        for (unsigned i = 0; i < threads; i++)
            if (fibres[i].waits == BARRIER) {
                fibres[i].waits = NOTHING;
                make_ready(fibres[i].warp, fibres[i].lane);
            }
        make_ready(current->warp, current->lane);  // the last to come is not the first to go on
        wait(NOTHING, place);
    } else {
        wait(BARRIER, place);
    }
    __tsan_acquire(order);
}

uint64_t exchange(Collective operation, uint32_t mask, uint64_t value, int source, Place place) {
    unsigned lane = current->lane, warp_number = current->warp;
    Warp& warp = block->warps[warp_number];
    uint32_t lanes = mask & lanes_of(warp_number);
    if (!(mask >> lane & 1)) fail("%s:%d: lane %u calls a warp primitive with the mask 0x%08x, which leaves it out", place.file, place.line, lane, mask);
    if (warp.returned & lanes)
        fail("%s:%d: the mask 0x%08x of a warp primitive names lanes that have returned, 0x%08x", place.file, place.line, mask, warp.returned & lanes);
    Meeting& meeting = warp.meetings[__builtin_ctz(lanes)];
    if (!meeting.arrived) {
        meeting.mask = lanes;
        meeting.operation = operation;
        meeting.place = place;
    } else if (meeting.mask != lanes || meeting.operation != operation || meeting.place.line != place.line || meeting.place.file != place.file) {
        fail("a warp primitive diverges: lane %u is at %s:%d with mask 0x%08x, others at %s:%d with 0x%08x", lane, place.file, place.line, lanes,
             meeting.place.file, meeting.place.line, meeting.mask);
    }
    unsigned parity = meeting.parity;
    meeting.values[parity][lane] = value;
    meeting.arrived |= 1u << lane;
    char* order = &meeting.order[parity];
    __tsan_release(order);
    if (meeting.arrived == meeting.mask) {
        meeting.arrived = 0;
        meeting.parity ^= 1;
        for (uint32_t rest = lanes & ~(1u << lane); rest; rest &= rest - 1) {
            Fibre& other = fibres[warp_number * WARP + static_cast<unsigned>(__builtin_ctz(rest))];
            other.waits = NOTHING;
            make_ready(warp_number, other.lane);
        }
        make_ready(warp_number, lane);
        wait(NOTHING, place);
    } else {
        wait(COLLECTIVE, place);
    }
    __tsan_acquire(order);
    const uint64_t* values = meeting.values[parity];
    if (operation == BALLOT) {
        uint64_t votes = 0;
        for (uint32_t rest = lanes; rest; rest &= rest - 1) votes |= uint64_t(values[__builtin_ctz(rest)] != 0) << __builtin_ctz(rest);
        return votes;
    }
    if (operation == SHUFFLE) return lanes >> source & 1 ? values[source] : ~uint64_t(0);  // a lane that takes no part has no value: poison
    return 0;
}

void* shared(const void* key, const char* name, size_t bytes) {
    for (SharedArray& array : arrays) {
        if (!array.key) {
            size_t before = 0;
            for (SharedArray& other : arrays) before += &other == arrays ? 0 : other.bytes;
            if (before + bytes > MOST_STATIC) fail("shared array %s: a block has 48 KB of static shared memory, this asks for %zu bytes", name, before + bytes);
            if (before + bytes + launch->shared_bytes > MOST_SHARED)
                fail("shared array %s: a block has 227 KB of shared memory, this asks for %zu bytes", name, before + bytes + launch->shared_bytes);
            array.key = key;
            array.name = name;
            array.bytes = bytes;
        }
        if (array.key == key) {
            if (!array.in_use) array.allocate();
            return array.data;
        }
    }
    fail("a kernel may have %u shared arrays, %s is one more", MOST_ARRAYS - 1, name);
}

void* dynamic_shared() {
    if (!launch->shared_bytes) fail("the kernel uses dynamic shared memory, but was launched with none");
    if (!arrays->in_use) arrays->allocate();
    return arrays->data;
}

// A fence orders nothing alone: what was written before a fence before an atomic is seen after a fence after an atomic at the same place.
void fence() {
    Fibre& self = static_cast<Fibre&>(*current);
    self.fenced = true;
    if (!threads_watched) return;
    for (unsigned i = 0; i < self.touches && i < 8; i++) __tsan_acquire(self.touched[i]);
    __tsan_release(&self.fence_order);
    __tsan_switch_to_fiber(self.courier, no_order);
    __tsan_acquire(&self.fence_order);
    __tsan_switch_to_fiber(self.watched, no_order);
}

void before_atomic(void* at) {
    Fibre& self = static_cast<Fibre&>(*current);
    if (self.fenced) {  // not all that was done until now is passed on, only what was before the fence
        __tsan_switch_to_fiber(self.courier, no_order);
        __tsan_release(at);
        __tsan_switch_to_fiber(self.watched, no_order);
    }
    self.touched[self.touches++ % 8] = at;
}

}  // namespace emulator

using namespace emulator;

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int emulator_launch(const Launch* one, char* error, size_t length) {
    launch = one;
    block_size = one->block;
    grid_size = one->grid;
    threads = block_size.x * block_size.y * block_size.z;
    failed = false;
    uint64_t blocks = uint64_t(grid_size.x) * grid_size.y * grid_size.z;
    uint64_t last = one->last < blocks ? one->last : blocks, count = last > one->first ? last - one->first : 0;
    if (!threads || threads > MOST_THREADS || !blocks || grid_size.y > 65535 || grid_size.z > 65535 || grid_size.x > 0x7fffffffu ||
        one->shared_bytes > MOST_SHARED) {
        snprintf(error, length, "invalid launch: grid %u x %u x %u, block %u x %u x %u, %u bytes of shared memory", grid_size.x, grid_size.y, grid_size.z,
                 block_size.x, block_size.y, block_size.z, one->shared_bytes);
        return 1;
    }
    random_state = one->seed;
    arrays->key = arrays;
    arrays->name = "(dynamic)";
    arrays->bytes = one->shared_bytes;
    Faults faults(report_fault, stack_of_current);
    host.watched = __tsan_get_current_fiber();
    __tsan_release(&launch_begins);
    // Random schedules take the blocks in random order as well: begin + k * step, where step and their number have no common factor.
    uint64_t begin = 0, step = 1;
    if (one->schedule >= RANDOM && count > 1) {
        begin = next_random() % count;
        for (uint64_t a = 0; a != 1;) {
            step = 1 + next_random() % (count - 1 ? count - 1 : 1);
            a = step;
            for (uint64_t b = count; b;) {
                uint64_t rest = a % b;
                a = b;
                b = rest;
            }
        }
    }
    for (uint64_t k = 0; k < count && !failed; k++) {
        uint64_t at = one->schedule == REVERSE ? count - 1 - k : static_cast<uint64_t>((begin + static_cast<unsigned __int128>(k) * step) % count);
        run_block(one->first + at, k);
    }
    __tsan_acquire(&launch_ends);
    for (SharedArray& array : arrays) array.release();
    if (failed) {
        stacks_dirty = true;
        snprintf(error, length, "%s", message);
    }
    return failed;
}

EXPORT void* emulator_allocate(size_t bytes, int poison) {
    void* data = device_allocate(bytes);
    if (data && poison) memset(data, POISON, bytes);
    return data;
}

EXPORT int emulator_free(void* data) { return device_free(data); }
