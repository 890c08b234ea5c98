//! The loops over the columns of weights in blocks, in AVX2: a block is converted in registers.
//!
//! One row of the weight at a time: the processor's own prefetching follows one row better than several.

use std::arch::x86_64::{
    __m128i, __m256, _MM_HINT_T0, _mm_and_si128, _mm_cvtph_ps, _mm_cvtsi32_si128, _mm_loadl_epi64,
    _mm_loadu_si128, _mm_prefetch, _mm_set1_epi8, _mm_srli_epi16, _mm_srli_si128, _mm_sub_epi8,
    _mm256_add_ps, _mm256_broadcastss_ps, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps,
    _mm256_cvtepu8_epi32, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_mul_ps, _mm256_setzero_ps,
    _mm256_storeu_ps,
};

use super::avx::AHEAD;
use super::{BLOCK_COLUMNS, LANES, Part};

/// A tile of `R` rows of x and `O` rows of the weight, in blocks of `$bytes` bytes and [`BLOCK_COLUMNS`] columns.
macro_rules! tile {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $values:ident) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The processor must have the instructions.
        #[target_feature(enable = "avx2,fma,f16c")]
        #[allow(unsafe_code)]
        pub(super) unsafe fn $name<const R: usize, const O: usize>(
            sums: &mut [f32],
            part: &Part<'_, f32, [u8; $bytes]>,
        ) {
            let &Part { x, stride, weight, row, from, to, prefetches, .. } = part;
            let (first, last) = (from / BLOCK_COLUMNS, to / BLOCK_COLUMNS);
            assert!(sums.len() == R * O * LANES && first <= last && last <= row, "{R} rows by {O}");
            assert!(x.len() >= R * stride && to <= stride && weight.len() >= O * row);
            let ahead = if prefetches { AHEAD } else { 0 };
            let (x, weight, sums) = (x.as_ptr(), weight.as_ptr(), sums.as_mut_ptr());
            let mut lanes = [[[_mm256_setzero_ps(); 2]; R]; O];
            // SAFETY: `sums` has two vectors for each row of x and of the weight. A block is within a row of the weight, and its
            // columns are within one of x. A prefetch may have any address.
            unsafe {
                for (out, lanes) in lanes.iter_mut().enumerate() {
                    for (row, lanes) in lanes.iter_mut().enumerate() {
                        let sums = sums.add((out * R + row) * LANES);
                        *lanes = [_mm256_loadu_ps(sums), _mm256_loadu_ps(sums.add(8))];
                    }
                }
                for block in first..last {
                    for (out, lanes) in lanes.iter_mut().enumerate() {
                        let at = weight.add(out * row + block).cast::<u8>();
                        _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(ahead).cast());
                        let values = $values(at);
                        for (row, lanes) in lanes.iter_mut().enumerate() {
                            let x = x.add(row * stride + block * BLOCK_COLUMNS);
                            for (idx, values) in values.iter().enumerate() {
                                let x = _mm256_loadu_ps(x.add(8 * idx));
                                lanes[idx % 2] = _mm256_fmadd_ps(*values, x, lanes[idx % 2]);
                            }
                        }
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
    /// Bytes with a scale.
    q8_0, 34, values_q8_0
);
tile!(
    /// Half bytes from −8 on with a scale.
    q4_0, 18, values_q4_0
);
tile!(
    /// Half bytes with a scale and a minimum.
    q4_1, 20, values_q4_1
);

/// # Safety
/// 34 bytes can be read; the processor has the instructions.
#[target_feature(enable = "avx2,fma,f16c")]
#[allow(unsafe_code)]
#[inline]
unsafe fn values_q8_0(block: *const u8) -> [__m256; 4] {
    // SAFETY: by the caller's contract.
    let (scale, codes) = unsafe {
        let codes = block.add(2);
        let load = |idx: usize| _mm_loadl_epi64(codes.add(8 * idx).cast());
        (half(block), [load(0), load(1), load(2), load(3)])
    };
    codes.map(|codes| _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)), scale))
}

/// # Safety
/// 18 bytes can be read; the processor has the instructions.
#[target_feature(enable = "avx2,fma,f16c")]
#[allow(unsafe_code)]
#[inline]
unsafe fn values_q4_0(block: *const u8) -> [__m256; 4] {
    // SAFETY: by the caller's contract.
    let (scale, codes) = unsafe { (half(block), half_bytes(block.add(2))) };
    let eight = _mm_set1_epi8(8);
    codes.map(|codes| {
        let codes = _mm256_cvtepi8_epi32(_mm_sub_epi8(codes, eight));
        _mm256_mul_ps(_mm256_cvtepi32_ps(codes), scale)
    })
}

/// # Safety
/// 20 bytes can be read; the processor has the instructions.
#[target_feature(enable = "avx2,fma,f16c")]
#[allow(unsafe_code)]
#[inline]
unsafe fn values_q4_1(block: *const u8) -> [__m256; 4] {
    // SAFETY: by the caller's contract.
    let (scale, min, codes) =
        unsafe { (half(block), half(block.add(2)), half_bytes(block.add(4))) };
    codes.map(|codes| {
        let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes)), scale);
        // Two roundings, as in the conversion of whole files.
        _mm256_add_ps(scaled, min)
    })
}

/// The 32 half bytes of 16 bytes, eight at a time in the lowest bytes: the lower halves first.
///
/// # Safety
/// 16 bytes can be read; the processor has the instructions.
#[target_feature(enable = "avx2")]
#[allow(unsafe_code)]
#[inline]
unsafe fn half_bytes(codes: *const u8) -> [__m128i; 4] {
    // SAFETY: by the caller's contract.
    let codes = unsafe { _mm_loadu_si128(codes.cast()) };
    let mask = _mm_set1_epi8(15);
    let (low, high) = (_mm_and_si128(codes, mask), _mm_and_si128(_mm_srli_epi16::<4>(codes), mask));
    [low, _mm_srli_si128::<8>(low), high, _mm_srli_si128::<8>(high)]
}

/// A number in half precision in every lane.
///
/// # Safety
/// Two bytes can be read; the processor has the instructions.
#[target_feature(enable = "avx2,f16c")]
#[allow(unsafe_code)]
#[inline]
unsafe fn half(number: *const u8) -> __m256 {
    // SAFETY: by the caller's contract.
    let bits = unsafe { number.cast::<u16>().read_unaligned() };
    _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits))))
}
