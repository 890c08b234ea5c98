//! Outputs of a forward pass besides hidden states: the model's auxiliary loss and the load of experts.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use nn::Routing;

/// The model's own loss and the load of its experts; nothing in dense models.
#[derive(Clone, Debug, Default)]
pub struct Auxiliary {
    /// See [`crate::Output::aux_loss`].
    pub loss: Option<Tensor<1>>,
    /// Tokens of each expert.
    pub expert_load: ExpertLoad,
}

/// Number of tokens that were sent to each expert of each sparse block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpertLoad {
    /// By block, then by expert.
    tokens: Vec<Vec<u64>>,
}

impl ExpertLoad {
    pub(crate) fn of(routing: &[Routing]) -> Self {
        let of_block = |routing: &Routing| {
            routing.tokens_of_expert.iter().map(|tokens| tokens.len() as u64).collect()
        };
        Self { tokens: routing.iter().map(of_block).collect() }
    }

    /// Adds the load of another forward pass of the same model.
    pub fn add(&mut self, other: &Self) {
        if self.tokens.is_empty() {
            self.tokens.clone_from(&other.tokens);
            return;
        }
        for (mine, others) in self.tokens.iter_mut().zip(&other.tokens) {
            for (mine, other) in mine.iter_mut().zip(others) {
                *mine += other;
            }
        }
    }

    /// Metrics of a step, by name; none in dense models. `experts/max_load`: tokens of the busiest expert over the mean of
    /// its block, in the least balanced block (1: balanced). `experts/idle`: share of experts without tokens.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let n_experts: usize = self.tokens.iter().map(Vec::len).sum();
        if n_experts == 0 {
            return BTreeMap::new();
        }
        let imbalance = |block: &Vec<u64>| {
            let (sum, largest) = (block.iter().sum::<u64>(), block.iter().max());
            let mean = sum as f64 / block.len().max(1) as f64;
            largest.map_or(0.0, |largest| *largest as f64 / mean.max(1e-9))
        };
        let max_load = self.tokens.iter().map(imbalance).fold(0.0, f64::max);
        let n_idle = self.tokens.iter().flatten().filter(|tokens| **tokens == 0).count();
        BTreeMap::from([
            ("experts/max_load".to_owned(), max_load),
            ("experts/idle".to_owned(), n_idle as f64 / n_experts as f64),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::ExpertLoad;

    #[test]
    fn metrics_are_those_of_the_least_balanced_block() {
        let mut load = ExpertLoad { tokens: vec![vec![2, 2, 2, 2], vec![6, 2, 0, 0]] };
        let metrics = load.metrics();
        assert_eq!(metrics["experts/max_load"], 3.0);
        assert_eq!(metrics["experts/idle"], 0.25);
        load.add(&ExpertLoad { tokens: vec![vec![0, 0, 0, 0], vec![0, 0, 4, 4]] });
        assert_eq!(load.metrics()["experts/idle"], 0.0);
        assert_eq!(load.metrics()["experts/max_load"], 1.5);
        assert!(ExpertLoad::default().metrics().is_empty());
    }
}
