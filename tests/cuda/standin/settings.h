// Settings from the environment, and the log. Every variable is read at its first use.
//
//   STANDIN_SM       compute capability that the device reports (default 80)
//   STANDIN_MEMORY   device memory in MiB (default 8192); an allocation beyond it fails
//   STANDIN_DEVICES  number of devices (default 1)
//   STANDIN_DRIVER   CUDA version that the driver supports (default 13040)
//   STANDIN_ORDER    `reverse`: blocks, warps and lanes run from the last to the first (default: from the first)
//   STANDIN_LOG      file to which a line is appended for each compilation and each launch
//   STANDIN_SOURCES  directory that receives the CUDA C++ of each kernel, named by its hash
//   STANDIN_CACHE    directory of compiled kernels (default: a temporary one of this process)
#pragma once
#include <cstddef>
#include <string>

namespace settings {
int number(const char *name, int otherwise);
std::string text(const char *name);
bool reverse_order();
size_t memory_bytes();
}

// Appends a line to STANDIN_LOG, in one write, so that several processes may share a file.
void log_line(const std::string &line);
