//! Metrics of an update and of a set of answers, under the names of the logs.

use std::collections::{BTreeMap, BTreeSet};

use rl::{Scored, Settings};
use train::EvalRow;

/// Metrics of an update: TRL's, the KL coefficient and the mean length of answers.
pub(crate) fn of_update(
    mut metrics: BTreeMap<String, f64>,
    scored: &Scored,
    settings: &Settings,
) -> BTreeMap<String, f64> {
    metrics.insert("objective/kl_coef".to_owned(), settings.kl_coef);
    let lengths = scored.rollouts.episodes.iter().map(|episode| episode.response().len() as f64);
    let mean = lengths.sum::<f64>() / scored.rollouts.episodes.len().max(1) as f64;
    metrics.insert("val/response_length".to_owned(), mean);
    metrics
}

/// The minimized loss: policy loss + vf_coef × value loss.
pub(crate) fn loss(metrics: &BTreeMap<String, f64>, settings: &Settings) -> f64 {
    let of = |name: &str| metrics.get(name).copied().unwrap_or_default();
    of("loss/policy_avg") + settings.vf_coef * of("loss/value_avg")
}

/// Metrics of a set of answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnswerMetrics {
    /// Number of answers.
    pub n: usize,
    /// Mean score, the sum of weighted rewards, of the answers that have one; NaN if none has.
    pub score: f64,
    /// Standard deviation of the scores.
    pub score_std: f64,
    /// Mean estimated KL divergence of an answer from the reference, in nats.
    pub kl: f64,
    /// Fraction with an end token.
    pub ended: f64,
    /// Fraction of distinct texts.
    pub distinct: f64,
    /// Fraction of the most frequent text.
    pub most_frequent: f64,
    /// Fraction of distinct word bigrams (distinct-2; Li et al. 2016).
    pub distinct_2: f64,
    /// Mean and standard deviation of each reward that needs no model, by the names of the logs.
    pub rewards: BTreeMap<String, f64>,
}

impl AnswerMetrics {
    /// The metrics of texts, their scores and KL divergences, and the number that ended.
    pub fn of(texts: &[String], scores: &[f64], kls: &[f64], n_ended: usize) -> Self {
        let n = texts.len();
        let share = |count: usize| count as f64 / n.max(1) as f64;
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let known: Vec<f64> = scores.iter().copied().filter(|score| !score.is_nan()).collect();
        let score = if known.is_empty() { f64::NAN } else { mean(&known) };
        let squares: Vec<f64> = known.iter().map(|value| (value - score).powi(2)).collect();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for text in texts {
            *counts.entry(text).or_default() += 1;
        }
        let (mut pairs, mut n_pairs) = (BTreeSet::new(), 0);
        for text in texts {
            let words: Vec<&str> = text.split_whitespace().collect();
            for pair in words.windows(2) {
                n_pairs += 1;
                pairs.insert((pair[0], pair[1]));
            }
        }
        Self {
            n,
            score,
            score_std: mean(&squares).sqrt(),
            kl: mean(kls),
            ended: share(n_ended),
            distinct: share(counts.len()),
            most_frequent: share(counts.values().copied().max().unwrap_or(0)),
            distinct_2: pairs.len() as f64 / f64::from(n_pairs.max(1)),
            rewards: BTreeMap::new(),
        }
    }

    /// The metrics by the names of the logs.
    pub fn named(&self) -> BTreeMap<String, f64> {
        let metrics = [
            ("score", self.score),
            ("score_std", self.score_std),
            ("kl", self.kl),
            ("ended", self.ended),
            ("distinct", self.distinct),
            ("most_frequent", self.most_frequent),
            ("distinct_2", self.distinct_2),
        ];
        let is_known = |name: &str| !self.score.is_nan() || !name.starts_with("score");
        let metrics = metrics.into_iter().filter(|(name, _)| is_known(name));
        let metrics = metrics.map(|(name, value)| (name.to_owned(), value));
        metrics.chain(self.rewards.clone()).collect()
    }

    /// A row of the evaluation log. Its loss is the negated mean score, so that smaller is better as in other stages; it has
    /// none without a score.
    pub fn row(&self, step: u64) -> EvalRow {
        EvalRow {
            step,
            eval_loss: Some(-self.score).filter(|loss| !loss.is_nan()),
            n_targets: self.n as u64,
            extra: self.named(),
        }
    }
}
