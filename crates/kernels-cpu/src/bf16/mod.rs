//! Matrix products of values rounded to bf16, summed in f32.
//!
//! Both sides are rounded; nothing else is bf16. There are two ways to multiply ([`Bf16Products`]), with other last bits: the
//! faster one is found by measuring it, once in a process.

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod blocks;
mod choice;
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod micro;
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod pack;

use crate::gemm_f32::multiply_f32;
#[cfg(not(feature = "portable"))]
use crate::gemm_parts;
use crate::matrix::{Matrix, MatrixMut, Write};
use crate::precision::Precision;
use crate::rounding::{Rounded, contiguous, copy_of};
pub use choice::{Bf16Products, bf16_products, set_bf16_products};

/// Element of a matrix: f32, which is rounded, or bf16.
pub(crate) trait Value: Packed + Rounded {}
impl<T: Packed + Rounded> Value for T {}

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
pub(crate) use pack::Packed;

/// Nothing is packed here.
#[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
pub(crate) trait Packed: Copy + Send + Sync {}
#[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
impl<T: Copy + Send + Sync> Packed for T {}

/// Whether products in that precision multiply rounded copies: then what several of them multiply is better rounded once.
pub(crate) fn multiplies_copies(precision: Precision) -> bool {
    precision == Precision::Bf16 && bf16_products() == Bf16Products::Rounded
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
    multiply_by(bf16_products(), out, (a, b), write, scale, parallel);
}

/// # Panics
/// If the shapes do not fit, or the processor lacks the instructions.
fn multiply_by<T: Value>(
    #[cfg_attr(feature = "portable", expect(unused_variables))] products: Bf16Products,
    out: MatrixMut,
    (a, b): (Matrix, Matrix<'_, T>),
    write: Write,
    scale: f32,
    parallel: bool,
) {
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    if products == Bf16Products::Pairs {
        assert!(products.is_supported(), "no {products:?} here");
        blocks::multiply(out, a, b, write, scale, parallel);
        return;
    }
    multiply_rounded(out, a, b, write, scale, parallel);
}

/// Products in f32 of rounded values.
fn multiply_rounded<T: Rounded>(
    out: MatrixMut,
    a: Matrix,
    b: Matrix<'_, T>,
    write: Write,
    scale: f32,
    parallel: bool,
) {
    let a_copy;
    let a = if a.is_rounded {
        a
    } else {
        a_copy = copy_of(a, parallel);
        contiguous(&a_copy, a)
    };
    #[cfg(not(feature = "portable"))]
    if !b.is_rounded && gemm_parts::divides_columns(a) {
        let b = gemm_parts::RoundedFirst(b);
        gemm_parts::Product::new(out, a, b, write, scale).multiply(parallel);
        return;
    }
    let b_copy;
    let b = match T::as_f32(b.values) {
        Some(values) if b.is_rounded => b.with_values(values),
        _ => {
            b_copy = copy_of(b, parallel);
            contiguous(&b_copy, b)
        }
    };
    multiply_f32(out, a, b, write, scale, parallel);
}

// A skipped test prints a note.
#[cfg(test)]
#[allow(clippy::print_stdout)]
mod tests {
    use super::{Bf16Products, multiply_by};
    use crate::gemm_f32::multiply_f32;
    use crate::matrix::{Matrix, MatrixMut, Write};
    use crate::rounding::round;

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
        for products in every_one() {
            check_shapes(products);
        }
    }

    /// The ways to multiply on this processor.
    fn every_one() -> Vec<Bf16Products> {
        let all = Bf16Products::ALL.into_iter();
        let (found, missing): (Vec<_>, Vec<_>) = all.partition(|products| products.is_supported());
        for products in missing {
            println!("skipped: no {products:?} here");
        }
        found
    }

    fn check_shapes(products: Bf16Products) {
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
                let out = MatrixMut::strided(&mut got, m, n, width);
                multiply_by(products, out, (a, b), write, 0.5, true);
                let (a, b) = (a.with_values(&a_rounded), b.with_values(&b_rounded));
                let out = MatrixMut::strided(&mut want, m, n, width);
                multiply_f32(out, a, b, write, 0.5, false);
                for (got, want) in got.iter().zip(&want) {
                    let near = (got - want).abs() < 1e-5 * (k as f32 + 1.0);
                    assert!(near, "{products:?} {m} {n} {k} {case}: {got} {want}");
                }
            }
        }
    }

    #[test]
    fn values_that_are_not_finite_stay_so() {
        let (a, b) = ([f32::NAN, 1.0], [1.0, f32::INFINITY]);
        for (row, want) in [(&a, f32::NAN), (&b, f32::INFINITY)] {
            for products in every_one() {
                let mut out = [0.0];
                let (x, ones) = (Matrix::new(row, 1, 2), Matrix::new(&[1.0, 1.0], 2, 1));
                let over = MatrixMut::new(&mut out, 1, 1);
                multiply_by(products, over, (x, ones), Write::Over, 1.0, false);
                assert!(out[0] == want || out[0].is_nan() && want.is_nan(), "{} {want}", out[0]);
            }
        }
    }
}
