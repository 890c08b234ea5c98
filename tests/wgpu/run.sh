#!/usr/bin/env bash
# Executes the device `wgpu` on this machine's adapter, Mesa's lavapipe where there is no GPU: run.sh TEMPER [PART…]
#
# TEMPER is a binary built with `--features wgpu`. Parts, all of them by default, in this order:
#   devices    what `temper devices` says of the adapter, and of a machine without a driver
#   refused    what wgpu lacks is refused with exit code 2: bf16, tf32, replicas, an adapter that is not there
#   kernels    the kernels' tests against formulas in f64; $KERNELS_TESTS is their executable, else cargo builds it
#   selftest   `temper selftest --device wgpu`
#   stages     each stage for five steps, and adapters on packed weights, compared with the CPU's losses; then killed and
#              resumed to the bit
# A part whose name is missing in the summary has failed. Without a driver everything is skipped, and the last line says so.
# Debian and Ubuntu: apt-get install mesa-vulkan-drivers libvulkan1. $TEMPER_WGPU_DEVICE (default: wgpu) selects an adapter.
set -euo pipefail
temper=$(realpath "$1")
shift
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
device=${TEMPER_WGPU_DEVICE:-wgpu}
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(devices refused kernels selftest stages)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
# Without it, EGL's libraries complain where a machine has no GPU and cubecl asks OpenGL, too.
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-$work}

if "$temper" devices | grep -q 'built without wgpu'; then
  echo "$temper is built without wgpu: cargo build --locked --features wgpu -p cli" >&2
  exit 2
fi
if ! "$temper" devices | grep -q '^wgpu:[0-9]*  ready'; then
  "$temper" devices | grep -A 1 '^wgpu' || true
  echo "wgpu: skipped, no adapter is ready"
  exit 0
fi
adapter=$("$temper" devices | grep -m 1 '^wgpu:[0-9]*  ready')

part_devices() {
  "$temper" devices | sed -n '/^wgpu/,$p'
  # A machine without a driver: the loader is given no driver, and GL's no vendor.
  VK_DRIVER_FILES=/nowhere VK_ICD_FILENAMES=/nowhere __EGL_VENDOR_LIBRARY_FILENAMES=/nowhere "$temper" devices >none.txt
  grep -q 'lists a GPU' none.txt && grep -q 'mesa-vulkan-drivers' none.txt || { cat none.txt; return 1; }
}

# refused CODE-OF-MESSAGE COMMAND…: exit code 2 and a message with these words.
refused() {
  local words=$1 code=0
  shift
  "$@" >refused.out 2>&1 || code=$?
  [ "$code" -eq 2 ] && grep -q -- "$words" refused.out || { echo "exit code $code of $*"; tail -n 5 refused.out; return 1; }
}

part_refused() {
  local recipe=$root/tests/cuda/stages.toml
  refused '`wgpu` computes in f32' "$temper" run "$recipe" --set device=wgpu --set precision=bf16
  refused 'needs the tensor cores' "$temper" run "$recipe" --set device=wgpu --set precision=tf32
  refused '`wgpu` stores no bf16' "$temper" run "$recipe" --set device=wgpu --set dpo.lora.base_dtype=bf16
  refused 'summed by NCCL' "$temper" run "$recipe" --set device=wgpu --set replicas=2
  refused 'does not compute in bf16' "$temper" selftest --device wgpu --precision bf16
  refused 'does not compute in tf32' "$temper" bench pretrain7m --device wgpu --dtype tf32
  refused 'no adapter 99' "$temper" run "$recipe" --set device=wgpu:99
  echo "refused: bf16, tf32, weights in bf16, replicas, an adapter that is not there"
}

part_kernels() {
  local tests=${KERNELS_TESTS:-}
  if [ -z "$tests" ]; then
    tests=$(cd "$root" && cargo test --locked --profile ci -p kernels -p cli --features cli/wgpu --test it --no-run \
      --message-format json | python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and "/crates/kernels/" in message["target"]["src_path"]:
        print(message["executable"])')
  fi
  (cd "$root/crates/kernels" && TEMPER_GPU_TESTS=$device "$tests" --test-threads 1 gpu::)
}

part_selftest() {
  # cubecl reads its settings from the working directory.
  cat >cubecl.toml <<'END'
[profiling]
logger = { level = "minimal", file = "launches.log" }
[compilation]
logger = { level = "basic", file = "compiled.log" }
END
  "$temper" selftest --device "$device" --no-bench 2>selftest.err || { tail -n 40 selftest.err; return 1; }
  rm cubecl.toml
  echo "$(grep -c '^Executing' launches.log) launches, $(grep -c '^.Compiling kernel' compiled.log) compilations"
}

part_stages() {
  local recipe=$root/tests/cuda/stages.toml
  "$temper" run "$recipe" --name device --log plain --set "device=$device" >/dev/null 2>device.log || { tail -n 20 device.log; return 1; }
  "$temper" run "$recipe" --name cpu --log plain >/dev/null 2>cpu.log || { tail -n 20 cpu.log; return 1; }
  python3 "$root/tests/cuda/compare_losses.py" runs/cpu runs/device
  local dtype
  for dtype in int8 nf4; do
    "$temper" run "$recipe" --name "$dtype" --log plain --set "device=$device" --set "sft.lora={ base_dtype = \"$dtype\" }" \
      --stage sft --set sft.start=runs/device/pretrain >/dev/null 2>"$dtype.log" || { tail -n 20 "$dtype.log"; return 1; }
    "$temper" run "$recipe" --name "cpu-$dtype" --log plain --set "sft.lora={ base_dtype = \"$dtype\" }" \
      --stage sft --set sft.start=runs/device/pretrain >/dev/null 2>"$dtype.log" || { tail -n 20 "$dtype.log"; return 1; }
    echo "frozen weights in $dtype:"
    python3 "$root/tests/cuda/compare_losses.py" "runs/cpu-$dtype" "runs/$dtype"
  done
  "$root/tests/crash/kill_resume.sh" "$temper" "$recipe" 1 --set "device=$device"
}

passed=()
for part in "${parts[@]}"; do
  declare -F "part_$part" >/dev/null || { echo "no part named \`$part\`" >&2; exit 2; }
  start=$SECONDS
  echo "-- $part"
  "part_$part"
  passed+=("$part ($((SECONDS - start)) s)")
done
echo "passed on $adapter: ${passed[*]}"
