#!/usr/bin/env bash
# Runs the tests of the GPU's kernels on the stand-in driver: kernels.sh [FILTER…]
#
# Builds the tests of the crate kernels with the feature `cuda`, beside the package cli, whose features its dependencies then
# have, so that nothing is compiled twice. Files are kept in $CUDA_TESTS as run.sh keeps them. Exit code 3: not Linux on x86-64,
# or no g++.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
files=${CUDA_TESTS:-$root/target/cuda-tests}
mkdir -p "$files"
files=$(cd "$files" && pwd)
"$here/standin/build.sh" "$files/standin"
cd "$root"
tests=$(cargo test --locked --profile ci -p kernels -p cli --features cli/cuda --test it --no-run --message-format json |
  python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and "/crates/kernels/" in message["target"]["src_path"]:
        print(message["executable"])')
export STANDIN_CACHE="$files/kernels" STANDIN_SOURCES="$files/sources" TEMPER_GPU_TESTS=cuda
[ $# -gt 0 ] || set -- gpu::
cd "$root/crates/kernels"
for filter in "$@"; do
  LD_LIBRARY_PATH="$files/standin/exec" CUDA_PATH="$files/standin/toolkit" "$tests" --test-threads 1 "$filter"
done
