//! One tile of a product of packed sides (see [`super::pack`]), with its sums in registers.

use std::arch::x86_64::{
    __m512bh, __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_dpbf16_ps, _mm512_fmadd_ps,
    _mm512_load_si512, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_mul_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
};

use super::pack::{COLUMNS, Line, PAIRS, ROWS, lines_of_columns, lines_of_rows, mask};

/// The output of a tile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    /// The first value.
    pub(super) values: *mut f32,
    /// Stride of the rows.
    pub(super) row_stride: usize,
    /// Number of rows and columns within the matrix.
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// `tile = scale · a · b` over `pairs` pairs of the inner index, or added to the tile.
///
/// # Safety
/// The processor has AVX-512 F, BW and BF16. The rows of the tile are in memory that nothing else reads or writes
/// during the call; if `add`, they are initialised.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
#[allow(unsafe_code)]
pub(super) unsafe fn tile<const INTERLEAVED: bool>(
    tile: Tile,
    a: &[Line],
    b: &[Line],
    pairs: usize,
    add: bool,
    scale: f32,
) {
    assert!(a.len() >= lines_of_rows(INTERLEAVED, pairs) && b.len() >= lines_of_columns(pairs));
    assert!(tile.rows <= ROWS && tile.columns <= COLUMNS && pairs <= PAIRS);
    let (a, b) = (a.as_ptr().cast::<i32>(), b.as_ptr().cast::<__m512i>());
    // Prefetches the tile.
    for row in 0..tile.rows {
        for half in 0..2 {
            let at = tile.values.wrapping_add(row * tile.row_stride + 16 * half);
            _mm_prefetch::<_MM_HINT_T0>(at.cast());
        }
    }
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for pair in 0..pairs {
        // SAFETY: two vectors for each pair, `lines_of_columns`.
        let (b0, b1) =
            unsafe { (_mm512_load_si512(b.add(2 * pair)), _mm512_load_si512(b.add(2 * pair + 1))) };
        let (b0, b1) = (as_bf16(b0), as_bf16(b1));
        for (row, [sum0, sum1]) in sums.iter_mut().enumerate() {
            let at = if INTERLEAVED { pair * 16 + row } else { row * PAIRS + pair };
            // SAFETY: a pair for each row, `lines_of_rows`.
            let a = as_bf16(_mm512_set1_epi32(unsafe { *a.add(at) }));
            *sum0 = _mm512_dpbf16_ps(*sum0, a, b0);
            *sum1 = _mm512_dpbf16_ps(*sum1, a, b1);
        }
    }
    let scale = _mm512_set1_ps(scale);
    let masks = [mask(tile.columns), mask(tile.columns.saturating_sub(16))];
    for (row, sums) in sums.iter().enumerate().take(tile.rows) {
        for (half, sum) in sums.iter().enumerate() {
            // SAFETY: values beyond the tile's columns are masked out.
            unsafe {
                let at = tile.values.wrapping_add(row * tile.row_stride + 16 * half);
                let value = if add {
                    _mm512_fmadd_ps(*sum, scale, _mm512_maskz_loadu_ps(masks[half], at))
                } else {
                    _mm512_mul_ps(*sum, scale)
                };
                _mm512_mask_storeu_ps(at, masks[half], value);
            }
        }
    }
}

#[inline(always)]
#[allow(clippy::inline_always, unsafe_code)]
fn as_bf16(bits: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits of which every pattern is valid.
    unsafe { std::mem::transmute(bits) }
}
