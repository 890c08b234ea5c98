//! Facts about a model and its data, from a plan.

use crate::RightAnswer;

/// Sizes of a model and of the data that it is to be trained on.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Name of the run.
    pub name: String,
    /// The model, as the recipe names it.
    pub model: String,
    /// Whether the model is a stage of the same recipe.
    pub is_stage: bool,
    /// The data, as the recipe names it.
    pub data: String,
    /// Whether the data are chats, of which the prompts are used.
    pub prompts_of_chats: bool,
    /// Number of parameters of the model.
    pub n_parameters: u64,
    /// Positions that the model has.
    pub context_length: usize,
    /// Whether the chat template needs each of the assistant's turns as a sample of its own.
    pub split_turns: bool,
    /// The reward model of PPO, as the recipe names it.
    pub reward: Option<String>,
    /// The right answers of GRPO.
    pub right_answer: Option<RightAnswer>,
    /// Lengths of the samples in tokens.
    pub lengths: Lengths,
}

/// Lengths of samples: documents, chats, prompts, or the texts of pairs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    sorted: Vec<u64>,
}

impl Lengths {
    /// Lengths in tokens, in any order.
    pub fn new(mut lengths: Vec<u64>) -> Self {
        lengths.sort_unstable();
        Self { sorted: lengths }
    }

    /// Number of samples.
    pub fn n_samples(&self) -> u64 {
        self.sorted.len() as u64
    }

    /// Tokens of all samples.
    pub fn total(&self) -> u64 {
        self.sorted.iter().sum()
    }

    /// The length that a share of the samples does not exceed; 0 without samples. The share is between 0 and 1.
    pub fn quantile(&self, share: f64) -> u64 {
        let last = self.sorted.len().saturating_sub(1);
        let index = (share * last as f64).ceil() as usize;
        self.sorted.get(index.min(last)).copied().unwrap_or(0)
    }

    /// Length of the longest sample; 0 without samples.
    pub fn longest(&self) -> u64 {
        self.sorted.last().copied().unwrap_or(0)
    }

    /// Number of samples longer than `length`.
    pub fn n_longer_than(&self, length: u64) -> u64 {
        self.sorted.iter().rev().take_while(|other| **other > length).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_counts() {
        let lengths = Lengths::new(vec![5, 1, 9, 3, 7]);
        assert_eq!(
            (lengths.quantile(0.0), lengths.quantile(0.5), lengths.quantile(1.0)),
            (1, 5, 9)
        );
        assert_eq!((lengths.longest(), lengths.total(), lengths.n_longer_than(5)), (9, 25, 2));
        assert_eq!(Lengths::default().quantile(0.99), 0);
    }
}
