// Interface between libcuda.so and a kernel that g++ compiled: indices of the running thread, and the two ways in which
// threads of a block wait for each other. Both sides include this file, so its hash is part of a compiled kernel's name.
#pragma once
#include <cstddef>
#include <cstdint>

struct Dim3 {
    unsigned x, y, z;
};

// A collective operation of a warp. It is called once, when every lane that takes part has arrived; `arguments[lane]` is
// that lane's argument, null for lanes that do not take part.
using Collective = void (*)(void *const arguments[32]);

struct Machine {
    Dim3 thread;
    Dim3 block;
    Dim3 block_size;
    Dim3 grid_size;
    unsigned lane;        // index within the warp
    char *shared;         // the block's dynamic shared memory
    size_t shared_bytes;
    // Both take the operation's number in the source: `site` increases from the first line of a kernel to its last.
    void (*sync_block)(unsigned site);
    void (*sync_warp)(unsigned site, void *argument, Collective act);
};

// Symbols of a compiled kernel.
#define STANDIN_BIND "standin_bind"     // void (Machine *): the machine that the kernel reads
#define STANDIN_ENTRY "standin_entry"   // void (void **): runs one thread with the launch's parameters
#define STANDIN_WAITS "standin_waits"   // const int: 0 if the kernel has no operation in which threads wait

// Compiled kernels are passed off as PTX: this text, followed by the path of a shared object.
#define STANDIN_IMAGE "standin-kernel:"
