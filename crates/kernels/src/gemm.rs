//! Matrix products into a given buffer, over plain slices.
//!
//! Borders of its blocks follow from the shape alone, so results don't depend on the threads.

/// Below this many multiply-adds threads cost more than they save.
const ALONE: usize = 192 * 192 * 192;

/// A matrix in a slice: how far apart rows and columns stand.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row after row.
    ///
    /// # Panics
    /// If there are not `rows * columns` values.
    pub(crate) fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(values.len(), rows * columns, "a matrix of {rows} rows");
        Self { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// Rows for columns.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// `out = a · b`, or `out += a · b`; `out` stands row after row.
///
/// # Panics
/// If the shapes don't fit.
pub(crate) fn gemm(out: &mut [f32], a: Matrix, b: Matrix, add: bool) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert!(b.rows == k && out.len() == m * n, "a product of {m} × {k} by {} × {n}", b.rows);
    if m == 0 || n == 0 {
        return;
    }
    let parallelism =
        if m * n * k > ALONE { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    #[allow(unsafe_code)]
    // SAFETY: both matrices and the output are whole slices of rows × columns values (checked in
    // `Matrix::new` and above) with strides of the one or the other order, so every index lies
    // within them; the output is borrowed mutably, so it overlaps neither.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            add,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{Matrix, gemm};

    #[test]
    fn products_of_both_orders() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let b = [1.0, 0.0, 2.0, 1.0, -1.0, 1.0];
        let mut out = [10.0; 4];
        gemm(&mut out, Matrix::new(&a, 2, 3), Matrix::new(&b, 3, 2), false);
        assert_eq!(out, [2.0, 5.0, 8.0, 11.0]);
        gemm(&mut out, Matrix::new(&a, 3, 2).transposed(), Matrix::new(&b, 3, 2), true);
        assert_eq!(out, [2.0 + 2.0, 5.0 + 8.0, 8.0 + 4.0, 11.0 + 10.0]);
    }
}
