// Device memory on the heap: allocation within a limit, copies and fills. New memory holds 0xff bytes, which is NaN in
// every floating-point format, so that a read before a write shows in the results.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <unordered_map>

#include "errors.h"
#include "settings.h"

using Address = uint64_t;

namespace {

constexpr size_t ALIGNMENT = 512;
std::mutex lock;
std::unordered_map<Address, size_t> sizes;
size_t used = 0;

void *host(Address address) { return reinterpret_cast<void *>(address); }

}

API cuMemAlloc_v2(Address *address, size_t bytes) {
    if (bytes == 0) return INVALID_VALUE;
    const size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    std::lock_guard<std::mutex> hold(lock);
    if (rounded > settings::memory_bytes() - used) {
        log_line("refused " + std::to_string(bytes) + " bytes with " + std::to_string(used) + " in use");
        return OUT_OF_MEMORY;
    }
    void *memory = aligned_alloc(ALIGNMENT, rounded);
    if (!memory) return OUT_OF_MEMORY;
    memset(memory, 0xff, rounded);
    *address = reinterpret_cast<Address>(memory);
    sizes[*address] = rounded;
    used += rounded;
    return SUCCESS;
}

API cuMemFree_v2(Address address) {
    if (address == 0) return SUCCESS;
    std::lock_guard<std::mutex> hold(lock);
    const auto found = sizes.find(address);
    if (found == sizes.end()) return INVALID_VALUE;
    used -= found->second;
    sizes.erase(found);
    free(host(address));
    return SUCCESS;
}

API cuMemAllocAsync(Address *address, size_t bytes, void *) { return cuMemAlloc_v2(address, bytes); }
API cuMemFreeAsync(Address address, void *) { return cuMemFree_v2(address); }

API cuMemGetInfo_v2(size_t *available, size_t *total) {
    std::lock_guard<std::mutex> hold(lock);
    *total = settings::memory_bytes();
    *available = *total - used;
    return SUCCESS;
}

API cuMemAllocHost_v2(void **memory, size_t bytes) {
    *memory = malloc(bytes ? bytes : 1);
    return *memory ? SUCCESS : OUT_OF_MEMORY;
}
API cuMemHostAlloc(void **memory, size_t bytes, unsigned) { return cuMemAllocHost_v2(memory, bytes); }
API cuMemFreeHost(void *memory) { free(memory); return SUCCESS; }

API cuMemcpyHtoD_v2(Address to, const void *from, size_t bytes) { memcpy(host(to), from, bytes); return SUCCESS; }
API cuMemcpyDtoH_v2(void *to, Address from, size_t bytes) { memcpy(to, host(from), bytes); return SUCCESS; }
API cuMemcpyDtoD_v2(Address to, Address from, size_t bytes) { memmove(host(to), host(from), bytes); return SUCCESS; }
API cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, void *) { return cuMemcpyHtoD_v2(to, from, bytes); }
API cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, void *) { return cuMemcpyDtoH_v2(to, from, bytes); }
API cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void *) { return cuMemcpyDtoD_v2(to, from, bytes); }
API cuMemsetD8_v2(Address to, unsigned char value, size_t bytes) { memset(host(to), value, bytes); return SUCCESS; }
API cuMemsetD8Async(Address to, unsigned char value, size_t bytes, void *) { return cuMemsetD8_v2(to, value, bytes); }

// CUDA_MEMCPY2D: one side of the copy, then the other, then the rectangle.
struct Side {
    size_t x_bytes, y;
    int kind;   // CU_MEMORYTYPE_HOST is 1, CU_MEMORYTYPE_DEVICE 2
    void *host;
    Address device;
    void *array;
    size_t pitch;

    char *row(size_t n, size_t width) const {
        char *start = kind == 1 ? static_cast<char *>(host) : reinterpret_cast<char *>(device);
        return start + (y + n) * (pitch ? pitch : width) + x_bytes;
    }
};
struct Copy2D {
    Side from, to;
    size_t width_bytes, height;
};

API cuMemcpy2DAsync_v2(const Copy2D *copy, void *) {
    if (copy->from.kind > 2 || copy->to.kind > 2) return NOT_SUPPORTED;
    for (size_t n = 0; n < copy->height; n++)
        memcpy(copy->to.row(n, copy->width_bytes), copy->from.row(n, copy->width_bytes), copy->width_bytes);
    return SUCCESS;
}
API cuMemcpy2D_v2(const Copy2D *copy) { return cuMemcpy2DAsync_v2(copy, nullptr); }
