//! Heads in tensors: read into dense tiles and written back, with rotation.
//!
//! A tensor is copied only if the rows of its heads are not contiguous.

use burn::tensor::DType;
use burn_flex::FlexTensor;

use crate::buffer::Shared;
use crate::matrix::Matrix;
use crate::rotation::{rotate, rotate_back};
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

    /// Positions of one head as a matrix `[n, k]`.
    pub(super) fn matrix(&self, row: usize, start: usize, n: usize, head: usize) -> Matrix<'a> {
        let values = &self.values[self.strides.at(row, start, head)..];
        Matrix::strided(values, n, self.k, self.strides.position)
    }
}

/// Cosines and sines `[b, t, k / 2]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rope<'a> {
    pub(super) cos: &'a [f32],
    pub(super) sin: &'a [f32],
}

impl<'a> Rope<'a> {
    /// The cosines and sines of row `row` of `[b · t]`.
    pub(super) fn row(&self, row: usize, half: usize) -> (&'a [f32], &'a [f32]) {
        (&self.cos[row * half..][..half], &self.sin[row * half..][..half])
    }
}

/// Reads one position of a head, rotated if `rope` is given, times `scale`.
pub(super) fn load(out: &mut [f32], x: &[f32], rope: Option<(&[f32], &[f32])>, scale: f32) {
    match rope {
        Some((cos, sin)) => rotate(out, x, cos, sin, scale),
        None => scaled(out, x, scale),
    }
}

/// Writes the gradient of the input of [`load`].
///
/// # Safety
/// As [`Shared::with`].
#[allow(unsafe_code)]
pub(super) unsafe fn store(
    out: &Shared<'_>,
    at: usize,
    d: &[f32],
    rope: Option<(&[f32], &[f32])>,
    scale: f32,
) {
    let write = |out: &mut [f32]| match rope {
        Some((cos, sin)) => rotate_back(out, d, cos, sin, scale),
        None => scaled(out, d, scale),
    };
    // SAFETY: by the caller's contract.
    unsafe { out.with(at, d.len(), write) }
}

multiversion! {
    fn scaled(out: &mut [f32], x: &[f32], scale: f32) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = x * scale;
        }
    }
}
