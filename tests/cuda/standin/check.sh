#!/usr/bin/env bash
# Builds the stand-in driver and tests it by itself, in both orders of threads: check.sh DIRECTORY
# Needs no binary of ours. Skipped with a message where it cannot run (build.sh's exit code 3).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
code=0
"$here/build.sh" "$1" || code=$?
if [ "$code" -eq 3 ]; then echo "stand-in driver: skipped"; exit 0; fi
[ "$code" -eq 0 ] || exit "$code"
directory=$(cd "$1" && pwd)
for order in forward reverse; do
  STANDIN_ORDER=$order LD_LIBRARY_PATH="$directory/exec" python3 "$here/check.py"
done
