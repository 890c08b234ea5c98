//! Rounding to bf16, in place and to copies, for products of rounded values in f32.

use std::borrow::Cow;
use std::cell::Cell;

use rayon::prelude::*;

use crate::buffer::{TASK, filled, rows_per_task};
use crate::matrix::Matrix;
use crate::simd::multiversion;
use crate::team::AllThreads as _;

/// Element of a matrix: f32, which is rounded to bf16, or bf16.
pub(crate) trait Rounded: Copy + Send + Sync {
    /// The values, if they are f32.
    fn as_f32(values: &[Self]) -> Option<&[f32]>;

    /// The values rounded to bf16, in f32; both slices have one length.
    fn round_all(out: &mut [f32], values: &[Self]);
}

/// The nearest bf16 to a value, ties to even.
#[inline(always)]
#[allow(clippy::inline_always)]
pub(crate) fn round(value: f32) -> f32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000;
    // The sum would make an infinity or a zero of a NaN.
    f32::from_bits(if value.is_nan() { bits } else { rounded })
}

multiversion! {
    /// Rounds the values.
    fn round_all(out: &mut [f32], values: &[f32]) {
        for (out, value) in out.iter_mut().zip(values) {
            *out = round(*value);
        }
    }
}

multiversion! {
    /// Rounds the values in place.
    fn round_in_place(values: &mut [f32]) {
        for value in values.iter_mut() {
            *value = round(*value);
        }
    }
}

/// The values rounded, in place if they are owned, on all threads.
pub(crate) fn rounded_values(values: Cow<'_, [f32]>) -> Cow<'_, [f32]> {
    match values {
        Cow::Owned(mut values) => {
            round_on_all_threads(&mut values);
            Cow::Owned(values)
        }
        Cow::Borrowed(values) => Cow::Owned(filled(values.len(), |out| {
            let tasks = out.par_chunks_mut(TASK).zip(values.par_chunks(TASK));
            tasks.on_all_threads(|(out, values)| round_all(out, values));
        })),
    }
}

/// Rounds the values in place, on all threads.
pub(crate) fn round_on_all_threads(values: &mut [f32]) {
    values.par_chunks_mut(TASK).on_all_threads(round_in_place);
}

thread_local! {
    static KEPT: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `run` with a rounded copy, in memory that the thread keeps for the next one.
#[cfg(not(feature = "portable"))]
pub(crate) fn with_rounded_copy<T: Rounded>(x: Matrix<'_, T>, run: impl FnOnce(Matrix)) {
    with_kept(x.rows * x.columns, |kept| {
        copy_lines(kept, x, 0);
        run(contiguous(kept, x));
    });
}

/// Calls `run` with `n` arbitrary values, in memory that the thread keeps for the next call.
pub(crate) fn with_kept(n: usize, run: impl FnOnce(&mut [f32])) {
    // A nested call finds no buffer here and allocates its own.
    let mut kept = KEPT.take();
    if kept.len() < n {
        kept.resize(n, 0.0);
    }
    run(&mut kept[..n]);
    KEPT.set(kept);
}

/// The rounded values, line after line: those of [`contiguous`].
pub(crate) fn copy_of<T: Rounded>(x: Matrix<'_, T>, parallel: bool) -> Vec<f32> {
    filled(x.rows * x.columns, |out| {
        if parallel { copy_on_all_threads(out, x) } else { copy_lines(out, x, 0) }
    })
}

/// The number of lines of contiguous values, rows or columns; their length, and the distance of their starts.
fn lines<T: Copy>(x: Matrix<'_, T>) -> (usize, usize, usize) {
    if x.column_stride == 1 {
        (x.rows, x.columns, x.row_stride)
    } else {
        (x.columns, x.rows, x.column_stride)
    }
}

/// The matrix of the values of [`copy_lines`].
pub(crate) fn contiguous<'a, T: Copy>(values: &'a [f32], x: Matrix<'_, T>) -> Matrix<'a> {
    let (n, length, _) = lines(x);
    let copy = Matrix::new(values, n, length);
    if x.column_stride == 1 { copy } else { copy.transposed() }
}

fn copy_on_all_threads<T: Rounded>(out: &mut [f32], x: Matrix<'_, T>) {
    let (_, length, _) = lines(x);
    let per_task = rows_per_task(length);
    let tasks = out.par_chunks_mut((per_task * length).max(1)).enumerate();
    tasks.on_all_threads(|(task, out)| copy_lines(out, x, task * per_task));
}

/// Writes the rounded values, line after line, from one on.
fn copy_lines<T: Rounded>(out: &mut [f32], x: Matrix<'_, T>, first: usize) {
    let (_, length, distance) = lines(x);
    for (line, out) in out.chunks_mut(length.max(1)).enumerate() {
        T::round_all(out, &x.values[(first + line) * distance..][..length]);
    }
}

impl Rounded for f32 {
    fn as_f32(values: &[Self]) -> Option<&[f32]> {
        Some(values)
    }

    fn round_all(out: &mut [f32], values: &[Self]) {
        round_all(out, values);
    }
}

impl Rounded for half::bf16 {
    fn as_f32(_: &[Self]) -> Option<&[f32]> {
        None
    }

    fn round_all(out: &mut [f32], values: &[Self]) {
        crate::weight_storage::widen(out, values);
    }
}
