//! Products in bf16 on processors without bf16 arithmetic: not faster, but the precision is that of the recipe.

use super::Value;
use crate::gemm_f32::multiply_f32;
use crate::matrix::{Matrix, MatrixMut, Write};

/// The nearest bf16 to a value, ties to even.
pub(crate) fn round(value: f32) -> f32 {
    if value.is_nan() {
        return value;
    }
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000;
    f32::from_bits(rounded)
}

/// Like [`super::multiply`], by f32 products of rounded values.
pub(super) fn multiply<T: Value>(
    out: MatrixMut,
    a: Matrix,
    b: Matrix<'_, T>,
    write: Write,
    scale: f32,
    parallel: bool,
) {
    let (a_values, b_values) = (rounded(a), rounded(b));
    let (a, b) = (a.with_values(&a_values), b.with_values(&b_values));
    multiply_f32(out, a, b, write, scale, parallel);
}

#[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
impl Value for f32 {
    fn rounded(self) -> f32 {
        round(self)
    }
}

#[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
impl Value for half::bf16 {
    fn rounded(self) -> f32 {
        self.to_f32()
    }
}

fn rounded<T: Value>(x: Matrix<'_, T>) -> Vec<f32> {
    x.values().iter().map(|value| value.rounded()).collect()
}
