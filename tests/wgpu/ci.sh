#!/usr/bin/env bash
# Builds the feature `wgpu` and runs run.sh where the inputs changed since it last passed: the crates that compute on a
# device, and the lock file. tests/wgpu/stamp has their hash; `--record` runs everything and writes it. `--state` only says
# whether it passed for these inputs.
set -euo pipefail
cd "$(dirname "$0")/../.."
stamp=tests/wgpu/stamp

inputs() {
  {
    printf '%s\n' Cargo.lock tests/cuda/stages.toml
    find crates/{kernels,kernels-gpu,nn,loss,model,lora,train,evaluate/src/selftest,cli/src/commands/selftest} tests/wgpu -type f \
      ! -path '*/tests/it/*' ! -path "$stamp" \( -name '*.rs' -o -name '*.toml' -o -path 'tests/wgpu/*' \)
  } | LC_ALL=C sort
}

now=$(inputs | while read -r file; do sha256sum "$file"; done | sha256sum | cut -d' ' -f1)
if [ "${1:-}" != --record ] && [ "$(cat "$stamp" 2>/dev/null)" = "$now" ]; then
  echo "wgpu on a driver: $(inputs | wc -l) inputs unchanged since its tests passed: skipped"
  exit 0
fi
if [ "${1:-}" = --state ]; then
  echo "wgpu on a driver: not run for these inputs; tests/wgpu/ci.sh --record builds the feature and runs it"
  exit 0
fi
target=${CARGO_TARGET_DIR:-target}/wgpu
CARGO_TARGET_DIR=$target cargo build --locked --profile ci --features wgpu -p cli
CARGO_TARGET_DIR=$(realpath "$target") tests/wgpu/run.sh "$target/ci/temper" | tee "$target/run.log"
if [ "${1:-}" = --record ]; then
  if grep -q '^wgpu: skipped' "$target/run.log"; then
    echo "wgpu on a driver: nothing is recorded, because nothing ran"
    exit 1
  fi
  echo "$now" >"$stamp"
  echo "wgpu on a driver: recorded $now"
else
  echo "wgpu on a driver: done. Record it with tests/wgpu/ci.sh --record, so that the next change need not run it"
fi
