//! Products of small matrices, for tiles of scores: nothing is copied into another order, and eight rows of the output by 32
//! columns stay in registers.
//!
//! A value is summed over the inner axis in order, by fused multiply-adds. So it has the same bits on every processor, in
//! whatever parts it is computed.

use std::array::from_fn;

pub(super) use super::lanes::LANES;
use super::lanes::Lanes;
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
use super::lanes::x86;
use crate::matrix::{Matrix, MatrixMut, Write};
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
use crate::simd;

/// Rows of the output per tile.
pub(super) const ROWS: usize = 8;
/// Columns of the right side per panel.
pub(super) const PANEL: usize = 32;

/// The right side of a product: rows of 32 columns, panel after panel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panels<'a> {
    values: &'a [f32],
    /// Distance of the first values of panels.
    panel_stride: usize,
    row_stride: usize,
}

impl<'a> Panels<'a> {
    /// Panels of `rows` rows, one after the other.
    pub(super) fn packed(values: &'a [f32], rows: usize) -> Self {
        Self { values, panel_stride: rows * PANEL, row_stride: PANEL }
    }

    /// A matrix of rows of `width` values, a multiple of [`LANES`].
    pub(super) fn of_rows(values: &'a [f32], width: usize) -> Self {
        Self { values, panel_stride: PANEL, row_stride: width }
    }

    fn from(&self, row: usize, column: usize) -> &'a [f32] {
        let panel = column / PANEL * self.panel_stride;
        &self.values[panel + column % PANEL + row * self.row_stride..]
    }
}

/// The part of a tile of [`ROWS`] rows of the output that is computed, and the rows of the right side that are multiplied. An
/// empty part leaves the output as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Part {
    /// From one to before another; multiples of [`LANES`].
    pub(super) columns: (usize, usize),
    pub(super) inner: (usize, usize),
}

/// `out = a · b`, or `out += a · b`, with the parts of its tiles.
///
/// # Panics
/// If neither rows nor columns of `a` are contiguous, or a part is not within the matrices.
pub(super) fn multiply(out: MatrixMut, a: Matrix, b: Panels, parts: &[Part], write: Write) {
    assert!(a.row_stride == 1 || a.column_stride == 1, "a strided left side");
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    {
        if simd::has_avx512() {
            #[allow(unsafe_code)]
            // SAFETY: the processor has the instructions, as was just checked.
            return unsafe { avx512(out, a, b, parts, write) };
        }
        if simd::has_avx2() {
            #[allow(unsafe_code)]
            // SAFETY: the processor has the instructions, as was just checked.
            return unsafe { avx2(out, a, b, parts, write) };
        }
    }
    all_parts::<[f32; LANES], 4, 1>(out, a, b, parts, write);
}

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
#[target_feature(enable = "avx512f")]
fn avx512(out: MatrixMut, a: Matrix, b: Panels, parts: &[Part], write: Write) {
    all_parts::<x86::One, 8, 2>(out, a, b, parts, write);
}

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
#[target_feature(enable = "avx2,fma")]
fn avx2(out: MatrixMut, a: Matrix, b: Panels, parts: &[Part], write: Write) {
    all_parts::<x86::Two, 4, 1>(out, a, b, parts, write);
}

/// Up to `R` rows by `V` vectors at a time: as many as there are registers for.
#[inline(always)]
#[allow(clippy::inline_always)]
fn all_parts<T: Lanes, const R: usize, const V: usize>(
    out: MatrixMut,
    a: Matrix,
    b: Panels,
    parts: &[Part],
    write: Write,
) {
    for (tile, part) in parts.iter().enumerate() {
        let (inner, end) = part.inner;
        if inner >= end {
            continue;
        }
        let last = out.rows.min((tile + 1) * ROWS);
        let mut column = part.columns.0;
        while column < part.columns.1 {
            let is_wide = column.is_multiple_of(PANEL) && column + V * LANES <= part.columns.1;
            let n_vectors = if is_wide { V } else { 1 };
            let b_values = b.from(inner, column);
            let mut row = tile * ROWS;
            while row < last {
                let step = Step {
                    a: &a.values[row * a.row_stride + inner * a.column_stride..],
                    row_stride: a.row_stride,
                    column_stride: a.column_stride,
                    b: b_values,
                    b_stride: b.row_stride,
                    n: end - inner,
                };
                let to = &mut out.values[row * out.row_stride + column..];
                let stride = out.row_stride;
                row += match (last - row, is_wide) {
                    (n, true) if n >= R => step.run::<T, R, V>(to, stride, write),
                    (n, false) if n >= R => step.run::<T, R, 1>(to, stride, write),
                    (4.., true) => step.run::<T, 4, V>(to, stride, write),
                    (4.., false) => step.run::<T, 4, 1>(to, stride, write),
                    (2.., true) => step.run::<T, 2, V>(to, stride, write),
                    (2.., false) => step.run::<T, 2, 1>(to, stride, write),
                    (_, true) => step.run::<T, 1, V>(to, stride, write),
                    (_, false) => step.run::<T, 1, 1>(to, stride, write),
                };
            }
            column += n_vectors * LANES;
        }
    }
}

/// Both sides of some rows and columns of the output, from their first values on.
struct Step<'a> {
    a: &'a [f32],
    row_stride: usize,
    column_stride: usize,
    b: &'a [f32],
    b_stride: usize,
    n: usize,
}

impl Step<'_> {
    /// Computes `R` rows of `V` vectors, and returns `R`.
    #[inline(always)]
    #[allow(clippy::inline_always)]
    fn run<T: Lanes, const R: usize, const V: usize>(
        &self,
        out: &mut [f32],
        stride: usize,
        write: Write,
    ) -> usize {
        let mut sums = [[T::splat(0.0); V]; R];
        if write == Write::Add {
            for (row, sums) in sums.iter_mut().enumerate() {
                let (values, _) = out[row * stride..][..V * LANES].as_chunks::<LANES>();
                for (sum, values) in sums.iter_mut().zip(values) {
                    *sum = T::load(values);
                }
            }
        }
        if self.column_stride == 1 {
            // Of a length that the compiler sees, so that the loop checks no index.
            let rows: [&[f32]; R] = from_fn(|row| &self.a[row * self.row_stride..][..self.n]);
            for idx in 0..self.n {
                let b = self.b_row::<T, V>(idx);
                for (sums, row) in sums.iter_mut().zip(&rows) {
                    let a = T::splat(row[idx]);
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = sum.plus_product(a, b);
                    }
                }
            }
        } else {
            for idx in 0..self.n {
                let b = self.b_row::<T, V>(idx);
                let column = &self.a[idx * self.column_stride..][..R];
                for (sums, a) in sums.iter_mut().zip(column) {
                    let a = T::splat(*a);
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = sum.plus_product(a, b);
                    }
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            let (values, _) = out[row * stride..][..V * LANES].as_chunks_mut::<LANES>();
            for (sum, values) in sums.iter().zip(values) {
                sum.store(values);
            }
        }
        R
    }

    #[inline(always)]
    #[allow(clippy::inline_always)]
    fn b_row<T: Lanes, const V: usize>(&self, idx: usize) -> [T; V] {
        let (values, _) = self.b[idx * self.b_stride..][..V * LANES].as_chunks::<LANES>();
        let mut row = [T::splat(0.0); V];
        for (row, values) in row.iter_mut().zip(values) {
            *row = T::load(values);
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::{LANES, PANEL, Panels, Part, ROWS, all_parts, multiply};
    use crate::matrix::{Matrix, MatrixMut, Write};

    fn values(n: usize, from: usize) -> Vec<f32> {
        (from..from + n).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect()
    }

    /// A product of these sizes with every form of both sides, compared to the bit with plain loops in the same order.
    fn check(rows: usize, inner: usize, columns: usize) {
        let stride = columns + 5;
        let (of_a, of_b) = (values(rows * inner, 0), values(inner * columns, 3));
        let part = |tile: usize| Part {
            columns: (tile % 2 * LANES, columns),
            inner: ((tile % 3).min(inner - 1), inner - tile % 2 * (inner / 3)),
        };
        let parts: Vec<Part> = (0..rows.div_ceil(ROWS)).map(part).collect();
        let mut transposed = vec![0.0; rows * inner];
        for (idx, value) in of_a.iter().enumerate() {
            transposed[idx % inner * rows + idx / inner] = *value;
        }
        let mut packed = vec![0.0; columns.next_multiple_of(PANEL) * inner];
        for (idx, value) in of_b.iter().enumerate() {
            let (row, column) = (idx / columns, idx % columns);
            packed[column / PANEL * PANEL * inner + row * PANEL + column % PANEL] = *value;
        }
        for write in [Write::Over, Write::Add] {
            let before = values(rows * stride, 9);
            let mut want = before.clone();
            for row in 0..rows {
                let Part { columns, inner: (from, to) } = parts[row / ROWS];
                for column in columns.0..columns.1 {
                    let value = &mut want[row * stride + column];
                    let start = if write == Write::Add { *value } else { 0.0 };
                    let add = |sum: f32, idx: usize| {
                        of_a[row * inner + idx].mul_add(of_b[idx * columns.1 + column], sum)
                    };
                    *value = (from..to).fold(start, add);
                }
            }
            let lefts = [
                Matrix::new(&of_a, rows, inner),
                Matrix::new(&transposed, inner, rows).transposed(),
            ];
            let rights = [Panels::of_rows(&of_b, columns), Panels::packed(&packed, inner)];
            for a in lefts {
                for b in rights {
                    let (mut got, mut plain) = (before.clone(), before.clone());
                    let out = MatrixMut::strided(&mut got, rows, columns, stride);
                    multiply(out, a, b, &parts, write);
                    assert_eq!(got, want, "{rows} {inner} {columns} {write:?}");
                    let out = MatrixMut::strided(&mut plain, rows, columns, stride);
                    all_parts::<[f32; LANES], 4, 1>(out, a, b, &parts, write);
                    assert_eq!(plain, want, "{rows} {inner} {columns} {write:?}, plain");
                }
            }
        }
    }

    #[test]
    fn the_bits_are_those_of_plain_loops() {
        for rows in 1..=17 {
            for (inner, columns) in [(1, 16), (3, 32), (32, 48), (33, 64), (7, 112)] {
                check(rows, inner, columns);
            }
        }
        check(64, 80, 96);
    }

    #[test]
    fn an_empty_part_is_left_as_it_is() {
        let mut out = vec![2.0; 4 * LANES];
        let (a, b) = (values(4 * 3, 0), values(3 * LANES, 1));
        let parts = [Part { columns: (0, LANES), inner: (2, 2) }];
        let of_out = MatrixMut::new(&mut out, 4, LANES);
        multiply(of_out, Matrix::new(&a, 4, 3), Panels::of_rows(&b, LANES), &parts, Write::Over);
        assert_eq!(out, [2.0; 4 * LANES]);
    }
}
