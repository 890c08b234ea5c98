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
    out.assert_product(a, b);
    if out.rows == 0 || out.columns == 0 {
        return;
    }
    let parallelism = if parallel { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    #[cfg(feature = "portable")]
    checked(out, a, b, write, scale, parallelism);
    #[cfg(not(feature = "portable"))]
    #[allow(unsafe_code)]
    // SAFETY: the constructors of the matrices checked that every row and column is within its slice; the output is
    // borrowed mutably for the lifetime of `out`, so it overlaps neither input. With `Write::Over` it is not read.
    unsafe {
        gemm::gemm(
            out.rows,
            out.columns,
            a.columns,
            out.values.as_mut_ptr(),
            1,
            out.row_stride as isize,
            write == Write::Add,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// The product by loops over slices.
#[cfg(feature = "portable")]
fn checked(out: MatrixMut, a: Matrix, b: Matrix, write: Write, scale: f32, _: gemm::Parallelism) {
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
