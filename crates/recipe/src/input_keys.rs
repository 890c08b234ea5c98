//! The keys of every stage that learns from a data set of its own: where it starts, what it reads,
//! how long a sample is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::lora::LoraKeys;
use crate::problems::Problems;
use crate::source::{Source, Use};

/// Keys of every stage that learns from rows of data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InputKeys {
    /// The weights to start from: a stage of this recipe (`"pretrain"`), a run's stage
    /// (`"runs/x/pretrain"`), a checkpoint, or a Hugging Face folder. Left out, `[model]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "input-path"))]
    pub start: Option<String>,
    /// Train a low-rank adapter beside those weights, which stay as they are. Left out, all weights
    /// are trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraKeys>,
    /// Where the rows lie: a list of sources.
    #[schemars(length(min = 1, max = 10_000))]
    pub data: Vec<Source>,
    /// The tokens of a row: longer text is cut or spread over rows, shorter text is packed.
    #[schemars(range(min = 2, max = 16_777_216))]
    pub sequence_length: usize,
    /// The tokens of an optimizer step, a multiple of `sequence_length`.
    #[schemars(range(min = 2, max = 1_073_741_824))]
    pub tokens_per_step: usize,
    /// What happens when a row cannot be read: a broken line, a missing column, an unknown role.
    #[serde(default)]
    pub on_bad_row: OnBadRow,
    /// How many rows `on_bad_row = "skip"` leaves out before it stops after all.
    #[serde(default = "default_max_bad_rows")]
    pub max_bad_rows: u64,
}

/// What happens when a row cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnBadRow {
    /// Stop and name it.
    #[default]
    Stop,
    /// Leave it out and count it, up to `max_bad_rows`.
    Skip,
}

impl InputKeys {
    /// The rows of an optimizer step.
    pub fn rows_per_step(&self) -> usize {
        self.tokens_per_step / self.sequence_length.max(1)
    }

    pub(crate) fn check(&self, path: &str, wanted: Use, problems: &mut Problems) {
        if let Some(lora) = &self.lora {
            lora.check_beside(path, self.start.as_deref(), problems);
        }
        for (idx, source) in self.data.iter().enumerate() {
            source.check(&format!("{path}.data[{idx}]"), wanted, problems);
        }
        let length = self.sequence_length;
        if length > 0 && !self.tokens_per_step.is_multiple_of(length) {
            let below = self.tokens_per_step - self.tokens_per_step % length;
            let near = if below == 0 { length } else { below };
            problems.value(
                &format!("{path}.tokens_per_step"),
                &format!("must be a multiple of `sequence_length` ({length}), such as {near}"),
                self.tokens_per_step,
            );
        }
    }
}

pub(crate) fn default_max_bad_rows() -> u64 {
    100
}
