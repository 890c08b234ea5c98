//! The loops over the columns in AVX-512, with the sums in registers.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _MM_HINT_T0, _mm_prefetch, _mm256_loadu_si256, _mm512_castsi512_ps,
    _mm512_cvtepu16_epi32, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_setzero_ps, _mm512_slli_epi32, _mm512_storeu_ps,
};

use half::bf16;

use super::generic::padded;
use super::{LANES, Part};

/// Rows of a weight in f32 that are asked for ahead of their use.
///
/// The processor's own prefetching follows a row but stops at its end: with rows of 2 KiB products took twice as long without.
const ROWS_AHEAD: usize = 4;

/// A tile of `R` rows of x and `O` rows of the weight, with `$step` columns of both per vector.
macro_rules! tile {
    ($(#[$doc:meta])* $name:ident, $features:literal, $x:ty, $weight:ty, $step:expr, $load_x:ident, $load:ident, $add:ident) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The processor must have the instructions.
        #[target_feature(enable = $features)]
        #[allow(unsafe_code)]
        pub(super) unsafe fn $name<const R: usize, const O: usize>(
            sums: &mut [f32],
            part: &Part<'_, $x, $weight>,
        ) {
            let &Part { x, stride, weight, row: d_in, from, to, prefetches, .. } = part;
            assert!(sums.len() == R * O * LANES && from <= to && to <= d_in, "{R} rows by {O}");
            assert!(x.len() >= R * stride && to.next_multiple_of($step) <= stride);
            assert!(weight.len() >= O * d_in);
            let rows_ahead = (ROWS_AHEAD * size_of::<f32>() / size_of::<$weight>()).max(O);
            let ahead = if prefetches { rows_ahead * d_in } else { 0 };
            let (x, first) = (x.as_ptr(), weight.as_ptr());
            let mut lanes = [[_mm512_setzero_ps(); R]; O];
            // SAFETY: `sums` has a vector for each row of x and of the weight. A step begins before `to`, so that its columns
            // are within a row of x, and those of the weight too, unless they were copied. A prefetch may have any address.
            unsafe {
                for (out, lanes) in lanes.iter_mut().enumerate() {
                    for (row, lanes) in lanes.iter_mut().enumerate() {
                        *lanes = _mm512_loadu_ps(sums.as_ptr().add((out * R + row) * LANES));
                    }
                }
                let mut idx = from;
                while idx + $step <= to {
                    let mut weights = [$load(first.add(idx)); O];
                    for (out, weights) in weights.iter_mut().enumerate() {
                        let at = first.add(out * d_in + idx);
                        *weights = $load(at);
                        _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(ahead).cast());
                    }
                    for row in 0..R {
                        let x = $load_x(x.add(row * stride + idx));
                        for (lanes, weights) in lanes.iter_mut().zip(weights) {
                            lanes[row] = $add(lanes[row], x, weights);
                        }
                    }
                    idx += $step;
                }
                if idx < to {
                    for (out, lanes) in lanes.iter_mut().enumerate() {
                        let rest: [$weight; $step] = padded(&weight[out * d_in..][idx..to]);
                        let weights = $load(rest.as_ptr());
                        for (row, lanes) in lanes.iter_mut().enumerate() {
                            *lanes = $add(*lanes, $load_x(x.add(row * stride + idx)), weights);
                        }
                    }
                }
                for (out, lanes) in lanes.iter().enumerate() {
                    for (row, lanes) in lanes.iter().enumerate() {
                        _mm512_storeu_ps(sums.as_mut_ptr().add((out * R + row) * LANES), *lanes);
                    }
                }
            }
        }
    };
}

tile!(
    /// Both sides in f32.
    f32s, "avx512f", f32, f32, LANES, load, load, fused
);
tile!(
    /// Like [`f32s`], with the weight widened from bf16.
    widened, "avx512f", f32, bf16, LANES, load, widen, fused
);
tile!(
    /// Both sides in bf16, with two columns per lane.
    pairs, "avx512f,avx512bf16", bf16, bf16, 2 * LANES, load_pairs, load_pairs, dot
);

/// # Safety
/// Sixteen values can be read; the processor has AVX-512F.
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code)]
#[inline]
unsafe fn load(values: *const f32) -> __m512 {
    // SAFETY: by the caller's contract.
    unsafe { _mm512_loadu_ps(values) }
}

/// # Safety
/// Sixteen values can be read; the processor has AVX-512F.
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code)]
#[inline]
unsafe fn widen(values: *const bf16) -> __m512 {
    // SAFETY: by the caller's contract.
    let bits = unsafe { _mm256_loadu_si256(values.cast()) };
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
}

/// # Safety
/// Thirty-two values can be read; the processor has AVX-512F.
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code)]
#[inline]
unsafe fn load_pairs(values: *const bf16) -> __m512bh {
    // SAFETY: by the caller's contract; every pattern of the bits is valid.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(values.cast())) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn fused(sum: __m512, x: __m512, weight: __m512) -> __m512 {
    _mm512_fmadd_ps(weight, x, sum)
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn dot(sum: __m512, x: __m512bh, weight: __m512bh) -> __m512 {
    _mm512_dpbf16_ps(sum, weight, x)
}
