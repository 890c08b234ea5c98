//! `[sft]`: supervised fine-tuning on chats.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chat_keys::{ChatTemplate, Overlong};
use crate::diagnostics::Diagnostics;
use crate::input_keys::InputKeys;
use crate::source::SampleKind;
use crate::stage_keys::{Samples, StageKeys};
use crate::train_keys::TrainKeys;

/// Supervised fine-tuning on chats: the targets are the assistant's tokens and end tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SftSection {
    /// Initial weights and data.
    #[serde(flatten)]
    pub input: InputKeys,
    /// Chat template: `chatml`, `plain`, `model` (that of the initial model) or a `.jinja` file.
    /// Default: `model` if it has one, else `chatml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<ChatTemplate>,
    /// Whether several chats share a row. Attention and positions restart at each chat.
    #[serde(default = "default_packing")]
    pub packing: bool,
    /// Handling of chats longer than `sequence_length`.
    #[serde(default)]
    pub overlong: Overlong,
    /// Limits, optimizer, schedule, validation and checkpoints.
    #[serde(flatten)]
    pub train: TrainKeys,
}

impl SftSection {
    pub(crate) fn stage_keys(&self) -> StageKeys<'_> {
        let samples = Samples::Chats { packing: self.packing, overlong: self.overlong };
        StageKeys::of_rows(&self.input, samples, self.chat_template.as_ref(), &self.train)
    }

    pub(crate) fn check(&self, path: &str, diagnostics: &mut Diagnostics) {
        self.input.check(path, SampleKind::Chats, diagnostics);
        self.train.check(path, diagnostics);
    }
}

fn default_packing() -> bool {
    true
}
