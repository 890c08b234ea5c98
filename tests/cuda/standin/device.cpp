// Devices, contexts, streams and events. Work is done when it is submitted, so a stream is always empty, and the order of
// work on different streams is the order of the calls.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "errors.h"
#include "settings.h"

namespace {

// Numbers of enum CUdevice_attribute.
enum Attribute {
    MAX_THREADS_PER_BLOCK = 1,
    MAX_BLOCK_DIM_X = 2,
    MAX_BLOCK_DIM_Y = 3,
    MAX_BLOCK_DIM_Z = 4,
    MAX_GRID_DIM_X = 5,
    MAX_GRID_DIM_Y = 6,
    MAX_GRID_DIM_Z = 7,
    MAX_SHARED_MEMORY_PER_BLOCK = 8,
    WARP_SIZE = 10,
    MULTIPROCESSOR_COUNT = 16,
    COMPUTE_CAPABILITY_MAJOR = 75,
    COMPUTE_CAPABILITY_MINOR = 76,
    MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97,
};

int capability() { return settings::number("STANDIN_SM", 80); }

// Table "Technical Specifications per Compute Capability" of the CUDA C++ programming guide.
int shared_memory_limit(int sm) {
    switch (sm) {
        case 80: case 87: return 163 << 10;
        case 90: case 100: case 103: return 227 << 10;
        default: return 99 << 10;
    }
}

int handle;   // what contexts point to

}

API cuInit(unsigned) { return SUCCESS; }
API cuDriverGetVersion(int *version) { *version = settings::number("STANDIN_DRIVER", 13040); return SUCCESS; }
API cuDeviceGetCount(int *count) { *count = settings::number("STANDIN_DEVICES", 1); return SUCCESS; }
API cuDeviceGet(int *device, int ordinal) {
    if (ordinal < 0 || ordinal >= settings::number("STANDIN_DEVICES", 1)) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}
API cuDeviceGetName(char *name, int length, int device) {
    snprintf(name, length, "NVIDIA stand-in %d", device);
    return SUCCESS;
}
API cuDeviceTotalMem_v2(size_t *bytes, int) { *bytes = settings::memory_bytes(); return SUCCESS; }
API cuDeviceGetPCIBusId(char *text, int length, int device) {
    snprintf(text, length, "0000:%02x:00.0", device + 1);
    return SUCCESS;
}
API cuDeviceGetUuid_v2(void *uuid, int device) {
    memset(uuid, device + 1, 16);
    return SUCCESS;
}
API cuDeviceGetAttribute(int *value, int attribute, int) {
    switch (attribute) {
        case MAX_THREADS_PER_BLOCK: case MAX_BLOCK_DIM_X: case MAX_BLOCK_DIM_Y: *value = 1024; break;
        case MAX_BLOCK_DIM_Z: *value = 64; break;
        case MAX_GRID_DIM_X: *value = 2147483647; break;
        case MAX_GRID_DIM_Y: case MAX_GRID_DIM_Z: *value = 65535; break;
        case MAX_SHARED_MEMORY_PER_BLOCK: *value = 48 << 10; break;
        case WARP_SIZE: *value = 32; break;
        case MULTIPROCESSOR_COUNT: *value = 108; break;
        case COMPUTE_CAPABILITY_MAJOR: *value = capability() / 10; break;
        case COMPUTE_CAPABILITY_MINOR: *value = capability() % 10; break;
        case MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = shared_memory_limit(capability()); break;
        default: *value = 0;   // peer access, memory pools and the like are absent
    }
    return SUCCESS;
}

API cuDevicePrimaryCtxRetain(void **context, int) { *context = &handle; return SUCCESS; }
API cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API cuCtxSetCurrent(void *) { return SUCCESS; }
API cuCtxGetCurrent(void **context) { *context = &handle; return SUCCESS; }
API cuCtxSynchronize() { return SUCCESS; }
API cuCtxGetStreamPriorityRange(int *least, int *greatest) { *least = *greatest = 0; return SUCCESS; }

// Handles are unique addresses.
API cuStreamCreate(void **stream, unsigned) { *stream = malloc(1); return SUCCESS; }
API cuStreamCreateWithPriority(void **stream, unsigned, int) { return cuStreamCreate(stream, 0); }
API cuStreamDestroy_v2(void *stream) { free(stream); return SUCCESS; }
API cuStreamSynchronize(void *) { return SUCCESS; }
API cuStreamQuery(void *) { return SUCCESS; }
API cuStreamWaitEvent(void *, void *, unsigned) { return SUCCESS; }
API cuStreamIsCapturing(void *, int *status) { *status = 0; return SUCCESS; }
API cuLaunchHostFunc(void *, void (*function)(void *), void *data) { function(data); return SUCCESS; }

API cuEventCreate(void **event, unsigned) { *event = malloc(1); return SUCCESS; }
API cuEventDestroy_v2(void *event) { free(event); return SUCCESS; }
API cuEventRecord(void *, void *) { return SUCCESS; }
API cuEventQuery(void *) { return SUCCESS; }
API cuEventSynchronize(void *) { return SUCCESS; }
// A constant: kernels that cubecl times all take equally long, so that it selects the same one in every process.
API cuEventElapsedTime_v2(float *milliseconds, void *, void *) { *milliseconds = 100.0f; return SUCCESS; }
API cuEventElapsedTime(float *milliseconds, void *from, void *to) { return cuEventElapsedTime_v2(milliseconds, from, to); }

API cuGetErrorName(int error, const char **text) {
    switch (error) {
        case SUCCESS: *text = "CUDA_SUCCESS"; break;
        case INVALID_VALUE: *text = "CUDA_ERROR_INVALID_VALUE"; break;
        case OUT_OF_MEMORY: *text = "CUDA_ERROR_OUT_OF_MEMORY"; break;
        case INVALID_DEVICE: *text = "CUDA_ERROR_INVALID_DEVICE"; break;
        case INVALID_IMAGE: *text = "CUDA_ERROR_INVALID_IMAGE"; break;
        case NOT_FOUND: *text = "CUDA_ERROR_NOT_FOUND"; break;
        case LAUNCH_OUT_OF_RESOURCES: *text = "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"; break;
        case NOT_SUPPORTED: *text = "CUDA_ERROR_NOT_SUPPORTED"; break;
        default: *text = "CUDA_ERROR_UNKNOWN";
    }
    return SUCCESS;
}
API cuGetErrorString(int error, const char **text) {
    *text = error == OUT_OF_MEMORY ? "out of memory" : error == INVALID_VALUE ? "invalid argument" : "an error of the stand-in driver";
    return SUCCESS;
}
