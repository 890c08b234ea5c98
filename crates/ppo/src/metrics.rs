//! The figures of an update and of a set of answers, by the names that logs use.
//!
//! It deliberately samples and scores nothing.

use std::collections::{BTreeMap, BTreeSet};

use rl::{Scored, Settings};
use train::EvalRow;

/// An update's figures: those that TRL logs, what a nat cost, and how long answers were.
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

/// The loss that was minimised: the policy's, and the value model's by its weight.
pub(crate) fn loss(metrics: &BTreeMap<String, f64>, settings: &Settings) -> f64 {
    let of = |name: &str| metrics.get(name).copied().unwrap_or_default();
    of("loss/policy_avg") + settings.vf_coef * of("loss/value_avg")
}

/// What is said of a set of answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Answers.
    pub n: usize,
    /// Mean score of the reward model.
    pub score: f64,
    /// Standard deviation of the scores.
    pub score_std: f64,
    /// Mean KL divergence of an answer from the reference, in nats, as estimated on it.
    pub kl: f64,
    /// Share that ended by themselves.
    pub ended: f64,
    /// Share of different texts.
    pub distinct: f64,
    /// Share of the text that occurs most often.
    pub most_frequent: f64,
    /// Different pairs of neighbouring words over all pairs (distinct-2; Li et al. 2016).
    pub distinct_2: f64,
}

impl Figures {
    /// The figures of texts with their scores and divergences, and of how many ended.
    pub fn of(texts: &[String], scores: &[f64], kls: &[f64], n_ended: usize) -> Self {
        let n = texts.len();
        let share = |count: usize| count as f64 / n.max(1) as f64;
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let score = mean(scores);
        let squares: Vec<f64> = scores.iter().map(|value| (value - score).powi(2)).collect();
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
        }
    }

    /// By the names that logs use.
    pub fn named(&self) -> BTreeMap<String, f64> {
        let figures = [
            ("score", self.score),
            ("score_std", self.score_std),
            ("kl", self.kl),
            ("ended", self.ended),
            ("distinct", self.distinct),
            ("most_frequent", self.most_frequent),
            ("distinct_2", self.distinct_2),
        ];
        figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// A row of measurements. Its loss is the negated mean score: smaller is better, as everywhere.
    pub fn row(&self, step: u64) -> EvalRow {
        EvalRow { step, eval_loss: -self.score, n_targets: self.n as u64, extra: self.named() }
    }
}
