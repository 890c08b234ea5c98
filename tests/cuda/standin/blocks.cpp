// Execution of a grid on the CPU (blocks.h).
//
// Each thread of a block has a stack and runs until it waits or ends. A warp's lanes run until all of them wait or have
// ended; then the collective operation at the smallest site among the waiting lanes is performed for the lanes at that
// site, and these go on. Lanes that took different branches therefore meet again behind them, as the hardware's do: the
// branch that comes first in the source is run first. When all lanes of all warps wait at a block barrier, it opens.
//
// The order of threads is fixed, so a missing barrier goes unnoticed where the writer comes before the reader.
// STANDIN_ORDER=reverse turns the order round: a kernel that is right in both orders has no such barrier missing between
// two threads.
#include "blocks.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <vector>

#include "settings.h"

#ifndef __x86_64__
#error "the fibers are written for x86-64"
#endif

// void switch_stack(void **from, void *to): saves the registers that a function must preserve, and continues at `to`.
extern "C" void switch_stack(void **from, void *to);
asm(R"(
.text
.type switch_stack,@function
switch_stack:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
.size switch_stack,.-switch_stack
)");

namespace {

constexpr unsigned WARP = 32;
constexpr size_t STACK_BYTES = 256 << 10;
constexpr size_t GUARD_BYTES = 4 << 10;
constexpr unsigned SAVED_REGISTERS = 6;

enum class State { Ready, InWarp, AtBarrier, Ended };

struct Fiber {
    Dim3 thread;
    void *stack_pointer;
    State state;
    unsigned site;
    void *argument;
    Collective act;
};

Machine machine;
std::vector<Fiber> fibers;
unsigned current;
void *scheduler;
void (*entry)(void **);
void **parameters;

void yield(State state) {
    Fiber &self = fibers[current];
    self.state = state;
    switch_stack(&self.stack_pointer, scheduler);
}

void fiber_main() {
    entry(parameters);
    yield(State::Ended);
    abort();
}

void sync_block(unsigned site) {
    fibers[current].site = site;
    yield(State::AtBarrier);
}

void sync_warp(unsigned site, void *argument, Collective act) {
    Fiber &self = fibers[current];
    self.site = site;
    self.argument = argument;
    self.act = act;
    yield(State::InWarp);
}

Dim3 index_in(Dim3 size, unsigned position) {
    return {position % size.x, position / size.x % size.y, position / size.x / size.y};
}

// Stacks for `n` fibers. They are kept, and only the touched pages occupy memory. The lowest page of each is protected,
// so that a stack that overflows ends the process.
char *stacks(size_t n) {
    static char *memory = nullptr;
    static size_t capacity = 0;
    if (n > capacity) {
        if (memory) munmap(memory, capacity * STACK_BYTES);
        void *fresh = mmap(nullptr, n * STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (fresh == MAP_FAILED) {
            perror("stand-in driver: stacks of a block's threads");
            abort();
        }
        memory = static_cast<char *>(fresh);
        capacity = n;
        for (size_t i = 0; i < n; i++) mprotect(memory + i * STACK_BYTES, GUARD_BYTES, PROT_NONE);
    }
    return memory;
}

void prepare_fibers() {
    char *memory = stacks(fibers.size());
    for (size_t i = 0; i < fibers.size(); i++) {
        // Above the return address, as a call would leave it: a stack pointer that is 8 below a multiple of 16.
        void **top = reinterpret_cast<void **>(memory + (i + 1) * STACK_BYTES - 64);
        *--top = nullptr;
        *--top = reinterpret_cast<void *>(fiber_main);
        for (unsigned k = 0; k < SAVED_REGISTERS; k++) *--top = nullptr;
        fibers[i].stack_pointer = top;
        fibers[i].state = State::Ready;
    }
}

void resume(unsigned i) {
    current = i;
    machine.thread = fibers[i].thread;
    machine.lane = i % WARP;
    switch_stack(&scheduler, fibers[i].stack_pointer);
}

// Performs the collective operation at the smallest site where lanes of [first, last) wait. False if none waits.
bool collect(unsigned first, unsigned last) {
    const Fiber *earliest = nullptr;
    for (unsigned i = first; i < last; i++)
        if (fibers[i].state == State::InWarp && (!earliest || fibers[i].site < earliest->site)) earliest = &fibers[i];
    if (!earliest) return false;
    void *arguments[WARP] = {};
    const unsigned site = earliest->site;
    const Collective act = earliest->act;
    for (unsigned i = first; i < last; i++) {
        if (fibers[i].state != State::InWarp || fibers[i].site != site) continue;
        arguments[i - first] = fibers[i].argument;
        fibers[i].state = State::Ready;
    }
    act(arguments);
    return true;
}

void run_warp(unsigned first, unsigned last) {
    do {
        for (unsigned k = first; k < last; k++) {
            const unsigned i = settings::reverse_order() ? first + last - 1 - k : k;
            if (fibers[i].state == State::Ready) resume(i);
        }
    } while (collect(first, last));
}

// Runs one block; returns the number of barriers at which threads waited at different sites.
unsigned run_block() {
    prepare_fibers();
    const unsigned n = fibers.size(), n_warps = (n + WARP - 1) / WARP;
    unsigned differing = 0;
    for (;;) {
        for (unsigned k = 0; k < n_warps; k++) {
            const unsigned warp = settings::reverse_order() ? n_warps - 1 - k : k;
            run_warp(warp * WARP, std::min(n, (warp + 1) * WARP));
        }
        const Fiber *waiting = nullptr;
        bool differ = false;
        for (Fiber &fiber : fibers) {
            if (fiber.state != State::AtBarrier) continue;
            if (waiting && waiting->site != fiber.site) differ = true;
            waiting = &fiber;
            fiber.state = State::Ready;
        }
        if (!waiting) return differing;
        differing += differ;
    }
}

// A block whose threads never wait needs no stacks.
void run_block_straight(unsigned n) {
    for (unsigned k = 0; k < n; k++) {
        const unsigned i = settings::reverse_order() ? n - 1 - k : k;
        machine.thread = fibers[i].thread;
        machine.lane = i % WARP;
        entry(parameters);
    }
}

}

unsigned run_grid(const Kernel &kernel, Dim3 grid, Dim3 block, size_t shared_bytes, void **launch_parameters) {
    constexpr size_t ALIGNMENT = 1024;
    std::vector<char> memory(shared_bytes + ALIGNMENT);
    const auto address = reinterpret_cast<uintptr_t>(memory.data());
    machine.shared = memory.data() + (ALIGNMENT - address % ALIGNMENT) % ALIGNMENT;
    machine.shared_bytes = shared_bytes;
    machine.block_size = block;
    machine.grid_size = grid;
    machine.sync_block = sync_block;
    machine.sync_warp = sync_warp;
    kernel.bind(&machine);
    entry = kernel.entry;
    parameters = launch_parameters;

    const unsigned n_threads = block.x * block.y * block.z;
    const uint64_t n_blocks = uint64_t(grid.x) * grid.y * grid.z;
    fibers.resize(n_threads);
    for (unsigned i = 0; i < n_threads; i++) fibers[i].thread = index_in(block, i);
    unsigned differing = 0;
    for (uint64_t k = 0; k < n_blocks; k++) {
        const uint64_t i = settings::reverse_order() ? n_blocks - 1 - k : k;
        machine.block = {unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y)};
        memset(machine.shared, 0xff, shared_bytes);
        if (kernel.waits) differing += run_block();
        else run_block_straight(n_threads);
    }
    return differing;
}
