//! Metrics under TRL's names: the estimated divergence, and implicit rewards and log-probabilities by label.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use train::Collective;

/// Sums over rows by label: desirable rows first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelMetrics {
    n: [u64; 2],
    rewards: [f64; 2],
    logps: [f64; 2],
    /// Sum of the divergences of steps or parts, and their number.
    kl: (f64, u64),
}

/// TRL's names of the labels.
const SIDES: [&str; 2] = ["chosen", "rejected"];

impl LabelMetrics {
    /// Adds rows: their labels, log-probabilities and implicit rewards, `[b]` each.
    pub fn add(&mut self, labels: &[bool], policy_b: &Tensor<1>, rewards_b: &Tensor<1>) {
        let host = |x_b: &Tensor<1>| kernels::with_host_values(x_b, <[f32]>::to_vec);
        for ((label, logp), reward) in labels.iter().zip(host(policy_b)).zip(host(rewards_b)) {
            let side = usize::from(!label);
            self.n[side] += 1;
            self.logps[side] += f64::from(logp);
            self.rewards[side] += f64::from(reward);
        }
    }

    /// Adds the divergence of a step, or of a part of the validation set.
    pub fn add_kl(&mut self, kl: f64) {
        self.kl = (self.kl.0 + kl, self.kl.1 + 1);
    }

    /// Number of rows.
    pub fn n_rows(&self) -> u64 {
        self.n.iter().sum()
    }

    /// Sums the rows of all replicas. The divergence is already that of all.
    pub fn sum_over_replicas(&mut self, replicas: &dyn Collective) -> train::Result<()> {
        let ([a, b], [c, d]) = (self.rewards, self.logps);
        let mut sums = [self.n[0] as f64, self.n[1] as f64, a, b, c, d];
        replicas.sums(&mut sums)?;
        let [n_desirable, n_undesirable, a, b, c, d] = sums;
        self.n = [n_desirable as u64, n_undesirable as u64];
        (self.rewards, self.logps) = ([a, b], [c, d]);
        Ok(())
    }

    /// Means by name, each with a prefix. A label without rows has none, and without both labels there is no margin.
    pub fn named(&self, prefix: &str) -> BTreeMap<String, f64> {
        let mut metrics = BTreeMap::new();
        let mut insert = |name: &str, value| metrics.insert(format!("{prefix}{name}"), value);
        let mean = |sums: [f64; 2], side: usize| sums[side] / self.n[side] as f64;
        for (side, name) in SIDES.iter().enumerate().filter(|(side, _)| self.n[*side] > 0) {
            insert(&format!("rewards/{name}"), mean(self.rewards, side));
            insert(&format!("logps/{name}"), mean(self.logps, side));
        }
        if self.n.iter().all(|n| *n > 0) {
            insert("rewards/margins", mean(self.rewards, 0) - mean(self.rewards, 1));
        }
        if self.kl.1 > 0 {
            insert("kl", self.kl.0 / self.kl.1 as f64);
        }
        metrics
    }
}
