// Leaving one stack and going on on another.
#pragma once
#include <cstddef>

#if defined(__x86_64__) && !defined(EMULATOR_UCONTEXT)

struct Context {
    void* stack_pointer = nullptr;
};

// Saves what the calling convention says a function must keep, and returns on the other stack.
extern "C" void emulator_switch(void** save, void* resume);
asm(R"(
.text
.globl emulator_switch
.type emulator_switch, @function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulator_switch, .-emulator_switch
)");

inline void begin_on(Context& context, char* stack, size_t bytes, void (*main)()) {
    void** top = reinterpret_cast<void**>(stack + bytes) - 1;
    *top = nullptr;  // where main would return to
    *--top = reinterpret_cast<void*>(main);
    for (int saved = 0; saved < 6; saved++) *--top = nullptr;
    context.stack_pointer = top;
}

inline void change(Context& from, Context& to) { emulator_switch(&from.stack_pointer, to.stack_pointer); }

#else  // any other CPU: two system calls a switch

#include <ucontext.h>

struct Context {
    ucontext_t state;
};

inline void begin_on(Context& context, char* stack, size_t bytes, void (*main)()) {
    getcontext(&context.state);
    context.state.uc_stack.ss_sp = stack;
    context.state.uc_stack.ss_size = bytes;
    context.state.uc_link = nullptr;
    makecontext(&context.state, main, 0);
}

inline void change(Context& from, Context& to) { swapcontext(&from.state, &to.state); }

#endif
