//! The loops in AVX2, as the compiler vectorises them, and the sums over lanes.

use std::arch::x86_64::{
    _mm256_add_ps, _mm256_hadd_ps, _mm256_loadu_ps, _mm256_permute2f128_ps, _mm256_storeu_ps,
};

use half::bf16;

use super::{LANES, Part, generic};

#[target_feature(enable = "avx2,fma")]
pub(super) fn f32s<const R: usize, const O: usize>(sums: &mut [f32], part: &Part<'_, f32, f32>) {
    generic::f32s::<R, O>(sums, part);
}

/// Like [`f32s`], with the weight widened from bf16.
#[target_feature(enable = "avx2,fma")]
pub(super) fn widened<const R: usize, const O: usize>(
    sums: &mut [f32],
    part: &Part<'_, f32, bf16>,
) {
    generic::widened::<R, O>(sums, part);
}

/// Adds up the lanes of eight values: the halves first, then neighbours.
#[target_feature(enable = "avx")]
pub(super) fn sum_lanes(sums: &[f32; 8 * LANES]) -> [f32; 8] {
    let (sums, _) = sums.as_chunks::<LANES>();
    let half = |idx: usize| {
        let (low, high) = sums[idx].split_at(8);
        #[allow(unsafe_code)]
        // SAFETY: both have eight values.
        unsafe {
            _mm256_add_ps(_mm256_loadu_ps(low.as_ptr()), _mm256_loadu_ps(high.as_ptr()))
        }
    };
    // Each addition of neighbours halves the number of vectors.
    let quarter = |first: usize| {
        let low = _mm256_hadd_ps(half(first), half(first + 1));
        _mm256_hadd_ps(low, _mm256_hadd_ps(half(first + 2), half(first + 3)))
    };
    let (low, high) = (quarter(0), quarter(4));
    let first = _mm256_permute2f128_ps::<0x20>(low, high);
    let second = _mm256_permute2f128_ps::<0x31>(low, high);
    let mut values = [0.0; 8];
    // SAFETY: there is room for eight values.
    #[allow(unsafe_code)]
    unsafe {
        _mm256_storeu_ps(values.as_mut_ptr(), _mm256_add_ps(first, second));
    }
    values
}
