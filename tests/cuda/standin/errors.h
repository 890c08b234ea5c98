// CUDA's result codes that the stand-in returns. Numbers: enum CUresult of the driver API.
#pragma once

enum Result : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    NOT_FOUND = 500,
    LAUNCH_OUT_OF_RESOURCES = 701,
    NOT_SUPPORTED = 801,
};

#define API extern "C" __attribute__((visibility("default"))) Result
