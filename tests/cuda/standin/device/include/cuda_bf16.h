// `__nv_bfloat16`: the upper half of a binary32.
#pragma once
#include "cuda_fp16.h"

namespace standin {

struct Bfloat16 {
    static float to_float(uint16_t bits) { return float_of(uint32_t(bits) << 16); }
    static uint16_t from_float(float value) {
        const uint32_t bits = bits_of(value);
        if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;   // the NaN that a GPU writes
        return round_off(bits, 16);
    }
};

}

using __nv_bfloat16 = standin::SmallFloat<standin::Bfloat16>;
using __nv_bfloat162 = standin::SmallFloat2<standin::Bfloat16>;
static inline float __bfloat162float(__nv_bfloat16 a) { return a; }
static inline __nv_bfloat16 __float2bfloat16(float a) { return a; }
static inline __nv_bfloat16 __float2bfloat16_rn(float a) { return a; }
