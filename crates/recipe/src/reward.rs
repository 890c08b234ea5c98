//! `[reward]`: learn to tell the better of two answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Stage;
use crate::pair_keys::PairKeys;
use crate::problems::Problems;
use crate::train_keys::TrainKeys;

/// Learn to tell the better of two answers: one score for each text, read at its last token. Here
/// `micro_batch` counts pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewardSection {
    /// Where the stage starts and which pairs it reads.
    #[serde(flatten)]
    pub input: PairKeys,
    /// By how much the chosen text's score must be above the rejected one's before the pair counts
    /// as told apart: it is taken from the difference of the scores.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub margin: f64,
    /// How strongly scores are drawn to a mean of zero: the factor of the squared sum of a pair's
    /// scores in the loss. 0.01 is usual.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub centering: f64,
    /// How it trains.
    #[serde(flatten)]
    pub train: TrainKeys,
}

impl RewardSection {
    pub(crate) const PATH: &'static str = "reward";

    pub(crate) fn stage(&self) -> Stage<'_> {
        Stage::of_pairs(Self::PATH, &self.input, &self.train)
    }

    pub(crate) fn check(&self, problems: &mut Problems) {
        self.input.check(Self::PATH, problems);
        self.train.check(Self::PATH, problems);
    }
}
