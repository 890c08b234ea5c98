#!/usr/bin/env python3
"""Tests of the stand-in driver by itself, through ctypes: `LD_LIBRARY_PATH=DIRECTORY/exec python3 check.py`.

Every kernel's result is compared with plain arithmetic in Python. The script's own settings are at the top of main().
"""

import ctypes
import math
import os
import struct
import sys
import tempfile

NAN_BYTES = b"\xff"


class Driver:
    """The few calls that the tests need."""

    def __init__(self):
        self.cuda = ctypes.CDLL("libcuda.so")
        self.nvrtc = ctypes.CDLL("libnvrtc.so")

    def compile(self, source, name="kernel"):
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        self.nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), None, 0, None, None)
        status = self.nvrtc.nvrtcCompileProgram(program, 0, None)
        self.nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        self.nvrtc.nvrtcGetProgramLog(program, log)
        if status != 0:
            raise RuntimeError(log.value.decode())
        self.nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size))
        image = ctypes.create_string_buffer(size.value)
        self.nvrtc.nvrtcGetPTX(program, image)
        return self.load(image, name)

    def load(self, image, name):
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        assert self.cuda.cuModuleLoadData(ctypes.byref(module), image) == 0
        assert self.cuda.cuModuleGetFunction(ctypes.byref(function), module, name.encode()) == 0
        return function

    def allocate(self, n_bytes):
        address = ctypes.c_uint64()
        status = self.cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(n_bytes))
        return address if status == 0 else None

    def upload(self, code, values):
        data = struct.pack(f"{len(values)}{code}", *values)
        address = self.allocate(len(data))
        self.cuda.cuMemcpyHtoD_v2(address, data, ctypes.c_size_t(len(data)))
        return address

    def read(self, code, address, n):
        size = struct.calcsize(f"{n}{code}")
        data = ctypes.create_string_buffer(size)
        self.cuda.cuMemcpyDtoH_v2(data, address, ctypes.c_size_t(size))
        return list(struct.unpack(f"{n}{code}", data.raw))

    def launch(self, function, grid, block, shared, *arguments):
        pointers = [ctypes.cast(ctypes.pointer(a), ctypes.c_void_p) for a in arguments]
        parameters = (ctypes.c_void_p * len(pointers))(*pointers)
        return self.cuda.cuLaunchKernel(function, *grid, *block, shared, None, parameters, None)

    def run(self, source, arguments, block=32, grid=1, shared=0):
        status = self.launch(self.compile(source), (grid, 1, 1), (block, 1, 1), shared, *arguments)
        assert status == 0, status


def kernel(parameters, body, n=32, includes=""):
    return (
        f"{includes}\ntypedef unsigned long long int uint64_t;\ntypedef signed long long int int64_t;\n"
        f'extern "C" __global__ void __launch_bounds__({n})  kernel({parameters}) {{\n{body}\n}}\n'
    )


SHARED = "extern __shared__ __align__(16) char dynamic_shared_mem[];"


def bf16_of(x):
    """Bits of the nearest bf16, ties to even."""
    if math.isnan(x):
        return 0x7FFF
    bits = struct.unpack("I", struct.pack("f", x))[0]
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) & 0xFFFF


def of_bf16(bits):
    return struct.unpack("f", struct.pack("I", bits << 16))[0]


def f16_of(x):
    try:
        return struct.unpack("H", struct.pack("e", x))[0]
    except OverflowError:
        return 0xFC00 if x < 0 else 0x7C00


def of_f16(bits):
    return struct.unpack("e", struct.pack("H", bits))[0]


def close(got, want, tolerance):
    assert len(got) == len(want)
    for i, (g, w) in enumerate(zip(got, want)):
        assert abs(g - w) <= tolerance, (i, g, w)


def memory(d):
    fresh = d.allocate(64)
    assert all(math.isnan(x) for x in d.read("f", fresh, 16)), "new memory reads as NaN"
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    d.cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    assert total.value == 64 << 20
    assert d.allocate(65 << 20) is None, "more than the device has"
    large = d.allocate(40 << 20)
    assert large is not None and d.allocate(40 << 20) is None
    assert d.cuda.cuMemFree_v2(large) == 0
    large = d.allocate(40 << 20)
    assert large is not None, "freed memory is available again"
    assert d.cuda.cuMemFree_v2(large) == 0
    assert d.cuda.cuMemFree_v2(large) != 0, "freed twice"


def elementwise(d):
    body = "size_t i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) { y[i] = exp(x[i]) + float(s.k); }"
    source = kernel("float const* const __restrict__ x, float* const y, const unsigned n, const scale s", body)
    x = [i / 50 - 1 for i in range(100)]
    y = d.allocate(512)
    pair = (ctypes.c_int * 2)(7, 2)
    d.run("struct scale { int unused; int k; };\n" + source, [d.upload("f", x), y, ctypes.c_uint(100), pair], grid=4)
    close(d.read("f", y, 100), [math.exp(v) + 2 for v in x], 1e-6)
    assert all(math.isnan(v) for v in d.read("f", y, 128)[100:]), "beyond n nothing is written"


def barriers(d):
    body = SHARED + """
    float* s = reinterpret_cast<float*>(&dynamic_shared_mem[0]);
    unsigned t = threadIdx.x;
    unread[blockIdx.x * 64 + t] = s[t];
    __syncthreads();
    s[t] = x[blockIdx.x * 64 + t];
    __syncthreads();
    for (unsigned half = 32; half > 0; half /= 2) { if (t < half) { s[t] += s[t + half]; } __syncthreads(); }
    if (t == 0) { y[blockIdx.x] = s[0]; }"""
    x = [float(i % 11) for i in range(192)]
    y, unread = d.allocate(12), d.allocate(768)
    d.run(kernel("const float* x, float* y, float* unread", body, 64), [d.upload("f", x), y, unread], 64, 3, 256)
    assert d.read("f", y, 3) == [sum(x[i * 64 : i * 64 + 64]) for i in range(3)]
    assert all(math.isnan(v) for v in d.read("f", unread, 192)), "each block's shared memory starts as NaN"


def missing_barrier(d):
    """Without the barrier the result is right in one order of threads and wrong in the other."""
    body = SHARED + """
    float* s = reinterpret_cast<float*>(&dynamic_shared_mem[0]);
    if (threadIdx.x == 0) { s[0] = 5.0f; }
    y[threadIdx.x] = s[0];"""
    y = d.allocate(256)
    d.run(kernel("float* y", body, 64), [y], 64, 1, 16)
    right = [v == 5.0 for v in d.read("f", y, 64)]
    reverse = os.environ.get("STANDIN_ORDER") == "reverse"
    assert right == ([True] + [False] * 63 if reverse else [True] * 64)


def warps(d):
    body = """
    unsigned t = threadIdx.x; int v = int(t * t);
    int* o = out + t * 8;
    o[0] = __shfl_sync(__activemask(), v, 5);
    o[1] = __shfl_xor_sync(__activemask(), v, 3);
    o[2] = __shfl_up_sync(__activemask(), v, 2);
    o[3] = __shfl_down_sync(__activemask(), v, 4);
    o[4] = __shfl_xor_sync(__activemask(), v, 1, 8);
    // Two branches with an operation each, then one for all lanes.
    int sum = 0;
    if (t % 3 == 0) { sum = int(__ballot_sync(__activemask(), true)); } else { sum = __shfl_sync(__activemask(), v, 1); }
    o[5] = sum;
    o[6] = __all_sync(__activemask(), t < 64) + 2 * __any_sync(__activemask(), t == 40);
    for (unsigned i = 0; i < t % 4; i++) { v += __shfl_sync(__activemask(), 1, int(t)); }
    __syncwarp();
    o[7] = __shfl_sync(__activemask(), v, 31);"""
    out = d.allocate(64 * 8 * 4)
    d.run(kernel("int* out", body, 64), [out], 64)
    got = d.read("i", out, 512)
    for t in range(64):
        base, lane = t // 32 * 32, t % 32
        threes = sum(1 << i for i in range(32) if (base + i) % 3 == 0)
        first_other = base + 1
        square = lambda i: i * i
        branch = threes if t % 3 == 0 else (square(first_other) if first_other % 3 else -1)
        want = [
            square(base + 5),
            square(t ^ 3),
            square(t - 2) if lane >= 2 else square(t),
            square(t + 4) if lane < 28 else square(t),
            square(t ^ 1),
            branch,
            1 + 2 * (base == 32),
            square(base + 31) + 3,
        ]
        have = got[t * 8 : t * 8 + 8]
        have[5] &= 0xFFFFFFFF
        want[5] &= 0xFFFFFFFF
        assert have == want, (t, have, want)


def small_floats(d):
    """All 65,536 patterns to f32, and rounding of many f32 values."""
    body = """
    for (unsigned i = threadIdx.x; i < 65536; i += 32) {
      unsigned short bits = (unsigned short)i;
      half_out[i] = float(reinterpret_cast<const __half&>(bits));
      bf_out[i] = float(reinterpret_cast<const __nv_bfloat16&>(bits));
    }
    for (unsigned i = threadIdx.x; i < n; i += 32) {
      __half h = __half(x[i]); __nv_bfloat16 b = __nv_bfloat16(x[i]);
      rounded[2 * i] = reinterpret_cast<unsigned short&>(h); rounded[2 * i + 1] = reinterpret_cast<unsigned short&>(b);
    }"""
    values = []
    for exponent in range(-30, 20):
        for k in range(40):
            values.append((1 + k * 0.02501) * 2.0**exponent)
    values += [of_f16(b) * 1.00048828125 for b in range(0, 0x7BFF, 37)]  # near ties
    values += [(of_bf16(b) + of_bf16(b + 1)) / 2 for b in range(0x3000, 0x5000, 13)]  # ties
    values += [0.0, 65504.0, 65519.0, 65520.0, 1e30, math.inf, math.nan, 2.0**-25, 2.0**-24, 3 * 2.0**-26]
    values += [-v for v in values]
    values = [f32(v) for v in values]
    half_out, bf_out, rounded = d.allocate(4 * 65536), d.allocate(4 * 65536), d.allocate(4 * len(values))
    source = kernel("float* half_out, float* bf_out, const float* x, unsigned short* rounded, unsigned n", body, 32,
                    "#include <cuda_bf16.h>\n#include <cuda_fp16.h>")
    d.run(source, [half_out, bf_out, d.upload("f", values), rounded, ctypes.c_uint(len(values))])
    same = lambda a, b: a == b or (math.isnan(a) and math.isnan(b))
    for name, got, of in (("f16", d.read("f", half_out, 65536), of_f16), ("bf16", d.read("f", bf_out, 65536), of_bf16)):
        for bits, value in enumerate(got):
            assert same(value, of(bits)), (name, bits, value)
    bits = d.read("H", rounded, 2 * len(values))
    for i, value in enumerate(values):
        if math.isnan(value):
            assert math.isnan(of_f16(bits[2 * i])) and math.isnan(of_bf16(bits[2 * i + 1]))
            continue
        assert bits[2 * i] == f16_of(value), ("f16", value, bits[2 * i], f16_of(value))
        assert bits[2 * i + 1] == bf16_of(value), ("bf16", value, bits[2 * i + 1])


def f32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def matrix(rows, columns, seed):
    return [[f32(math.sin(seed + 1.7 * i * columns + 0.9 * j)) for j in range(columns)] for i in range(rows)]


def product(a, b, c):
    return [[c[i][j] + sum(a[i][k] * b[k][j] for k in range(len(b))) for j in range(len(b[0]))] for i in range(len(a))]


def flat(rows):
    return [x for row in rows for x in row]


def wmma(d, element, m, n, k, rounded, a_layout, b_layout, tolerance):
    """A product of one tile. A and B are given row by row and read in the layout named."""
    a, b, c = matrix(m, k, 0.3), matrix(k, n, 0.8), matrix(m, n, 0.1)
    ra, rb = ([[rounded(x) for x in row] for row in t] for t in (a, b))
    tf32 = element == "tf32"
    stored = "float" if tf32 else element
    name = "nvcuda::wmma::precision::tf32" if tf32 else element
    convert = "nvcuda::wmma::__float_to_tf32" if tf32 else element
    ld_a = k if a_layout == "row" else m
    ld_b = n if b_layout == "row" else k
    body = SHARED + f"""
    {stored}* sa = reinterpret_cast<{stored}*>(&dynamic_shared_mem[0]); {stored}* sb = sa + {m * k};
    for (int e = threadIdx.x; e < {m * k}; e += 32) {{ int r = e / {k}, q = e % {k};
      sa[{'e' if a_layout == 'row' else f'q * {m} + r'}] = {convert}(a[e]); }}
    for (int e = threadIdx.x; e < {k * n}; e += 32) {{ int r = e / {n}, q = e % {n};
      sb[{'e' if b_layout == 'row' else f'q * {k} + r'}] = {convert}(b[e]); }}
    __syncthreads();
    nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, {m}, {n}, {k}, {name}, nvcuda::wmma::{a_layout}_major> fa;
    nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, {m}, {n}, {k}, {name}, nvcuda::wmma::{b_layout}_major> fb;
    nvcuda::wmma::fragment<nvcuda::wmma::accumulator, {m}, {n}, {k}, float> fc;
    nvcuda::wmma::fragment<nvcuda::wmma::accumulator, {m}, {n}, {k}, float> *pc = &fc;
    nvcuda::wmma::load_matrix_sync(*pc, c, {n}, nvcuda::wmma::mem_row_major);
    nvcuda::wmma::load_matrix_sync(fa, sa, {ld_a});
    nvcuda::wmma::load_matrix_sync(fb, sb, {ld_b});
    nvcuda::wmma::mma_sync(*pc, fa, fb, *pc);
    nvcuda::wmma::store_matrix_sync(y, *pc, {m}, nvcuda::wmma::mem_col_major);"""
    y = d.allocate(4 * m * n)
    source = kernel("const float* a, const float* b, const float* c, float* y", body, 32, "#include <mma.h>\n#include <cuda_bf16.h>")
    d.run(source, [d.upload("f", flat(a)), d.upload("f", flat(b)), d.upload("f", flat(c)), y], 32, 1, 4 * (m * k + k * n))
    want = product(ra, rb, c)
    close(d.read("f", y, m * n), [want[i][j] for j in range(n) for i in range(m)], tolerance)


def tf32_of(x):
    bits = struct.unpack("I", struct.pack("f", x))[0]
    return struct.unpack("f", struct.pack("I", (bits + 0x1000) & 0xFFFFE000))[0]


def tensor_cores(d):
    bf16 = lambda x: of_bf16(bf16_of(x))
    f16 = lambda x: of_f16(f16_of(x))
    for m, n, k in ((16, 16, 16), (32, 8, 16), (8, 32, 16)):
        wmma(d, "__nv_bfloat16", m, n, k, bf16, "row", "row", 1e-5)
    wmma(d, "__nv_bfloat16", 16, 16, 16, bf16, "col", "col", 1e-5)
    wmma(d, "__half", 16, 16, 16, f16, "row", "col", 1e-5)
    wmma(d, "tf32", 16, 16, 8, tf32_of, "row", "row", 1e-5)
    store_by_one_lane(d)


def store_by_one_lane(d):
    """cubek's measurement of throughput does so: the elements of the other lanes stay as they were."""
    body = """
    nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> fc;
    nvcuda::wmma::fill_fragment(fc, 3.0f);
    if (threadIdx.x == 0) nvcuda::wmma::store_matrix_sync(y, fc, 16, nvcuda::wmma::mem_row_major);"""
    y = d.upload("f", [1.0] * 256)
    d.run(kernel("float* y", body, 32, "#include <mma.h>"), [y])
    written = d.read("f", y, 256)
    assert written[0] == 3.0 and set(written) == {1.0, 3.0} and written.count(3.0) == 8, written


def inline_mma(d):
    """mma.sync with fragments loaded by ldmatrix, A plain and B transposed: a product of 16×16 by 16×8."""
    a, b = matrix(16, 16, 0.2), matrix(16, 8, 0.6)
    ra, rb = ([[of_bf16(bf16_of(x)) for x in row] for row in t] for t in (a, b))
    body = SHARED + """
    __nv_bfloat16* sa = reinterpret_cast<__nv_bfloat16*>(&dynamic_shared_mem[0]); __nv_bfloat16* sb = sa + 256;
    for (int e = threadIdx.x; e < 256; e += 32) { sa[e] = __nv_bfloat16(a[e]); }
    for (int e = threadIdx.x; e < 128; e += 32) { sb[e] = __nv_bfloat16(b[e]); }
    __syncthreads();
    unsigned lane = threadIdx.x; uint32_4 ra; uint32_2 rb; float_4 d;
    uint32_t at_a = __cvta_generic_to_shared(sa + (lane % 16) * 16 + lane / 16 * 8);
    uint32_t at_b = __cvta_generic_to_shared(sb + (lane % 16) * 8);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared::cta.b16 {%0, %1, %2, %3}, [%4];" : "=r"(ra.i_0), "=r"(ra.i_1), "=r"(ra.i_2), "=r"(ra.i_3) : "r"(at_a) : "memory");
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared::cta.b16 {%0, %1}, [%2];" : "=r"(rb.i_0), "=r"(rb.i_1) : "r"(at_b) : "memory");
    float_4 c = {1.0f, 1.0f, 1.0f, 1.0f};
    asm ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};" : "=f"(d.i_0), "=f"(d.i_1), "=f"(d.i_2), "=f"(d.i_3) : "r"(ra.i_0), "r"(ra.i_1), "r"(ra.i_2), "r"(ra.i_3), "r"(rb.i_0), "r"(rb.i_1), "f"(c.i_0), "f"(c.i_1), "f"(c.i_2), "f"(c.i_3) );
    unsigned g = lane / 4, t = lane % 4 * 2;
    y[g * 8 + t] = d.i_0; y[g * 8 + t + 1] = d.i_1; y[(g + 8) * 8 + t] = d.i_2; y[(g + 8) * 8 + t + 1] = d.i_3;"""
    types = ("#include <cuda_bf16.h>\nstruct alignas(16) uint32_4 { uint32_t i_0; uint32_t i_1; uint32_t i_2; uint32_t i_3; };\n"
             "struct alignas(8) uint32_2 { uint32_t i_0; uint32_t i_1; };\n"
             "struct alignas(16) float_4 { float i_0; float i_1; float i_2; float i_3; };")
    y = d.allocate(512)
    d.run(kernel("const float* a, const float* b, float* y", body, 32, types), [d.upload("f", flat(a)), d.upload("f", flat(b)), y], 32, 1, 1024)
    close(d.read("f", y, 128), flat(product(ra, rb, [[1.0] * 8] * 16)), 1e-5)


def inline_mma_other_types(d):
    """Fragments gathered by hand, as PTX's tables give them: tf32 (k = 8) and i8 (k = 32)."""
    a, b = matrix(16, 8, 0.4), matrix(8, 8, 0.5)
    body = """
    unsigned lane = threadIdx.x, g = lane / 4, t = lane % 4; float d0, d1, d2, d3;
    auto bits = [](float x) { x = nvcuda::wmma::__float_to_tf32(x); return reinterpret_cast<const unsigned&>(x); };
    unsigned a0 = bits(a[g * 8 + t]), a1 = bits(a[(g + 8) * 8 + t]), a2 = bits(a[g * 8 + t + 4]), a3 = bits(a[(g + 8) * 8 + t + 4]);
    unsigned b0 = bits(b[t * 8 + g]), b1 = bits(b[(t + 4) * 8 + g]);
    asm ("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};" : "=f"(d0), "=f"(d1), "=f"(d2), "=f"(d3) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "f"(0.0f), "f"(0.0f), "f"(0.0f), "f"(0.0f));
    y[g * 8 + 2 * t] = d0; y[g * 8 + 2 * t + 1] = d1; y[(g + 8) * 8 + 2 * t] = d2; y[(g + 8) * 8 + 2 * t + 1] = d3;"""
    y = d.allocate(512)
    d.run(kernel("const float* a, const float* b, float* y", body, 32, "#include <mma.h>"), [d.upload("f", flat(a)), d.upload("f", flat(b)), y])
    ra, rb = ([[tf32_of(x) for x in row] for row in t] for t in (a, b))
    close(d.read("f", y, 128), flat(product(ra, rb, [[0.0] * 8] * 16)), 1e-5)

    a = [[(7 * i + 3 * j) % 255 - 127 for j in range(32)] for i in range(16)]
    b = [[(5 * i + 11 * j) % 251 - 125 for j in range(8)] for i in range(32)]
    body = """
    unsigned lane = threadIdx.x, g = lane / 4, t = lane % 4 * 4; unsigned ra[4] = {0, 0, 0, 0}, rb[2] = {0, 0}; int d0, d1, d2, d3;
    for (int i = 0; i < 16; i++) { int row = i < 4 || (i >= 8 && i < 12) ? g : g + 8, k = t + i % 4 + (i < 8 ? 0 : 16);
      ra[i / 4] |= unsigned((unsigned char)a[row * 32 + k]) << i % 4 * 8; }
    for (int i = 0; i < 8; i++) { int k = t + i % 4 + (i < 4 ? 0 : 16); rb[i / 4] |= unsigned((unsigned char)b[k * 8 + g]) << i % 4 * 8; }
    asm ("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};" : "=r"(d0), "=r"(d1), "=r"(d2), "=r"(d3) : "r"(ra[0]), "r"(ra[1]), "r"(ra[2]), "r"(ra[3]), "r"(rb[0]), "r"(rb[1]), "r"(0), "r"(0), "r"(0), "r"(0));
    int c = lane % 4 * 2; y[g * 8 + c] = d0; y[g * 8 + c + 1] = d1; y[(g + 8) * 8 + c] = d2; y[(g + 8) * 8 + c + 1] = d3;"""
    y = d.allocate(512)
    d.run(kernel("const signed char* a, const signed char* b, int* y", body), [d.upload("b", flat(a)), d.upload("b", flat(b)), y])
    assert d.read("i", y, 128) == flat(product(a, b, [[0] * 8] * 16))


def arithmetic(d):
    body = """
    unsigned t = threadIdx.x;
    f[0] = [&] {
    #if __CUDA_ARCH__ >= 800
        float result;
        asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(x[0]), "f"(x[1]));
        return result;
    #else
        return no_such_function();
    #endif
    }();
    f[1] = max(x[0], x[1]);
    float old; asm volatile("atom.relaxed.add.f32 %0, [%1], %2;" : "=f"(old) : "l"(total), "f"(float(t)) : "memory");
    atomicMax(count, int(t));
    i[0] = __umulhi(0x80000000u, 6u); i[1] = __clz(1); i[2] = __dp4a(0x01020304, 0x01010101, 5);
    i[3] = __brev(1u) >> 31; i[4] = min(3, 4u) + max(5, 6);
    __nv_bfloat16 b = __nv_bfloat16(1.0f) + __nv_bfloat16(0.00390625f); f[2] = float(b);
    f[3] = float(hexp(__nv_bfloat16(1.0f))) + float(__hmax(__half(2.0f), __half(-1.0f)));"""
    f, i, total, count = d.allocate(64), d.allocate(64), d.upload("f", [0.0]), d.upload("i", [-1])
    source = kernel("const float* x, float* f, int* i, float* total, int* count", body, 32, "#include <cuda_bf16.h>")
    d.run(source, [d.upload("f", [math.nan, 2.0]), f, i, total, count])
    got = d.read("f", f, 4)
    assert math.isnan(got[0]) and got[1] == 2.0 and got[2] == 1.0, got
    assert got[3] == of_bf16(bf16_of(math.e)) + 2.0
    assert d.read("i", i, 5) == [3, 31, 15, 1, 9]
    assert d.read("f", total, 1) == [496.0] and d.read("i", count, 1) == [31]


def limits(d):
    f = d.compile(kernel("float* y", "y[0] = 1.0f;"))
    y = d.allocate(4)
    assert d.launch(f, (1, 1, 1), (1024, 2, 1), 0, y) != 0, "too many threads"
    assert d.launch(f, (1, 65536, 1), (32, 1, 1), 0, y) != 0, "the grid is too long in y"
    assert d.launch(f, (0, 1, 1), (32, 1, 1), 0, y) != 0, "an empty grid"
    assert math.isnan(d.read("f", y, 1)[0]), "a refused launch runs nothing"
    try:
        d.compile(kernel("float* y", "y[0] = no_such_function(1);"))
    except RuntimeError as error:
        assert "no_such_function" in str(error)
    else:
        raise AssertionError("a wrong kernel compiled")
    # Real PTX loads, and its launches do nothing.
    assert d.launch(d.load(b".visible .entry other(\n", "other"), (1, 1, 1), (32, 1, 1), 0, y) == 0


def main():
    with tempfile.TemporaryDirectory() as scratch:
        log = os.path.join(scratch, "log")
        os.environ.update(STANDIN_LOG=log, STANDIN_CACHE=os.path.join(scratch, "cache"), STANDIN_MEMORY="64")
        driver = Driver()
        tests = [memory, elementwise, barriers, missing_barrier, warps, small_floats, tensor_cores, inline_mma,
                 inline_mma_other_types, arithmetic, limits]
        for test in tests:
            test(driver)
        driver.compile(kernel("float* y", "y[0] = 1.0f;"))
        lines = open(log).read().splitlines()
        assert lines[-1].startswith("reused kernel"), lines[-1]
        assert "launch kernel grid 3x1x1 block 64x1x1 shared 256" in lines
        assert "refused launch kernel grid 1x65536x1 block 32x1x1 shared 0" in lines
    print(f"stand-in driver: {len(tests)} tests passed", file=sys.stderr)


if __name__ == "__main__":
    main()
