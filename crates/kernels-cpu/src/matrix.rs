//! Matrices in slices: the operands and outputs of products.

/// A matrix in a slice, with the strides of rows and columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a, T = f32> {
    pub(crate) values: &'a [T],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
    /// Whether bf16 represents each value, so that rounding to it changes nothing.
    pub(crate) is_rounded: bool,
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
        Self { values, rows, columns, row_stride: columns, column_stride: 1, is_rounded: false }
    }

    /// Rows that start `row_stride` values apart.
    ///
    /// # Panics
    /// If the last row ends after the slice, or rows overlap.
    pub(crate) fn strided(values: &'a [T], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert_rows(values.len(), rows, columns, row_stride);
        Self { values, rows, columns, row_stride, column_stride: 1, is_rounded: false }
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
            is_rounded: false,
        }
    }

    /// The columns from one to before another.
    ///
    /// # Panics
    /// If there are no such columns.
    pub(crate) fn columns_from(self, from: usize, to: usize) -> Self {
        assert!(from <= to && to <= self.columns, "columns {from} to {to} of {}", self.columns);
        let start = (from * self.column_stride).min(self.values.len());
        Self { values: &self.values[start..], columns: to - from, ..self }
    }

    /// Says that bf16 represents each value, if so.
    pub(crate) fn with_rounded(self, is_rounded: bool) -> Self {
        Self { is_rounded, ..self }
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
    pub(crate) values: &'a mut [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: usize,
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
    /// If its size is not that of `a` times a matrix of a number of rows and of columns, or the two do not fit.
    pub(crate) fn assert_product(&self, a: Matrix, (rows, n): (usize, usize)) {
        let (m, k) = (a.rows, a.columns);
        assert!(
            rows == k && self.rows == m && self.columns == n,
            "a product of {m} × {k} by {rows} × {n} into {} × {}",
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

/// A weight in its stored format.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WeightMatrix<'a> {
    F32(Matrix<'a>),
    Bf16(Matrix<'a, half::bf16>),
    Blocks { rows: crate::blocks::BlockRows<'a>, transposed: bool },
}

impl WeightMatrix<'_> {
    /// The transpose.
    pub(crate) fn transposed(self) -> Self {
        match self {
            Self::F32(matrix) => Self::F32(matrix.transposed()),
            Self::Bf16(matrix) => Self::Bf16(matrix.transposed()),
            Self::Blocks { rows, transposed } => Self::Blocks { rows, transposed: !transposed },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Matrix;

    #[test]
    #[should_panic(expected = "2 rows of 2 every 3 in 4 values")]
    fn a_matrix_beyond_its_slice_panics() {
        Matrix::strided(&[0.0; 4], 2, 2, 3);
    }
}
