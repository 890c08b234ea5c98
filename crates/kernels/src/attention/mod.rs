//! Scaled dot-product attention with grouped key-value heads.
//!
//! On the CPU and on a GPU in tiles, without a matrix of all scores; where scores have a bias, and on a GPU where texts have
//! prefixes, in tensor operations.

mod mask;

use burn::tensor::{Tensor, activation};
pub use kernels_cpu::KEY_CHUNK;
use kernels_cpu::{CpuTensor, ScoreMeasure};

pub use self::mask::AttentionMask;
use self::mask::HIDDEN;
use crate::dispatch::{KernelSet, Select};
use crate::matmul::matmul;
use crate::precision::precision;
use crate::rope::generic_rope;

/// `softmax(cap(q·kᵀ · scale) + bias) · v` over the visible keys, each group of `h / g` query heads sharing one key-value
/// head; the mask has visibility, cap and bias.
///
/// q `[b, t, h, k]`, k and v `[b, s, g, k]` (views are fine) → `[b, t, h, k]`. The output of a query without visible keys
/// is zero.
pub fn attention(
    q_bthk: Tensor<4>,
    k_bsgk: Tensor<4>,
    v_bsgk: Tensor<4>,
    mask: &AttentionMask,
    scale: f64,
) -> Tensor<4> {
    let select = Select::new().float(&q_bthk).float(&k_bsgk).float(&v_bsgk);
    match select.supports(mask.bias().is_none()).kernel_set() {
        KernelSet::Cpu => {
            let inputs = [q_bthk, k_bsgk, v_bsgk].map(CpuTensor::new);
            kernels_cpu::attention(inputs, mask.visible(), measure(mask, scale)).into_tensor()
        }
        #[cfg(feature = "gpu")]
        KernelSet::Generic
            if has_gpu_kernel(mask, q_bthk.dims()[3], [&q_bthk, &k_bsgk, &v_bsgk]) =>
        {
            let ([_, _, h, k], [_, _, g, _]) = (q_bthk.dims(), k_bsgk.dims());
            let settings = gpu_settings(mask, Heads { h, g, k }, scale);
            crate::gpu::attention([q_bthk, k_bsgk, v_bsgk], mask.segments(), settings)
        }
        KernelSet::Generic => generic_attention(q_bthk, k_bsgk, v_bsgk, mask, scale),
    }
}

/// Computation of the scores in the CPU kernels.
fn measure(mask: &AttentionMask, scale: f64) -> ScoreMeasure {
    let soft_cap = mask.soft_cap().map(|cap| cap as f32);
    ScoreMeasure { scale: scale as f32, soft_cap, precision: precision() }
}

/// The widest head of the GPU's kernels.
#[cfg(feature = "gpu")]
const GPU_WIDTH: usize = 256;

/// Whether the GPU's kernels compute this attention.
#[cfg(feature = "gpu")]
fn has_gpu_kernel<const D: usize, const N: usize>(
    mask: &AttentionMask,
    width: usize,
    operands: [&Tensor<D>; N],
) -> bool {
    mask.bias().is_none()
        && !mask.has_prefixes()
        && (1..=GPU_WIDTH).contains(&width)
        && operands.into_iter().all(crate::gpu::reads)
}

/// Mask and scores for the GPU's kernels.
#[cfg(feature = "gpu")]
fn gpu_settings(mask: &AttentionMask, heads: Heads, scale: f64) -> crate::gpu::AttentionSettings {
    crate::gpu::AttentionSettings {
        heads: heads.h,
        groups: heads.g,
        width: heads.k,
        causal: mask.direction() == kernels_cpu::Direction::Causal,
        window: mask.window(),
        scale: scale as f32,
        soft_cap: mask.soft_cap().map(|cap| cap as f32),
    }
}

fn generic_attention(
    q_bthk: Tensor<4>,
    k_bsgk: Tensor<4>,
    v_bsgk: Tensor<4>,
    mask: &AttentionMask,
    scale: f64,
) -> Tensor<4> {
    let [b, t, h, k] = q_bthk.dims();
    let [_, s, g, _] = k_bsgk.dims();
    // The query heads of a group are stacked along time, so one product serves the whole group.
    let rows = h / g * t;
    let q_bgrk = q_bthk.swap_dims(1, 2).reshape([b, g, rows, k]);
    let scores_bgrs = matmul(q_bgrk, k_bsgk.permute([0, 2, 3, 1]));
    let scores_bhts = scores_bgrs.reshape([b, h, t, s]);
    let scores_bhts = scores_bhts.mul_scalar(scale);
    let scores_bhts = match mask.soft_cap() {
        Some(cap) => scores_bhts.div_scalar(cap).tanh().mul_scalar(cap),
        None => scores_bhts,
    };
    let scores_bhts = match mask.bias() {
        Some(bias_bhts) => scores_bhts + bias_bhts.clone(),
        None => scores_bhts,
    };
    let additive_b1ts = mask.additive();
    let probs_bhts = activation::softmax(scores_bhts + additive_b1ts.clone(), 3);
    // Without visible keys the softmax would be uniform over hidden ones.
    let probs_bhts = probs_bhts * (additive_b1ts.div_scalar(-HIDDEN) + 1.0);
    let probs_bgrs = probs_bhts.reshape([b, g, rows, s]);
    let out_bgrk = matmul(probs_bgrs, v_bsgk.swap_dims(1, 2));
    out_bgrk.reshape([b, h, t, k]).swap_dims(1, 2)
}

/// Numbers of heads, and their width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub h: usize,
    /// Key-value heads; each serves `h / g` query heads.
    pub g: usize,
    /// Width of a head.
    pub k: usize,
}

impl Heads {
    /// Queries `[b, t, h, k]`, keys and values `[b, t, g, k]` of `[b, t, (h + 2g) · k]`; queries and keys are rotated if
    /// `rope` has cosines and sines.
    pub fn split(
        self,
        qkv_btw: Tensor<3>,
        rope: Option<(Tensor<3>, Tensor<3>)>,
    ) -> (Tensor<4>, Tensor<4>, Tensor<4>) {
        self.split_with(qkv_btw, rope, crate::rope::rope)
    }

    fn split_with(
        self,
        qkv_btw: Tensor<3>,
        rope: Option<(Tensor<3>, Tensor<3>)>,
        rotate: fn(Tensor<4>, Tensor<3>, Tensor<3>) -> Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>, Tensor<4>) {
        let Self { h, g, k } = self;
        let [b, t, _] = qkv_btw.dims();
        let part = |start: usize, n: usize| {
            let part_btw = qkv_btw.clone().slice([0..b, 0..t, start * k..(start + n) * k]);
            part_btw.reshape([b, t, n, k])
        };
        let (q_bthk, k_btgk, v_btgk) = (part(0, h), part(h, g), part(h + g, g));
        let Some((cos_btc, sin_btc)) = rope else { return (q_bthk, k_btgk, v_btgk) };
        let rotated = |x| rotate(x, cos_btc.clone(), sin_btc.clone());
        (rotated(q_bthk), rotated(k_btgk), v_btgk)
    }
}

/// [`attention`] of queries, keys and values in one tensor, `[b, t, (h + 2g) · k]` → `[b, t, h · k]`. Queries and keys are
/// rotated first if `rope` has cosines and sines `[b, t, k / 2]`.
pub fn attention_packed(
    qkv_btw: Tensor<3>,
    heads: Heads,
    rope: Option<(Tensor<3>, Tensor<3>)>,
    mask: &AttentionMask,
    scale: f64,
) -> Tensor<3> {
    let select = Select::new().float(&qkv_btw);
    let select = match &rope {
        Some((cos, sin)) => select.constant(cos).constant(sin),
        None => select,
    };
    match select.supports(mask.bias().is_none()).kernel_set() {
        KernelSet::Cpu => {
            let Heads { h, g, k } = heads;
            let value = |x: Tensor<3>| CpuTensor::new(x).into_value();
            let rope = rope.map(|(cos, sin)| (value(cos), value(sin)));
            let (qkv, heads) = (CpuTensor::new(qkv_btw), kernels_cpu::Heads { h, g, k });
            let (visible, measure) = (mask.visible(), measure(mask, scale));
            kernels_cpu::attention_packed(qkv, heads, rope, visible, measure).into_tensor()
        }
        #[cfg(feature = "gpu")]
        KernelSet::Generic if has_gpu_kernel(mask, heads.k, [&qkv_btw]) => {
            let [b, t, _] = qkv_btw.dims();
            let settings = gpu_settings(mask, heads, scale);
            let [segments_bt, _] = mask.segments();
            let out_bthk = crate::gpu::attention_packed(qkv_btw, rope, segments_bt, settings);
            out_bthk.reshape([b, t, heads.h * heads.k])
        }
        KernelSet::Generic => generic_packed(qkv_btw, heads, rope, mask, scale),
    }
}

fn generic_packed(
    qkv_btw: Tensor<3>,
    heads: Heads,
    rope: Option<(Tensor<3>, Tensor<3>)>,
    mask: &AttentionMask,
    scale: f64,
) -> Tensor<3> {
    let [b, t, _] = qkv_btw.dims();
    let (q_bthk, k_btgk, v_btgk) = heads.split_with(qkv_btw, rope, generic_rope);
    generic_attention(q_bthk, k_btgk, v_btgk, mask, scale).reshape([b, t, heads.h * heads.k])
}
