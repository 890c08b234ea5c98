#!/usr/bin/env bash
# Type-checks `--features wgpu` where its inputs changed since it was last found right: manifests, the lock file and the
# sources that the feature switches or compiles. tests/ci/wgpu.stamp holds their hash; `--record` checks and writes it. Then
# says whether the tests that run on a driver passed for this tree (tests/wgpu/ci.sh).
# Needs no GPU and no driver. The feature has its own dependency graph, hence its own target folder.
set -euo pipefail
cd "$(dirname "$0")/../.."
stamp=tests/ci/wgpu.stamp

inputs() {
  {
    printf '%s\n' Cargo.lock Cargo.toml crates/*/Cargo.toml
    grep -rlE 'feature = "(gpu|wgpu)"' crates/*/src
    find crates/*/src \( -name wgpu.rs -o -name gpu.rs -o -path '*/gpu/*.rs' -o -path '*/kernels-gpu/src/*.rs' \)
  } | LC_ALL=C sort -u
}

now=$(inputs | while read -r file; do sha256sum "$file"; done | sha256sum | cut -d' ' -f1)
if [ "${1:-}" != --record ] && [ "$(cat "$stamp" 2>/dev/null)" = "$now" ]; then
  echo "wgpu: $(inputs | wc -l) inputs unchanged since they were checked: skipped"
else
  CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/wgpu" cargo check --locked --profile ci --features wgpu -p cli
  if [ "${1:-}" = --record ]; then
    echo "$now" >"$stamp"
    echo "wgpu: recorded $now"
  else
    echo "wgpu: right. Record it with tests/ci/check_wgpu.sh --record, so that the next change need not check it again"
  fi
fi
tests/wgpu/ci.sh --state
