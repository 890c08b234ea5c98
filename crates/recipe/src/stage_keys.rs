//! Keys that every stage has, read from its section under one name each.

use std::borrow::Cow;

use crate::chat_keys::{ChatTargets, ChatTemplate, Overlong};
use crate::input_keys::{InputKeys, OnBadRow, Packing};
use crate::lora::LoraKeys;
use crate::pair_keys::PairKeys;
use crate::source::{SampleKind, Source};
use crate::template::Template;
use crate::train_keys::TrainKeys;

/// Keys that every stage has, whatever its section calls them.
///
/// Fields that end in `_key` are paths within the section, for messages.
#[derive(Clone, Debug)]
pub struct StageKeys<'r> {
    /// Weights to start from; none for a new model of `[model]`.
    pub start: Option<&'r str>,
    /// Adapter that is trained in place of the weights.
    pub lora: Option<&'r LoraKeys>,
    /// Path of `lora`.
    pub lora_key: &'static str,
    /// Every value that names weights, with its path.
    pub weights: Vec<(Cow<'static, str>, &'r str)>,
    /// Data sources.
    pub data: &'r [Source],
    /// Path of `data`.
    pub data_key: &'static str,
    /// Samples that the stage makes of its rows.
    pub samples: Samples,
    /// Chat template, where the section names one.
    pub chat_template: Option<&'r ChatTemplate>,
    /// End-of-text token, where the section names one.
    pub eos_token: Option<&'r str>,
    /// Tokens to add to the tokenizer: ordinary ones and special ones.
    pub added_tokens: [&'r [String]; 2],
    /// Longest sample of the data, in tokens.
    pub sample_length: usize,
    /// Tokens of a row, or of each text of a pair, as the model sees it.
    pub sequence_length: usize,
    /// Path of the key that bounds `sequence_length`.
    pub length_key: &'static str,
    /// Key that is added to `length_key` to make `sequence_length`.
    pub added_length_key: Option<&'static str>,
    /// Rows, pairs, episodes or prompts of a step.
    pub rows_per_step: usize,
    /// Texts that a forward pass has for each of these rows: the answers to a prompt in GRPO.
    pub texts_per_row: usize,
    /// Handling of rows that cannot be read.
    pub on_bad_row: OnBadRow,
    /// Texts of each row that the stage's rewards compare answers with.
    pub answers: Vec<&'r Template>,
    /// Largest number of such rows that are skipped.
    pub max_bad_rows: u64,
    /// Limits, optimizer, schedule, validation and checkpoints.
    pub train: &'r TrainKeys,
}

impl<'r> StageKeys<'r> {
    /// Keys of a stage that trains on rows of `sequence_length` tokens.
    pub(crate) fn of_rows(
        input: &'r InputKeys,
        samples: Samples,
        chat_template: Option<&'r ChatTemplate>,
        train: &'r TrainKeys,
    ) -> Self {
        Self {
            start: input.start.as_deref(),
            lora: input.lora.as_ref(),
            lora_key: "lora",
            weights: weights(input.start.as_deref(), input.lora.as_ref()),
            data: &input.data,
            data_key: "data",
            samples,
            chat_template,
            eos_token: input.eos_token.as_deref(),
            added_tokens: [&input.add_tokens, &input.add_special_tokens],
            sample_length: input.sequence_length,
            sequence_length: input.sequence_length,
            length_key: "sequence_length",
            added_length_key: None,
            rows_per_step: input.rows_per_step(),
            texts_per_row: 1,
            on_bad_row: input.on_bad_row,
            answers: Vec::new(),
            max_bad_rows: input.max_bad_rows,
            train,
        }
    }

    /// Keys of a stage that trains on pairs of answers.
    pub(crate) fn of_pairs(input: &'r PairKeys, samples: Samples, train: &'r TrainKeys) -> Self {
        Self {
            start: input.start.as_deref(),
            lora: input.lora.as_ref(),
            lora_key: "lora",
            weights: weights(input.start.as_deref(), input.lora.as_ref()),
            data: &input.data,
            data_key: "data",
            samples,
            chat_template: input.chat_template.as_ref(),
            eos_token: input.eos_token.as_deref(),
            added_tokens: [&input.add_tokens, &input.add_special_tokens],
            sample_length: input.sequence_length,
            sequence_length: input.sequence_length,
            length_key: "sequence_length",
            added_length_key: None,
            rows_per_step: input.pairs_per_step,
            texts_per_row: 1,
            on_bad_row: input.on_bad_row,
            answers: Vec::new(),
            max_bad_rows: input.max_bad_rows,
            train,
        }
    }
}

/// Samples of a stage, with the keys that decide how they become rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Samples {
    /// Documents, of which every token is a target.
    Documents {
        /// Packing into rows.
        packing: Packing,
    },
    /// Chats, of which the assistant's tokens are targets.
    Chats {
        /// Whether several chats share a row.
        packing: bool,
        /// Handling of long chats.
        overlong: Overlong,
        /// Assistant messages that are targets.
        targets: ChatTargets,
    },
    /// Pairs of texts that are scored, without targets.
    ScoredPairs {
        /// Handling of long texts.
        overlong: Overlong,
    },
    /// Pairs of texts whose answers are targets.
    AnswerPairs {
        /// Handling of long texts.
        overlong: Overlong,
    },
    /// Prompts that the stage answers.
    Prompts,
}

impl Samples {
    /// Assistant messages of a chat that are targets; the default for samples that are no chats.
    pub fn chat_targets(self) -> ChatTargets {
        match self {
            Self::Chats { targets, .. } => targets,
            Self::Documents { .. }
            | Self::ScoredPairs { .. }
            | Self::AnswerPairs { .. }
            | Self::Prompts => ChatTargets::default(),
        }
    }

    /// Kind of the samples, which decides the columns that are read.
    pub fn kind(self) -> SampleKind {
        match self {
            Self::Documents { .. } => SampleKind::Documents,
            Self::Chats { .. } => SampleKind::Chats,
            Self::ScoredPairs { .. } | Self::AnswerPairs { .. } => SampleKind::Pairs,
            Self::Prompts => SampleKind::Prompts,
        }
    }
}

fn weights<'r>(
    start: Option<&'r str>,
    lora: Option<&'r LoraKeys>,
) -> Vec<(Cow<'static, str>, &'r str)> {
    let adapter = lora.and_then(|lora| lora.adapter.as_deref());
    let start = start.map(|start| ("start".into(), start));
    start.into_iter().chain(adapter.map(|adapter| ("lora.adapter".into(), adapter))).collect()
}
