//! The clipped losses of PPO (Schulman et al. 2017), over the tokens of a mask.
//!
//! Values at masked-out tokens, even infinite ones, change neither loss nor gradient. Old log-probabilities, advantages
//! and returns are constants without a graph.
//!
//! Shape legend: n tokens.

use burn::tensor::{Bool, Tensor};

use crate::LossSum;

/// The policy's loss, with measures of its change since the rollout.
#[derive(Clone, Debug)]
pub struct PolicyLoss {
    /// The loss, over the tokens of the mask.
    pub loss: LossSum,
    /// π/π_old of each token, 1 where the mask is false, `[n]`; without a graph.
    pub ratio_n: Tensor<1>,
    /// ½(log π − log π_old)² of each token, 0 where the mask is false, `[n]`; without a graph.
    pub approx_kl_n: Tensor<1>,
    /// Number of clipped tokens, `[1]`.
    pub n_clipped: Tensor<1>,
}

/// The value function's loss.
#[derive(Clone, Debug)]
pub struct ValueLoss {
    /// The loss, over the tokens of the mask.
    pub loss: LossSum,
    /// Number of clipped tokens, `[1]`.
    pub n_clipped: Tensor<1>,
}

/// max(−Â·ρ, −Â·clip(ρ, 1 − ε, 1 + ε)) with ρ = π/π_old: equation 7, negated.
///
/// `count` is the number of tokens of the mask.
pub fn ppo_policy(
    logprobs_n: Tensor<1>,
    old_logprobs_n: Tensor<1>,
    advantages_n: Tensor<1>,
    mask_n: Tensor<1, Bool>,
    count: u64,
    clip_range: f64,
) -> PolicyLoss {
    let outside_n = mask_n.clone().bool_not();
    // Masked before anything else is computed, so that no gradient is infinity times zero.
    let log_ratio_n = (logprobs_n - old_logprobs_n).mask_fill(outside_n.clone(), 0.0);
    let advantages_n = advantages_n.mask_fill(outside_n, 0.0);
    let ratio_n = log_ratio_n.clone().exp();
    let clipped_ratio_n = ratio_n.clone().clamp(1.0 - clip_range, 1.0 + clip_range);
    let plain_n = (advantages_n.clone() * ratio_n.clone()).neg();
    let clipped_n = (advantages_n * clipped_ratio_n).neg();
    let is_clipped_n = clipped_n.clone().greater(plain_n.clone());
    PolicyLoss {
        loss: LossSum { sum: plain_n.mask_where(is_clipped_n.clone(), clipped_n).sum(), count },
        ratio_n: constant(ratio_n),
        approx_kl_n: constant(log_ratio_n.square().mul_scalar(0.5)),
        n_clipped: constant(is_clipped_n.float().sum()),
    }
}

/// ½·max((V − R)², (clip(V, V_old − ε, V_old + ε) − R)²): the value clipping of the reference implementation of PPO
/// (openai/baselines, ppo2), which the paper does not have.
///
/// The factor ½ is part of the loss, so `vf_coef` means the same as in TRL.
pub fn ppo_value(
    values_n: Tensor<1>,
    old_values_n: Tensor<1>,
    returns_n: Tensor<1>,
    mask_n: Tensor<1, Bool>,
    count: u64,
    clip_range_value: f64,
) -> ValueLoss {
    let outside_n = mask_n.bool_not();
    let values_n = values_n.mask_fill(outside_n.clone(), 0.0);
    let old_values_n = old_values_n.mask_fill(outside_n.clone(), 0.0);
    let returns_n = returns_n.mask_fill(outside_n, 0.0);
    // A value inside the range is not changed by a bit: rounding must not count as clipping.
    let low_n = old_values_n.clone().sub_scalar(clip_range_value);
    let clamped_n = values_n.clone().max_pair(low_n).min_pair(old_values_n + clip_range_value);
    let plain_n = (values_n - returns_n.clone()).square();
    let clipped_n = (clamped_n - returns_n).square();
    let is_clipped_n = clipped_n.clone().greater(plain_n.clone());
    let worse_n = plain_n.mask_where(is_clipped_n.clone(), clipped_n);
    ValueLoss {
        loss: LossSum { sum: worse_n.sum().mul_scalar(0.5), count },
        n_clipped: constant(is_clipped_n.float().sum()),
    }
}

/// The tensor without its graph.
fn constant(x: Tensor<1>) -> Tensor<1> {
    if x.is_autodiff() { x.inner() } else { x }
}
