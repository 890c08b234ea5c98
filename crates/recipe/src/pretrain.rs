//! `[pretrain]`: pretraining on documents.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostics::Diagnostics;
use crate::input_keys::{InputKeys, Packing};
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
