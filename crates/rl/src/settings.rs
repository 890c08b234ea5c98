//! Settings of a PPO update under their usual names.

use crate::{Error, Result};

/// Estimator of a token's KL divergence from the reference; Schulman 2020, "Approximating KL Divergence".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KlEstimator {
    /// log π − log π_ref: unbiased, can be negative.
    #[default]
    K1,
    /// eʳ − 1 − r with r = log π_ref − log π: unbiased, never negative.
    K3,
}

/// Definition of a position; see the table in the crate's documentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conventions {
    /// Sampled tokens only, including the end token.
    #[default]
    RealTokens,
    /// The conventions of TRL 1.12.
    Trl,
}

impl Conventions {
    /// Number of positions of a response with a value.
    pub(crate) fn n_values(self, n_tokens: usize, max_new_tokens: usize) -> usize {
        match self {
            Self::RealTokens => n_tokens,
            Self::Trl => (n_tokens + 1).min(max_new_tokens.max(n_tokens)),
        }
    }

    /// Divisor of the logits.
    pub(crate) fn temperature(self, temperature: f64) -> f64 {
        match self {
            Self::RealTokens => temperature,
            Self::Trl => temperature + 1e-7,
        }
    }
}

/// Settings of one update.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Definition of a position.
    pub conventions: Conventions,
    /// Estimator of a token's KL divergence.
    pub kl_estimator: KlEstimator,
    /// β, the coefficient of the KL penalty per nat.
    pub kl_coef: f64,
    /// Subtracted from the score of an answer without an end token.
    pub missing_eos_penalty: Option<f64>,
    /// Whether rewards are scaled to unit variance before advantages are estimated.
    pub whiten_rewards: bool,
    /// γ, the discount factor.
    pub gamma: f64,
    /// λ of generalised advantage estimation.
    pub lambda: f64,
    /// ε, the clip range of the policy ratio.
    pub clip_range: f64,
    /// Clip range of values around the old ones.
    pub clip_range_value: f64,
    /// Weight of the value loss.
    pub vf_coef: f64,
    /// Optimizer steps per epoch.
    pub n_minibatches: usize,
    /// The update stops before a step whose approximate KL from the old policy exceeds this.
    pub target_kl: Option<f64>,
    /// Episodes in a forward pass; bounds memory and changes no result.
    pub micro_batch: usize,
}

impl Settings {
    /// Checks the range of every number.
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
