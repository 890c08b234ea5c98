//! Metrics of preference training under TRL's names: implicit rewards, accuracy, margins, log-probabilities.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use loss::PairLogprobs;
use train::Collective;

use crate::Objective;

/// Sums over pairs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PreferenceMetrics {
    /// Number of pairs.
    pub n_pairs: u64,
    /// Number of pairs whose chosen answer has the higher reward; equal rewards do not count.
    pub n_right: u64,
    /// Implicit rewards of chosen and rejected answers.
    rewards: [f64; 2],
    /// Log-probabilities of chosen and rejected answers, as [`Objective::reading`] defines them.
    logps: [f64; 2],
}

impl PreferenceMetrics {
    /// Adds pairs. The implicit reward of an answer is β (log π − log π_ref), on [`Objective::reading`].
    pub fn add(&mut self, objective: &Objective, policy: &PairLogprobs, reference: &PairLogprobs) {
        let host = |x_p: Tensor<1>| kernels::with_host_values(&x_p, <[f32]>::to_vec);
        let read = |pairs: &PairLogprobs| {
            [host(objective.reading(&pairs.chosen)), host(objective.reading(&pairs.rejected))]
        };
        let ([chosen, rejected], [ref_chosen, ref_rejected]) = (read(policy), read(reference));
        let reward = |logp: f32, reference: f32| objective.beta() * f64::from(logp - reference);
        let answers = chosen.iter().zip(&ref_chosen).zip(rejected.iter().zip(&ref_rejected));
        for ((chosen, ref_chosen), (rejected, ref_rejected)) in answers {
            let rewards = [reward(*chosen, *ref_chosen), reward(*rejected, *ref_rejected)];
            self.n_pairs += 1;
            self.n_right += u64::from(rewards[0] > rewards[1]);
            for (idx, logp) in [*chosen, *rejected].into_iter().enumerate() {
                self.rewards[idx] += rewards[idx];
                self.logps[idx] += f64::from(logp);
            }
        }
    }

    /// Sums the counts of all replicas.
    pub fn sum_over_replicas(&mut self, replicas: &dyn Collective) -> train::Result<()> {
        let ([a, b], [c, d]) = (self.rewards, self.logps);
        let mut sums = [self.n_pairs as f64, self.n_right as f64, a, b, c, d];
        replicas.sums(&mut sums)?;
        let [n_pairs, n_right, a, b, c, d] = sums;
        (self.n_pairs, self.n_right) = (n_pairs as u64, n_right as u64);
        (self.rewards, self.logps) = ([a, b], [c, d]);
        Ok(())
    }

    /// Fraction of pairs whose chosen answer has the higher reward.
    pub fn accuracy(&self) -> f64 {
        self.mean(self.n_right as f64)
    }

    /// Mean difference between the rewards of chosen and rejected answers.
    pub fn margin(&self) -> f64 {
        self.mean(self.rewards[0] - self.rewards[1])
    }

    /// Metrics of a step under TRL's names.
    pub fn of_step(&self) -> BTreeMap<String, f64> {
        let mut metrics = self.means("");
        metrics.insert("rewards/accuracies".to_owned(), self.accuracy());
        metrics.insert("rewards/margins".to_owned(), self.margin());
        metrics
    }

    /// Metrics of an evaluation: TRL's names prefixed by `eval_`, so that they have curves of their own.
    pub fn of_eval(&self) -> BTreeMap<String, f64> {
        let mut metrics = self.means("eval_");
        metrics.insert("accuracy".to_owned(), self.accuracy());
        metrics.insert("margin".to_owned(), self.margin());
        metrics
    }

    fn means(&self, before: &str) -> BTreeMap<String, f64> {
        let sums = [
            ("rewards/chosen", self.rewards[0]),
            ("rewards/rejected", self.rewards[1]),
            ("logps/chosen", self.logps[0]),
            ("logps/rejected", self.logps[1]),
        ];
        sums.into_iter().map(|(name, sum)| (format!("{before}{name}"), self.mean(sum))).collect()
    }

    fn mean(&self, sum: f64) -> f64 {
        sum / self.n_pairs as f64
    }
}
