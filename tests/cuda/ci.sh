#!/usr/bin/env bash
# Builds the feature `cuda` and runs run.sh where the inputs changed since it last passed: the crates that compute on a
# device, the lock file and the stand-in. tests/cuda/stamp has their hash; `--record` runs everything and writes it.
set -euo pipefail
cd "$(dirname "$0")/../.."
stamp=tests/cuda/stamp

inputs() {
  {
    printf '%s\n' Cargo.lock
    find crates/{kernels,kernels-gpu,nn,loss,model,lora,train,evaluate/src/selftest,cli/src/commands/selftest} vendor tests/cuda -type f \
      ! -path '*/tests/it/*' ! -path '*/__pycache__/*' ! -path "$stamp" \
      \( -name '*.rs' -o -name '*.toml' -o -path 'tests/cuda/*' \)
  } | LC_ALL=C sort
}

now=$(inputs | while read -r file; do sha256sum "$file"; done | sha256sum | cut -d' ' -f1)
if [ "${1:-}" != --record ] && [ "$(cat "$stamp" 2>/dev/null)" = "$now" ]; then
  echo "cuda on the stand-in driver: $(inputs | wc -l) inputs unchanged since it passed: skipped"
  exit 0
fi
if [ "$(uname -sm)" != "Linux x86_64" ] || ! command -v g++ >/dev/null; then
  echo "cuda on the stand-in driver: skipped, it needs g++ and Linux on x86-64"
  exit 0
fi
target=${CARGO_TARGET_DIR:-target}/cuda
CARGO_TARGET_DIR=$target cargo build --locked --profile ci --features cuda -p cli
CARGO_TARGET_DIR=$target tests/cuda/kernels.sh
tests/cuda/run.sh "$target/ci/temper"
if [ "${1:-}" = --record ]; then
  echo "$now" >"$stamp"
  echo "cuda on the stand-in driver: recorded $now"
else
  echo "cuda on the stand-in driver: passed. Record it with tests/cuda/ci.sh --record, so that the next change need not run it"
fi
