// Execution of a grid on the CPU: blocks one after another, the threads of a block as fibers of the calling thread.
#pragma once
#include "abi.h"

struct Kernel {
    void (*bind)(Machine *);
    void (*entry)(void **parameters);
    bool waits;   // whether threads wait for each other
};

// Runs all blocks. `shared_bytes` is the dynamic shared memory of each, filled with 0xff before the block starts.
// Returns the number of block barriers that threads passed at different places of the source, which no kernel should do.
unsigned run_grid(const Kernel &kernel, Dim3 grid, Dim3 block, size_t shared_bytes, void **parameters);
