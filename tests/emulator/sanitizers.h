// What AddressSanitizer and ThreadSanitizer must be told about fibres; nothing where neither is there. The scheduler itself is compiled
// without -fsanitize=thread, which would see all its fibres as one thread's bookkeeping: it is told by EMULATOR_THREADS instead.
#pragma once
#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
extern "C" {
void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom, size_t* size);
void __asan_unpoison_memory_region(const volatile void*, size_t);
}
#else
inline void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
inline void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}
inline void __asan_unpoison_memory_region(const volatile void*, size_t) {}
#endif

#if defined(EMULATOR_THREADS)
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
constexpr bool threads_watched = true;
#else
inline void* __tsan_get_current_fiber() { return nullptr; }
inline void* __tsan_create_fiber(unsigned) { return nullptr; }
inline void __tsan_switch_to_fiber(void*, unsigned) {}
inline void __tsan_acquire(void*) {}
inline void __tsan_release(void*) {}
constexpr bool threads_watched = false;
#endif
constexpr unsigned no_order = 1;  // a switch of fibres orders nothing: only barriers, collectives and fences do
