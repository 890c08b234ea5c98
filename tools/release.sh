#!/usr/bin/env bash
# Builds the files of a release for Linux on x86-64, and tries each of them in a bare root directory.
# usage: tools/release.sh [DIRECTORY]   (default: target/releases)
#
#   temper-VERSION-x86_64-linux-static    needs no library. `temper get` looks up host names with the C library's own files,
#                                         which a container without them lacks.
#   temper-VERSION-x86_64-linux           needs glibc 2.31 or newer: Debian 11, Ubuntu 20.04, RHEL 9.
#   temper-VERSION.sbom.json              the crates in it, with versions and licences (CycloneDX).
#   SHA256SUMS
#
# The second one is linked by cargo-zigbuild (`pip install cargo-zigbuild ziglang`), the list of crates is written by
# cargo-cyclonedx (`cargo install cargo-cyclonedx`). What is not installed is said and left out.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-target/releases}
target=${CARGO_TARGET_DIR:-target}
triple=x86_64-unknown-linux-gnu
glibc=2.31
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
most_bytes=40000000
most_start_ms=20
mkdir -p "$out"
out=$(cd "$out" && pwd)
left_out=()

# check FILE: its size, the time of its start, and a short run in a root directory that has only what the binary needs.
check() {
  local file=$1 bytes root ms
  bytes=$(stat -c %s "$file")
  ms=$(start_ms "$file")
  root=$(mktemp -d)
  cp "$file" "$root/temper"
  ldd "$file" 2>/dev/null | grep -o '/[^ ]*' | while read -r library; do cp --parents -L "$library" "$root"; done || true
  mkdir -p "$root/tmp"
  write_recipe "$root"
  bare "$root" /temper run /tmp/tiny.toml --log plain >"$root/tmp/log" 2>&1 || {
    cat "$root/tmp/log"
    echo "release: $(basename "$file") does not run in a bare root" >&2
    exit 1
  }
  rm -rf "$root"
  printf '%s: %.1f MB, starts in %s ms, ran in a bare root\n' "$(basename "$file")" "$(awk "BEGIN { print $bytes / 1e6 }")" "$ms"
  if [ "$bytes" -gt $most_bytes ]; then echo "release: larger than $((most_bytes / 1000000)) MB" >&2; exit 1; fi
  if [ "$ms" -gt $most_start_ms ]; then echo "release: warning: starts in more than $most_start_ms ms here" >&2; fi
}

# The least time of 20 starts, in milliseconds.
start_ms() {
  local best=1000000 before after
  for _ in $(seq 20); do
    before=$(date +%s%N)
    "$1" --version >/dev/null
    after=$(date +%s%N)
    if [ $((after - before)) -lt $best ]; then best=$((after - before)); fi
  done
  echo $((best / 1000000))
}

write_recipe() {
  for _ in $(seq 40); do echo "The quick brown fox jumps over the lazy dog, again and again."; done >"$1/tmp/text.txt"
  cat >"$1/tmp/tiny.toml" <<'RECIPE'
[tokenizer]
train = { kind = "byte-bpe", vocab_size = 300 }
[model]
family = "llama"
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 64
max_position_embeddings = 64
[pretrain]
data = [{ path = "text.txt" }]
sequence_length = 64
tokens_per_step = 256
max_steps = 8
optimizer = { lr = 1e-3 }
RECIPE
}

# bare ROOT COMMAND…: a command whose root directory is ROOT, also for users who are not root. It has the devices of random numbers,
# as every container has.
bare() {
  local as_root=()
  if [ "$(id -u)" != 0 ]; then as_root=(--map-root-user); fi
  mkdir -p "$1/dev"
  touch "$1/dev/random" "$1/dev/urandom"
  unshare --mount "${as_root[@]}" sh -c 'for name in random urandom; do mount --bind "/dev/$name" "$1/dev/$name" || exit 1; done
    exec chroot "$@"' sh "$@"
}

echo "building the static binary; 15 to 30 minutes on two cores"
RUSTFLAGS="-C target-feature=+crt-static" CARGO_TARGET_DIR=$target/static \
  cargo build --locked --quiet --profile dist --target $triple -p cli
static=$out/temper-$version-x86_64-linux-static
cp "$target/static/$triple/dist/temper" "$static"
check "$static"

if cargo zigbuild --version >/dev/null 2>&1; then
  echo "building for glibc $glibc"
  CARGO_TARGET_DIR=$target/glibc cargo zigbuild --locked --quiet --profile dist --target $triple.$glibc -p cli
  dynamic=$out/temper-$version-x86_64-linux
  cp "$target/glibc/$triple/dist/temper" "$dynamic"
  newest=$(objdump -T "$dynamic" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -1)
  if [ "$(printf '%s\n' "GLIBC_$glibc" "$newest" | sort -V | tail -1)" != "GLIBC_$glibc" ]; then
    echo "release: needs $newest, newer than $glibc" >&2
    exit 1
  fi
  check "$dynamic"
else
  left_out+=("the binary for glibc $glibc: cargo-zigbuild is not installed")
fi

if cargo cyclonedx --version >/dev/null 2>&1; then
  cargo cyclonedx --quiet --manifest-path crates/cli/Cargo.toml --format json --override-filename temper-sbom
  # Paths of this machine are of no use to others.
  sed "s|$PWD|.|g" crates/cli/temper-sbom.json >"$out/temper-$version.sbom.json"
  find . -name target -prune -o -name temper-sbom.json -exec rm {} +
else
  left_out+=("the list of crates: cargo-cyclonedx is not installed")
fi

(cd "$out" && sha256sum temper-* >SHA256SUMS && cat SHA256SUMS)
for part in "${left_out[@]:-}"; do if [ -n "$part" ]; then echo "left out: $part"; fi; done
