//! `[pretrain]`: pretraining on documents.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostics::Diagnostics;
use crate::input_keys::InputKeys;
use crate::source::SampleKind;
use crate::stage_keys::{Samples, StageKeys};
use crate::train_keys::TrainKeys;

/// Pretraining on documents: every token is a target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PretrainSection {
    /// Initial weights and data.
    #[serde(flatten)]
    pub input: InputKeys,
    /// How documents are packed into rows.
    #[serde(default)]
    pub packing: Packing,
    /// Limits, optimizer, schedule, validation and checkpoints.
    #[serde(flatten)]
    pub train: TrainKeys,
}

/// How documents are packed into rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// An end-of-text token separates documents; attention and positions restart at each one.
    #[default]
    Documents,
    /// One stream of text cut into rows, as in nanoGPT.
    Stream,
}

impl PretrainSection {
    pub(crate) fn stage_keys(&self) -> StageKeys<'_> {
        let samples = Samples::Documents { packing: self.packing };
        StageKeys::of_rows(&self.input, samples, None, &self.train)
    }

    pub(crate) fn check(&self, path: &str, diagnostics: &mut Diagnostics) {
        self.input.check(path, SampleKind::Documents, diagnostics);
        self.train.check(path, diagnostics);
    }
}
