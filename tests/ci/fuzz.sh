#!/usr/bin/env bash
# Builds the fuzz targets of fuzz/ and runs each for 20 seconds, where a nightly toolchain and cargo-fuzz are installed.
# The same entry points run under property tests in every test run (tools/readers/tests).
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-20}
if ! rustc +nightly --version >/dev/null 2>&1 || ! cargo +nightly fuzz --version >/dev/null 2>&1; then
  echo "fuzz: skipped, needs a nightly toolchain and cargo-fuzz (cargo install cargo-fuzz); the property tests ran"
  exit 0
fi
# fuzz/ is a workspace of its own: sanitizers build all dependencies again. --fuzz-dir keeps cargo-fuzz out of this one. Its lock
# file is made from this one's, so that the same versions are tested.
cp Cargo.lock fuzz/Cargo.lock
targets=$(cargo +nightly fuzz list --fuzz-dir fuzz)
for target in $targets; do
  corpus=$(mktemp -d)
  cp fuzz/seeds/"$target"/* "$corpus"/ 2>/dev/null || true
  cargo +nightly fuzz run --fuzz-dir fuzz "$target" "$corpus" -- -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10
  rm -rf "$corpus"
done
