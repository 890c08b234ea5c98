//! The tensor operations that nn and loss call, each behind one signature that later fused bodies keep.
//!
//! Bodies are plain tensor operations where nothing faster is written yet; every body works on every
//! backend. The crate also holds what concerns the machine: devices by name, the allocator's
//! settings, the number of threads. It deliberately knows no model family, no file and no recipe.
//!
//! Shape legend: b batch, t query time, s key time, d width, h heads, g key-value heads,
//! k head width, v vocabulary, o output width, i input width, n rows.
//!
//! | function | what it computes |
//! | --- | --- |
//! | [`linear`], [`linear_io`] | x·Wᵀ + b with W `[out, in]`; x·W + b with W `[in, out]` |
//! | [`add_lora`] | y + scale · (x·Aᵀ)·Bᵀ |
//! | [`embedding`] | rows of a table by id |
//! | [`rms_norm`], [`layer_norm`] and their `add_` forms | norms, alone or after a residual sum |
//! | [`swiglu`], [`silu`], [`gelu`] | activations |
//! | [`rope`] | rotary positions, half-split layout |
//! | [`attention`] | scaled dot products with grouped heads under an [`AttentionMask`] |
//! | [`linear_cross_entropy`], [`linear_logprobs`] | the head with its loss; logits never whole |
//! | [`recompute`] | a block of which a graph keeps the input alone |
//! | [`adamw_step`], [`accumulate`], [`sum_of_squares`] | what an optimizer does to one tensor |

mod activation;
mod adamw;
mod allocator;
mod attention;
mod autodiff;
mod bf16;
mod buffer;
mod cross_entropy;
mod device;
mod embedding;
mod error;
mod few_rows;
mod flex;
mod fused_linear;
mod gemm;
mod head;
mod host;
mod linear;
mod logprobs;
mod lora;
mod nccl;
mod norm;
mod packed;
mod param;
mod precision;
mod product;
mod recompute;
mod rope;
mod rows;
mod sampling_weights;
mod shared;
mod stored;
mod threads;
mod vector;

pub use activation::{GeluKind, gelu, silu, swiglu};
pub use adamw::{AdamwStep, Moments, accumulate, adamw_step, sum_of_squares};
pub use allocator::{CountingAllocator, configure_allocator};
pub use attention::{AttentionMask, Heads, attention, attention_packed};
pub use autodiff::{donate_grad_buffer, fused, reclaim_grad_buffer, set_fused, with_plain_bodies};
pub use burn::tensor::Device;
pub use cross_entropy::linear_cross_entropy;
pub use device::{
    CudaFacts, CudaProblem, DeviceFailure, DriverFacts, GpuFacts, HeaderFacts, Version, cuda_facts,
    device, device_failure, is_cpu,
};
pub use embedding::embedding;
pub use error::{Error, Result};
pub use fused_linear::{Adapter, LinearInput, LinearMap, WeightLayout, fused_linear};
pub use host::with_host_values;
pub use linear::{linear, linear_io};
pub use logprobs::{LogProbs, linear_logprobs};
pub use lora::add_lora;
pub use nccl::has_nccl;
pub use norm::{add_layer_norm, add_rms_norm, layer_norm, rms_norm};
pub use packed::{PackedFormat, pack, unpack};
pub use param::update_param;
pub use precision::{Precision, is_fast_on_cpu, precision, set_precision, with_precision};
pub use recompute::{recompute, recomputes_on};
pub use rope::rope;
pub use sampling_weights::{SamplingWeights, exponentials};
pub use stored::round_weight;
pub use threads::{n_threads, on_pool, set_threads};
