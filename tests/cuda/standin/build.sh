#!/usr/bin/env bash
# Builds the stand-in for CUDA's driver and NVRTC: build.sh DIRECTORY
#   DIRECTORY/exec/     libcuda.so, libnvrtc.so and the headers of kernels: kernels are compiled by g++ and executed
#   DIRECTORY/compile/  libcuda.so alone, for use with NVIDIA's NVRTC: kernels are compiled and not executed
#   DIRECTORY/toolkit/  for CUDA_PATH: empty files where programs look for headers, since the kernels' are in exec/
# Needs g++ and Linux on x86-64; g++ is needed at run time too. Does nothing if its inputs are those of the last build.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ "$(uname -sm)" = "Linux x86_64" ] || { echo "the stand-in driver runs on Linux, x86-64" >&2; exit 3; }
command -v g++ >/dev/null || { echo "the stand-in driver needs g++" >&2; exit 3; }
mkdir -p "$1/exec" "$1/compile" "$1"/toolkit/include/{cuda,crt}
out=$(cd "$1" && pwd)

# A GPU does not contract products and sums of different statements; -O1 keeps compilation short.
kernel_flags="-std=gnu++17 -O1 -w -Wno-narrowing -fPIC -fvisibility=hidden -fno-stack-protector -fno-math-errno -ffp-contract=off -fno-strict-aliasing"
headers=$({ cat "$here/abi.h"; find "$here/device" -type f | LC_ALL=C sort | xargs cat; echo "$kernel_flags"; g++ --version; } | sha256sum | cut -c1-12)
inputs=$({ echo "$headers"; cat "$here"/*.cpp "$here"/*.h "$here/build.sh"; } | sha256sum)
[ "$(cat "$out/inputs" 2>/dev/null)" != "$inputs" ] || exit 0

cp "$here/abi.h" "$out/exec/"
rm -rf "$out/exec/device" && cp -r "$here/device" "$out/exec/device"
touch "$out"/toolkit/include/{cuda_fp16.h,mma.h,crt/mma.h,cuda/barrier}
flags="-std=c++17 -O2 -Wall -Wextra -Wno-unused-parameter -shared -fPIC -fvisibility=hidden"
cd "$here"
g++ $flags settings.cpp blocks.cpp memory.cpp device.cpp modules.cpp -o "$out/exec/libcuda.so" -ldl
g++ $flags -DHEADERS_HASH="\"$headers\"" -DSTANDIN_KERNEL_FLAGS="\"$kernel_flags\"" settings.cpp translate.cpp nvrtc.cpp \
  -o "$out/exec/libnvrtc.so" -ldl
cp "$out/exec/libcuda.so" "$out/compile/libcuda.so"
# The prelude, compiled once for all kernels.
g++ $kernel_flags -x c++-header "$out/exec/device/prelude.h" -o "$out/exec/device/prelude.h.gch"
echo "$inputs" >"$out/inputs"
