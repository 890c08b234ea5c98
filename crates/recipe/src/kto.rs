//! `[kto]`: preference optimization on single answers with labels. The formulas are in `loss`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chat_keys::{ChatTemplate, Overlong};
use crate::diagnostics::Diagnostics;
use crate::input_keys::{OnBadRow, check_added_tokens, default_max_bad_rows};
use crate::lora::LoraKeys;
use crate::source::{SampleKind, Source};
use crate::stage_keys::{Samples, StageKeys, weights};
use crate::train_keys::TrainKeys;

/// Kahneman–Tversky optimization (KTO): desirable answers become more probable and undesirable ones
/// less, without pairs and without a reward model. The targets are the answer's tokens and its end
/// token. `micro_batch` counts rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KtoSection {
    /// Initial weights, which are also the reference: a stage of this recipe (`"sft"`), a run's
    /// stage (`"runs/x/sft"`), a checkpoint, a Hugging Face directory, or `hf:OWNER/MODEL` after
    /// `temper get`. Default: `[model]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "input-path"))]
    pub start: Option<String>,
    /// LoRA adapter to train on the frozen initial weights. Default: all weights are trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraKeys>,
    /// Data sources. A row has `prompt`, `completion` and `label`, which is true for a desirable
    /// completion. A row with `chosen` and `rejected` instead becomes one desirable and one
    /// undesirable row.
    #[schemars(length(min = 1, max = 10_000))]
    pub data: Vec<Source>,
    /// Maximum number of tokens of a prompt with its completion.
    #[schemars(range(min = 2, max = 16_777_216))]
    pub sequence_length: usize,
    /// Rows per optimizer step, of both labels. `loss = "kto"` needs at least 2: it combines each
    /// prompt with the completion of another row of the step.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub rows_per_step: usize,
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
    /// Handling of rows longer than `sequence_length`. With `cut`, they lose their ends; rows whose
    /// completion is lost are dropped. All are counted.
    #[serde(default = "default_overlong")]
    pub overlong: Overlong,
    /// Handling of rows that cannot be read: a broken line, a missing column, a label that is not
    /// true or false.
    #[serde(default)]
    pub on_bad_row: OnBadRow,
    /// Maximum number of rows that `on_bad_row = "skip"` skips before the stage stops.
    #[serde(default = "default_max_bad_rows")]
    pub max_bad_rows: u64,
    /// Loss.
    #[serde(default)]
    pub loss: KtoLoss,
    /// Coefficient β of the implicit rewards. A larger value keeps the model closer to its initial
    /// weights.
    #[serde(default = "default_beta")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1000.0))]
    pub beta: f64,
    /// Weight of desirable rows. Where the labels are unbalanced, set it or `undesirable_weight` such
    /// that desirable rows × their weight is 1 to 4/3 times undesirable rows × theirs; `temper plan`
    /// prints the ratio.
    #[serde(default = "default_weight")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1000.0))]
    pub desirable_weight: f64,
    /// Weight of undesirable rows.
    #[serde(default = "default_weight")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1000.0))]
    pub undesirable_weight: f64,
    /// Limits, optimizer, schedule, validation and checkpoints.
    #[serde(flatten)]
    pub train: TrainKeys,
}

/// Loss on labelled answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KtoLoss {
    /// KTO: rewards are compared with an estimate of the divergence from the initial weights.
    #[default]
    Kto,
    /// APO-zero on single answers: rewards are compared with 0.
    ApoZeroUnpaired,
}

impl KtoLoss {
    /// Name of the loss in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kto => "kto",
            Self::ApoZeroUnpaired => "apo_zero_unpaired",
        }
    }

    /// Whether the loss estimates the divergence from completions to other prompts.
    pub fn reads_kl(self) -> bool {
        self == Self::Kto
    }
}

impl KtoSection {
    pub(crate) fn stage_keys(&self) -> StageKeys<'_> {
        StageKeys {
            start: self.start.as_deref(),
            lora: self.lora.as_ref(),
            lora_key: "lora",
            weights: weights(self.start.as_deref(), self.lora.as_ref()),
            data: &self.data,
            data_key: "data",
            samples: Samples::Completions { overlong: self.overlong },
            chat_template: self.chat_template.as_ref(),
            eos_token: self.eos_token.as_deref(),
            added_tokens: [&self.add_tokens, &self.add_special_tokens],
            sample_length: self.sequence_length,
            sequence_length: self.sequence_length,
            length_key: "sequence_length",
            added_length_key: None,
            rows_per_step: self.rows_per_step,
            texts_per_row: 1,
            on_bad_row: self.on_bad_row,
            answers: Vec::new(),
            max_bad_rows: self.max_bad_rows,
            train: &self.train,
        }
    }

    pub(crate) fn check(&self, path: &str, diagnostics: &mut Diagnostics) {
        if let Some(lora) = &self.lora {
            lora.check_beside(path, self.start.as_deref(), diagnostics);
        }
        check_added_tokens(path, &self.add_tokens, &self.add_special_tokens, diagnostics);
        for (idx, source) in self.data.iter().enumerate() {
            source.check(&format!("{path}.data[{idx}]"), SampleKind::Completions, diagnostics);
        }
        self.train.check(path, diagnostics);
        if self.loss.reads_kl() && self.rows_per_step < 2 {
            diagnostics.value(
                &format!("{path}.rows_per_step"),
                "must be at least 2 for `loss = \"kto\"`, which combines the prompts and completions of \
                 different rows",
                self.rows_per_step,
            );
        }
    }
}

/// A cut answer lacks its end token.
fn default_overlong() -> Overlong {
    Overlong::Drop
}

fn default_beta() -> f64 {
    0.1
}

fn default_weight() -> f64 {
    1.0
}
