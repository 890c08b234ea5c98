//! Keys of stages that train on rows of data: initial weights, data sources, and the length of a
//! row.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostics::Diagnostics;
use crate::lora::LoraKeys;
use crate::source::{SampleKind, Source};

/// Keys of `[pretrain]` and `[sft]`: initial weights, data and the size of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InputKeys {
    /// Initial weights: a stage of this recipe (`"pretrain"`), a run's stage (`"runs/x/pretrain"`),
    /// a checkpoint, a Hugging Face directory, or `hf:OWNER/MODEL` after `temper get`. Default:
    /// `[model]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "input-path"))]
    pub start: Option<String>,
    /// LoRA adapter to train on the frozen initial weights. Default: all weights are trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraKeys>,
    /// Data sources.
    #[schemars(length(min = 1, max = 10_000))]
    pub data: Vec<Source>,
    /// Tokens per row. Longer documents are split over rows and longer chats follow `overlong`;
    /// shorter ones are packed.
    #[schemars(range(min = 2, max = 16_777_216))]
    pub sequence_length: usize,
    /// Tokens per optimizer step, a multiple of `sequence_length`.
    #[schemars(range(min = 2, max = 1_073_741_824))]
    pub tokens_per_step: usize,
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
    /// Handling of rows that cannot be read: a broken line, a missing column, an unknown role.
    #[serde(default)]
    pub on_bad_row: OnBadRow,
    /// Maximum number of rows that `on_bad_row = "skip"` skips before the stage stops.
    #[serde(default = "default_max_bad_rows")]
    pub max_bad_rows: u64,
}

/// Handling of rows that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnBadRow {
    /// Stop with the row's location.
    #[default]
    Stop,
    /// Skip and count it, up to `max_bad_rows`.
    Skip,
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

impl InputKeys {
    /// Rows per optimizer step.
    pub fn rows_per_step(&self) -> usize {
        self.tokens_per_step / self.sequence_length.max(1)
    }

    pub(crate) fn check(&self, path: &str, kind: SampleKind, diagnostics: &mut Diagnostics) {
        if let Some(lora) = &self.lora {
            lora.check_beside(path, self.start.as_deref(), diagnostics);
        }
        check_added_tokens(path, &self.add_tokens, &self.add_special_tokens, diagnostics);
        for (idx, source) in self.data.iter().enumerate() {
            source.check(&format!("{path}.data[{idx}]"), kind, diagnostics);
        }
        let length = self.sequence_length;
        if length > 0 && !self.tokens_per_step.is_multiple_of(length) {
            let below = self.tokens_per_step - self.tokens_per_step % length;
            let near = if below == 0 { length } else { below };
            diagnostics.value(
                &format!("{path}.tokens_per_step"),
                &format!("must be a multiple of `sequence_length` ({length}), such as {near}"),
                self.tokens_per_step,
            );
        }
    }
}

/// Refuses a token that is added twice.
pub(crate) fn check_added_tokens(
    path: &str,
    tokens: &[String],
    specials: &[String],
    diagnostics: &mut Diagnostics,
) {
    let mut seen = BTreeSet::new();
    for (key, tokens) in [("add_tokens", tokens), ("add_special_tokens", specials)] {
        for (idx, token) in tokens.iter().enumerate() {
            if !seen.insert(token) {
                diagnostics
                    .conflict(&format!("{path}.{key}[{idx}]"), "the token is already in the list");
            }
        }
    }
}

pub(crate) fn default_max_bad_rows() -> u64 {
    100
}
