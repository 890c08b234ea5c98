//! Settings of an update on groups.

use burn::tensor::Device;
use loss::{AdvantageKind, GroupObjective};

use crate::batch::EpisodeBatch;
use crate::rollout::{Rollout, Sampling};
use crate::settings::Conventions;
use crate::{Error, Result};

/// Settings of one update.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupSettings {
    /// The batches over which means are taken.
    pub conventions: Conventions,
    /// The policy's loss.
    pub objective: GroupObjective,
    /// Estimator of the advantages.
    pub advantages: AdvantageKind,
    /// β of the KL divergence of whole completions in the reward, with leave-one-out advantages.
    pub reward_beta: f64,
    /// Completions of a prompt.
    pub num_generations: usize,
    /// Passes over the completions.
    pub num_iterations: usize,
    /// Optimizer steps of a pass.
    pub n_minibatches: usize,
    /// Whether completions without an end token are left out of the loss.
    pub mask_truncated_completions: bool,
    /// Share of the tokens with the highest entropy to which the policy's term is restricted; 1 for all.
    pub top_entropy_quantile: f64,
    /// Completions in a forward pass; bounds memory. By TRL's conventions, means are over as many.
    pub micro_batch: usize,
    /// Whether a forward pass computes a prompt once for all of its completions that it reads. Changes results by rounding
    /// alone; not by TRL's conventions, whose micro-batches are of given completions.
    pub shares_prompts: bool,
}

impl GroupSettings {
    /// Whether the update needs log-probabilities of the reference model.
    pub fn has_reference(&self) -> bool {
        self.objective.beta != 0.0 || self.reward_beta != 0.0
    }

    /// Whether it needs those of the policy before the update: without, its first and only optimizer step has ratio 1.
    pub fn has_old_logprobs(&self) -> bool {
        self.num_iterations * self.n_minibatches > 1
            || self.reward_beta != 0.0
            || self.has_old_entropies()
    }

    /// A forward pass over completions, as the settings lay them out.
    pub(crate) fn batch(
        &self,
        episodes: &[&Rollout],
        sampling: &Sampling,
        device: &Device,
    ) -> EpisodeBatch {
        if self.has_shared_prompts() {
            return EpisodeBatch::sharing_prompts(episodes, device);
        }
        EpisodeBatch::new(episodes, Conventions::RealTokens, sampling.max_new_tokens, device)
    }

    /// Whether prompts are shared.
    pub(crate) fn has_shared_prompts(&self) -> bool {
        self.shares_prompts && self.conventions == Conventions::RealTokens
    }

    /// Whether tokens are chosen by their entropy at sampling time.
    pub(crate) fn has_old_entropies(&self) -> bool {
        self.top_entropy_quantile < 1.0 && self.conventions == Conventions::RealTokens
    }

    /// Checks the range of every number.
    pub fn check(&self) -> Result<()> {
        let range = |ok: bool, name, range, value: f64| {
            if ok { Ok(()) } else { Err(Error::Range { name, range, value }) }
        };
        let not_negative = |x: f64| x >= 0.0 && x.is_finite();
        let objective = &self.objective;
        range(not_negative(objective.beta), "beta", "at least 0", objective.beta)?;
        range(not_negative(self.reward_beta), "beta", "at least 0", self.reward_beta)?;
        let epsilon = objective.epsilon;
        range((0.0..1.0).contains(&epsilon), "epsilon", "at least 0 and below 1", epsilon)?;
        let epsilon_high = objective.epsilon_high;
        range(not_negative(epsilon_high), "epsilon_high", "at least 0", epsilon_high)?;
        range(
            objective.entropy_coef.is_finite(),
            "entropy_coef",
            "finite",
            objective.entropy_coef,
        )?;
        let share = self.top_entropy_quantile;
        range((0.0..=1.0).contains(&share), "top_entropy_quantile", "between 0 and 1", share)?;
        range(
            self.num_generations > 1,
            "num_generations",
            "at least 2",
            self.num_generations as f64,
        )?;
        range(self.num_iterations > 0, "num_iterations", "at least 1", 0.0)?;
        range(self.n_minibatches > 0, "n_minibatches", "at least 1", 0.0)?;
        range(self.micro_batch > 0, "micro_batch", "at least 1", 0.0)
    }
}
