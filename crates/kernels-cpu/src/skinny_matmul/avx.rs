//! The loops over the columns in AVX2, with the sums in registers, and the sums over lanes.
//!
//! They are written in intrinsics: loops that the compiler should vectorise would have to be inlined into a function with these
//! instructions, closures included, and `mul_add` is a call of the C library elsewhere.

use std::arch::x86_64::{
    __m256, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm256_add_ps, _mm256_castsi256_ps,
    _mm256_cvtepu16_epi32, _mm256_fmadd_ps, _mm256_hadd_ps, _mm256_loadu_ps,
    _mm256_permute2f128_ps, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_storeu_ps,
};

use half::bf16;

use super::generic::padded;
use super::{LANES, Part};

/// Bytes of the weight that are asked for ahead of their use: of one stream, as rows follow each other.
pub(super) const AHEAD: usize = 4096;

/// A tile of `R` rows of x and `O` rows of the weight.
macro_rules! tile {
    ($(#[$doc:meta])* $name:ident, $weight:ty, $load:ident) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The processor must have the instructions.
        #[target_feature(enable = "avx2,fma")]
        #[allow(unsafe_code)]
        pub(super) unsafe fn $name<const R: usize, const O: usize>(
            sums: &mut [f32],
            part: &Part<'_, f32, $weight>,
        ) {
            let &Part { x, stride, weight, row, from, to, prefetches, .. } = part;
            assert!(sums.len() == R * O * LANES && from <= to && to <= row, "{R} rows by {O}");
            assert!(x.len() >= R * stride && to.next_multiple_of(LANES) <= stride);
            assert!(weight.len() >= O * row);
            let ahead = if prefetches { AHEAD } else { 0 };
            let (x, first, sums) = (x.as_ptr(), weight.as_ptr(), sums.as_mut_ptr());
            let mut lanes = [[[_mm256_setzero_ps(); 2]; R]; O];
            // SAFETY: `sums` has two vectors for each row of x and of the weight. A step begins before `to`, so that its columns
            // are within a row of x, and those of the weight too, unless they were copied. A prefetch may have any address.
            unsafe {
                for (out, lanes) in lanes.iter_mut().enumerate() {
                    for (row, lanes) in lanes.iter_mut().enumerate() {
                        let sums = sums.add((out * R + row) * LANES);
                        *lanes = [_mm256_loadu_ps(sums), _mm256_loadu_ps(sums.add(8))];
                    }
                }
                let mut idx = from;
                while idx + LANES <= to {
                    for (out, lanes) in lanes.iter_mut().enumerate() {
                        let at = first.add(out * row + idx);
                        _mm_prefetch::<_MM_HINT_T0>(at.cast::<i8>().wrapping_add(ahead));
                        add_step(lanes, $load(at), x.add(idx), stride);
                    }
                    idx += LANES;
                }
                if idx < to {
                    for (out, lanes) in lanes.iter_mut().enumerate() {
                        let rest: [$weight; LANES] = padded(&weight[out * row..][idx..to]);
                        add_step(lanes, $load(rest.as_ptr()), x.add(idx), stride);
                    }
                }
                for (out, lanes) in lanes.iter().enumerate() {
                    for (row, lanes) in lanes.iter().enumerate() {
                        let sums = sums.add((out * R + row) * LANES);
                        _mm256_storeu_ps(sums, lanes[0]);
                        _mm256_storeu_ps(sums.add(8), lanes[1]);
                    }
                }
            }
        }
    };
}

tile!(
    /// Both sides in f32.
    f32s, f32, load
);
tile!(
    /// Like [`f32s`], with the weight widened from bf16.
    widened, bf16, widen
);

/// Adds the products of sixteen columns of a row of the weight and of `R` rows of x, `stride` apart.
///
/// # Safety
/// Sixteen values can be read from each row of x; the processor has the instructions.
#[target_feature(enable = "avx2,fma")]
#[allow(unsafe_code)]
#[inline]
unsafe fn add_step<const R: usize>(
    lanes: &mut [[__m256; 2]; R],
    weight: [__m256; 2],
    x: *const f32,
    stride: usize,
) {
    for (row, lanes) in lanes.iter_mut().enumerate() {
        // SAFETY: by the caller's contract.
        let [low, high] = unsafe { load(x.add(row * stride)) };
        lanes[0] = _mm256_fmadd_ps(weight[0], low, lanes[0]);
        lanes[1] = _mm256_fmadd_ps(weight[1], high, lanes[1]);
    }
}

/// # Safety
/// Sixteen values can be read; the processor has AVX2.
#[target_feature(enable = "avx2")]
#[allow(unsafe_code)]
#[inline]
unsafe fn load(values: *const f32) -> [__m256; 2] {
    // SAFETY: by the caller's contract.
    unsafe { [_mm256_loadu_ps(values), _mm256_loadu_ps(values.add(8))] }
}

/// # Safety
/// Sixteen values can be read; the processor has AVX2.
#[target_feature(enable = "avx2")]
#[allow(unsafe_code)]
#[inline]
unsafe fn widen(values: *const bf16) -> [__m256; 2] {
    // SAFETY: by the caller's contract.
    let halves = unsafe {
        let values = values.cast();
        [_mm_loadu_si128(values), _mm_loadu_si128(values.add(1))]
    };
    halves.map(|bits| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits))))
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
