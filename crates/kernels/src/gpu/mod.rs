//! Kernels of `kernels-gpu` as operations of burn's dispatch, with their gradients.
//!
//! Each operation of the graph is a trait with three parts: forward and backward kernels, which `Fusion` defers until their operands are
//! needed, and the differentiable form, which `Autodiff` implements by the other two.

mod attention;
mod embedding;
mod head;
mod layer_norm;
mod linear;
mod optimizer;
mod rope;
mod swiglu;

use burn::tensor::{DType, Tensor};

pub(crate) use self::attention::{Settings as AttentionSettings, attention, attention_packed};
pub(crate) use self::embedding::embedding;
pub(crate) use self::head::{HeadSettings, head_logprobs, head_loss};
pub(crate) use self::layer_norm::layer_norm;
pub(crate) use self::linear::linear_maps;
pub(crate) use self::optimizer::{adamw_steps, sums_of_squares};
pub(crate) use self::rope::rope;
pub(crate) use self::swiglu::swiglu_halves;
use crate::device::is_cpu;
use crate::dispatch::gpu_is_selected;

/// Whether the GPU's kernels can read a tensor, and the user did not select the generic ones.
pub(crate) fn reads<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && !is_cpu(&x.device()) && gpu_is_selected()
}
