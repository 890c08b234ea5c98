//! Keys of stages that train on preference pairs: initial weights, data sources, and the length of
//! a text.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chat_keys::{ChatTemplate, Overlong};
use crate::diagnostics::Diagnostics;
use crate::input_keys::{OnBadRow, check_added_tokens, default_max_bad_rows};
use crate::lora::LoraKeys;
use crate::source::{SampleKind, Source};

/// Keys of `[reward]` and `[dpo]`: initial weights, pairs of a chosen and a rejected answer, and
/// the size of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PairKeys {
    /// Initial weights: a stage of this recipe (`"sft"`), a run's stage (`"runs/x/sft"`), a
    /// checkpoint, a Hugging Face directory, or `hf:OWNER/MODEL` after `temper get`. Default:
    /// `[model]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "input-path"))]
    pub start: Option<String>,
    /// LoRA adapter to train on the frozen initial weights. Default: all weights are trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraKeys>,
    /// Data sources. A row has `prompt`, `chosen` and `rejected`, each a text or a list of
    /// messages, or the whole conversation in both `chosen` and `rejected`, also in the form of
    /// hh-rlhf (`Human: …`, `Assistant: …`).
    #[schemars(length(min = 1, max = 10_000))]
    pub data: Vec<Source>,
    /// Maximum number of tokens of each text of a pair.
    #[schemars(range(min = 2, max = 16_777_216))]
    pub sequence_length: usize,
    /// Pairs per optimizer step.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub pairs_per_step: usize,
    /// Chat template: `chatml`, `plain`, `model` (that of the initial model) or a `.jinja` file.
    /// Default: `model` if it has one, else `chatml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<ChatTemplate>,
    /// End-of-text token, which is saved with the model as its `eos_token`. It also ends the answers
    /// of a chat template that writes no token after them. Default: that of the tokenizer's files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub eos_token: Option<String>,
    /// Tokens to add to the tokenizer, such as `["<think>", "</think>"]`. Embeddings and output
    /// layer grow where they have too few rows; each new row is the mean of the old ones. The stage
    /// needs weights to start from. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1)))]
    pub add_tokens: Vec<String>,
    /// Special tokens to add to the tokenizer in the same way, after `add_tokens`: text of the data
    /// never becomes one, and decoding can leave them out. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1)))]
    pub add_special_tokens: Vec<String>,
    /// Handling of pairs with a text longer than `sequence_length`. With `cut`, both texts lose
    /// their ends, and pairs whose texts become equal are dropped. All are counted.
    #[serde(default = "default_overlong")]
    pub overlong: Overlong,
    /// Handling of rows that cannot be read: a broken line, a missing column, an unknown role.
    #[serde(default)]
    pub on_bad_row: OnBadRow,
    /// Maximum number of rows that `on_bad_row = "skip"` skips before the stage stops.
    #[serde(default = "default_max_bad_rows")]
    pub max_bad_rows: u64,
}

impl PairKeys {
    pub(crate) fn check(&self, path: &str, diagnostics: &mut Diagnostics) {
        if let Some(lora) = &self.lora {
            lora.check_beside(path, self.start.as_deref(), diagnostics);
        }
        check_added_tokens(path, &self.add_tokens, &self.add_special_tokens, diagnostics);
        for (idx, source) in self.data.iter().enumerate() {
            source.check(&format!("{path}.data[{idx}]"), SampleKind::Pairs, diagnostics);
        }
    }
}

/// A cut answer lacks the end token that is scored later.
fn default_overlong() -> Overlong {
    Overlong::Drop
}
