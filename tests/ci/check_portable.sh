#!/usr/bin/env bash
# Runs the kernels' tests on the portable form of kernels-cpu, in which every memory access is checked, where their sources
# or the lock file changed since they last passed. tests/ci/portable.stamp has the hash of both; `--record` runs the tests
# and writes it.
set -euo pipefail
cd "$(dirname "$0")/../.."
stamp=tests/ci/portable.stamp

inputs() {
  {
    printf '%s\n' Cargo.lock
    find crates/kernels-cpu crates/kernels/src crates/kernels/tests crates/kernels/portable crates/testkit -type f \
      \( -name '*.rs' -o -name Cargo.toml \)
  } | LC_ALL=C sort
}

now=$(inputs | while read -r file; do sha256sum "$file"; done | sha256sum | cut -d' ' -f1)
if [ "${1:-}" != --record ] && [ "$(cat "$stamp" 2>/dev/null)" = "$now" ]; then
  echo "portable kernels: $(inputs | wc -l) inputs unchanged since their tests passed: skipped"
  exit 0
fi
cargo test --locked --profile ci -p kernels-cpu-portable --lib
cargo test --locked --profile ci -p kernels-portable --test it
if [ "${1:-}" = --record ]; then
  echo "$now" >"$stamp"
  echo "portable kernels: recorded $now"
else
  echo "portable kernels: passed. Record it with tests/ci/check_portable.sh --record, so that the next change need not run them"
fi
