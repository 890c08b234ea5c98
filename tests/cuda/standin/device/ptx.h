// PTX instructions that cubecl writes inline: translate.cpp turns each into a call of the function with its name, dots
// and colons as underscores; the first argument is its place in the kernel. Layouts of registers: PTX ISA, sections
// "Matrix fragments for mma.m16n8k16" and the like, and "ldmatrix".
#pragma once

namespace standin { namespace ptx {

template <class T> static inline void max_NaN_f32(unsigned, T &out, float a, float b) { out = max_nan(a, b); }
template <class T> static inline void min_NaN_f32(unsigned, T &out, float a, float b) { out = min_nan(a, b); }
static inline void tanh_approx_f32(unsigned, float &out, float a) { out = tanhf(a); }
static inline int saturated(long long value) { return value > INT32_MAX ? INT32_MAX : value < INT32_MIN ? INT32_MIN : int(value); }
static inline void add_sat_s32(unsigned, int &out, int a, int b) { out = saturated((long long)a + b); }
static inline void sub_sat_s32(unsigned, int &out, int a, int b) { out = saturated((long long)a - b); }

#define STANDIN_ATOMIC(name, T, operation) \
    template <class Out, class P, class V> static inline void atom_relaxed_##name(unsigned, Out &out, P at, V value) { \
        out = operation((T *)at, T(value)); \
    }
STANDIN_ATOMIC(add_f32, float, atomicAdd)
STANDIN_ATOMIC(add_f64, double, atomicAdd)
STANDIN_ATOMIC(add_u32, uint32_t, atomicAdd)
STANDIN_ATOMIC(add_u64, uint64_t, atomicAdd)
STANDIN_ATOMIC(min_u32, uint32_t, atomicMin)
STANDIN_ATOMIC(min_s32, int32_t, atomicMin)
STANDIN_ATOMIC(max_u32, uint32_t, atomicMax)
STANDIN_ATOMIC(max_s32, int32_t, atomicMax)
#undef STANDIN_ATOMIC

// Loads `n` matrices of 8×8 16-bit values: lanes 8i to 8i+7 have the addresses of matrix i's rows, and lane l receives
// two neighbours of row l / 4 (of column l / 4 if transposed).
template <int n, bool transposed> struct LoadMatrices {
    uint32_t address;
    uint32_t registers[n];
    static void act(LoadMatrices **lanes) {
        for (int lane = 0; lane < WARP; lane++)
            for (int matrix = 0; matrix < n; matrix++) {
                uint16_t pair[2];
                for (int i = 0; i < 2; i++) {
                    const int major = lane / 4, minor = lane % 4 * 2 + i;
                    const int row = transposed ? minor : major, column = transposed ? major : minor;
                    memcpy(&pair[i], machine->shared + lanes[matrix * 8 + row]->address + 2 * column, 2);
                }
                memcpy(&lanes[lane]->registers[matrix], pair, 4);
            }
    }
};

template <bool transposed, class... Register> void load_matrices(unsigned site, uint32_t address, Register &...out) {
    LoadMatrices<sizeof...(Register), transposed> mine{address, {}};
    collective(site, mine);
    int i = 0;
    (memcpy(&out, &mine.registers[i++], 4), ...);
}

#define STANDIN_LDMATRIX(suffix, transposed) \
    template <class T> void ldmatrix_sync_aligned_m8n8_x1_##suffix(unsigned site, T &a, uint32_t at) { \
        load_matrices<transposed>(site, at, a); \
    } \
    template <class T> void ldmatrix_sync_aligned_m8n8_x2_##suffix(unsigned site, T &a, T &b, uint32_t at) { \
        load_matrices<transposed>(site, at, a, b); \
    } \
    template <class T> void ldmatrix_sync_aligned_m8n8_x4_##suffix(unsigned site, T &a, T &b, T &c, T &d, uint32_t at) { \
        load_matrices<transposed>(site, at, a, b, c, d); \
    }
STANDIN_LDMATRIX(shared__cta_b16, false)
STANDIN_LDMATRIX(trans_shared__cta_b16, true)
#undef STANDIN_LDMATRIX

// Operands of mma.m16n8: `per_register` values in each 32-bit register.
struct OfHalf {
    static constexpr int K = 16, PER_REGISTER = 2;
    using Sum = float;
    static float value(uint32_t bits, int i) { return Binary16::to_float(uint16_t(bits >> 16 * i)); }
};
struct OfBfloat16 {
    static constexpr int K = 16, PER_REGISTER = 2;
    using Sum = float;
    static float value(uint32_t bits, int i) { return Bfloat16::to_float(uint16_t(bits >> 16 * i)); }
};
struct OfTf32 {
    static constexpr int K = 8, PER_REGISTER = 1;
    using Sum = float;
    static float value(uint32_t bits, int) { return float_of(bits & 0xffffe000); }
};
struct OfInt8 {
    static constexpr int K = 32, PER_REGISTER = 4;
    using Sum = int;
    static int value(uint32_t bits, int i) { return int8_t(bits >> 8 * i); }
};

// The layout is the same for all types, counted in registers: a register has neighbours along k, lane % 4 selects the
// register within half of k, lane / 4 the row of A or the column of B.
template <class Operands> struct Mma {
    using Sum = typename Operands::Sum;
    uint32_t a[4], b[2];
    Sum sums[4];
    static Sum of_a(Mma **lanes, int row, int k) {
        const int in_register = k % Operands::PER_REGISTER, group = k / Operands::PER_REGISTER;
        return Operands::value(lanes[row % 8 * 4 + group % 4]->a[group / 4 * 2 + row / 8], in_register);
    }
    static Sum of_b(Mma **lanes, int k, int column) {
        const int in_register = k % Operands::PER_REGISTER, group = k / Operands::PER_REGISTER;
        return Operands::value(lanes[column * 4 + group % 4]->b[group / 4], in_register);
    }
    static void act(Mma **lanes) {
        for (int row = 0; row < 16; row++)
            for (int column = 0; column < 8; column++) {
                Sum &sum = lanes[row % 8 * 4 + column / 2]->sums[row / 8 * 2 + column % 2];
                for (int k = 0; k < Operands::K; k++) sum += of_a(lanes, row, k) * of_b(lanes, k, column);
            }
    }
};

template <class Operands, class R, class S>
void mma(unsigned site, S &d0, S &d1, S &d2, S &d3, R a0, R a1, R a2, R a3, R b0, R b1, S c0, S c1, S c2, S c3) {
    static_assert(sizeof(R) == 4 && std::is_same<S, typename Operands::Sum>::value, "32-bit registers");
    Mma<Operands> mine{{}, {}, {c0, c1, c2, c3}};
    const R a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
    memcpy(mine.a, a, sizeof a);
    memcpy(mine.b, b, sizeof b);
    collective(site, mine);
    d0 = mine.sums[0], d1 = mine.sums[1], d2 = mine.sums[2], d3 = mine.sums[3];
}

#define STANDIN_MMA(name, Operands) \
    template <class... Registers> void mma_sync_aligned_##name(unsigned site, Registers &&...registers) { \
        mma<Operands>(site, std::forward<Registers>(registers)...); \
    }
STANDIN_MMA(m16n8k16_row_col_f32_f16_f16_f32, OfHalf)
STANDIN_MMA(m16n8k16_row_col_f32_bf16_bf16_f32, OfBfloat16)
STANDIN_MMA(m16n8k8_row_col_f32_tf32_tf32_f32, OfTf32)
STANDIN_MMA(m16n8k32_row_col_s32_s8_s8_s32, OfInt8)
#undef STANDIN_MMA

} }

// Addresses in shared memory are offsets from its start.
static inline uint32_t __cvta_generic_to_shared(const void *at) {
    return uint32_t(static_cast<const char *>(at) - standin::machine->shared);
}
