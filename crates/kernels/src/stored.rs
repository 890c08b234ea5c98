//! Weights as they are stored: f32, or bf16 where they are not trained.
//!
//! A frozen weight in bf16 takes half the memory and half the time to read; what is computed with it
//! is widened on the way. It deliberately rounds nothing by itself: [`round_weight`] is the caller's.

use std::borrow::Cow;

use burn::tensor::{DType, Tensor};
use burn_flex::FlexTensor;
use half::bf16;
use rayon::prelude::*;

use crate::autodiff;
use crate::buffer::{TASK, filled};
use crate::flex;
use crate::gemm::{Matrix, WeightMatrix};

/// The weight rounded to bf16, and stored so; every operation of this crate takes it in a weight's
/// place, but none gives a gradient by it.
pub fn round_weight<const D: usize>(weight: Tensor<D>) -> Tensor<D> {
    weight.cast(DType::BF16)
}

/// The weight in f32, for bodies that know nothing else.
pub(crate) fn as_f32<const D: usize>(weight: Tensor<D>) -> Tensor<D> {
    if weight.dtype() == DType::F32 { weight } else { weight.cast(DType::F32) }
}

/// Whether a fused body can read this weight.
pub(crate) fn weight_fits(weight: &Tensor<2>) -> bool {
    let frozen = weight.dtype() == DType::BF16 && !weight.is_require_grad();
    autodiff::fits_as(weight, if frozen { DType::BF16 } else { DType::F32 })
}

/// A weight's values in row-major order.
#[derive(Clone, Debug)]
pub(crate) enum Stored<'a> {
    F32(Cow<'a, [f32]>),
    Bf16(Cow<'a, [bf16]>),
}

impl<'a> Stored<'a> {
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
        }
    }

    pub(crate) fn matrix(&self, rows: usize, columns: usize) -> WeightMatrix<'_> {
        match self {
            Self::F32(values) => WeightMatrix::F32(Matrix::new(values, rows, columns)),
            Self::Bf16(values) => WeightMatrix::Bf16(Matrix::new(values, rows, columns)),
        }
    }

    /// Writes `out.len()` values from `start` on.
    pub(crate) fn copy_to(&self, out: &mut [f32], start: usize) {
        match self {
            Self::F32(values) => out.copy_from_slice(&values[start..start + out.len()]),
            Self::Bf16(values) => widen(out, &values[start..start + out.len()]),
        }
    }
}

/// All values in f32.
pub(crate) fn widened(values: &[bf16]) -> Vec<f32> {
    filled(values.len(), |out| {
        let tasks = out.par_chunks_mut(TASK).zip(values.par_chunks(TASK));
        tasks.for_each(|(out, values)| widen(out, values));
    })
}

fn widen(out: &mut [f32], values: &[bf16]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = f32::from_bits(u32::from(value.to_bits()) << 16);
    }
}
