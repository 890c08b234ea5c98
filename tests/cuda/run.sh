#!/usr/bin/env bash
# Executes the CUDA code path on a machine without a GPU: run.sh TEMPER [PART…]
#
# TEMPER is a binary built with `--features cuda`. The stand-in driver (standin/) executes its kernels on the CPU. Parts,
# all of them by default, in this order:
#   standin    the stand-in driver by itself, in both orders of threads
#   probe      what the binary says of machines that lack something (probe.sh)
#   selftest   `temper selftest --device cuda` in f32, tf32 and bf16; f32 in both orders of threads. Products are not timed,
#              which would take most of the time; those of the part `launches` are
#   verify     the reference vectors of tests/golden, replayed on the device
#   stages     each stage for five steps, compared with the CPU's losses; then killed and resumed to the bit
#   memory     a device with little memory: the error, and its exit code
#   launches   launches of a training step of 12 layers, compared with launches.txt (`run.sh TEMPER launches --record`)
#   nvrtc      NVIDIA's NVRTC compiles every kernel of the parts above for sm_80, sm_90 and sm_120; skipped with a message
#              where its Python packages cannot be installed
# Files are kept in $CUDA_TESTS (default: target/cuda-tests): compiled kernels, their sources, NVIDIA's packages.
# A part whose name is missing in the summary has failed. Exit code 3: not Linux on x86-64, or no g++.
set -euo pipefail
temper=$(realpath "$1")
shift
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
record=
parts=()
for word in "$@"; do if [ "$word" = --record ]; then record=1; else parts+=("$word"); fi; done
[ ${#parts[@]} -gt 0 ] || parts=(standin probe selftest verify stages memory launches nvrtc)
files=${CUDA_TESTS:-$root/target/cuda-tests}
mkdir -p "$files"
files=$(cd "$files" && pwd)
"$here/standin/build.sh" "$files/standin"
export STANDIN_CACHE="$files/kernels" STANDIN_SOURCES="$files/sources"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# on_device COMMAND…: with the stand-in in place of NVIDIA's driver and NVRTC.
on_device() {
  LD_LIBRARY_PATH="$files/standin/exec" CUDA_PATH="$files/standin/toolkit" "$@"
}

part_standin() { "$here/standin/check.sh" "$files/standin"; }

part_probe() { "$here/probe.sh" "$temper"; }

selftest() {
  local precision=$1 order=$2 log=$work/selftest.log
  rm -f "$log"
  STANDIN_ORDER=$order STANDIN_LOG=$log on_device "$temper" selftest --device cuda --no-bench --deterministic --precision "$precision" 2>selftest.err ||
    { tail -n 40 selftest.err; return 1; }
  echo "selftest in $precision, threads $order: $(grep -c '^launch ' "$log") launches," \
    "$(grep -E '^(compiled|reused) ' "$log" | awk '{print $3}' | sort -u | wc -l) kernels"
  if grep '^barriers at different places' "$log"; then return 1; fi
}

part_selftest() {
  local precision
  for precision in f32 tf32 bf16; do selftest $precision forward; done
  selftest f32 reverse
}

part_verify() {
  on_device "$temper" verify "$root"/tests/golden/{models,training,reward,ppo,adapters} --device cuda >verify.jsonl 2>verify.err ||
    { grep -v '"passed":true' verify.jsonl | cut -c1-600; tail -n 5 verify.err; return 1; }
  tail -n 1 verify.err
}

part_stages() {
  on_device "$temper" run "$here/stages.toml" --name device --log plain --set device=cuda >/dev/null 2>device.log ||
    { tail -n 20 device.log; return 1; }
  "$temper" run "$here/stages.toml" --name cpu --log plain >/dev/null 2>cpu.log || { tail -n 20 cpu.log; return 1; }
  python3 "$here/compare_losses.py" runs/cpu runs/device
  on_device "$root/tests/crash/kill_resume.sh" "$temper" "$here/stages.toml" 1 --set device=cuda
}

part_memory() {
  local code=0
  STANDIN_MEMORY=8 on_device "$temper" run "$here/stages.toml" --name memory --log plain --stage pretrain --set device=cuda \
    --set model.hidden_size=512 --set model.intermediate_size=2048 >/dev/null 2>memory.log || code=$?
  [ "$code" -eq 1 ] && grep -qi 'out of memory' memory.log && ! grep -q 'panicked' memory.log ||
    { echo "8 MiB of memory: exit code $code"; tail -n 20 memory.log; return 1; }
  echo "a device of 8 MiB: $(grep -i 'out of memory' memory.log | head -n 1)"
}

# Launches of the steps after the second, on average. The first steps also time variants of kernels.
launches() {
  local precision=$1 steps counts=()
  for steps in 4 8; do
    rm -f launches.log
    STANDIN_LOG=$work/launches.log on_device "$temper" run "$here/launches.toml" --name "launches-$precision-$steps" --log plain \
      --set device=cuda --set "precision=$precision" --set "pretrain.max_steps=$steps" >/dev/null 2>launches.err ||
      { tail -n 20 launches.err; return 1; }
    counts+=("$(grep -c '^launch ' launches.log)")
  done
  echo "$precision $(((counts[1] - counts[0]) / 4))"
}

part_launches() {
  local precision
  for precision in f32 tf32 bf16; do launches $precision; done >launches.now
  if [ -n "$record" ]; then cp launches.now "$here/launches.txt"; fi
  echo "launches of a training step of 12 layers:" $(cat launches.now)
  # More launches than recorded are a regression; fewer are recorded with the change that saves them.
  diff "$here/launches.txt" launches.now || { echo "record it with tests/cuda/run.sh TEMPER launches --record"; return 1; }
}

# NVIDIA's packages, installed once.
toolkit() {
  local found
  found=$(echo "$files"/venv/lib/python3*/site-packages/nvidia/cu13)
  if [ ! -d "$found/include" ]; then
    { python3 -m venv "$files/venv" && "$files/venv/bin/pip" install -q nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cuda-crt \
      nvidia-cuda-cccl; } >pip.log 2>&1 || return 1
    found=$(echo "$files"/venv/lib/python3*/site-packages/nvidia/cu13)
  fi
  echo "$found"
}

part_nvrtc() {
  local cuda sm
  if ! cuda=$(toolkit); then
    echo "skipped: NVIDIA's Python packages cannot be installed: $(tail -n 1 pip.log)"
    return 0
  fi
  python3 "$here/nvrtc.py" "$cuda" "$STANDIN_SOURCES"
  # Architectures for which cubecl selects other kernels than for sm_80. Nothing runs, so results are wrong and ignored.
  for sm in 90 120; do
    rm -f compile.log
    STANDIN_SM=$sm STANDIN_LOG=$work/compile.log LD_LIBRARY_PATH="$files/standin/compile:$cuda/lib" CUDA_PATH=$cuda \
      "$temper" selftest --device cuda --no-bench >compile.out 2>&1 || true
    if grep -qi 'compilation error' compile.out; then grep -i -A 20 'compilation error' compile.out | head -n 40; return 1; fi
    [ -s compile.log ] || { echo "sm_$sm: nothing was launched"; tail -n 20 compile.out; return 1; }
    echo "sm_$sm: $(awk '/^launch / {print $2}' compile.log | sort -u | wc -l) entry points requested, $(grep -c '^launch ' compile.log) launches ignored"
  done
}

passed=()
for part in "${parts[@]}"; do
  declare -F "part_$part" >/dev/null || { echo "no part named \`$part\`" >&2; exit 2; }
  start=$SECONDS
  echo "-- $part"
  "part_$part"
  passed+=("$part ($((SECONDS - start)) s)")
done
echo "passed on the stand-in driver: ${passed[*]}"
