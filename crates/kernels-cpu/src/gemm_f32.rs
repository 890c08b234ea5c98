//! Matrix products in f32, by the crate `gemm`.

use crate::matrix::{Matrix, MatrixMut, Write};

/// `out = scale · a · b`, or added to it, in f32.
pub(crate) fn multiply_f32(
    out: MatrixMut,
    a: Matrix,
    b: Matrix,
    write: Write,
    scale: f32,
    parallel: bool,
) {
    out.assert_product(a, (b.rows, b.columns));
    if out.rows == 0 || out.columns == 0 {
        return;
    }
    #[cfg(feature = "portable")]
    checked(out, a, b, write, scale, parallel);
    #[cfg(not(feature = "portable"))]
    crate::gemm_parts::Product::new(out, a, b, write, scale).multiply(parallel);
}

/// The product by loops over slices.
#[cfg(feature = "portable")]
fn checked(out: MatrixMut, a: Matrix, b: Matrix, write: Write, scale: f32, _: bool) {
    for row in 0..out.rows {
        let sums = &mut out.values[row * out.row_stride..][..out.columns];
        if write == Write::Over {
            sums.fill(0.0);
        }
        for (column, sum) in sums.iter_mut().enumerate() {
            let of_one = |idx: usize| {
                let a = a.values[row * a.row_stride + idx * a.column_stride];
                a * b.values[idx * b.row_stride + column * b.column_stride]
            };
            *sum += scale * (0..a.columns).map(of_one).sum::<f32>();
        }
    }
}
