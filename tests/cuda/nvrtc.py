#!/usr/bin/env python3
"""Compiles kernels with NVIDIA's NVRTC, which needs no GPU: nvrtc.py TOOLKIT SOURCES [--sm 80,90,120] [--jobs N]

TOOLKIT is a directory with `lib` and `include`, such as `nvidia/cu13` of the Python packages. SOURCES has the CUDA C++ of
kernels as `*.cu`, which a run on the stand-in writes (STANDIN_SOURCES). The options are those that cubecl-cuda passes.
Accepted kernels are listed in SOURCES/accepted and skipped by the next call with the same NVRTC. Exit code 1 if a kernel
is refused.
"""

import argparse
import ctypes
import multiprocessing
import os
import pathlib
import sys

library = None


def open_library(toolkit):
    """NVRTC of the toolkit, and its version."""
    global library
    paths = sorted(p for d in ("lib64", "lib") for p in (toolkit / d).glob("libnvrtc.so*"))
    if not paths:
        sys.exit(f"{toolkit}: no libnvrtc.so in lib or lib64")
    library = ctypes.CDLL(str(paths[0]))
    major, minor = ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def options(toolkit, sm):
    # From compute capability 9.0 on cubecl asks for the architecture's own instructions.
    architecture = f"sm_{sm}a" if int(sm) >= 90 else f"sm_{sm}"
    include = toolkit / "include"
    return [f"--gpu-architecture={architecture}", f"--include-path={include}", "-lineinfo", f"--include-path={include}/cccl"]


def compile_one(work):
    """The compiler's log if it refuses the kernel, else None."""
    toolkit, path, sm = work
    program = ctypes.c_void_p()
    library.nvrtcCreateProgram(ctypes.byref(program), path.read_bytes(), None, 0, None, None)
    flags = [option.encode() for option in options(toolkit, sm)]
    status = library.nvrtcCompileProgram(program, len(flags), (ctypes.c_char_p * len(flags))(*flags))
    log = None
    if status != 0:
        size = ctypes.c_size_t()
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, text)
        log = text.value.decode(errors="replace")
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return path.name, sm, log


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("toolkit", type=pathlib.Path)
    parser.add_argument("sources", type=pathlib.Path)
    parser.add_argument("--sm", default="80,90,120")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    version = open_library(args.toolkit)
    sources = sorted(args.sources.glob("*.cu"))
    if not sources:
        sys.exit(f"{args.sources}: no kernels (*.cu)")
    accepted_file = args.sources / "accepted"
    accepted = set(accepted_file.read_text().splitlines()) if accepted_file.exists() else set()
    key = lambda name, sm: f"{version} {sm} {name}"
    todo = [(args.toolkit, p, sm) for sm in args.sm.split(",") for p in sources if key(p.name, sm) not in accepted]
    refused = 0
    with multiprocessing.Pool(args.jobs) as pool, open(accepted_file, "a") as out:
        for name, sm, log in pool.imap_unordered(compile_one, todo, chunksize=4):
            if log is None:
                print(key(name, sm), file=out)
            else:
                refused += 1
                print(f"refused for sm_{sm}: {args.sources / name}\n{log[:2000]}")
    print(f"NVRTC {version}: {len(sources)} kernels for sm {args.sm}: {len(todo)} compiled, {refused} refused")
    sys.exit(refused != 0)


if __name__ == "__main__":
    main()
