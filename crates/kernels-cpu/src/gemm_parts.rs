//! A product in f32 in parts, each computed by the crate `gemm` on one thread.
//!
//! Columns that must be rounded or widened first are converted by the part that multiplies them, so that they stay in its cache.
//!
//! Every value is summed in the order of the undivided product, so results depend neither on borders nor on the number of
//! threads. `gemm` sums in blocks whose length follows from the number of products of a value alone, unless a product has at
//! most 64 rows and 64 columns; borders that make parts so small follow from the shape, never from the number of threads.

use std::marker::PhantomData;

use crate::blocks::BlockRows;
use crate::matrix::{Matrix, MatrixMut, Write};
use crate::rounding::{Rounded, with_kept, with_rounded_copy};
use crate::team;

/// Columns of the output that `gemm` computes together with AVX-512. Other widths would give the same values.
const PANEL: usize = 64;
/// `gemm` computes 6 or 4 rows of the output together.
const ROWS: usize = 12;
/// Parts that are wanted, for threads that are interrupted.
const PARTS: usize = 8;
/// Rows of a part, at least, if the columns are divided first: `gemm` packs the part's columns again for each part of rows.
const SHARED_COLUMNS_ROWS: usize = 1024;
/// Rows of a part, at least, if the rows are divided first.
const OWN_ROWS: usize = 256;
/// Threads for which these numbers give parts enough. With more, parts are smaller and `gemm` packs more often.
const FEW_THREADS: usize = 2;
/// Parts for each thread of many, if they are not too small.
const PARTS_PER_THREAD: usize = 2;
/// Rows of a part for many threads, at least, if the columns are divided first.
const MANY_THREADS_SHARED_ROWS: usize = 256;
/// Rows of a part for many threads, at least, if the rows are divided first. `gemm` sums products of at most 64 rows and
/// columns in other blocks, so parts have more rows than that.
const MANY_THREADS_OWN_ROWS: usize = 96;

/// Rows and columns of the output, each from a first one to one before the last.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Part {
    rows: (usize, usize),
    columns: (usize, usize),
}

/// Divides `n` into `n_parts` ranges of nearly the same length, at borders that are multiples of `unit`.
fn ranges(n: usize, n_parts: usize, unit: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let border = move |part: usize| {
        if part == n_parts { n } else { n * part / n_parts / unit * unit }
    };
    (0..n_parts).map(move |part| (border(part), border(part + 1)))
}

/// Whether all parts multiply all rows of a, or nearly all, and each its own columns of b.
pub(crate) fn divides_columns(a: Matrix) -> bool {
    a.column_stride == 1
}

/// The parts of a product. `gemm` copies the columns of a part of b into another order, and the rows of a part of a if they
/// are strided; so b is divided first, or a if that is strided.
fn parts<R: Right>(product: &Product<'_, R>, n_threads: usize) -> Vec<Part> {
    let (rows, columns) = (product.a.rows, product.b.size().1);
    let n_panels = (columns / PANEL).max(1);
    let is_for_many = n_threads > FEW_THREADS;
    let n_wanted = if is_for_many { PARTS_PER_THREAD * n_threads } else { PARTS };
    let (row_parts, column_parts) = if divides_columns(product.a) {
        let min_rows = if is_for_many { MANY_THREADS_SHARED_ROWS } else { SHARED_COLUMNS_ROWS };
        let row_parts = n_wanted.div_ceil(n_panels).min(rows / min_rows).max(1);
        (row_parts, n_panels)
    } else if is_for_many && rows >= 2 * MANY_THREADS_OWN_ROWS {
        let row_parts = (rows / MANY_THREADS_OWN_ROWS).min(n_wanted);
        (row_parts, n_wanted.div_ceil(row_parts).min(n_panels))
    } else {
        // An even number, for two threads.
        let row_parts = 2 * ((rows + OWN_ROWS) / (2 * OWN_ROWS)).clamp(1, PARTS);
        let row_parts = row_parts.min(rows / ROWS).max(1);
        (row_parts, if row_parts == 1 { n_panels.min(2) } else { 1 })
    };
    let columns = ranges(columns, column_parts, PANEL);
    let rows = ranges(rows, row_parts, ROWS);
    rows.flat_map(|rows| columns.clone().map(move |columns| Part { rows, columns })).collect()
}

/// The right side of a product.
pub(crate) trait Right: Sync {
    /// The numbers of rows and columns.
    fn size(&self) -> (usize, usize);

    /// Calls `run` with the columns from one to before another.
    fn with_columns(&self, columns: (usize, usize), run: impl FnOnce(Matrix));
}

impl Right for Matrix<'_> {
    fn size(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    fn with_columns(&self, columns: (usize, usize), run: impl FnOnce(Matrix)) {
        run(self.columns_from(columns.0, columns.1));
    }
}

/// A matrix whose values are rounded to bf16 before they are multiplied.
pub(crate) struct RoundedFirst<'a, T>(pub(crate) Matrix<'a, T>);

impl<T: Rounded> Right for RoundedFirst<'_, T> {
    fn size(&self) -> (usize, usize) {
        (self.0.rows, self.0.columns)
    }

    fn with_columns(&self, columns: (usize, usize), run: impl FnOnce(Matrix)) {
        with_rounded_copy(self.0.columns_from(columns.0, columns.1), run);
    }
}

/// The transpose of a matrix in blocks.
impl Right for BlockRows<'_> {
    fn size(&self) -> (usize, usize) {
        (self.columns, self.n_rows())
    }

    fn with_columns(&self, columns: (usize, usize), run: impl FnOnce(Matrix)) {
        let n = columns.1 - columns.0;
        with_kept(n * self.columns, |values| {
            self.widen(values, columns.0);
            run(Matrix::new(values, n, self.columns).transposed());
        });
    }
}

/// A product whose output several threads write to, each in its own parts.
pub(crate) struct Product<'a, R> {
    out: *mut f32,
    row_stride: usize,
    a: Matrix<'a>,
    b: R,
    write: Write,
    scale: f32,
    borrowed: PhantomData<&'a mut [f32]>,
}

#[allow(unsafe_code)]
// SAFETY: the pointer is to a buffer that the product borrows mutably; parts do not overlap.
unsafe impl<R: Sync> Sync for Product<'_, R> {}

impl<'a, R: Right> Product<'a, R> {
    /// # Panics
    /// If the shapes do not fit.
    pub(crate) fn new(out: MatrixMut<'a>, a: Matrix<'a>, b: R, write: Write, scale: f32) -> Self {
        out.assert_product(a, b.size());
        let (row_stride, out) = (out.row_stride, out.values.as_mut_ptr());
        Self { out, row_stride, a, b, write, scale, borrowed: PhantomData }
    }

    /// Computes the output, on all threads or on this one.
    pub(crate) fn multiply(self, parallel: bool) {
        if parallel {
            let parts = parts(&self, rayon::current_num_threads());
            team::for_each(parts.len(), |part| self.multiply_part(parts[part]));
        } else {
            let (rows, columns) = ((0, self.a.rows), (0, self.b.size().1));
            self.multiply_part(Part { rows, columns });
        }
    }

    fn multiply_part(&self, part: Part) {
        self.b.with_columns(part.columns, |b| self.multiply_columns(part, b));
    }

    /// The part of the product with these columns of b.
    fn multiply_columns(&self, part: Part, b: Matrix) {
        let (Part { rows, columns }, Self { a, .. }) = (part, self);
        let at = |row: usize, column: usize, strides: (usize, usize)| {
            row * strides.0 + column * strides.1
        };
        #[allow(unsafe_code)]
        // SAFETY: the constructors of the matrices checked that every row and column is within its slice, and the part is
        // within the output. The output is borrowed mutably, so it overlaps neither input, and no other part has its
        // values. With `Write::Over` it is not read.
        unsafe {
            gemm::gemm(
                rows.1 - rows.0,
                columns.1 - columns.0,
                a.columns,
                self.out.wrapping_add(at(rows.0, columns.0, (self.row_stride, 1))),
                1,
                self.row_stride as isize,
                self.write == Write::Add,
                a.values.as_ptr().wrapping_add(at(rows.0, 0, (a.row_stride, 0))),
                a.column_stride as isize,
                a.row_stride as isize,
                b.values.as_ptr(),
                b.column_stride as isize,
                b.row_stride as isize,
                1.0,
                self.scale,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Part, Product, ROWS, parts, ranges};
    use crate::matrix::{Matrix, MatrixMut, Write};

    fn values(n: usize, from: usize) -> Vec<f32> {
        (from..from + n).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect()
    }

    #[test]
    fn ranges_cover_everything_once() {
        for (n, n_parts, unit) in
            [(64, 1, 64), (65, 1, 64), (1000, 7, 64), (13, 1, 12), (500, 4, 12)]
        {
            let found: Vec<_> = ranges(n, n_parts, unit).collect();
            assert_eq!((found[0].0, found[n_parts - 1].1, found.len()), (0, n, n_parts));
            assert!(found.windows(2).all(|pair| pair[0].1 == pair[1].0), "{found:?}");
            assert!(found.iter().all(|(from, to)| from < to), "{found:?}");
        }
    }

    /// Each value once, and each with the bits of the undivided product.
    #[test]
    fn a_product_in_parts_is_the_whole_product() {
        for (m, k, n) in [
            (1, 300, 300),
            (300, 300, 1),
            (7, 520, 333),
            (2100, 40, 65),
            (2100, 33, 200),
            (517, 600, 129),
            (1030, 1100, 64),
            (90, 700, 1000),
        ] {
            let (a_values, b_values) = (values(m * k, 0), values(k * n, 5));
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
                let (mut got, mut want) = (vec![0.25; m * n], vec![0.25; m * n]);
                let product = Product::new(MatrixMut::new(&mut got, m, n), a, b, write, 0.5);
                let is_in = |part: &&Part, row: usize, column: usize| {
                    (part.rows.0..part.rows.1).contains(&row)
                        && (part.columns.0..part.columns.1).contains(&column)
                };
                for n_threads in [1, 2, 8, 64] {
                    let parts = parts(&product, n_threads);
                    for (row, column) in [(0, 0), (m - 1, n - 1), (m / 2, n / 2), (m - 1, 0)] {
                        assert_eq!(parts.iter().filter(|part| is_in(part, row, column)).count(), 1);
                    }
                }
                product.multiply(true);
                let out = MatrixMut::new(&mut want, m, n);
                Product::new(out, a, b, write, 0.5).multiply(false);
                for (got, want) in got.iter().zip(&want) {
                    assert!((got - want).abs() < 1e-4, "{m} {k} {n} {case}: {got} {want}");
                }
                if k <= 512 && m > ROWS && n > 64 {
                    assert_eq!(got, want, "{m} {k} {n} {case}");
                }
            }
        }
    }

    /// More parts for more threads, with the same bits, also where `gemm` sums in several blocks.
    #[test]
    fn more_threads_get_smaller_parts_and_the_same_bits() {
        for (m, k, n, strided) in [
            (2048, 256, 768, false),
            (768, 2048, 256, true),
            (200, 1500, 333, true),
            (130, 2048, 64, true),
            (600, 1300, 130, false),
            (64, 1300, 300, false),
        ] {
            let (a_values, b_values) = (values(m * k, 0), values(k * n, 5));
            let a = if strided {
                Matrix::new(&a_values, k, m).transposed()
            } else {
                Matrix::new(&a_values, m, k)
            };
            let b = Matrix::new(&b_values, k, n);
            let multiplied = |n_threads: usize| {
                let mut out = vec![0.0; m * n];
                let product = Product::new(MatrixMut::new(&mut out, m, n), a, b, Write::Over, 1.0);
                let parts = parts(&product, n_threads);
                for part in &parts {
                    product.multiply_part(*part);
                }
                let n_parts = parts.len();
                (out, n_parts)
            };
            let (few, few_parts) = multiplied(2);
            for n_threads in [5, 16, 64] {
                let (many, many_parts) = multiplied(n_threads);
                assert!(few == many, "{m} {k} {n} on {n_threads} threads");
                assert!(many_parts >= few_parts.min(n_threads), "{many_parts} {few_parts}");
            }
            if m * n > 1 << 17 {
                assert!(multiplied(16).1 >= 16, "{m} {k} {n}");
            }
        }
    }
}
