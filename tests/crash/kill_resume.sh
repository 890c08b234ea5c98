#!/usr/bin/env bash
# Kills a run with -9 at random moments and resumes it until it ends; the weights must be those of a run that was never
# killed, byte for byte.
# usage: kill_resume.sh TEMPER RECIPE TRIALS [--only STAGE] [--set key=value]…
# Prints one line a trial; exit 0 only if all agree. With --only every kill is in that stage: the others are run once.
set -euo pipefail
temper=$(realpath "$1") recipe=$(realpath "$2") trials=$3
shift 3
only=
if [ "${1:-}" = --only ]; then only=$2; shift 2; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
now_ms() { echo $(($(date +%s%N) / 1000000)); }
hashes() { (cd "runs/$1" && find . -path '*/model/*.safetensors' | sort | xargs sha256sum); }

start=$(now_ms)
"$temper" run "$recipe" --name whole --log plain "$@" >/dev/null 2>whole.log || { tail -n 20 whole.log; exit 1; }
length=$(($(now_ms) - start))
stage_args=()
if [ -n "$only" ]; then
  # How long the stage takes by itself, and what every trial begins with.
  cp -a runs/whole runs/before
  rm -rf "runs/before/$only"
  cp -a runs/before runs/timed
  stage_args=(--stage "$only")
  start=$(now_ms)
  "$temper" run "$recipe" --name timed "${stage_args[@]}" --log plain "$@" >/dev/null 2>timed.log || { tail -n 20 timed.log; exit 1; }
  length=$(($(now_ms) - start))
  hashes timed >timed.sum
  rm -rf runs/timed
fi
hashes whole >whole.sum
[ -s whole.sum ] || { echo "the run wrote no model"; exit 1; }
echo "uninterrupted: $length ms, $(wc -l <whole.sum) model files"

failed=0 kills=0
for trial in $(seq "$trials"); do
  name="killed-$trial" code=1 tries=0
  [ -z "$only" ] || cp -a runs/before "runs/$name"
  while [ "$code" -ne 0 ]; do
    tries=$((tries + 1))
    if [ -z "$only" ] && [ -d "runs/$name" ] && [ -f "runs/$name/recipe.toml" ]; then
      "$temper" resume "$name" --log plain >/dev/null 2>>"$name.log" &
    else
      "$temper" run "$recipe" --name "$name" "${stage_args[@]}" --log plain "$@" >/dev/null 2>>"$name.log" &
    fi
    pid=$!
    # The first three tries of a trial are killed, each at a random moment of what a whole run takes.
    if [ "$tries" -le 3 ]; then
      pause=$(((RANDOM * 32768 + RANDOM) % (length * 3 / 4 + 1)))
      sleep "$(printf '%d.%03d' $((pause / 1000)) $((pause % 1000)))"
      stage=$(cd "runs/$name" 2>/dev/null && ls -td -- */ 2>/dev/null | head -n 1 || true)
      if kill -9 "$pid" 2>/dev/null; then
        kills=$((kills + 1))
        echo "${stage:-before any stage}" >>killed-in
      fi
    fi
    code=0
    wait "$pid" 2>/dev/null || code=$?
    if [ "$code" -ne 0 ] && [ "$code" -ne 137 ]; then
      echo "trial $trial: exit $code"
      tail -n 5 "$name.log"
      break
    fi
  done
  if [ "$code" -eq 0 ] && hashes "$name" | diff -q - whole.sum >/dev/null; then
    echo "trial $trial: same weights"
    rm -rf "runs/$name"
  else
    echo "trial $trial: DIFFERENT"
    failed=$((failed + 1))
  fi
done
[ ! -f killed-in ] || sort killed-in | uniq -c
echo "$((trials - failed)) passed, $failed failed, $kills kills"
[ "$failed" -eq 0 ]
