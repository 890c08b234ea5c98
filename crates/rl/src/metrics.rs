//! Metrics of an update under TRL's names, taken from the values that the update used.

use std::collections::BTreeMap;

use train::Collective;

use crate::rollout::{EndReason, Rollout};
use crate::scored::{Scored, ScoredEpisode};
use crate::settings::{Conventions, Settings};

/// Sums over a minibatch and their denominators.
#[derive(Clone, Debug, Default)]
pub(crate) struct MinibatchMetrics {
    pub(crate) policy_loss: f64,
    pub(crate) value_loss: f64,
    pub(crate) n_clipped: f64,
    pub(crate) n_values_clipped: f64,
    pub(crate) approx_kl: f64,
    pub(crate) entropy: f64,
    pub(crate) ratio: f64,
    /// Number of positions with a ratio.
    pub(crate) n_predicted: usize,
    /// Number of trained tokens.
    pub(crate) n_tokens: usize,
    /// Number of trained values.
    pub(crate) n_values: usize,
    /// Denominator of means without a mask.
    pub(crate) n_positions: usize,
}

impl MinibatchMetrics {
    /// The counts of a minibatch, known before its first forward pass.
    pub(crate) fn count(
        episodes: &[&Rollout],
        has_reward: &[bool],
        settings: &Settings,
        max_new_tokens: usize,
    ) -> Self {
        let lengths = episodes.iter().map(|episode| episode.span().response);
        let trained = lengths.clone().zip(has_reward).filter(|(_, has)| **has).map(|(n, _)| n);
        let n_tokens = trained.clone().sum();
        let n_values = trained.map(|n| settings.conventions.n_values(n, max_new_tokens)).sum();
        let n_positions = match settings.conventions {
            Conventions::RealTokens => lengths.sum(),
            Conventions::Trl => episodes.len() * max_new_tokens,
        };
        Self { n_tokens, n_values, n_positions, ..Self::default() }
    }

    /// Sums the metrics of all replicas.
    pub(crate) fn sum_over_replicas(&mut self, replicas: &dyn Collective) -> train::Result<()> {
        let mut sums = [
            self.policy_loss,
            self.value_loss,
            self.n_clipped,
            self.n_values_clipped,
            self.approx_kl,
            self.entropy,
            self.ratio,
            self.n_predicted as f64,
        ];
        replicas.sums(&mut sums)?;
        let [policy_loss, value_loss, n_clipped, n_values_clipped, approx_kl, entropy, ratio, n] =
            sums;
        (self.policy_loss, self.value_loss) = (policy_loss, value_loss);
        (self.n_clipped, self.n_values_clipped) = (n_clipped, n_values_clipped);
        (self.approx_kl, self.entropy) = (approx_kl, entropy);
        self.n_predicted = n as usize;
        // Positions without a token have ratio 1.
        self.ratio = ratio + self.n_positions.saturating_sub(self.n_predicted) as f64;
        Ok(())
    }

    /// Mean of ½ (log ratio)² over positions.
    pub(crate) fn mean_approx_kl(&self) -> f64 {
        self.approx_kl / self.n_positions as f64
    }
}

/// The metrics of an update.
pub(crate) fn metrics(
    scored: &Scored,
    minibatches: &[MinibatchMetrics],
    settings: &Settings,
) -> BTreeMap<String, f64> {
    let n = scored.episodes.len() as f64;
    let per_episode =
        |of: &dyn Fn(usize) -> f64| (0..scored.episodes.len()).map(of).sum::<f64>() / n;
    let sum = |values: &[f32]| values.iter().map(|value| f64::from(*value)).sum::<f64>();
    let kl = per_episode(&|i| sum(&scored.episodes[i].kl));
    // Means of scores are those of the episodes that have one.
    let rewarded: Vec<&ScoredEpisode> =
        scored.episodes.iter().filter(|episode| episode.has_reward()).collect();
    let scores: Vec<f64> = rewarded.iter().map(|episode| f64::from(episode.score)).collect();
    let kls: Vec<f64> = rewarded.iter().map(|episode| sum(&episode.kl)).collect();
    let scores = mean(&scores);
    let entropy = per_episode(&|i| -sum(&scored.episodes[i].logprobs));
    let over = |of: &dyn Fn(&MinibatchMetrics) -> f64| -> Vec<f64> {
        minibatches.iter().map(of).collect()
    };
    let ratios = over(&|m| m.ratio / m.n_positions as f64);
    let means = [
        ("policy/approxkl_avg", over(&MinibatchMetrics::mean_approx_kl)),
        ("policy/clipfrac_avg", over(&|m| m.n_clipped / m.n_tokens.max(1) as f64)),
        ("policy/entropy_avg", over(&|m| m.entropy / m.n_positions as f64)),
        ("loss/policy_avg", over(&|m| m.policy_loss / m.n_tokens.max(1) as f64)),
        ("loss/value_avg", over(&|m| m.value_loss / m.n_values.max(1) as f64)),
        ("val/clipfrac_avg", over(&|m| m.n_values_clipped / m.n_values.max(1) as f64)),
        ("val/ratio", ratios.clone()),
    ];
    let mut metrics = BTreeMap::from(
        [
            ("objective/kl", kl),
            ("objective/entropy", entropy),
            ("objective/non_score_reward", -settings.kl_coef * kl),
            ("val/ratio_var", variance(&ratios)),
            ("val/num_eos_tokens", n_ended(scored, settings) as f64),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    if !rewarded.is_empty() {
        let rlhf_reward = scores - settings.kl_coef * mean(&kls);
        metrics.insert("objective/rlhf_reward".to_owned(), rlhf_reward);
        metrics.insert("objective/scores".to_owned(), scores);
    }
    metrics.extend(means.map(|(name, values)| (name.to_owned(), mean(&values))));
    metrics
}

/// Number of episodes with an end token; by TRL's conventions, number of end tokens after the prompts.
fn n_ended(scored: &Scored, settings: &Settings) -> usize {
    let episodes = &scored.rollouts.episodes;
    match settings.conventions {
        Conventions::RealTokens => {
            episodes.iter().filter(|e| e.span().end == EndReason::EndToken).count()
        }
        Conventions::Trl => {
            let end_ids = &scored.rollouts.sampling.end_ids;
            episodes.iter().flat_map(Rollout::sampled).filter(|id| end_ids.contains(id)).count()
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The unbiased variance; 0 of fewer than two values.
fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    if values.len() > 1 { squares / (values.len() - 1) as f64 } else { 0.0 }
}
