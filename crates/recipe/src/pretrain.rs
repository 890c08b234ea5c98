//! `[pretrain]`: learn to continue documents.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Stage;
use crate::input_keys::InputKeys;
use crate::problems::Problems;
use crate::source::Use;
use crate::train_keys::TrainKeys;

/// Learn to continue documents: every token is a target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PretrainSection {
    /// Where the stage starts and what it reads.
    #[serde(flatten)]
    pub input: InputKeys,
    /// How documents fill the rows.
    #[serde(default)]
    pub packing: Packing,
    /// How it trains.
    #[serde(flatten)]
    pub train: TrainKeys,
}

/// How documents fill the rows of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// An end-of-text token between documents; attention and positions start anew at each.
    #[default]
    Documents,
    /// One plain stream of text cut into rows, as nanoGPT does.
    Stream,
}

impl PretrainSection {
    pub(crate) const PATH: &'static str = "pretrain";

    pub(crate) fn stage(&self) -> Stage<'_> {
        Stage::of_rows(Self::PATH, &self.input, &self.train)
    }

    pub(crate) fn check(&self, problems: &mut Problems) {
        self.input.check(Self::PATH, Use::Documents, problems);
        self.train.check(Self::PATH, problems);
    }
}
