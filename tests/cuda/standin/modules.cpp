// Modules and launches. A module is a kernel that libnvrtc.so of this directory compiled, or real PTX: launches of the
// latter are logged and do nothing, so that NVIDIA's compiler can be tested on every kernel that a program requests.
#include <cstring>
#include <dlfcn.h>
#include <mutex>
#include <string>

#include "blocks.h"
#include "errors.h"
#include "settings.h"

namespace {

struct Module {
    void *library = nullptr;   // null: real PTX
    std::string ptx;
};

struct Function {
    std::string name;
    Kernel kernel{};
    bool executable = false;
};

std::mutex launch_lock;

std::string size_text(Dim3 size) {
    return std::to_string(size.x) + "x" + std::to_string(size.y) + "x" + std::to_string(size.z);
}

template <class T> T symbol(void *library, const char *name) { return reinterpret_cast<T>(dlsym(library, name)); }

}

API cuModuleLoadData(Module **module, const char *image) {
    const size_t prefix = strlen(STANDIN_IMAGE);
    auto loaded = new Module;
    if (strncmp(image, STANDIN_IMAGE, prefix) == 0) {
        loaded->library = dlopen(image + prefix, RTLD_NOW | RTLD_LOCAL);
        if (!loaded->library) {
            log_line(std::string("unloadable ") + dlerror());
            delete loaded;
            return INVALID_IMAGE;
        }
    } else {
        loaded->ptx = image;
    }
    *module = loaded;
    return SUCCESS;
}

API cuModuleUnload(Module *module) {
    // The library remains: launches may be in flight, and kernels are few.
    delete module;
    return SUCCESS;
}

API cuModuleGetFunction(Function **function, Module *module, const char *name) {
    auto found = new Function;
    found->name = name;
    if (module->library) {
        found->kernel.bind = symbol<void (*)(Machine *)>(module->library, STANDIN_BIND);
        found->kernel.entry = symbol<void (*)(void **)>(module->library, STANDIN_ENTRY);
        const auto waits = symbol<const int *>(module->library, STANDIN_WAITS);
        found->executable = found->kernel.bind && found->kernel.entry && waits;
        found->kernel.waits = !waits || *waits != 0;
    }
    const bool in_ptx = module->ptx.find(".entry " + found->name) != std::string::npos;
    if (!found->executable && !in_ptx) {
        delete found;
        return NOT_FOUND;
    }
    *function = found;
    return SUCCESS;
}

API cuFuncSetAttribute(Function *, int, int) { return SUCCESS; }
API cuFuncGetAttribute(int *value, int, Function *) { *value = 0; return SUCCESS; }

// Kernels by which cubecl measures a device. Nobody reads what they compute, and every kernel takes equally long here.
static bool measures_device(const std::string &name) {
    for (const char *start : {"compute_direct_throughput", "memory_direct_throughput", "prime_buffer"})
        if (name.rfind(start, 0) == 0) return true;
    return false;
}

API cuLaunchKernel(Function *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared_bytes, void *, void **parameters, void **) {
    const Dim3 grid{grid_x, grid_y, grid_z}, block{block_x, block_y, block_z};
    const std::string what = function->name + " grid " + size_text(grid) + " block " + size_text(block) + " shared " +
                             std::to_string(shared_bytes);
    const uint64_t n_threads = uint64_t(block.x) * block.y * block.z;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || n_threads == 0 || grid.x > 2147483647u || grid.y > 65535 ||
        grid.z > 65535 || block.x > 1024 || block.y > 1024 || block.z > 64) {
        log_line("refused launch " + what);
        return INVALID_VALUE;
    }
    if (n_threads > 1024) {
        log_line("refused launch " + what);
        return LAUNCH_OUT_OF_RESOURCES;
    }
    std::lock_guard<std::mutex> hold(launch_lock);
    log_line("launch " + what);
    if (!function->executable || measures_device(function->name)) return SUCCESS;
    const unsigned differing = run_grid(function->kernel, grid, block, shared_bytes, parameters);
    if (differing) log_line("barriers at different places: " + std::to_string(differing) + " in " + function->name);
    return SUCCESS;
}
