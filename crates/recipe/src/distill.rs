//! `[distill]`: a student learns the next-token distributions of a teacher. The formulas are in
//! `loss`.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chat_keys::{ChatTargets, ChatTemplate, Learn, Overlong};
use crate::diagnostics::Diagnostics;
use crate::input_keys::{InputKeys, Packing};
use crate::source::SampleKind;
use crate::stage_keys::{Samples, StageKeys};
use crate::train_keys::TrainKeys;

/// Distillation: the student learns the teacher's distribution of each next token, not only the
/// token of the data. The targets are those of [sft], or every token of documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DistillSection {
    /// Initial weights of the student, and data.
    #[serde(flatten)]
    pub input: InputKeys,
    /// Teacher: a stage of this recipe (`"sft"`), a run's stage (`"runs/x/sft"`), a checkpoint, a
    /// Hugging Face directory, or `hf:OWNER/MODEL` after `temper get`. It may be of another family
    /// than the student, with the same tokenizer.
    #[schemars(length(min = 1), extend("format" = "input-path"))]
    pub teacher: String,
    /// Samples that are made of rows.
    #[serde(default)]
    pub samples: DistillSamples,
    /// Divergence: 0 is KL(teacher ‖ student), 1 is KL(student ‖ teacher), and a value between them
    /// the generalized Jensen–Shannon divergence, whose mixture has this weight of the teacher.
    #[serde(default = "default_beta")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub beta: f64,
    /// Temperature that divides the logits of both models. The loss has no factor of its square.
    #[serde(default = "default_temperature")]
    #[schemars(range(min = 0.01, max = 100.0))]
    pub temperature: f64,
    /// Number of the teacher's most probable tokens that the divergence compares; all other tokens
    /// together are one more outcome. The teacher's log-probabilities of them are computed once,
    /// before the first step, and saved in the stage's `teacher/`; unless `on_policy` needs it, the
    /// teacher is then not in memory during training. Default: all tokens are compared, and nothing
    /// is saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_536))]
    pub top_k: Option<usize>,
    /// Share of steps on answers that the student samples itself to the prompts of the step, at
    /// temperature 1 (`chats` only). In the others the answers are those of the data.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub on_policy: f64,
    /// Maximum number of tokens of an answer that the student samples. An answer also ends where its
    /// row is full.
    #[serde(default = "default_max_new_tokens")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub max_new_tokens: usize,
    /// Chat template (`chats` only): `chatml`, `plain`, `model` (that of the initial model) or a
    /// `.jinja` file. Default: `model` if it has one, else `chatml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<ChatTemplate>,
    /// Whether several chats share a row (`chats` only). Attention and positions restart at each
    /// chat.
    #[serde(default = "default_packing")]
    pub packing: bool,
    /// Handling of chats longer than `sequence_length`.
    #[serde(default)]
    pub overlong: Overlong,
    /// Assistant messages that are targets (`chats` only).
    #[serde(default)]
    pub learn: Learn,
    /// Limits, optimizer, schedule, validation and checkpoints.
    #[serde(flatten)]
    pub train: TrainKeys,
}

/// Samples of a distillation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DistillSamples {
    /// Chats, as in [sft]: the assistant's tokens are targets.
    #[default]
    Chats,
    /// Documents, as in [pretrain]: every token is a target.
    Documents,
}

impl DistillSection {
    pub(crate) fn stage_keys(&self) -> StageKeys<'_> {
        let samples = match self.samples {
            DistillSamples::Chats => Samples::Chats {
                packing: self.packing,
                overlong: self.overlong,
                targets: ChatTargets { learn: self.learn, split_turns: false },
            },
            DistillSamples::Documents => Samples::Documents { packing: Packing::Documents },
        };
        let template = self.chat_template.as_ref();
        let mut keys = StageKeys::of_rows(&self.input, samples, template, &self.train);
        keys.weights.push((Cow::from("teacher"), self.teacher.as_str()));
        keys
    }

    pub(crate) fn check(&self, path: &str, diagnostics: &mut Diagnostics) {
        let kind = match self.samples {
            DistillSamples::Chats => SampleKind::Chats,
            DistillSamples::Documents => SampleKind::Documents,
        };
        self.input.check(path, kind, diagnostics);
        self.train.check(path, diagnostics);
        let of_chats = [
            ("on_policy", self.on_policy > 0.0),
            ("chat_template", self.chat_template.is_some()),
            ("packing", !self.packing),
            ("overlong", self.overlong != Overlong::default()),
            ("learn", self.learn != Learn::default()),
        ];
        for (key, _) in of_chats.into_iter().filter(|(_, is_set)| *is_set) {
            if self.samples == DistillSamples::Documents {
                diagnostics.conflict(&format!("{path}.{key}"), "documents have no chats");
            }
        }
        if self.input.start.as_ref() == Some(&self.teacher) && self.input.lora.is_none() {
            diagnostics.value(
                &format!("{path}.teacher"),
                "must be another model than `start`: a student equal to its teacher learns nothing",
                &self.teacher,
            );
        }
    }
}

fn default_beta() -> f64 {
    0.5
}

fn default_temperature() -> f64 {
    1.0
}

fn default_max_new_tokens() -> usize {
    128
}

fn default_packing() -> bool {
    true
}
