//! The numbers that PPO is set by, under the field's names. Nothing is read or defaulted from a recipe
//! here.

use crate::{Error, Result};

/// How a token's KL divergence from the reference is estimated; Schulman 2020.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KlEstimator {
    /// log π − log π_ref: unbiased, may be negative.
    #[default]
    K1,
    /// eʳ − 1 − r with r = log π_ref − log π: unbiased, never negative.
    K3,
}

/// What counts as a position; see the table in the crate's documentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conventions {
    /// Sampled tokens, the end token among them, and nothing else.
    #[default]
    RealTokens,
    /// As TRL 1.12 does it, to the letter.
    Trl,
}

impl Conventions {
    /// How many positions of a response have a value.
    pub(crate) fn n_values(self, n_tokens: usize, max_new_tokens: usize) -> usize {
        match self {
            Self::RealTokens => n_tokens,
            Self::Trl => (n_tokens + 1).min(max_new_tokens.max(n_tokens)),
        }
    }

    /// What logits are divided by.
    pub(crate) fn temperature(self, temperature: f64) -> f64 {
        match self {
            Self::RealTokens => temperature,
            Self::Trl => temperature + 1e-7,
        }
    }
}

/// The numbers of one update.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What counts as a position.
    pub conventions: Conventions,
    /// How the KL of a token is estimated.
    pub kl_estimator: KlEstimator,
    /// β, what a nat of KL costs.
    pub kl_coef: f64,
    /// What is subtracted from the score of an answer that did not end.
    pub missing_eos_penalty: Option<f64>,
    /// Whether rewards are scaled to variance 1 before advantages are estimated.
    pub whiten_rewards: bool,
    /// γ, the discount of a later reward.
    pub gamma: f64,
    /// λ of generalised advantage estimation.
    pub lambda: f64,
    /// ε of the policy's ratio.
    pub clip_range: f64,
    /// How far values move from the old ones before they are clipped.
    pub clip_range_value: f64,
    /// Weight of the value loss.
    pub vf_coef: f64,
    /// Optimizer steps in each epoch over the episodes.
    pub n_minibatches: usize,
    /// The update ends before a step whose approximate KL from the old policy is above this.
    pub target_kl: Option<f64>,
    /// Episodes in memory at once; changes no result.
    pub micro_batch: usize,
}

impl Settings {
    /// Refuses numbers outside their range, by name.
    pub fn check(&self) -> Result<()> {
        let range = |ok: bool, name, range, value: f64| {
            if ok { Ok(()) } else { Err(Error::Range { name, range, value }) }
        };
        let unit = |x: f64| (0.0..=1.0).contains(&x);
        let not_negative = |x: f64| x >= 0.0 && x.is_finite();
        let penalty = self.missing_eos_penalty.unwrap_or(0.0);
        let target_kl = self.target_kl.unwrap_or(1.0);
        range(not_negative(self.kl_coef), "kl_coef", "at least 0", self.kl_coef)?;
        range(not_negative(penalty), "missing_eos_penalty", "at least 0", penalty)?;
        range(unit(self.gamma), "gamma", "between 0 and 1", self.gamma)?;
        range(unit(self.lambda), "lambda", "between 0 and 1", self.lambda)?;
        let inside = self.clip_range > 0.0 && self.clip_range < 1.0;
        range(inside, "clip_range", "between 0 and 1", self.clip_range)?;
        let value_range = self.clip_range_value;
        range(value_range > 0.0, "clip_range_value", "above 0", value_range)?;
        range(not_negative(self.vf_coef), "vf_coef", "at least 0", self.vf_coef)?;
        range(target_kl > 0.0, "target_kl", "above 0", target_kl)?;
        range(self.n_minibatches > 0, "n_minibatches", "at least 1", 0.0)?;
        range(self.micro_batch > 0, "micro_batch", "at least 1", 0.0)
    }
}
