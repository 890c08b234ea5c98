//! Storage of weights: f32, or bf16 or blocks for frozen ones.
//!
//! A frozen weight in bf16 takes half the memory and half the time to read, one in blocks a quarter or less; its values are
//! widened to f32 while they are used.

use std::borrow::Cow;

use burn::tensor::DType;
use burn_flex::FlexTensor;
use half::bf16;
use rayon::prelude::*;

use crate::blocks::BlockRows;
use crate::buffer::{TASK, filled};
use crate::flex;
use crate::matrix::{Matrix, WeightMatrix};
use crate::team::AllThreads as _;

/// A weight's values in row-major order.
#[derive(Clone, Debug)]
pub(crate) enum StoredWeight<'a> {
    F32(Cow<'a, [f32]>),
    Bf16(Cow<'a, [bf16]>),
    Blocks(BlockRows<'a>),
}

impl<'a> StoredWeight<'a> {
    pub(crate) fn new(weight: &'a FlexTensor) -> Self {
        if weight.dtype() == DType::F32 {
            return Self::F32(flex::values(weight));
        }
        Self::Bf16(match weight.as_slice::<bf16>() {
            Some(values) => Cow::Borrowed(values),
            None => Cow::Owned(weight.to_contiguous().storage::<bf16>().to_vec()),
        })
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::Blocks(rows) => rows.len(),
        }
    }

    pub(crate) fn matrix(&self, rows: usize, columns: usize) -> WeightMatrix<'_> {
        match self {
            Self::F32(values) => WeightMatrix::F32(Matrix::new(values, rows, columns)),
            Self::Bf16(values) => WeightMatrix::Bf16(Matrix::new(values, rows, columns)),
            Self::Blocks(blocks) => WeightMatrix::Blocks { rows: *blocks, transposed: false },
        }
    }

    /// Copies `out.len()` values from `start` on; whole rows.
    pub(crate) fn copy_to(&self, out: &mut [f32], start: usize) {
        match self {
            Self::F32(values) => out.copy_from_slice(&values[start..start + out.len()]),
            Self::Bf16(values) => widen(out, &values[start..start + out.len()]),
            Self::Blocks(rows) => rows.widen(out, start / rows.columns.max(1)),
        }
    }
}

/// The values in f32.
pub(crate) fn widened(values: &[bf16]) -> Vec<f32> {
    filled(values.len(), |out| {
        let tasks = out.par_chunks_mut(TASK).zip(values.par_chunks(TASK));
        tasks.on_all_threads(|(out, values)| widen(out, values));
    })
}

/// The values in f32; both slices have one length.
pub(crate) fn widen(out: &mut [f32], values: &[bf16]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = f32::from_bits(u32::from(value.to_bits()) << 16);
    }
}
