//! `[sft]`: supervised fine-tuning on chats.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chat_keys::{ChatTargets, ChatTemplate, Learn, Overlong};
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
    /// Assistant messages that are targets. A message with `weight`, `train`, `loss` or
    /// `loss_weight` of 0 or false, or with `masking = true`, never is.
    #[serde(default)]
    pub learn: Learn,
    /// Whether each assistant message becomes a sample of its own, with the conversation before it
    /// as the template writes it at that point. For templates that rewrite earlier turns, such as
    /// those that drop their reasoning.
    #[serde(default)]
    pub split_turns: bool,
    /// Limits, optimizer, schedule, validation and checkpoints.
    #[serde(flatten)]
    pub train: TrainKeys,
}

impl SftSection {
    pub(crate) fn stage_keys(&self) -> StageKeys<'_> {
        let samples = Samples::Chats {
            packing: self.packing,
            overlong: self.overlong,
            targets: ChatTargets { learn: self.learn, split_turns: self.split_turns },
        };
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
