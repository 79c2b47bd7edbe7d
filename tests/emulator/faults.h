// A kernel that touches what it must not: the signal becomes an error of the launch. Sanitizers report it themselves, and better.
#pragma once
#include <csignal>
#include <cstddef>
#include <cstdint>

namespace emulator {

#if defined(__x86_64__) && defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(EMULATOR_THREADS)

// While it lives, a fault goes on at `to`, on the top of the stack that `stack` tells; where that is nullptr, the fault is not a kernel's.
class Faults {
  public:
    static inline int signal_number;
    static inline uintptr_t address;

    Faults(void (*to)(), char* (*stack)()) {
        resume = to;
        stack_top = stack;
        stack_t own = {};
        own.ss_sp = handler_stack;
        own.ss_size = sizeof handler_stack;
        sigaltstack(&own, &old_stack);
        struct sigaction action = {};
        action.sa_sigaction = handle;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        for (int i = 0; i < 3; i++) sigaction(SIGNALS[i], &action, &old_actions[i]);
    }
    ~Faults() {
        for (int i = 0; i < 3; i++) sigaction(SIGNALS[i], &old_actions[i], nullptr);
        sigaltstack(&old_stack, nullptr);
    }

  private:
    static constexpr int SIGNALS[3] = {SIGSEGV, SIGBUS, SIGFPE};
    static inline void (*resume)();
    static inline char* (*stack_top)();
    alignas(16) static inline char handler_stack[1 << 14];
    static inline struct sigaction old_actions[3];
    static inline stack_t old_stack;

    static void handle(int number, siginfo_t* info, void* context) {
        char* top = stack_top();
        if (!top) {
            for (int i = 0; i < 3; i++) sigaction(SIGNALS[i], &old_actions[i], nullptr);
            return;  // to the same fault, and to who handled it before
        }
        signal_number = number;
        address = reinterpret_cast<uintptr_t>(info->si_addr);
        auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
        registers[REG_RSP] = reinterpret_cast<greg_t>(top) - 8;  // as if called: the fibre itself is lost
        registers[REG_RIP] = reinterpret_cast<greg_t>(resume);
    }
};

#else

struct Faults {
    static inline int signal_number;
    static inline uintptr_t address;
    Faults(void (*)(), char* (*)()) {}
};

#endif

}  // namespace emulator
