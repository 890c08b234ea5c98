//! Tensor operations of training and generation, each as one function with kernels per device.
//!
//! `nn`, `loss` and `generate` call these functions. Each selects its kernels once, from the devices and number formats
//! of its tensors ([`KernelSet`]): on the CPU those of `kernels-cpu`, which have their own backward passes; elsewhere,
//! and as the reference in tests, generic kernels made of burn's tensor operations. Generic kernels call generic kernels,
//! so nothing selects twice. The crate also has the machine's side: devices by name, threads, the allocator's settings.
//!
//! Shape legend: b batch, t query time, s key time, d width, h heads, g key-value heads,
//! k head width, v vocabulary, o output width, i input width, n rows.
//!
//! | function | result |
//! | --- | --- |
//! | [`linear`], [`linear_io`] | x·Wᵀ + b with W `[out, in]`; x·W + b with W `[in, out]` |
//! | [`fused_linear`] | up to three of those, with a norm or gate before, adapters and a residual after |
//! | [`add_lora`] | y + scale · (x·Aᵀ)·Bᵀ |
//! | [`packed_linear`] | x·Wᵀ or x·W with W in 4 or 8 bits |
//! | [`embedding`] | rows of a table by id |
//! | [`rms_norm`], [`layer_norm`] | norms |
//! | [`swiglu`], [`silu`], [`gelu`] | activations |
//! | [`rope`] | rotary positions, half-split layout |
//! | [`attention`], [`attention_packed`] | scaled dot products with grouped heads under an [`AttentionMask`] |
//! | [`linear_cross_entropy`], [`linear_logprobs`] | the head with its loss; the logits of all rows never exist at once |
//! | [`recompute`] | a block of which the graph keeps only the input |
//! | [`adamw_step`], [`accumulate`], [`sums_of_squares`] | optimizer arithmetic on one tensor |
//! | [`adamw_steps`] | the update of many parameters, in few launches on a GPU |

mod activation;
mod adamw;
mod adamw_step;
mod allocator;
mod attention;
mod cross_entropy;
mod cuda_facts;
mod device;
mod dispatch;
mod embedding;
mod error;
mod fused_linear;
#[cfg(feature = "gpu")]
mod gpu;
mod grad_buffer;
mod head;
mod host;
mod linear;
mod logprobs;
mod lora;
mod matmul;
mod nccl;
mod norm;
mod packed;
mod param;
mod precision;
mod recompute;
mod rope;
#[cfg(test)]
mod selection_tests;
mod target_rows;
mod threads;
mod weight;
mod wgpu_facts;

pub use activation::{GeluKind, gelu, silu, swiglu};
pub use adamw::{accumulate, adamw_step, adamw_steps, sums_of_squares, updates_together};
pub use adamw_step::{AdamwParameter, AdamwStep, Moments};
pub use allocator::{CountingAllocator, configure_allocator};
pub use attention::{AttentionMask, Heads, KEY_CHUNK, attention, attention_packed};
pub use burn::tensor::Device;
pub use cross_entropy::linear_cross_entropy;
pub use cuda_facts::{CudaFacts, CudaProblem, DriverFacts, GpuFacts, HeaderFacts, Version};
pub use device::{
    DeviceFailure, check_precision, cuda_facts, device, device_failure, find_cuda_toolkit, is_cpu,
    wgpu_facts,
};
pub use dispatch::{
    KernelSet, check_kernel_setting, kernel_set, kernel_setting, with_generic_kernels,
};
pub use embedding::embedding;
pub use error::{Error, Result};
pub use fused_linear::{Adapter, LinearInput, LinearMap, WeightLayout, fused_linear};
pub use grad_buffer::{donate_grad_buffer, reclaim_grad_buffer};
pub use head::{Head, HeadLoss};
pub use host::with_host_values;
pub use kernels_cpu::{
    AllThreads, BlockMatrix, LoopTimes, SamplingWeights, TensorType, exponentials,
    recorded as recorded_loops,
};
pub use linear::{linear, linear_io};
pub use logprobs::{LogProbs, linear_logprobs};
pub use lora::add_lora;
pub use nccl::has_nccl;
pub use norm::{layer_norm, norms_add_residuals, residual_rms_norm, rms_norm};
pub use packed::{
    BlockScales, CodeTable, NestedScales, PackedFormat, PackedLayout, codes_tensor, dynamic_code,
    pack, packed_linear, unpack,
};
pub use param::update_param;
pub use precision::{
    Bf16Products, Precision, bf16_products, is_fast_on_cpu, precision, set_bf16_products,
    set_deterministic, set_precision, with_precision,
};
pub use recompute::{recompute, recomputes_on};
pub use rope::rope;
pub use threads::{fill_parts, n_threads, on_pool, set_threads, start_threads};
pub use weight::{WeightTensor, block_bytes, block_matrix, block_values, round_weight};
pub use wgpu_facts::{AdapterFacts, AdapterKind, WgpuFacts, WgpuProblem};
