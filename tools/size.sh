#!/usr/bin/env bash
# Prints the size of the temper binary and its code by crate.
# usage: tools/size.sh [PROFILE]   (default: dist; builds it, which takes long)
# With cargo-bloat installed it measures exactly; otherwise it groups the symbols of an unstripped build.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-dist}
target=${CARGO_TARGET_DIR:-target}
# The profile strips symbols and cannot be measured itself; the same settings without strip lay out the same code.
export CARGO_PROFILE_DIST_STRIP=none
cargo build --locked --quiet --profile "$profile" -p cli
binary=$target/$profile/temper
stripped=$(mktemp)
trap 'rm -f "$stripped"' EXIT
strip -s -o "$stripped" "$binary"
printf 'stripped binary: %d bytes (%d MB)\n' "$(stat -c %s "$stripped")" $(($(stat -c %s "$stripped") / 1000000))
size -A "$stripped" | awk '$2 > 100000 { printf "  %-20s %9.2f MB\n", $1, $2 / 1e6 }'
echo "code by crate:"
if cargo bloat --version >/dev/null 2>&1; then
  cargo bloat --locked --profile "$profile" -p cli --bin temper --crates -n 40
  exit 0
fi
# The first path segment of a demangled name; `<a::B as c::D>::e` counts for the crate of the type. Inlined code counts for
# its caller.
nm --demangle --print-size --size-sort --radix=d "$binary" \
  | awk '$3 ~ /^[tTwW]$/ {
      name = $4
      sub(/^[<&(\[*]+(mut )?(dyn )?/, "", name)
      if (match(name, /^[A-Za-z_][A-Za-z0-9_]*::/)) name = substr(name, 1, RLENGTH - 2); else name = "(other)"
      bytes[name] += $2
    }
    END { for (name in bytes) printf "%9.2f kB  %s\n", bytes[name] / 1e3, name }' \
  | sort -rn | sed -n 1,40p
