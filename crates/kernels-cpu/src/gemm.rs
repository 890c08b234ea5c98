//! Matrix products of slices into a given buffer.
//!
//! Borders of blocks follow from the shape alone, so results do not depend on the number of threads.

use crate::bf16;
use crate::precision::Precision;
use crate::weight_storage;

/// Up to this many multiply-adds, threads cost more time than they save.
const ALONE: usize = 192 * 192 * 192;

/// A matrix in a slice, with the strides of rows and columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a, T = f32> {
    values: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

// The portable build does not use the parts for instructions that are selected at run time.
#[cfg_attr(feature = "portable", allow(dead_code))]
impl<'a, T: Copy> Matrix<'a, T> {
    /// Row after row.
    ///
    /// # Panics
    /// If there are not `rows * columns` values.
    pub(crate) fn new(values: &'a [T], rows: usize, columns: usize) -> Self {
        assert_eq!(values.len(), rows * columns, "a matrix of {rows} rows");
        Self { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// Rows that start `row_stride` values apart.
    ///
    /// # Panics
    /// If the last row ends after the slice, or rows overlap.
    pub(crate) fn strided(values: &'a [T], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert_rows(values.len(), rows, columns, row_stride);
        Self { values, rows, columns, row_stride, column_stride: 1 }
    }

    /// The whole slice.
    pub(crate) fn values(&self) -> &'a [T] {
        self.values
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn n_columns(&self) -> usize {
        self.columns
    }

    /// The same matrix of other values.
    ///
    /// # Panics
    /// If the number of values differs.
    pub(crate) fn with_values<U>(self, values: &[U]) -> Matrix<'_, U> {
        assert_eq!(values.len(), self.values.len(), "as many values");
        Matrix {
            values,
            rows: self.rows,
            columns: self.columns,
            row_stride: self.row_stride,
            column_stride: self.column_stride,
        }
    }

    /// The transpose.
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

// For the products in bf16.
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
impl<T> Matrix<'_, T> {
    /// Whether the values of a column are contiguous, not those of a row.
    pub(crate) fn is_transposed(&self) -> bool {
        self.column_stride != 1
    }

    /// The address of a value, which may be one after the last.
    pub(crate) fn at(&self, row: usize, column: usize) -> *const T {
        self.values.as_ptr().wrapping_add(row * self.row_stride + column * self.column_stride)
    }
}

/// A matrix to write to; the values of a row are contiguous.
#[derive(Debug)]
pub(crate) struct MatrixMut<'a> {
    values: &'a mut [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// Row after row.
    ///
    /// # Panics
    /// If there are not `rows * columns` values.
    pub(crate) fn new(values: &'a mut [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(values.len(), rows * columns, "a matrix of {rows} rows");
        Self::strided(values, rows, columns, columns)
    }

    /// Rows that start `row_stride` values apart; the values between them are not touched.
    ///
    /// # Panics
    /// If the last row ends after the slice, or rows overlap.
    pub(crate) fn strided(
        values: &'a mut [f32],
        rows: usize,
        columns: usize,
        row_stride: usize,
    ) -> Self {
        assert_rows(values.len(), rows, columns, row_stride);
        Self { values, rows, columns, row_stride }
    }
}

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
impl MatrixMut<'_> {
    pub(crate) fn n_rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn n_columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn row_stride(&self) -> usize {
        self.row_stride
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.values.as_mut_ptr()
    }

    /// Sets every value.
    pub(crate) fn fill(&mut self, value: f32) {
        for row in 0..self.rows {
            self.values[row * self.row_stride..][..self.columns].fill(value);
        }
    }
}

impl MatrixMut<'_> {
    /// # Panics
    /// If its size is not that of `a · b`, or the two do not fit.
    pub(crate) fn assert_product<T>(&self, a: Matrix, b: Matrix<'_, T>) {
        let (m, n, k) = (a.rows, b.columns, a.columns);
        assert!(
            b.rows == k && self.rows == m && self.columns == n,
            "a product of {m} × {k} by {} × {n} into {} × {}",
            b.rows,
            self.rows,
            self.columns
        );
    }
}

fn assert_rows(len: usize, rows: usize, columns: usize, row_stride: usize) {
    let end = if rows == 0 { 0 } else { (rows - 1) * row_stride + columns };
    assert!(
        end <= len && columns <= row_stride,
        "{rows} rows of {columns} every {row_stride} in {len} values"
    );
}

/// Whether a product overwrites the output or is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// The output is not read.
    Over,
    /// The product is added to the output.
    Add,
}

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

/// Like [`scaled_gemm`], with a weight in f32 or bf16.
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
            if precision == Precision::Bf16 && bf16::is_supported() {
                bf16::multiply(out, a, b, write, scale, parallel);
                return;
            }
            let values = weight_storage::widened(b.values);
            scaled_gemm(out, a, b.with_values(&values), write, scale, precision);
        }
    }
}

/// A weight in its stored format.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WeightMatrix<'a> {
    F32(Matrix<'a>),
    Bf16(Matrix<'a, half::bf16>),
}

impl WeightMatrix<'_> {
    /// The transpose.
    pub(crate) fn transposed(self) -> Self {
        match self {
            Self::F32(matrix) => Self::F32(matrix.transposed()),
            Self::Bf16(matrix) => Self::Bf16(matrix.transposed()),
        }
    }
}

/// Like [`gemm`], on the calling thread.
pub(crate) fn gemm_alone(out: MatrixMut, a: Matrix, b: Matrix, write: Write, precision: Precision) {
    match precision {
        Precision::Bf16 => bf16::multiply(out, a, b, write, 1.0, false),
        Precision::F32 | Precision::Tf32 => multiply_f32(out, a, b, write, 1.0, false),
    }
}

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

#[cfg(test)]
mod tests {
    use super::{Matrix, MatrixMut, Write, gemm, scaled_gemm};
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

    #[test]
    #[should_panic(expected = "2 rows of 2 every 3 in 4 values")]
    fn a_matrix_beyond_its_slice_panics() {
        Matrix::strided(&[0.0; 4], 2, 2, 3);
    }
}
