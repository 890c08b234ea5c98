// `nvcuda::wmma`: products of small tiles by a warp. Sums are in f32 (or i32) and in the order of k; a GPU adds in an
// order of its own. The library promises no layout of a fragment: here element e of a tile, counted row by row, is
// element e / 32 of lane e % 32.
#pragma once
#include "cuda_bf16.h"

namespace nvcuda { namespace wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };
namespace precision { struct tf32 {}; }

// Round to 10 bits of mantissa, ties away from zero (cvt.rna.tf32.f32).
static inline float __float_to_tf32(float value) {
    const uint32_t bits = standin::bits_of(value);
    return (bits & 0x7f800000) == 0x7f800000 ? value : standin::float_of((bits + 0x1000) & 0xffffe000);
}

template <class T> struct Element {
    using Stored = T;
    using Sum = std::conditional_t<std::is_integral<T>::value, int, float>;
    static Sum operand(T value) { return Sum(value); }
};
template <> struct Element<precision::tf32> {
    using Stored = float;
    using Sum = float;
    // Tensor cores ignore the lower 13 bits: who forgets to round gets a truncated operand.
    static float operand(float value) { return standin::float_of(standin::bits_of(value) & 0xffffe000); }
};

template <class Use, int m, int n, int k, class T, class Layout = void> struct fragment {
    using Stored = typename Element<T>::Stored;
    static constexpr int ROWS = std::is_same<Use, matrix_b>::value ? k : m;
    static constexpr int COLUMNS = std::is_same<Use, matrix_a>::value ? k : n;
    static constexpr int num_elements = ROWS * COLUMNS / 32;
    static_assert(ROWS * COLUMNS % 32 == 0, "a tile is divided among 32 lanes");
    Stored x[num_elements];
};

template <class Fragment> auto &element(Fragment *const *lanes, int row, int column) {
    const int e = row * Fragment::COLUMNS + column;
    return lanes[e % 32]->x[e / 32];
}

[[noreturn]] inline void partial_warp(const char *operation) {
    fprintf(stderr, "stand-in driver: %s by less than a whole warp\n", operation);
    abort();
}

// A load or store of a whole tile, performed when all lanes have arrived.
template <class Fragment, class Pointer, bool store> struct Transfer {
    Fragment *fragment;
    Pointer memory;
    unsigned stride;
    bool by_rows;
    static void act(Transfer **lanes) {
        Fragment *fragments[32] = {};
        const Transfer *any = nullptr;
        for (int i = 0; i < 32; i++) {
            if (!lanes[i]) {
                if (!store) partial_warp("a load of a tile");
                continue;
            }
            fragments[i] = lanes[i]->fragment;
            any = lanes[i];
        }
        const Transfer &first = *any;
        for (int row = 0; row < Fragment::ROWS; row++)
            for (int column = 0; column < Fragment::COLUMNS; column++) {
                // A kernel by which cubek measures throughput stores with one lane, so that its sums count as used. CUDA
                // leaves that undefined; here the other lanes' elements stay as they were.
                if (store && !fragments[(row * Fragment::COLUMNS + column) % 32]) continue;
                const size_t at = first.by_rows ? size_t(row) * first.stride + column : size_t(column) * first.stride + row;
                if constexpr (store) first.memory[at] = element(fragments, row, column);
                else element(fragments, row, column) = first.memory[at];
            }
    }
};

template <class Use, int m, int n, int k, class T, class Layout, class P>
void load_at(unsigned site, fragment<Use, m, n, k, T, Layout> &tile, const P *memory, unsigned stride) {
    Transfer<fragment<Use, m, n, k, T, Layout>, const P *, false> mine{&tile, memory, stride, std::is_same<Layout, row_major>::value};
    standin::collective(site, mine);
}
template <int m, int n, int k, class T, class P>
void load_at(unsigned site, fragment<accumulator, m, n, k, T> &tile, const P *memory, unsigned stride, layout_t layout) {
    Transfer<fragment<accumulator, m, n, k, T>, const P *, false> mine{&tile, memory, stride, layout == mem_row_major};
    standin::collective(site, mine);
}
template <int m, int n, int k, class T, class P>
void store_at(unsigned site, P *memory, const fragment<accumulator, m, n, k, T> &tile, unsigned stride, layout_t layout) {
    Transfer<const fragment<accumulator, m, n, k, T>, P *, true> mine{&tile, memory, stride, layout == mem_row_major};
    standin::collective(site, mine);
}

template <class Use, int m, int n, int k, class T, class Layout, class V>
void fill_fragment(fragment<Use, m, n, k, T, Layout> &tile, V value) {
    for (auto &x : tile.x) x = value;
}

template <int m, int n, int k, class TD, class TA, class LA, class TB, class LB, class TC> struct Product {
    using D = fragment<accumulator, m, n, k, TD>;
    using A = fragment<matrix_a, m, n, k, TA, LA>;
    using B = fragment<matrix_b, m, n, k, TB, LB>;
    using C = fragment<accumulator, m, n, k, TC>;
    D *d;
    const A *a;
    const B *b;
    const C *c;
    static void act(Product **lanes) {
        using Sum = typename Element<TA>::Sum;
        D *d[32];
        const A *a[32];
        const B *b[32];
        const C *c[32];
        for (int i = 0; i < 32; i++) {
            if (!lanes[i]) partial_warp("a product of tiles");
            d[i] = lanes[i]->d, a[i] = lanes[i]->a, b[i] = lanes[i]->b, c[i] = lanes[i]->c;
        }
        Sum rows[m][k], columns[n][k];
        for (int i = 0; i < m; i++)
            for (int l = 0; l < k; l++) rows[i][l] = Element<TA>::operand(element(a, i, l));
        for (int j = 0; j < n; j++)
            for (int l = 0; l < k; l++) columns[j][l] = Element<TB>::operand(element(b, l, j));
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++) {
                Sum sum = Sum(element(c, i, j));
                for (int l = 0; l < k; l++) sum += rows[i][l] * columns[j][l];
                element(d, i, j) = sum;
            }
    }
};

template <int m, int n, int k, class TD, class TA, class LA, class TB, class LB, class TC>
void product_at(unsigned site, fragment<accumulator, m, n, k, TD> &d, const fragment<matrix_a, m, n, k, TA, LA> &a,
                const fragment<matrix_b, m, n, k, TB, LB> &b, const fragment<accumulator, m, n, k, TC> &c) {
    Product<m, n, k, TD, TA, LA, TB, LB, TC> mine{&d, &a, &b, &c};
    standin::collective(site, mine);
}

} }

// Numbered by their place in the kernel, as the operations of warp.h.
#define load_matrix_sync(...) load_at(__COUNTER__, __VA_ARGS__)
#define store_matrix_sync(...) store_at(__COUNTER__, __VA_ARGS__)
#define mma_sync(...) product_at(__COUNTER__, __VA_ARGS__)
