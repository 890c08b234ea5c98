//! Matrix products of values rounded to bf16, summed in f32.
//!
//! Both sides are rounded while they are packed in the order of the instruction `vdpbf16ps`; nothing else is bf16.
//! Processors without that instruction multiply the rounded values as f32: the same products in another order of sums, and
//! no faster than f32.

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod blocks;
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod micro;
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod pack;
mod rounding;

#[cfg(test)]
pub(crate) use rounding::round;

use crate::matrix::{Matrix, MatrixMut, Write};

/// Whether this processor multiplies bf16 faster than f32.
pub fn is_supported() -> bool {
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    {
        // Called for every product, so the processor is queried once.
        static FOUND: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *FOUND.get_or_init(|| {
            std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512vl")
                && std::arch::is_x86_feature_detected!("avx512bf16")
        })
    }
    #[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
    {
        false
    }
}

/// Element of a matrix: f32, which is rounded while it is packed, or bf16.
pub(crate) trait Value: Copy + Send + Sync {
    /// Rounded to bf16.
    fn rounded(self) -> f32;

    /// `n` (at most 16) pairs of the values at `low` and those at `high`, or zeros without `high`.
    ///
    /// # Safety
    /// The processor has AVX-512 F, BW and BF16; `n` values can be read at `low` and at `high`.
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    #[allow(unsafe_code)]
    unsafe fn pairs(low: *const Self, high: Option<*const Self>, n: usize) -> pack::Pairs;

    /// Pairs of neighbours among the first `n` (at most 32) values, then zeros.
    ///
    /// # Safety
    /// As for [`Self::pairs`].
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    #[allow(unsafe_code)]
    unsafe fn pairs_along(values: *const Self, n: usize) -> pack::Pairs;
}

/// `out = scale · a · b`, or added to it, with both sides rounded to bf16.
///
/// # Panics
/// If the shapes do not fit.
pub(crate) fn multiply<T: Value>(
    out: MatrixMut,
    a: Matrix,
    b: Matrix<'_, T>,
    write: Write,
    scale: f32,
    parallel: bool,
) {
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    if is_supported() {
        blocks::multiply(out, a, b, write, scale, parallel);
        return;
    }
    rounding::multiply(out, a, b, write, scale, parallel);
}

// A skipped test prints a note.
#[cfg(test)]
#[allow(clippy::print_stdout)]
mod tests {
    use super::{is_supported, multiply, round};
    use crate::gemm_f32::multiply_f32;
    use crate::matrix::{Matrix, MatrixMut, Write};

    /// Values that bf16 cannot represent exactly.
    fn values(n: usize, from: usize) -> Vec<f32> {
        (from..from + n).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect()
    }

    #[test]
    fn rounding_is_to_the_nearest_and_ties_to_even() {
        let ulp = 1.0 / 128.0;
        for (value, want) in [
            (1.0, 1.0),
            (1.0 + 0.4 * ulp, 1.0),
            (1.0 + 0.5 * ulp, 1.0),
            (1.0 + 1.5 * ulp, 1.0 + 2.0 * ulp),
            (-1.0 - 0.6 * ulp, -1.0 - ulp),
            (f32::MAX, f32::INFINITY),
            (0.0, 0.0),
        ] {
            assert_eq!(round(value), want, "{value}");
        }
        assert!(round(f32::NAN).is_nan());
    }

    #[test]
    fn products_of_any_shape_and_order_are_those_of_rounded_values() {
        if !is_supported() {
            println!("skipped: no bf16 products here");
            return;
        }
        for (m, n, k) in [
            (1, 1, 1),
            (3, 5, 2),
            (14, 32, 512),
            (15, 33, 513),
            (100, 70, 1030),
            (2, 300, 7),
            (300, 2, 9),
            (64, 64, 64),
            (1000, 50, 100),
            (50, 1100, 33),
            (4, 4, 0),
        ] {
            let (a_values, b_values) = (values(m * k, 0), values(n * k, 5));
            let rounded = |values: &[f32]| values.iter().copied().map(round).collect::<Vec<_>>();
            let (a_rounded, b_rounded) = (rounded(&a_values), rounded(&b_values));
            for case in 0..8 {
                let matrix = |values, rows, columns, transposed| {
                    if transposed {
                        Matrix::new(values, columns, rows).transposed()
                    } else {
                        Matrix::new(values, rows, columns)
                    }
                };
                let a = matrix(&a_values, m, k, case & 1 > 0);
                let b = matrix(&b_values, k, n, case & 2 > 0);
                let write = if case & 4 > 0 { Write::Add } else { Write::Over };
                let width = n + 3;
                let (mut got, mut want) = (vec![0.25; m * width], vec![0.25; m * width]);
                multiply(MatrixMut::strided(&mut got, m, n, width), a, b, write, 0.5, true);
                let (a, b) = (a.with_values(&a_rounded), b.with_values(&b_rounded));
                let out = MatrixMut::strided(&mut want, m, n, width);
                multiply_f32(out, a, b, write, 0.5, false);
                for (got, want) in got.iter().zip(&want) {
                    let near = (got - want).abs() < 1e-5 * (k as f32 + 1.0);
                    assert!(near, "{m} {n} {k} {case}: {got} {want}");
                }
            }
        }
    }

    #[test]
    fn values_that_are_not_finite_stay_so() {
        let (a, b) = ([f32::NAN, 1.0], [1.0, f32::INFINITY]);
        for (row, want) in [(&a, f32::NAN), (&b, f32::INFINITY)] {
            let mut out = [0.0];
            let (x, ones) = (Matrix::new(row, 1, 2), Matrix::new(&[1.0, 1.0], 2, 1));
            multiply(MatrixMut::new(&mut out, 1, 1), x, ones, Write::Over, 1.0, false);
            assert!(out[0] == want || out[0].is_nan() && want.is_nan(), "{} {want}", out[0]);
        }
    }
}
