//! Kernels for the CPU: the operations of `kernels` over burn's CPU tensors, each with its own backward pass.
//!
//! Every function takes [`CpuTensor`]s or plain slices and computes at once. Which kernels a call runs is
//! decided in `kernels`; this crate reads no setting. Work is divided by shapes alone, so results do not
//! depend on the number of threads.
//!
//! An operation computes its output from values and records an [`Op`] in burn's graph, which returns the
//! gradients that are needed. Products of matrices take a [`Precision`]; everything else is f32.
//!
//! Shape legend: b batch, t query time, s key time, d width, h heads, g key-value heads, k head width,
//! v vocabulary, o output width, i input width, r rank, n rows.

mod activation;
mod adamw;
mod attention;
mod autodiff;
mod bf16;
mod blocks;
mod buffer;
mod cpu_weight;
mod cross_entropy;
mod embedding;
mod flex;
mod fused_linear;
mod gemm;
mod gemm_f32;
#[cfg(not(feature = "portable"))]
mod gemm_parts;
mod logprobs;
mod matrix;
mod norm;
mod norm_rows;
mod precision;
mod recompute;
mod rope;
mod rotation;
mod rounding;
mod sampling_weights;
mod shared;
mod simd;
mod skinny_matmul;
mod soft_cap;
mod team;
mod vocab_chunks;
mod weight_storage;

pub use activation::{gelu_tanh, swiglu};
pub use adamw::{AdamwCoefficients, adamw_update, sum_of_squares};
pub use attention::{
    Direction, Heads, KEY_CHUNK, KeySegments, ScoreMeasure, VisibleKeys, attention,
    attention_packed,
};
pub use autodiff::{
    CpuTensor, InputGradients, Op, donate_grad_buffer, reclaim_grad_buffer, record,
};
pub use bf16::{Bf16Products, bf16_products, set_bf16_products};
pub use blocks::BlockMatrix;
pub use cpu_weight::CpuWeight;
pub use cross_entropy::{SummedLoss, cross_entropy};
pub use embedding::embedding;
pub use fused_linear::{CpuAdapter, CpuLinearInput, CpuLinearMap, WeightLayout, fused_linear};
pub use ggml_blocks::TensorType;
pub use logprobs::logprobs;
pub use norm::{layer_norm, rms_norm};
pub use precision::Precision;
pub use recompute::recompute;
pub use rope::rope;
pub use sampling_weights::{SamplingWeights, exponentials};
pub use team::{AllThreads, LoopTimes, as_caller, recorded};
