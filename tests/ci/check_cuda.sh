#!/usr/bin/env bash
# Type-checks `--features cuda` where its inputs changed since it was last found right: manifests, the lock file, vendor/
# and the sources that the feature switches. tests/ci/cuda.stamp holds their hash; `--record` checks and writes it.
# Needs no GPU, no driver and no toolkit. The feature has its own dependency graph, hence its own target folder.
set -euo pipefail
cd "$(dirname "$0")/../.."
stamp=tests/ci/cuda.stamp

inputs() {
  {
    printf '%s\n' Cargo.lock Cargo.toml crates/*/Cargo.toml
    find vendor -type f
    grep -rlE 'feature = "(cuda|gpu)"' crates/*/src
    find crates/*/src -name cuda.rs -o -name gpu.rs
  } | LC_ALL=C sort -u
}

now=$(inputs | while read -r file; do sha256sum "$file"; done | sha256sum | cut -d' ' -f1)
if [ "${1:-}" != --record ] && [ "$(cat "$stamp" 2>/dev/null)" = "$now" ]; then
  echo "cuda: $(inputs | wc -l) inputs unchanged since they were checked: skipped"
  exit 0
fi
CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/cuda" cargo check --locked --profile ci --features cuda -p cli
if [ "${1:-}" = --record ]; then
  echo "$now" >"$stamp"
  echo "cuda: recorded $now"
else
  echo "cuda: right. Record it with tests/ci/check_cuda.sh --record, so that the next change need not check it again"
fi
