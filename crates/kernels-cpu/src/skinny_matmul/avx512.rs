//! The loops over the inner dimension in AVX-512, with the sums in registers.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_add_ps, _mm512_and_si512, _mm512_castsi512_ps,
    _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32, _mm512_storeu_ps,
};

use half::bf16;

use super::LANES;

/// The values of `N` rows of an f32 weight times sixteen rows of x.
///
/// # Safety
/// The processor must have AVX-512F.
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code)]
pub(super) unsafe fn columns<const N: usize>(
    tile: &mut [f32],
    columns: &[f32],
    weight: &[f32],
    d_in: usize,
    vectors: usize,
    vector: usize,
) {
    let stride = vectors * LANES;
    assert!(vector < vectors && weight.len() == N * d_in && columns.len() == d_in * stride);
    assert!(tile.len() >= (N - 1) * stride + (vector + 1) * LANES);
    let (x, w) = (columns.as_ptr(), weight.as_ptr());
    // Two sums each, so that an addition does not wait for the one before.
    let mut even = [_mm512_setzero_ps(); N];
    let mut odd = [_mm512_setzero_ps(); N];
    let mut idx = 0;
    // SAFETY: `idx + 1 < d_in`, so each read of the columns ends within `d_in * stride` values and
    // each of the weight within `N * d_in`.
    unsafe {
        while idx + 1 < d_in {
            let first = _mm512_loadu_ps(x.add(idx * stride + vector * LANES));
            let second = _mm512_loadu_ps(x.add((idx + 1) * stride + vector * LANES));
            for (out, (even, odd)) in even.iter_mut().zip(&mut odd).enumerate() {
                let w = w.add(out * d_in + idx);
                *even = _mm512_fmadd_ps(_mm512_set1_ps(*w), first, *even);
                *odd = _mm512_fmadd_ps(_mm512_set1_ps(*w.add(1)), second, *odd);
            }
            idx += 2;
        }
        if idx < d_in {
            let last = _mm512_loadu_ps(x.add(idx * stride + vector * LANES));
            for (out, even) in even.iter_mut().enumerate() {
                let w = _mm512_set1_ps(*w.add(out * d_in + idx));
                *even = _mm512_fmadd_ps(w, last, *even);
            }
        }
        store_sums(&mut tile[vector * LANES..], stride, even, odd);
    }
}

/// Like [`columns`], with the weight widened from bf16.
///
/// # Safety
/// The processor must have AVX-512F.
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code)]
pub(super) unsafe fn widened<const N: usize>(
    tile: &mut [f32],
    columns: &[f32],
    weight: &[bf16],
    d_in: usize,
    vectors: usize,
    vector: usize,
) {
    let stride = vectors * LANES;
    assert!(vector < vectors && weight.len() == N * d_in && columns.len() == d_in * stride);
    assert!(tile.len() >= (N - 1) * stride + (vector + 1) * LANES);
    let x = columns.as_ptr();
    let mut even = [_mm512_setzero_ps(); N];
    let mut odd = [_mm512_setzero_ps(); N];
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    for pair in 0..d_in.div_ceil(2) {
        let is_whole = 2 * pair + 1 < d_in;
        // SAFETY: `pair` is one of the row's, so each read of the columns ends within
        // `d_in * stride` values.
        unsafe {
            let first = _mm512_loadu_ps(x.add(2 * pair * stride + vector * LANES));
            let second = if is_whole {
                _mm512_loadu_ps(x.add((2 * pair + 1) * stride + vector * LANES))
            } else {
                _mm512_setzero_ps()
            };
            for (out, (even, odd)) in even.iter_mut().zip(&mut odd).enumerate() {
                let both = weight_pair(weight, out * d_in + 2 * pair, is_whole);
                let low = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(both));
                let high = _mm512_castsi512_ps(_mm512_and_si512(both, upper));
                *even = _mm512_fmadd_ps(low, first, *even);
                *odd = _mm512_fmadd_ps(high, second, *odd);
            }
        }
    }
    // SAFETY: the tile is long enough, checked above.
    unsafe { store_sums(&mut tile[vector * LANES..], stride, even, odd) };
}

/// Like [`columns`], with both sides in bf16, two columns at a time.
///
/// # Safety
/// The processor must have AVX-512 F and BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
#[allow(unsafe_code)]
pub(super) unsafe fn pairs<const N: usize>(
    tile: &mut [f32],
    columns: &[u32],
    weight: &[bf16],
    d_in: usize,
    vectors: usize,
    vector: usize,
) {
    let (stride, n_pairs) = (vectors * LANES, d_in.div_ceil(2));
    assert!(vector < vectors && weight.len() == N * d_in && columns.len() == n_pairs * stride);
    assert!(tile.len() >= (N - 1) * stride + (vector + 1) * LANES);
    let x = columns.as_ptr();
    let mut even = [_mm512_setzero_ps(); N];
    let mut odd = [_mm512_setzero_ps(); N];
    for pair in (0..n_pairs).step_by(2) {
        for (sums, pair) in [(&mut even, pair), (&mut odd, pair + 1)] {
            if pair >= n_pairs {
                break;
            }
            // SAFETY: `pair` is one of the row's, so the read ends within `n_pairs * stride` values,
            // and the pair of the weight within `N * d_in`.
            unsafe {
                let x = _mm512_loadu_si512(x.add(pair * stride + vector * LANES).cast());
                for (out, sum) in sums.iter_mut().enumerate() {
                    let w = weight_pair(weight, out * d_in + 2 * pair, 2 * pair + 1 < d_in);
                    *sum = _mm512_dpbf16_ps(*sum, as_bf16(w), as_bf16(x));
                }
            }
        }
    }
    // SAFETY: the tile is long enough, checked above.
    unsafe { store_sums(&mut tile[vector * LANES..], stride, even, odd) };
}

/// Stores the sums of each row of the weight, `stride` apart.
///
/// # Safety
/// The processor has AVX-512F; the tile holds `(N - 1) * stride + LANES` values.
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code)]
#[inline]
unsafe fn store_sums<const N: usize>(
    tile: &mut [f32],
    stride: usize,
    even: [__m512; N],
    odd: [__m512; N],
) {
    for (out, (even, odd)) in even.into_iter().zip(odd).enumerate() {
        // SAFETY: the tile is long enough, by the caller's contract.
        unsafe { _mm512_storeu_ps(tile.as_mut_ptr().add(out * stride), _mm512_add_ps(even, odd)) };
    }
}

/// Two neighbouring values of a weight in every lane, or one and a zero.
///
/// # Safety
/// The value at `at`, and if `is_whole` the next one, are within the weight.
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code)]
#[inline]
unsafe fn weight_pair(weight: &[bf16], at: usize, is_whole: bool) -> __m512i {
    // SAFETY: by the caller's contract; the read needs no alignment.
    let bits = unsafe {
        if is_whole {
            weight.as_ptr().add(at).cast::<i32>().read_unaligned()
        } else {
            i32::from(weight[at].to_bits())
        }
    };
    _mm512_set1_epi32(bits)
}

#[inline(always)]
#[allow(clippy::inline_always, unsafe_code)]
fn as_bf16(bits: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits of which every pattern is valid.
    unsafe { std::mem::transmute(bits) }
}
