//! `[tokenizer]`: train one or load one. Builds none: that is the `tokenizer` crate's.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::problems::Problems;
use crate::source::{Source, Use};

/// How text becomes numbers: exactly one of `train` and `load`. A stage that starts from a model
/// uses that model's own unless this says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenizerSection {
    /// Train a new tokenizer before the first stage.
    Train(TrainTokenizer),
    /// Load a `tokenizer.json`, or a folder that holds one, beside the recipe or under `data:`.
    Load(#[schemars(extend("format" = "input-path"))] String),
}

/// A tokenizer to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum TrainTokenizer {
    /// Byte-level byte-pair encoding, as GPT-2's: any text can be written in it.
    ByteBpe(TrainByteBpe),
    /// One token a character of the training text; others become `<|unk|>`.
    Char(TrainChar),
}

/// A byte-level byte-pair encoding to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainByteBpe {
    /// The number of tokens, bytes and special tokens included.
    #[schemars(range(min = 257, max = 1_048_576))]
    pub vocab_size: usize,
    /// The text to train on. Left out, the data of the first stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub data: Option<Vec<Source>>,
    /// Tokens that stand for no text, in the order of their ids. Left out, `<|endoftext|>`,
    /// `<|im_start|>`, `<|im_end|>` and `<|pad|>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(inner(length(min = 1)))]
    pub special_tokens: Option<Vec<String>>,
}

/// A character-level tokenizer to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainChar {
    /// The text whose characters become tokens. Left out, the data of the first stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub data: Option<Vec<Source>>,
    /// Tokens that stand for no text, in the order of their ids. Left out, `<|endoftext|>`,
    /// `<|im_start|>`, `<|im_end|>`, `<|pad|>` and `<|unk|>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(inner(length(min = 1)))]
    pub special_tokens: Option<Vec<String>>,
}

impl TrainTokenizer {
    /// The text to train on, where the recipe names some.
    pub fn data(&self) -> Option<&[Source]> {
        match self {
            Self::ByteBpe(keys) => keys.data.as_deref(),
            Self::Char(keys) => keys.data.as_deref(),
        }
    }

    /// The special tokens, where the recipe names some.
    pub fn special_tokens(&self) -> Option<&[String]> {
        match self {
            Self::ByteBpe(keys) => keys.special_tokens.as_deref(),
            Self::Char(keys) => keys.special_tokens.as_deref(),
        }
    }
}

impl TokenizerSection {
    pub(crate) fn check(&self, problems: &mut Problems) {
        let Self::Train(train) = self else { return };
        for (idx, source) in train.data().unwrap_or_default().iter().enumerate() {
            source.check(&format!("tokenizer.train.data[{idx}]"), Use::Documents, problems);
        }
        let mut seen = BTreeSet::new();
        for (idx, token) in train.special_tokens().unwrap_or_default().iter().enumerate() {
            if !seen.insert(token) {
                problems.conflict(
                    &format!("tokenizer.train.special_tokens[{idx}]"),
                    "it stands here twice",
                );
            }
        }
    }
}
