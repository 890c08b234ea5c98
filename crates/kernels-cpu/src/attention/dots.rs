//! Dot products of a query with many keys, for decoding.
//!
//! Sums are over sixteen lanes and then by halves, for one key as for sixteen at a time, so results are equal to the bit
//! on every processor.

use crate::simd::{self, multiversion};

/// `scores[i]` = query · key i, with keys `stride` apart.
pub(super) fn dots(scores: &mut [f32], query: &[f32], keys: &[f32], stride: usize) {
    let stride = stride.max(query.len());
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    if query.len().is_multiple_of(16) && !query.is_empty() && simd::has_avx512() {
        let n = scores.len() / 16 * 16;
        assert!(n == 0 || keys.len() >= (n - 1) * stride + query.len(), "{n} keys");
        let (sixteens, rest) = scores.as_chunks_mut::<16>();
        for (idx, scores) in sixteens.iter_mut().enumerate() {
            #[allow(unsafe_code)]
            // SAFETY: the processor has the instructions; sixteen keys start there, checked above.
            unsafe {
                avx512::sixteen(scores, query, keys.as_ptr().add(idx * 16 * stride), stride);
            }
        }
        if !rest.is_empty() {
            one_by_one(rest, query, &keys[n * stride..], stride);
        }
        return;
    }
    one_by_one(scores, query, keys, stride);
}

multiversion! {
    fn one_by_one(scores: &mut [f32], query: &[f32], keys: &[f32], stride: usize) {
        let keys = keys.chunks(stride);
        match query.len() {
            32 => dots_of_width::<32>(scores, query, keys),
            64 => dots_of_width::<64>(scores, query, keys),
            128 => dots_of_width::<128>(scores, query, keys),
            _ => {
                for (score, key) in scores.iter_mut().zip(keys) {
                    *score = simd::dot(query, &key[..query.len()]);
                }
            }
        }
    }
}

/// For a width known at compile time, without a loop for the remainder.
#[inline(always)]
#[allow(clippy::inline_always)]
fn dots_of_width<'a, const K: usize>(
    scores: &mut [f32],
    query: &[f32],
    keys: impl Iterator<Item = &'a [f32]>,
) {
    let Some(query) = query.first_chunk::<K>() else { return };
    for (score, key) in scores.iter_mut().zip(keys) {
        let Some(key) = key.first_chunk::<K>() else { return };
        *score = simd::dot(query, key);
    }
}

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod avx512 {
    //! Sixteen keys at a time: their lanes are summed by halves together, which leaves one sum per lane.

    use std::arch::x86_64::{
        __m512, _mm512_add_ps, _mm512_loadu_ps, _mm512_mul_ps, _mm512_permutexvar_ps,
        _mm512_setr_epi32, _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_shuffle_ps,
        _mm512_storeu_ps,
    };

    /// # Safety
    /// The processor has AVX-512F; a key of the query's width can be read at `keys` and at the next fifteen positions
    /// `stride` apart.
    #[target_feature(enable = "avx512f")]
    #[allow(unsafe_code)]
    pub(super) unsafe fn sixteen(
        scores: &mut [f32; 16],
        query: &[f32],
        keys: *const f32,
        stride: usize,
    ) {
        let mut sums = [_mm512_setzero_ps(); 16];
        let (parts, _) = query.as_chunks::<16>();
        for (part, query) in parts.iter().enumerate() {
            // SAFETY: the part is one vector, and so is that part of each key.
            unsafe {
                let query = _mm512_loadu_ps(query.as_ptr());
                for (idx, sum) in sums.iter_mut().enumerate() {
                    let key = _mm512_loadu_ps(keys.add(idx * stride + 16 * part));
                    *sum = _mm512_add_ps(*sum, _mm512_mul_ps(query, key));
                }
            }
        }
        let eights: [__m512; 8] = std::array::from_fn(|idx| {
            let (a, b) = (sums[2 * idx], sums[2 * idx + 1]);
            let low = _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b);
            let high = _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b);
            _mm512_add_ps(low, high)
        });
        let fours: [__m512; 4] = std::array::from_fn(|idx| {
            let (a, b) = (eights[2 * idx], eights[2 * idx + 1]);
            let low = _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
            let high = _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b);
            _mm512_add_ps(low, high)
        });
        let twos: [__m512; 2] = std::array::from_fn(|idx| {
            let (a, b) = (fours[2 * idx], fours[2 * idx + 1]);
            let low = _mm512_shuffle_ps::<0b01_00_01_00>(a, b);
            let high = _mm512_shuffle_ps::<0b11_10_11_10>(a, b);
            _mm512_add_ps(low, high)
        });
        let low = _mm512_shuffle_ps::<0b10_00_10_00>(twos[0], twos[1]);
        let high = _mm512_shuffle_ps::<0b11_01_11_01>(twos[0], twos[1]);
        let sums = _mm512_add_ps(low, high);
        // Lane 4·i + j holds key 4·j + i.
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        // SAFETY: sixteen scores are one vector.
        unsafe { _mm512_storeu_ps(scores.as_mut_ptr(), _mm512_permutexvar_ps(order, sums)) };
    }
}

#[cfg(test)]
mod tests {
    use super::{dots, one_by_one};

    #[test]
    fn the_bits_of_sixteen_keys_are_those_of_one() {
        for (width, stride, n) in
            [(16, 16, 1), (32, 32, 16), (32, 40, 45), (64, 64, 33), (48, 50, 64), (7, 9, 20)]
        {
            let value = |i: usize| (i * 7919 % 1009) as f32 / 504.5 - 1.0;
            let query: Vec<f32> = (0..width).map(value).collect();
            let keys: Vec<f32> = (0..(n - 1) * stride + width).map(|i| value(i + 3)).collect();
            let (mut all, mut each) = (vec![0.0; n], vec![0.0; n]);
            dots(&mut all, &query, &keys, stride);
            one_by_one(&mut each, &query, &keys, stride);
            assert_eq!(all, each, "{width} {stride} {n}");
        }
    }
}
