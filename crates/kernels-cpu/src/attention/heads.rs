//! Heads in tensors: read into dense tiles and written back, with rotation.
//!
//! A tensor is copied only if the rows of its heads are not contiguous.

use burn::tensor::DType;
use burn_flex::FlexTensor;

use super::lanes::LANES;
use crate::buffer::Shared;
use crate::rotation::{RotatedRows, rotate, rotate_rows, rotate_rows_back};
use crate::simd::multiversion;

/// Strides of batch rows, positions and heads, and the index of the first value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Strides {
    pub(super) start: usize,
    pub(super) row: usize,
    pub(super) position: usize,
    pub(super) head: usize,
}

impl Strides {
    /// The strides of `[b, t, width]` with heads of width `k` from column `start` on.
    pub(super) fn packed(t: usize, width: usize, k: usize, start: usize) -> Self {
        Self { start, row: t * width, position: width, head: k }
    }

    pub(super) fn at(&self, row: usize, position: usize, head: usize) -> usize {
        self.start + row * self.row + position * self.position + head * self.head
    }
}

/// A tensor `[b, t, n, k]` with a contiguous last axis, and its strides; a copy if the last axis is not contiguous.
pub(super) fn dense_heads(x: FlexTensor) -> (FlexTensor, Strides) {
    assert_eq!(x.dtype(), DType::F32, "CPU kernels work on f32");
    let fits = |x: &FlexTensor| {
        let strides = x.layout().strides();
        strides.last() == Some(&1) && strides.iter().all(|stride| *stride > 0)
    };
    let x = if fits(&x) { x } else { x.to_contiguous() };
    let strides: Vec<usize> = x.layout().strides().iter().map(|stride| *stride as usize).collect();
    let start = x.layout().start_offset();
    (x, Strides { start, row: strides[0], position: strides[1], head: strides[2] })
}

/// The heads of a tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadView<'a> {
    pub(super) values: &'a [f32],
    pub(super) strides: Strides,
    pub(super) k: usize,
}

impl<'a> HeadView<'a> {
    pub(super) fn row(&self, row: usize, position: usize, head: usize) -> &'a [f32] {
        &self.values[self.strides.at(row, position, head)..][..self.k]
    }

    /// The values of one head from a position on, and the stride of its positions.
    pub(super) fn from(&self, row: usize, start: usize, head: usize) -> (&'a [f32], usize) {
        let start = self.strides.at(row, start, head).min(self.values.len());
        (&self.values[start..], self.strides.position)
    }
}

/// Cosines and sines `[b, t, k / 2]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rope<'a> {
    pub(super) cos: &'a [f32],
    pub(super) sin: &'a [f32],
}

impl<'a> Rope<'a> {
    /// The cosines and sines of the rows of `[b · t]` from `row` on.
    pub(super) fn from(&self, row: usize, half: usize) -> (&'a [f32], &'a [f32]) {
        (&self.cos[row * half..], &self.sin[row * half..])
    }
}

/// Reads one position of a head, rotated if `rope` is given, times `scale`.
pub(super) fn load(out: &mut [f32], x: &[f32], rope: Option<(&[f32], &[f32])>, scale: f32) {
    let half = x.len() / 2;
    match rope {
        Some((cos, sin)) => rotate(out, x, &cos[..half], &sin[..half], scale),
        None => load_rows(out, x.len(), (x, x.len()), x.len(), None, scale),
    }
}

/// [`load`] of positions one after the other, of `k` values, into rows that are `width` apart and end with zeros. `x` has the
/// first position, and the distance of positions.
pub(super) fn load_rows(
    out: &mut [f32],
    width: usize,
    (x, stride): (&[f32], usize),
    k: usize,
    rope: Option<(&[f32], &[f32])>,
    scale: f32,
) {
    // A single position may have any stride.
    let stride = stride.max(k);
    match rope {
        Some((cos, sin)) => {
            rotate_rows(out, width, RotatedRows { x, stride, cos, sin, k }, scale);
        }
        None => scaled_rows(out, width, x, stride, k, scale),
    }
}

/// Writes the gradients of the input of [`load_rows`], given those of its output, which it replaces. `at` has the start of the
/// first position, and the distance of positions.
///
/// # Safety
/// As [`Shared::with`].
#[allow(unsafe_code)]
pub(super) unsafe fn store_rows(
    out: &Shared<'_>,
    (at, stride): (usize, usize),
    rows: &mut [f32],
    width: usize,
    k: usize,
    rope: Option<(&[f32], &[f32])>,
    scale: f32,
) {
    match rope {
        Some((cos, sin)) => rotate_rows_back(rows, width, k, cos, sin, scale),
        None if scale != 1.0 => scale_in_place(rows, scale),
        None => {}
    }
    for (idx, row) in rows.chunks(width).enumerate() {
        // SAFETY: by the caller's contract.
        unsafe { out.with(at + idx * stride, k, |out| copy_row(out, &row[..k])) }
    }
}

/// Copies a row of a head, which is too short for a call of the C library.
#[inline]
pub(super) fn copy_row(out: &mut [f32], row: &[f32]) {
    let (vectors, rest) = out.as_chunks_mut::<LANES>();
    let (from, from_rest) = row.as_chunks::<LANES>();
    for (vector, from) in vectors.iter_mut().zip(from) {
        *vector = *from;
    }
    if !rest.is_empty() {
        rest.copy_from_slice(from_rest);
    }
}

multiversion! {
    fn scaled_rows(out: &mut [f32], width: usize, x: &[f32], stride: usize, k: usize, scale: f32) {
        for (out, x) in out.chunks_mut(width).zip(x.chunks(stride)) {
            let (out, rest) = out.split_at_mut(k);
            for (out, x) in out.iter_mut().zip(&x[..k]) {
                *out = x * scale;
            }
            rest.fill(0.0);
        }
    }
}

multiversion! {
    fn scale_in_place(values: &mut [f32], scale: f32) {
        for value in values.iter_mut() {
            *value *= scale;
        }
    }
}
