//! A pass of training without its loss, to measure its time.

use burn::tensor::Device;
use model::CausalLm;

use super::settings::GroupSettings;
use crate::rollout::{Rollout, Rollouts};
use crate::settings::Conventions;

/// Forward and backward pass of the policy over completions, in the layout of an update.
pub fn forward_backward(
    policy: &CausalLm,
    rollouts: &Rollouts,
    settings: &GroupSettings,
    device: &Device,
) {
    let episodes: Vec<&Rollout> = rollouts.episodes.iter().collect();
    let batch = settings.batch(&episodes, &rollouts.sampling, device);
    let (logprobs, _) = batch.logprobs(policy, &rollouts.sampling, Conventions::RealTokens);
    // The backward pass frees the graph.
    drop(logprobs.logprobs_n.sum().backward());
}
