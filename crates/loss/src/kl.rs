//! Per-token estimates of the KL divergence of a policy from its reference model.
//!
//! The estimators are those of Schulman 2020, "Approximating KL Divergence", for tokens that the policy sampled. Rewards
//! need the estimate of each token, so nothing is reduced.

use burn::tensor::Tensor;

/// k1 = log π − log π_ref: unbiased, may be negative for a token.
pub fn kl_k1<const D: usize>(logprobs: Tensor<D>, ref_logprobs: Tensor<D>) -> Tensor<D> {
    logprobs - ref_logprobs
}

/// k3 = eʳ − 1 − r with r = log π_ref − log π: unbiased, never negative, with less variance than k1.
pub fn kl_k3<const D: usize>(logprobs: Tensor<D>, ref_logprobs: Tensor<D>) -> Tensor<D> {
    let log_ratio = ref_logprobs - logprobs;
    // Rounding must not make it negative.
    (log_ratio.clone().exp().sub_scalar(1.0) - log_ratio).clamp_min(0.0)
}
