//! What is said of pairs beside their loss: rewards, accuracy, margins, log-probabilities, under the names of TRL.
//!
//! It deliberately computes no loss.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use loss::PairLogprobs;
use train::Collective;

use crate::Objective;

/// Sums over pairs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// How many pairs there were.
    pub n_pairs: u64,
    /// Those whose chosen answer has the higher reward; equal rewards are no choice.
    pub n_right: u64,
    /// Rewards of chosen and rejected answers.
    rewards: [f64; 2],
    /// What the loss reads of chosen and rejected answers.
    logps: [f64; 2],
}

impl Figures {
    /// Counts pairs. The rewards are β times what the policy reads less what the reference reads.
    pub fn add(&mut self, objective: Objective, policy: &PairLogprobs, reference: &PairLogprobs) {
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

    /// Adds up what all replicas have counted.
    pub fn add_up(&mut self, replicas: &dyn Collective) -> train::Result<()> {
        let ([a, b], [c, d]) = (self.rewards, self.logps);
        let mut sums = [self.n_pairs as f64, self.n_right as f64, a, b, c, d];
        replicas.sums(&mut sums)?;
        let [n_pairs, n_right, a, b, c, d] = sums;
        (self.n_pairs, self.n_right) = (n_pairs as u64, n_right as u64);
        (self.rewards, self.logps) = ([a, b], [c, d]);
        Ok(())
    }

    /// The share of pairs whose chosen answer has the higher reward.
    pub fn accuracy(&self) -> f64 {
        self.mean(self.n_right as f64)
    }

    /// Mean of how far the chosen answer's reward is above the rejected one's.
    pub fn margin(&self) -> f64 {
        self.mean(self.rewards[0] - self.rewards[1])
    }

    /// The figures of a step, as TRL names them.
    pub fn of_step(&self) -> BTreeMap<String, f64> {
        let mut figures = self.means("");
        figures.insert("rewards/accuracies".to_owned(), self.accuracy());
        figures.insert("rewards/margins".to_owned(), self.margin());
        figures
    }

    /// The figures of a measurement: TRL's names with `eval_` before them, so that they share no curve with a step's.
    pub fn of_eval(&self) -> BTreeMap<String, f64> {
        let mut figures = self.means("eval_");
        figures.insert("accuracy".to_owned(), self.accuracy());
        figures.insert("margin".to_owned(), self.margin());
        figures
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
