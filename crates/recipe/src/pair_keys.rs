//! The keys of every stage that learns from pairs of answers: where it starts, which pairs it reads, how long a text is.
//! What a stage does with a pair is its own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::input_keys::default_max_bad_rows;
use crate::lora::LoraKeys;
use crate::problems::Problems;
use crate::source::{Source, Use};
use crate::{ChatTemplate, OnBadRow, Overlong};

/// Keys of every stage that learns from pairs: a prompt, the answer that is chosen, the one that is rejected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PairKeys {
    /// The weights to start from: a stage of this recipe (`"sft"`), a run's stage (`"runs/x/sft"`),
    /// a checkpoint, or a Hugging Face folder. Left out, `[model]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "input-path"))]
    pub start: Option<String>,
    /// Train a low-rank adapter beside those weights, which stay as they are. Left out, all weights
    /// are trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraKeys>,
    /// Where the pairs lie: a list of sources. A row has `prompt`, `chosen` and `rejected`, each a
    /// text or a list of messages, or `chosen` and `rejected` with the whole conversation in both,
    /// also as hh-rlhf writes it (`Human: …`, `Assistant: …`).
    #[schemars(length(min = 1, max = 10_000))]
    pub data: Vec<Source>,
    /// The most tokens a text of a pair may have.
    #[schemars(range(min = 2, max = 16_777_216))]
    pub sequence_length: usize,
    /// The pairs of an optimizer step.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub pairs_per_step: usize,
    /// How prompt and answer are written out: `chatml`, `plain`, `model` (the starting model's own)
    /// or a `.jinja` file. Left out, `model` where it has one, else `chatml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<ChatTemplate>,
    /// What happens to a pair with a text longer than `sequence_length`. Cut, both lose their ends,
    /// and a pair that is then alike is dropped; all are counted.
    #[serde(default = "default_overlong")]
    pub overlong: Overlong,
    /// What happens when a row cannot be read: a broken line, a missing column, an unknown role.
    #[serde(default)]
    pub on_bad_row: OnBadRow,
    /// How many rows `on_bad_row = "skip"` leaves out before it stops after all.
    #[serde(default = "default_max_bad_rows")]
    pub max_bad_rows: u64,
}

impl PairKeys {
    pub(crate) fn check(&self, path: &str, problems: &mut Problems) {
        if let Some(lora) = &self.lora {
            lora.check_beside(path, self.start.as_deref(), problems);
        }
        for (idx, source) in self.data.iter().enumerate() {
            source.check(&format!("{path}.data[{idx}]"), Use::Pairs, problems);
        }
    }
}

/// A text without its end is not what is scored later.
fn default_overlong() -> Overlong {
    Overlong::Drop
}
