#!/usr/bin/env python3
"""Writes tests/golden/quant/ggml.safetensors: values and the bytes that ggml makes of them.

    python3 tests/interop/ggml_vectors.py tests/golden/quant/ggml.safetensors

Needs the Python packages xllamacpp (whose library exports `ggml_quantize_chunk`), numpy and safetensors. The blocks cover
normal weights, outliers, constants, one sign, zeros, tiny and large magnitudes.
"""

import ctypes
import glob
import os
import sys

import numpy as np
from safetensors.numpy import save_file

TYPES = {"Q4_0": (2, 32, 18), "Q5_0": (6, 32, 22), "Q5_1": (7, 32, 24), "Q8_0": (8, 32, 34),
         "Q4_K": (12, 256, 144), "Q5_K": (13, 256, 176), "Q6_K": (14, 256, 210)}


def library():
    try:
        import xllamacpp
    except ImportError:
        sys.exit("skipped: the package xllamacpp is not installed")
    folder = os.path.dirname(xllamacpp.__file__)
    lib = ctypes.CDLL(glob.glob(os.path.join(folder, "xllamacpp*.so"))[0])
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64,
                                        ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    return lib


def values():
    rng = np.random.default_rng(20)
    rows = [rng.normal(0, 0.05, 256) for _ in range(16)]
    rows += [rng.standard_t(2, 256) * 0.1 for _ in range(4)]
    rows += [np.abs(rng.normal(0, 1, 256)), -np.abs(rng.normal(0, 1, 256)), np.zeros(256), np.full(256, 0.3),
             np.full(256, -2.0), rng.normal(0, 1e-9, 256), rng.normal(0, 1e3, 256), np.linspace(-1, 1, 256)]
    mixed = rng.normal(0, 0.02, 256)
    mixed[32:64] = 0
    mixed[64:96] = 1.5
    mixed[100] = 40
    rows.append(mixed)
    return np.array(rows, dtype=np.float32)


def main():
    lib = library()
    x = values()
    out = {"x": x}
    for name, (number, block, size) in TYPES.items():
        data = np.zeros((x.shape[0], 256 // block * size), dtype=np.uint8)
        written = lib.ggml_quantize_chunk(number, x.ctypes.data, data.ctypes.data, 0, x.shape[0], 256, None)
        assert written == data.nbytes, name
        out[f"{name}.bytes"] = data
    save_file(out, sys.argv[1])


main()
