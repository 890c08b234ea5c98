//! Sixteen values at a time, in the registers of each kind of processor.

// Each function is an instruction or two, and a call from code for other instructions could not be inlined later.
#![allow(clippy::inline_always)]

pub(super) use crate::simd::LANES;

/// Sixteen values.
///
/// Those in registers are only for functions that are compiled for their instructions.
pub(super) trait Lanes: Copy {
    fn load(values: &[f32; LANES]) -> Self;

    fn store(self, values: &mut [f32; LANES]);

    /// One value in each lane.
    fn splat(value: f32) -> Self;

    /// `self + a · b`, rounded once.
    fn plus_product(self, a: Self, b: Self) -> Self;
}

impl Lanes for [f32; LANES] {
    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        *values
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; LANES]) {
        *values = self;
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        [value; LANES]
    }

    #[inline(always)]
    fn plus_product(self, a: Self, b: Self) -> Self {
        let mut sums = self;
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(&b)) {
            *sum = a.mul_add(*b, *sum);
        }
        sums
    }
}

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
pub(super) mod x86 {
    //! Vectors of AVX-512 and of AVX2.

    use std::arch::x86_64::{
        __m256, __m512, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_storeu_ps,
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_storeu_ps,
    };

    use super::{LANES, Lanes};

    /// One vector, with AVX-512F.
    #[derive(Clone, Copy)]
    pub(in super::super) struct One(__m512);

    #[allow(unsafe_code)]
    // SAFETY of all blocks: only functions for AVX-512F use this type, and sixteen values are read or written.
    impl Lanes for One {
        #[inline(always)]
        fn load(values: &[f32; LANES]) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm512_loadu_ps(values.as_ptr()) })
        }

        #[inline(always)]
        fn store(self, values: &mut [f32; LANES]) {
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(values.as_mut_ptr(), self.0) };
        }

        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm512_set1_ps(value) })
        }

        #[inline(always)]
        fn plus_product(self, a: Self, b: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
        }
    }

    /// Two vectors, with AVX2 and fused multiply-adds.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Two(__m256, __m256);

    #[allow(unsafe_code)]
    // SAFETY of all blocks: only functions for AVX2 and FMA use this type, and sixteen values are read or written.
    impl Lanes for Two {
        #[inline(always)]
        fn load(values: &[f32; LANES]) -> Self {
            // SAFETY: as above.
            unsafe {
                let start = values.as_ptr();
                Self(_mm256_loadu_ps(start), _mm256_loadu_ps(start.add(LANES / 2)))
            }
        }

        #[inline(always)]
        fn store(self, values: &mut [f32; LANES]) {
            // SAFETY: as above.
            unsafe {
                let start = values.as_mut_ptr();
                _mm256_storeu_ps(start, self.0);
                _mm256_storeu_ps(start.add(LANES / 2), self.1);
            }
        }

        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: as above.
            let all = unsafe { _mm256_set1_ps(value) };
            Self(all, all)
        }

        #[inline(always)]
        fn plus_product(self, a: Self, b: Self) -> Self {
            // SAFETY: as above.
            unsafe { Self(_mm256_fmadd_ps(a.0, b.0, self.0), _mm256_fmadd_ps(a.1, b.1, self.1)) }
        }
    }
}
