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
cc -shared -fPIC -Wl,-soname,libnvrtc.so.12 -o nvrtc/libnvrtc.so.12 "$here/fake_driver.c"
mkdir toolkit/include/crt
touch toolkit/include/{cuda_fp16.h,mma.h,crt/mma.h,cuda/barrier}
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
LD_LIBRARY_PATH=$both expect "a number too high" 2 "there is no GPU 1: the driver lists 1" plan cuda:1
LD_LIBRARY_PATH=$work/nvrtc expect "no driver" 2 "no NVIDIA driver" plan cuda
LD_LIBRARY_PATH=$work/nvrtc expect "no driver, listed" 0 "no NVIDIA driver" devices
FAKE_DRIVER=12040 LD_LIBRARY_PATH=$both expect "an old driver" 2 "it supports CUDA 12.4, but 12.8 is required" plan cuda
FAKE_INIT=100 LD_LIBRARY_PATH=$both expect "a hidden GPU" 2 "CUDA_VISIBLE_DEVICES" plan cuda
FAKE_INIT=34 LD_LIBRARY_PATH=$both expect "the toolkit's stub" 2 "stub" plan cuda
FAKE_COUNT=0 LD_LIBRARY_PATH=$both expect "no GPU" 2 "lists no GPU" plan cuda
LD_LIBRARY_PATH=$work/driver expect "no NVRTC" 2 "pip install nvidia-cuda-nvrtc" plan cuda
FAKE_NVRTC=13010 LD_LIBRARY_PATH=$both expect "an NVRTC newer than the driver" 0 "newer than the driver" devices
CUDA_PATH=$work/empty LD_LIBRARY_PATH=$both expect "no headers" 2 "lacks cuda_fp16.h, mma.h, crt/mma.h, cuda/barrier" plan cuda
CUDA_PATH=$work/empty LD_LIBRARY_PATH=$both expect "their packages" 0 \
  "pip install nvidia-cuda-runtime nvidia-cuda-crt nvidia-cuda-cccl" devices
CUDA_PATH=$work/nowhere LD_LIBRARY_PATH=$both expect "a toolkit that is not there" 2 "CUDA_PATH" plan cuda
rm toolkit/include/crt/mma.h
LD_LIBRARY_PATH=$both expect "one header missing" 2 "lacks crt/mma.h" plan cuda
LD_LIBRARY_PATH=$both expect "its package" 0 "pip install nvidia-cuda-crt\`" devices

# NVIDIA's Python packages in virtual environments, found without a variable for them.
packages=lib/python3.11/site-packages/nvidia/cu13
mkdir -p ".venv/$packages" "active/$packages"
cp -r toolkit/include ".venv/$packages/"
touch ".venv/$packages/include/crt/mma.h"
mkdir ".venv/$packages/lib"
cp nvrtc/libnvrtc.so.12 ".venv/$packages/lib/"
cp -r ".venv/$packages/." "active/$packages/"
if [ -e /usr/local/cuda ] || [ -e /opt/cuda ] || [ -e /usr/bin/nvcc ]; then
  echo "skipped: packages in virtual environments, because this machine has a toolkit"
else
  plain() { env -u CUDA_PATH -u VIRTUAL_ENV -u CONDA_PREFIX HOME="$work/nobody" LD_LIBRARY_PATH="$work/driver" "$@"; }
  in_venv() { plain "$temper" devices; }
  in_active() { plain env VIRTUAL_ENV="$work/active" "$temper" devices; }
  in_conda() { (cd empty && plain env CONDA_PREFIX="$work/active" "$temper" devices); }
  in_none() { (cd empty && plain "$temper" devices); }
  expect "packages in .venv" 0 "cuda:0  ready" in_venv
  expect "their headers" 0 "headers in $work/.venv/$packages/include" in_venv
  expect "an activated environment comes first" 0 "NVRTC 12.9, headers in $work/active/$packages/include" in_active
  expect "a conda environment" 0 "NVRTC 12.9, headers in $work/active/$packages/include" in_conda
  expect "no environment" 0 "pip install nvidia-cuda-runtime nvidia-cuda-crt nvidia-cuda-cccl" in_none
  LD_LIBRARY_PATH=$work/driver CUDA_PATH="$work/active/$packages" expect "CUDA_PATH alone" 0 "cuda:0  ready" devices
fi
expect "nothing of it matters on the CPU" 2 "none.txt" plan cpu
exit "$failed"
