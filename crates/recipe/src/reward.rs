//! `[reward]`: training of a reward model on preference pairs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostics::Diagnostics;
use crate::pair_keys::PairKeys;
use crate::stage_keys::{Samples, StageKeys};
use crate::train_keys::TrainKeys;

/// Training of a reward model on preference pairs (Bradley–Terry): one score per text, read at its
/// last token. `micro_batch` counts pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewardSection {
    /// Initial weights and data.
    #[serde(flatten)]
    pub input: PairKeys,
    /// Margin by which the chosen text's score should exceed the rejected one's. It is subtracted
    /// from the difference of the scores in the loss.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub margin: f64,
    /// Coefficient of the penalty that centres scores around zero: the squared sum of a pair's
    /// scores, added to the loss. A common value is 0.01.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub centering: f64,
    /// Limits, optimizer, schedule, validation and checkpoints.
    #[serde(flatten)]
    pub train: TrainKeys,
}

impl RewardSection {
    pub(crate) fn stage_keys(&self) -> StageKeys<'_> {
        let samples = Samples::ScoredPairs { overlong: self.input.overlong };
        StageKeys::of_pairs(&self.input, samples, &self.train)
    }

    pub(crate) fn check(&self, path: &str, diagnostics: &mut Diagnostics) {
        self.input.check(path, diagnostics);
        self.train.check(path, diagnostics);
        self.train.check_without_samples(path, diagnostics);
    }
}
