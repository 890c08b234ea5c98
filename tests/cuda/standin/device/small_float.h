// A 16-bit floating-point number whose arithmetic is done in f32 and rounded once to nearest, ties to even.
#pragma once

namespace standin {

// Rounds away the lowest `n` bits of `bits`, ties to even.
inline uint32_t round_off(uint32_t bits, int n) {
    const uint32_t half = 1u << (n - 1), rest = bits & ((half << 1) - 1), kept = bits >> n;
    return kept + (rest > half || (rest == half && (kept & 1)) ? 1 : 0);
}
inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
inline float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

template <class Format> struct SmallFloat {
    uint16_t bits;

    SmallFloat() = default;
    SmallFloat(float value) : bits(Format::from_float(value)) {}
    template <class T, class = std::enable_if_t<std::is_arithmetic<T>::value>>
    SmallFloat(T value) : bits(Format::from_float(float(value))) {}
    operator float() const { return Format::to_float(bits); }

    SmallFloat &operator+=(SmallFloat other) { return *this = *this + other; }
    SmallFloat &operator-=(SmallFloat other) { return *this = *this - other; }
    SmallFloat &operator*=(SmallFloat other) { return *this = *this * other; }
    SmallFloat &operator/=(SmallFloat other) { return *this = *this / other; }
    friend SmallFloat operator+(SmallFloat a, SmallFloat b) { return float(a) + float(b); }
    friend SmallFloat operator-(SmallFloat a, SmallFloat b) { return float(a) - float(b); }
    friend SmallFloat operator*(SmallFloat a, SmallFloat b) { return float(a) * float(b); }
    friend SmallFloat operator/(SmallFloat a, SmallFloat b) { return float(a) / float(b); }
    friend SmallFloat operator-(SmallFloat a) {
        a.bits ^= 0x8000;
        return a;
    }
    friend bool operator==(SmallFloat a, SmallFloat b) { return float(a) == float(b); }
    friend bool operator!=(SmallFloat a, SmallFloat b) { return float(a) != float(b); }
    friend bool operator<(SmallFloat a, SmallFloat b) { return float(a) < float(b); }
    friend bool operator>(SmallFloat a, SmallFloat b) { return float(a) > float(b); }
    friend bool operator<=(SmallFloat a, SmallFloat b) { return float(a) <= float(b); }
    friend bool operator>=(SmallFloat a, SmallFloat b) { return float(a) >= float(b); }
};

// Two of them, as the packed operations take them.
template <class Format> struct SmallFloat2 {
    SmallFloat<Format> x, y;
    friend SmallFloat2 operator+(SmallFloat2 a, SmallFloat2 b) { return {a.x + b.x, a.y + b.y}; }
    friend SmallFloat2 operator-(SmallFloat2 a, SmallFloat2 b) { return {a.x - b.x, a.y - b.y}; }
    friend SmallFloat2 operator*(SmallFloat2 a, SmallFloat2 b) { return {a.x * b.x, a.y * b.y}; }
    friend SmallFloat2 operator/(SmallFloat2 a, SmallFloat2 b) { return {a.x / b.x, a.y / b.y}; }
    friend SmallFloat2 operator-(SmallFloat2 a) { return {-a.x, -a.y}; }
};

inline float max_nan(float a, float b) { return a != a ? a : b != b ? b : fmaxf(a, b); }
inline float min_nan(float a, float b) { return a != a ? a : b != b ? b : fminf(a, b); }

}

#define STANDIN_UNARY(name, function) \
    template <class F> static inline standin::SmallFloat<F> name(standin::SmallFloat<F> a) { return function(float(a)); }
#define STANDIN_UNARY2(name, function) \
    template <class F> static inline standin::SmallFloat2<F> name(standin::SmallFloat2<F> a) { \
        return {function(float(a.x)), function(float(a.y))}; \
    }
#define STANDIN_BINARY(name, name2, function) \
    template <class F> static inline standin::SmallFloat<F> name(standin::SmallFloat<F> a, standin::SmallFloat<F> b) { \
        return function(float(a), float(b)); \
    } \
    template <class F> static inline standin::SmallFloat2<F> name2(standin::SmallFloat2<F> a, standin::SmallFloat2<F> b) { \
        return {function(float(a.x), float(b.x)), function(float(a.y), float(b.y))}; \
    }
#define STANDIN_FUNCTION(function, of_float) STANDIN_UNARY(h##function, of_float) STANDIN_UNARY2(h2##function, of_float)

STANDIN_FUNCTION(exp, expf)
STANDIN_FUNCTION(log, logf)
STANDIN_FUNCTION(sin, sinf)
STANDIN_FUNCTION(cos, cosf)
STANDIN_FUNCTION(sqrt, sqrtf)
STANDIN_FUNCTION(rsqrt, rsqrtf)
STANDIN_FUNCTION(tanh, tanhf)
STANDIN_FUNCTION(ceil, ceilf)
STANDIN_FUNCTION(floor, floorf)
STANDIN_FUNCTION(trunc, truncf)
STANDIN_FUNCTION(rint, rintf)
STANDIN_UNARY(__habs, fabsf)
STANDIN_UNARY2(__habs2, fabsf)
STANDIN_BINARY(__hmin, __hmin2, fminf)
STANDIN_BINARY(__hmax, __hmax2, fmaxf)
STANDIN_BINARY(__hmin_nan, __hmin2_nan, standin::min_nan)
STANDIN_BINARY(__hmax_nan, __hmax2_nan, standin::max_nan)
template <class F> static inline bool __hisnan(standin::SmallFloat<F> a) { return isnan(float(a)); }
template <class F> static inline bool __hisinf(standin::SmallFloat<F> a) { return isinf(float(a)); }

#undef STANDIN_UNARY
#undef STANDIN_UNARY2
#undef STANDIN_BINARY
#undef STANDIN_FUNCTION
