// Memory of a block and of the device, in which a wrong access is seen: poison where nothing was written, and a guard behind the end.
#pragma once
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>

#include "sanitizers.h"

namespace emulator {

constexpr unsigned char POISON = 0xff;  // NaN as any floating-point type, -1 as an integer
constexpr unsigned char CANARY = 0xa5;
constexpr size_t GUARD = 64;  // bytes on either side of an array in shared memory

// By a plain loop, which AddressSanitizer's memset would not let write a guard.
inline void fill(char* at, size_t bytes, unsigned char with) {
    for (size_t i = 0; i < bytes; i++) reinterpret_cast<volatile unsigned char*>(at)[i] = with;
}

// One array in shared memory: kept from block to block, and poisoned anew for each.
struct SharedArray {
    const void* key = nullptr;
    const char* name = "";
    size_t bytes = 0;
    char* data = nullptr;
    bool in_use = false;

    void allocate() {
#if defined(__SANITIZE_ADDRESS__)
        if (!data && posix_memalign(reinterpret_cast<void**>(&data), 16, bytes)) abort();  // of exact size, between redzones
        memset(data, POISON, bytes);
#elif defined(EMULATOR_THREADS)
        data = fresh();  // an address never seen before: one block's accesses are not to be taken for another's
        fill(data, bytes, POISON);
#else
        if (!data) {
            if (posix_memalign(reinterpret_cast<void**>(&data), 64, bytes + 2 * GUARD)) abort();
            data += GUARD;
        }
        memset(data - GUARD, CANARY, GUARD);
        memset(data, POISON, bytes);
        memset(data + bytes, CANARY, GUARD);
#endif
        in_use = true;
    }

    bool overrun() const {
#if !defined(__SANITIZE_ADDRESS__) && !defined(EMULATOR_THREADS)
        for (size_t i = 0; i < GUARD; i++)
            if (static_cast<unsigned char>(data[-1 - static_cast<long>(i)]) != CANARY || static_cast<unsigned char>(data[bytes + i]) != CANARY) return true;
#endif
        return false;
    }

    void release() {
#if defined(__SANITIZE_ADDRESS__)
        free(data);
#elif !defined(EMULATOR_THREADS)
        if (data) free(data - GUARD);
#endif
        *this = {};
    }

    char* fresh() const {
        constexpr size_t arena = size_t(1) << 26;
        static char *next = nullptr, *end = nullptr;
        size_t size = (bytes + 127) & ~size_t(127);
        if (size > arena) abort();
        if (!next || size > static_cast<size_t>(end - next)) {  // by the system call itself, of which ThreadSanitizer does not hear
            next = reinterpret_cast<char*>(syscall(SYS_mmap, nullptr, arena, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
            end = next + arena;
        }
        char* at = next;
        next += size;
        return at;
    }
};

// Device memory. It ends, but for the 15 bytes that may be needed to begin at a multiple of 16, at a page that cannot be touched.
struct Allocation {
    char* mapping;
    size_t mapped, bytes;
};

inline std::map<void*, Allocation>& allocations() {
    static std::map<void*, Allocation> all;
    return all;
}

inline void* device_allocate(size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
    void* data = nullptr;
    if (posix_memalign(&data, 16, bytes ? bytes : 1)) return nullptr;
    memset(data, 0, bytes);
    allocations()[data] = {nullptr, 0, bytes};
    return data;
#else
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    size_t whole = (bytes + 15 + page) & ~(page - 1);
    char* mapping = static_cast<char*>(mmap(nullptr, whole + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (mapping == MAP_FAILED || mprotect(mapping + page, whole, PROT_READ | PROT_WRITE)) return nullptr;
    char* data = mapping + page + whole - ((bytes + 15) & ~size_t(15));
    fill(data + bytes, static_cast<size_t>(mapping + page + whole - data) - bytes, CANARY);
    allocations()[data] = {mapping, whole + 2 * page, bytes};
    return data;
#endif
}

// Whether all was well behind its end.
inline bool device_free(void* data) {
    auto found = allocations().find(data);
    if (found == allocations().end()) return false;
    Allocation one = found->second;
    allocations().erase(found);
#if defined(__SANITIZE_ADDRESS__)
    free(data);
    return true;
#else
    bool well = true;
    for (char* at = static_cast<char*>(data) + one.bytes; reinterpret_cast<uintptr_t>(at) % 16; at++) well &= static_cast<unsigned char>(*at) == CANARY;
    munmap(one.mapping, one.mapped);
    return well;
#endif
}

}  // namespace emulator
