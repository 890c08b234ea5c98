// Included before every kernel: what CUDA C++ has without an #include, for g++.
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <type_traits>
#include <utility>

#include "../abi.h"

#define STANDIN_EXPORT extern "C" __attribute__((visibility("default")))

namespace standin {

static Machine *machine;

template <class... Parameter, size_t... I>
void call_each(void (*kernel)(Parameter...), void **parameters, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cv_t<std::remove_reference_t<Parameter>> *>(parameters[I])...);
}

// Calls a kernel with parameters as cuLaunchKernel takes them: pointers to values.
template <class... Parameter> void call(void (*kernel)(Parameter...), void **parameters) {
    call_each(kernel, parameters, std::index_sequence_for<Parameter...>{});
}

}

STANDIN_EXPORT inline __attribute__((used)) void standin_bind(Machine *machine) { standin::machine = machine; }

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__
#define __grid_constant__
#define __align__(n) alignas(n)
#define __launch_bounds__(...)
#define __cluster_dims__(...)

#define threadIdx (standin::machine->thread)
#define blockIdx (standin::machine->block)
#define blockDim (standin::machine->block_size)
#define gridDim (standin::machine->grid_size)
static const int warpSize = 32;
using uint3 = Dim3;

#include "intrinsics.h"
#include "warp.h"
#include "include/cuda_fp16.h"
#include "include/cuda_bf16.h"
#include "include/mma.h"
#include "ptx.h"

// Kernels select by it between instructions and library functions: here those of compute capability 8.0.
#define __CUDA_ARCH__ 800
