// `__half`: IEEE 754 binary16.
#pragma once
#include "../small_float.h"

namespace standin {

struct Binary16 {
    static float to_float(uint16_t half) {
        const uint32_t sign = uint32_t(half & 0x8000) << 16, exponent = half >> 10 & 31, mantissa = half & 1023;
        if (exponent == 31) return float_of(sign | 0x7f800000 | mantissa << 13);
        if (exponent) return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
        const float magnitude = float(mantissa) * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    static uint16_t from_float(float value) {
        const uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
        if (magnitude > 0x7f800000) return sign | 0x7fff;            // the NaN that a GPU writes
        if (magnitude >= 0x477ff000) return sign | 0x7c00;           // from 65,520 on, infinity
        if (magnitude >= 0x38800000) return sign | round_off(magnitude - (112u << 23), 13);
        const uint32_t exponent = magnitude >> 23;
        if (exponent < 102) return sign;                             // less than half of the smallest number
        return sign | round_off((magnitude & 0x7fffff) | 0x800000, 126 - exponent);
    }
};

}

using __half = standin::SmallFloat<standin::Binary16>;
using __half2 = standin::SmallFloat2<standin::Binary16>;
static inline float __half2float(__half a) { return a; }
static inline __half __float2half(float a) { return a; }
static inline __half __float2half_rn(float a) { return a; }
