//! Packing of f32 and bf16 matrices into panels of bf16 pairs, in the order that [`super::micro`] reads.
//!
//! A pair is two neighbours of the inner index in one u32. A panel of columns has two vectors of sixteen columns per pair.
//! A panel of rows has one pair of every row side by side if the matrix is transposed (`interleaved`), otherwise row after
//! row. Values beyond the matrix are zero.

use std::arch::x86_64::{
    __m256i, __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm256_maskz_loadu_epi16,
    _mm256_setzero_si256, _mm512_castsi256_si512, _mm512_cvtne2ps_pbh, _mm512_inserti64x4,
    _mm512_loadu_si512, _mm512_maskz_loadu_epi16, _mm512_maskz_loadu_ps, _mm512_permutexvar_epi16,
    _mm512_setzero_ps, _mm512_shuffle_i32x4, _mm512_store_si512, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use crate::matrix::Matrix;

/// Rows of a tile.
pub(super) const ROWS: usize = 14;
/// Columns of a tile.
pub(super) const COLUMNS: usize = 32;
/// The maximum number of pairs of the inner index in a panel: 32 kB of columns stay in the first-level cache.
pub(super) const PAIRS: usize = 256;

/// A vector of pairs in a register.
pub(crate) type Pairs = __m512i;

/// A vector of pairs in memory.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Line([u32; 16]);

impl Line {
    pub(super) const ZERO: Self = Self([0; 16]);
}

/// The size of a panel of rows.
pub(super) fn lines_of_rows(interleaved: bool, pairs: usize) -> usize {
    if interleaved { pairs } else { ROWS * PAIRS / 16 }
}

/// The size of a panel of columns.
pub(super) fn lines_of_columns(pairs: usize) -> usize {
    2 * pairs
}

/// The lowest `n` of sixteen lanes.
pub(super) fn mask(n: usize) -> u16 {
    if n >= 16 { u16::MAX } else { (1 << n) - 1 }
}

/// Element of a matrix that can be packed: f32, which is rounded, or bf16.
pub(crate) trait Packed: Copy + Send + Sync {
    /// `n` (at most 16) pairs of the values at `low` and those at `high`, or zeros without `high`.
    ///
    /// # Safety
    /// The processor has AVX-512 F, BW and BF16; `n` values can be read at `low` and at `high`.
    #[allow(unsafe_code)]
    unsafe fn pairs(low: *const Self, high: Option<*const Self>, n: usize) -> Pairs;

    /// Pairs of neighbours among the first `n` (at most 32) values, then zeros.
    ///
    /// # Safety
    /// As for [`Self::pairs`].
    #[allow(unsafe_code)]
    unsafe fn pairs_along(values: *const Self, n: usize) -> Pairs;
}

/// Packs rows `first..` of `a`, `pairs` pairs of the inner index from `start` on.
///
/// # Safety
/// The processor has AVX-512 F, BW and BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
#[allow(unsafe_code)]
pub(super) unsafe fn rows(panel: &mut [Line], a: Matrix, first: usize, start: usize, pairs: usize) {
    let n_rows = a.n_rows().saturating_sub(first).min(ROWS);
    let inner = a.n_columns() - start;
    if a.is_transposed() {
        for (pair, line) in panel[..pairs].iter_mut().enumerate() {
            let at = start + 2 * pair;
            let next = (at + 1 < a.n_columns()).then(|| a.at(first, at + 1));
            // SAFETY: `n_rows` values from `first` on in columns `at` and, if there is one, the next.
            unsafe { store(line, f32::pairs(a.at(first, at), next, n_rows)) };
        }
        return;
    }
    let (rows, _) = panel.as_chunks_mut::<{ PAIRS / 16 }>();
    for (row, lines) in rows[..ROWS].iter_mut().enumerate() {
        for (idx, line) in lines[..pairs.div_ceil(16)].iter_mut().enumerate() {
            if row >= n_rows {
                *line = Line::ZERO;
                continue;
            }
            let at = 32 * idx;
            // Prefetches the next row.
            let next = a.at(first + row + 1, start + at);
            _mm_prefetch::<_MM_HINT_T0>(next.cast());
            _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(16).cast());
            // SAFETY: at most the rest of the row from `start + at` on.
            unsafe { store(line, f32::pairs_along(a.at(first + row, start + at), inner - at)) };
        }
    }
}

/// Packs columns `first..` of `b`, `pairs` pairs of the inner index from `start` on.
///
/// # Safety
/// The processor has AVX-512 F, BW and BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
#[allow(unsafe_code)]
pub(super) unsafe fn columns<T: Packed>(
    panel: &mut [Line],
    b: Matrix<'_, T>,
    first: usize,
    start: usize,
    pairs: usize,
) {
    let n_columns = b.n_columns().saturating_sub(first).min(COLUMNS);
    let panel = &mut panel[..2 * pairs];
    for half in 0..2 {
        let (first, n) = (first + 16 * half, n_columns.saturating_sub(16 * half).min(16));
        if n == 0 {
            panel.iter_mut().skip(half).step_by(2).for_each(|line| *line = Line::ZERO);
            continue;
        }
        if b.is_transposed() {
            for from in (0..pairs).step_by(16) {
                let (at, rest) = (start + 2 * from, b.n_rows() - start - 2 * from);
                let mut lines = [Line::ZERO; 16];
                for (column, line) in lines[..n].iter_mut().enumerate() {
                    // SAFETY: at most the rest of the column from `at` on.
                    unsafe { store(line, T::pairs_along(b.at(at, first + column), rest)) };
                }
                // SAFETY: the processor has the instructions, by the caller's contract.
                let lines = unsafe { transposed(&lines) };
                let out = panel.iter_mut().skip(2 * from + half).step_by(2);
                out.zip(lines).for_each(|(out, line)| *out = line);
            }
            continue;
        }
        for (pair, line) in panel.iter_mut().skip(half).step_by(2).enumerate() {
            let at = start + 2 * pair;
            let next = (at + 1 < b.n_rows()).then(|| b.at(at + 1, first));
            // SAFETY: `n` values from column `first` on in row `at` and, if there is one, the next.
            unsafe { store(line, T::pairs(b.at(at, first), next, n)) };
        }
    }
}

impl Packed for f32 {
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[allow(unsafe_code)]
    #[inline]
    unsafe fn pairs(low: *const Self, high: Option<*const Self>, n: usize) -> Pairs {
        // SAFETY: `n` values can be read at both, by the caller's contract.
        unsafe {
            let high = high.map_or_else(|| _mm512_setzero_ps(), |high| load(high, n));
            interleave(rounded_pair(load(low, n), high))
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[allow(unsafe_code)]
    #[inline]
    unsafe fn pairs_along(values: *const Self, n: usize) -> Pairs {
        // SAFETY: `n` values can be read there, by the caller's contract.
        unsafe {
            let high = load(values.wrapping_add(16), n.saturating_sub(16));
            rounded_pair(load(values, n), high)
        }
    }
}

impl Packed for half::bf16 {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    #[allow(unsafe_code)]
    #[inline]
    unsafe fn pairs(low: *const Self, high: Option<*const Self>, n: usize) -> Pairs {
        // SAFETY: `n` values can be read at both, by the caller's contract; masked values are not read.
        unsafe {
            let load = |values: *const Self| -> __m256i {
                _mm256_maskz_loadu_epi16(mask(n), values.cast())
            };
            let lows = _mm512_castsi256_si512(load(low));
            // The upper half is undefined after the cast and replaced in both cases.
            let high = high.map_or_else(|| _mm256_setzero_si256(), load);
            interleave(_mm512_inserti64x4::<1>(lows, high))
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[allow(unsafe_code)]
    #[inline]
    unsafe fn pairs_along(values: *const Self, n: usize) -> Pairs {
        let mask = if n >= 32 { u32::MAX } else { (1 << n) - 1 };
        // SAFETY: `n` values can be read there, by the caller's contract; masked values are not read.
        unsafe { _mm512_maskz_loadu_epi16(mask, values.cast()) }
    }
}

/// The first `n` of sixteen values, then zeros.
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code)]
#[inline]
unsafe fn load(values: *const f32, n: usize) -> __m512 {
    // SAFETY: `n` values can be read there, by the caller's contract; masked values are not read.
    unsafe { _mm512_maskz_loadu_ps(mask(n), values) }
}

/// Sixteen low values, then sixteen high values, rounded to bf16.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn rounded_pair(low: __m512, high: __m512) -> Pairs {
    let rounded = _mm512_cvtne2ps_pbh(high, low);
    #[allow(unsafe_code)]
    // SAFETY: both are 512 bits of which every pattern is valid.
    unsafe {
        std::mem::transmute(rounded)
    }
}

/// Low and high values interleaved.
#[target_feature(enable = "avx512f,avx512bw")]
#[allow(unsafe_code)]
#[inline]
fn interleave(lows_and_highs: __m512i) -> __m512i {
    static ORDER: [u16; 32] = {
        let mut order = [0; 32];
        let mut idx = 0;
        while idx < 32 {
            order[idx] = (idx / 2 + 16 * (idx % 2)) as u16;
            idx += 1;
        }
        order
    };
    // SAFETY: the table is a vector long.
    let order = unsafe { _mm512_loadu_si512(ORDER.as_ptr().cast()) };
    _mm512_permutexvar_epi16(order, lows_and_highs)
}

#[target_feature(enable = "avx512f")]
#[allow(unsafe_code)]
#[inline]
fn store(line: &mut Line, bits: __m512i) {
    // SAFETY: a line is a vector, and aligned as one.
    unsafe { _mm512_store_si512(std::ptr::from_mut(line).cast(), bits) };
}

/// The transpose of sixteen by sixteen pairs.
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code)]
#[inline]
unsafe fn transposed(rows: &[Line; 16]) -> [Line; 16] {
    // SAFETY: a line is a vector.
    let r: [__m512i; 16] =
        rows.map(|row| unsafe { _mm512_loadu_si512(std::ptr::from_ref(&row).cast()) });
    // Interleaves pairs of rows, then fours, within each quarter of a vector; then exchanges the quarters.
    let twos: [__m512i; 16] = std::array::from_fn(|idx| {
        let (a, b) = (r[idx & !1], r[idx | 1]);
        if idx % 2 == 0 { _mm512_unpacklo_epi32(a, b) } else { _mm512_unpackhi_epi32(a, b) }
    });
    let fours: [__m512i; 16] = std::array::from_fn(|idx| {
        let (four, column) = (idx & !3, idx % 4);
        let (a, b) = (twos[four + column / 2], twos[four + 2 + column / 2]);
        if column % 2 == 0 { _mm512_unpacklo_epi64(a, b) } else { _mm512_unpackhi_epi64(a, b) }
    });
    let mut out = [Line::ZERO; 16];
    for column in 0..4 {
        let [a, b, c, d] = [0, 4, 8, 12].map(|four| fours[four + column]);
        let even = (_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(c, d, 0x88));
        let odd = (_mm512_shuffle_i32x4(a, b, 0xdd), _mm512_shuffle_i32x4(c, d, 0xdd));
        store(&mut out[column], _mm512_shuffle_i32x4(even.0, even.1, 0x88));
        store(&mut out[4 + column], _mm512_shuffle_i32x4(odd.0, odd.1, 0x88));
        store(&mut out[8 + column], _mm512_shuffle_i32x4(even.0, even.1, 0xdd));
        store(&mut out[12 + column], _mm512_shuffle_i32x4(odd.0, odd.1, 0xdd));
    }
    out
}
