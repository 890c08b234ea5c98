//! `[tokenizer]`: a tokenizer to train or to load.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostics::Diagnostics;
use crate::source::{SampleKind, Source};

/// Tokenizer: exactly one of `train` and `load`. A stage that starts from a model uses that model's
/// tokenizer if this section is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenizerSection {
    /// New tokenizer, trained before the first stage.
    Train(TrainTokenizer),
    /// A `tokenizer.json` or its directory, relative to the recipe or under `data:`, or
    /// `hf:OWNER/MODEL` after `temper get`.
    Load(#[schemars(extend("format" = "input-path"))] String),
}

/// Tokenizer to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum TrainTokenizer {
    /// Byte-level byte-pair encoding, as in GPT-2: encodes any text.
    ByteBpe(TrainByteBpe),
    /// One token per character of the training text; others become `<|unk|>`.
    Char(TrainChar),
}

/// Byte-level byte-pair encoding to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainByteBpe {
    /// Number of tokens, including bytes and special tokens.
    #[schemars(range(min = 257, max = 1_048_576))]
    pub vocab_size: usize,
    /// Training text. Default: the data of the first stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub data: Option<Vec<Source>>,
    /// Special tokens, in the order of their ids. Default: `<|endoftext|>`, `<|im_start|>`,
    /// `<|im_end|>` and `<|pad|>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(inner(length(min = 1)))]
    pub special_tokens: Option<Vec<String>>,
}

/// Character-level tokenizer to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainChar {
    /// Text whose characters become tokens. Default: the data of the first stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub data: Option<Vec<Source>>,
    /// Special tokens, in the order of their ids. Default: `<|endoftext|>`, `<|im_start|>`,
    /// `<|im_end|>`, `<|pad|>` and `<|unk|>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(inner(length(min = 1)))]
    pub special_tokens: Option<Vec<String>>,
}

impl TrainTokenizer {
    /// Training text, where the recipe names it.
    pub fn data(&self) -> Option<&[Source]> {
        match self {
            Self::ByteBpe(keys) => keys.data.as_deref(),
            Self::Char(keys) => keys.data.as_deref(),
        }
    }

    /// Special tokens, where the recipe names them.
    pub fn special_tokens(&self) -> Option<&[String]> {
        match self {
            Self::ByteBpe(keys) => keys.special_tokens.as_deref(),
            Self::Char(keys) => keys.special_tokens.as_deref(),
        }
    }
}

impl TokenizerSection {
    pub(crate) fn check(&self, diagnostics: &mut Diagnostics) {
        let Self::Train(train) = self else { return };
        for (idx, source) in train.data().unwrap_or_default().iter().enumerate() {
            source.check(
                &format!("tokenizer.train.data[{idx}]"),
                SampleKind::Documents,
                diagnostics,
            );
        }
        let mut seen = BTreeSet::new();
        for (idx, token) in train.special_tokens().unwrap_or_default().iter().enumerate() {
            if !seen.insert(token) {
                diagnostics.conflict(
                    &format!("tokenizer.train.special_tokens[{idx}]"),
                    "the list contains it twice",
                );
            }
        }
    }
}
