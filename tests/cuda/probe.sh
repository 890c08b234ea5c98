#!/usr/bin/env bash
# What a binary built with `--features cuda` says of machines that lack something, with a made-up driver and compiler in
# place of NVIDIA's. Needs a C compiler and no GPU: probe.sh target/release/temper
set -euo pipefail
temper=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir driver nvrtc toolkit toolkit/include toolkit/include/cuda empty
cc -shared -fPIC -o driver/libcuda.so.1 "$here/fake_driver.c"
cc -shared -fPIC -o nvrtc/libnvrtc.so.12 "$here/fake_driver.c"
touch toolkit/include/cuda_fp16.h toolkit/include/mma.h toolkit/include/cuda/barrier
printf '%s\n' '[tokenizer]' 'train = { kind = "byte-bpe", vocab_size = 300 }' '[model]' 'family = "llama"' 'hidden_size = 16' \
  'num_hidden_layers = 1' 'num_attention_heads = 2' 'intermediate_size = 32' '[pretrain]' 'data = [{ path = "none.txt" }]' \
  'sequence_length = 32' 'tokens_per_step = 64' 'max_steps = 3' 'optimizer = { lr = 1e-3 }' >r.toml
export CUDA_PATH="$work/toolkit"
both="$work/driver:$work/nvrtc"
failed=0

# expect NAME CODE TEXT COMMAND…: the exit code, and a text on stdout or stderr.
expect() {
  local name=$1 code=$2 text=$3 got=0
  shift 3
  "$@" >out 2>&1 || got=$?
  if [ "$got" != "$code" ] || ! grep -qF -- "$text" out; then
    echo "FAILED: $name: exit $got, wanted $code and \"$text\""
    sed 's/^/    /' out
    failed=1
  else
    echo "ok: $name"
  fi
}
devices() { "$temper" devices; }
plan() { "$temper" plan r.toml --set device="$1"; }

LD_LIBRARY_PATH=$both expect "a complete machine" 0 "cuda:0  ready, Fake GPU 0" devices
LD_LIBRARY_PATH=$both expect "its plan goes on to the data" 2 "none.txt" plan cuda
LD_LIBRARY_PATH=$both expect "a number too high" 2 "there is no GPU of number 1: the driver shows 1" plan cuda:1
LD_LIBRARY_PATH=$work/nvrtc expect "no driver" 2 "no NVIDIA driver" plan cuda
LD_LIBRARY_PATH=$work/nvrtc expect "no driver, listed" 0 "no NVIDIA driver" devices
FAKE_DRIVER=12040 LD_LIBRARY_PATH=$both expect "an old driver" 2 "it serves CUDA 12.4, and 12.8 is needed" plan cuda
FAKE_INIT=100 LD_LIBRARY_PATH=$both expect "a hidden GPU" 2 "CUDA_VISIBLE_DEVICES" plan cuda
FAKE_INIT=34 LD_LIBRARY_PATH=$both expect "the toolkit's stub" 2 "stub" plan cuda
FAKE_COUNT=0 LD_LIBRARY_PATH=$both expect "no GPU" 2 "shows no GPU" plan cuda
LD_LIBRARY_PATH=$work/driver expect "no NVRTC" 2 "LD_LIBRARY_PATH" plan cuda
FAKE_NVRTC=13010 LD_LIBRARY_PATH=$both expect "an NVRTC newer than the driver" 0 "newer than the driver" devices
CUDA_PATH=$work/empty LD_LIBRARY_PATH=$both expect "no headers" 2 "cuda_fp16.h\` is not there" plan cuda
env -u CUDA_PATH true && CUDA_PATH=$work/nowhere LD_LIBRARY_PATH=$both expect "a toolkit that is not there" 2 "CUDA_PATH" plan cuda
expect "nothing of it matters on the CPU" 2 "none.txt" plan cpu
exit "$failed"
