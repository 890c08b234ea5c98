//! Matrix products of slices into a given buffer.
//!
//! Borders of blocks follow from the shape alone, so results do not depend on the number of threads.

use crate::bf16;
use crate::blocks::BlockRows;
use crate::gemm_f32::multiply_f32;
#[cfg(not(feature = "portable"))]
use crate::gemm_parts::Product;
use crate::matrix::{Matrix, MatrixMut, WeightMatrix, Write};
use crate::precision::Precision;
use crate::weight_storage;

/// Up to this many multiply-adds, threads cost more time than they save.
const ALONE: usize = 192 * 192 * 192;

/// `out = a · b`, or `out += a · b`; on all threads if the product is large enough.
///
/// # Panics
/// If the shapes do not fit.
pub(crate) fn gemm(out: MatrixMut, a: Matrix, b: Matrix, write: Write, precision: Precision) {
    scaled_gemm(out, a, b, write, 1.0, precision);
}

/// Like [`gemm`], with the product times `scale`.
pub(crate) fn scaled_gemm(
    out: MatrixMut,
    a: Matrix,
    b: Matrix,
    write: Write,
    scale: f32,
    precision: Precision,
) {
    let parallel = a.rows * b.columns * a.columns > ALONE;
    match precision {
        Precision::Bf16 => bf16::multiply(out, a, b, write, scale, parallel),
        Precision::F32 | Precision::Tf32 => multiply_f32(out, a, b, write, scale, parallel),
    }
}

/// Like [`scaled_gemm`], with a weight as it is stored.
pub(crate) fn weight_gemm(
    out: MatrixMut,
    a: Matrix,
    weight: WeightMatrix,
    write: Write,
    scale: f32,
    precision: Precision,
) {
    match weight {
        WeightMatrix::F32(b) => scaled_gemm(out, a, b, write, scale, precision),
        WeightMatrix::Bf16(b) => {
            let parallel = a.rows * b.columns * a.columns > ALONE;
            if precision == Precision::Bf16 {
                bf16::multiply(out, a, b, write, scale, parallel);
                return;
            }
            let values = weight_storage::widened(b.values);
            scaled_gemm(out, a, b.with_values(&values), write, scale, precision);
        }
        WeightMatrix::Blocks { rows, transposed } => {
            block_gemm(out, a, rows, transposed, write, scale, precision);
        }
    }
}

/// Like [`scaled_gemm`], with a weight in blocks, which are converted by the part that multiplies them where the columns of the
/// right side are the rows of the weight.
fn block_gemm(
    out: MatrixMut,
    a: Matrix,
    weight: BlockRows<'_>,
    transposed: bool,
    write: Write,
    scale: f32,
    precision: Precision,
) {
    #[cfg(not(feature = "portable"))]
    if transposed && precision != Precision::Bf16 {
        if out.rows > 0 && out.columns > 0 {
            let parallel = a.rows * weight.len() > ALONE;
            Product::new(out, a, weight, write, scale).multiply(parallel);
        }
        return;
    }
    let values = weight.widened();
    let b = Matrix::new(&values, weight.n_rows(), weight.columns);
    let b = if transposed { b.transposed() } else { b };
    scaled_gemm(out, a, b, write, scale, precision);
}

#[cfg(test)]
mod tests {
    use super::{gemm, scaled_gemm};
    use crate::matrix::{Matrix, MatrixMut, Write};
    use crate::precision::Precision;

    #[test]
    fn products_of_both_orders() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let b = [1.0, 0.0, 2.0, 1.0, -1.0, 1.0];
        let mut out = [10.0; 4];
        let (a, b) = (Matrix::new(&a, 2, 3), Matrix::new(&b, 3, 2));
        gemm(MatrixMut::new(&mut out, 2, 2), a, b, Write::Over, Precision::F32);
        assert_eq!(out, [2.0, 5.0, 8.0, 11.0]);
        let a = Matrix::new(a.values, 3, 2).transposed();
        scaled_gemm(MatrixMut::new(&mut out, 2, 2), a, b, Write::Add, 2.0, Precision::F32);
        assert_eq!(out, [2.0 + 4.0, 5.0 + 16.0, 8.0 + 8.0, 11.0 + 20.0]);
    }

    #[test]
    fn values_between_strided_rows_are_not_touched() {
        let a = [1.0, 2.0, 9.0, 3.0, 4.0];
        let b = [1.0, 0.0, 0.0, 1.0];
        let mut out = [7.0; 5];
        let a = Matrix::strided(&a, 2, 2, 3);
        gemm(
            MatrixMut::strided(&mut out, 2, 2, 3),
            a,
            Matrix::new(&b, 2, 2),
            Write::Over,
            Precision::F32,
        );
        assert_eq!(out, [1.0, 2.0, 7.0, 3.0, 4.0]);
    }
}
