// Functions of CUDA's math library and integer intrinsics that the host's headers lack or define differently.
#pragma once

// Names that glibc declares for itself, hence macros. CUDA's fast versions are less exact than these.
#define __expf(x) ::expf(x)
#define __logf(x) ::logf(x)
#define __powf(x, y) ::powf(x, y)
#define __sinf(x) ::sinf(x)
#define __cosf(x) ::cosf(x)
#define __tanf(x) ::tanf(x)

static inline float __fdividef(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float __frsqrt_rn(float a) { return 1.0f / sqrtf(a); }
static inline float rsqrtf(float a) { return 1.0f / sqrtf(a); }
static inline float rsqrt(float a) { return 1.0f / sqrtf(a); }
static inline double rsqrt(double a) { return 1.0 / sqrt(a); }
static inline float rhypotf(float a, float b) { return 1.0f / hypotf(a, b); }
static inline double rhypot(double a, double b) { return 1.0 / hypot(a, b); }

// As on a GPU, the operand that is a number wins over NaN.
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
template <class T, class U, class Common = std::common_type_t<T, U>, class = std::enable_if_t<std::is_integral<Common>::value>>
static inline Common min(T a, U b) { return Common(b) < Common(a) ? Common(b) : Common(a); }
template <class T, class U, class Common = std::common_type_t<T, U>, class = std::enable_if_t<std::is_integral<Common>::value>>
static inline Common max(T a, U b) { return Common(a) < Common(b) ? Common(b) : Common(a); }

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int i = 0; i < 32; i++) reversed |= (x >> i & 1u) << (31 - i);
    return reversed;
}
static inline unsigned long long __brevll(unsigned long long x) {
    return (unsigned long long)__brev(unsigned(x)) << 32 | __brev(unsigned(x >> 32));
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)a * b >> 32); }
static inline int __mulhi(int a, int b) { return int((long long)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned __int128)a * b >> 64; }
static inline long long __mul64hi(long long a, long long b) { return (__int128)a * b >> 64; }

static inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; i++) c += int(int8_t(a >> 8 * i)) * int(int8_t(b >> 8 * i));
    return c;
}
static inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
    for (int i = 0; i < 4; i++) c += (a >> 8 * i & 255) * (b >> 8 * i & 255);
    return c;
}

// One thread runs at a time, and none is interrupted: plain memory accesses are atomic.
template <class T, class V> static inline T atomicExch(T *at, V value) {
    const T old = *at;
    *at = T(value);
    return old;
}
template <class T, class C, class V> static inline T atomicCAS(T *at, C expected, V value) {
    const T old = *at;
    if (old == T(expected)) *at = T(value);
    return old;
}
template <class T, class V> static inline T atomicAdd(T *at, V value) { return atomicExch(at, T(*at + T(value))); }
template <class T, class V> static inline T atomicMin(T *at, V value) { return atomicExch(at, min(*at, T(value))); }
template <class T, class V> static inline T atomicMax(T *at, V value) { return atomicExch(at, max(*at, T(value))); }
template <class T, class V> static inline T atomicAnd(T *at, V value) { return atomicExch(at, T(*at & T(value))); }
template <class T, class V> static inline T atomicOr(T *at, V value) { return atomicExch(at, T(*at | T(value))); }
template <class T, class V> static inline T atomicXor(T *at, V value) { return atomicExch(at, T(*at ^ T(value))); }
static inline void __threadfence() {}
static inline void __threadfence_block() {}
