//! `lora = { … }`: a low-rank adapter is trained in place of the weights. Which layers a model has is the plan's to check.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::problems::Problems;

/// Train a low-rank adapter (LoRA) beside frozen weights. Either a fresh one of a given shape, or
/// one that is there already and goes on with its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraKeys {
    /// The width of the adapter. Left out, 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub rank: Option<usize>,
    /// How strongly it counts: what it adds is multiplied by `alpha` / `rank`. Left out, twice the
    /// rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e6))]
    pub alpha: Option<f64>,
    /// The share of its inputs that is dropped in training. Left out, none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub dropout: Option<f64>,
    /// Multiply by `alpha` / √`rank` instead: rank-stabilised LoRA. Left out, false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rslora: Option<bool>,
    /// The layers that get one, by their last names: `["q_proj", "v_proj"]`. Left out, or
    /// `["all-linear"]`, every linear layer but the head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000))]
    pub target_modules: Option<Vec<String>>,
    /// The layers that get one, by a regular expression that a layer's whole name matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub target_pattern: Option<String>,
    /// The adapter to go on with, made for the weights of `start`: a stage that was trained with
    /// `lora`, or a PEFT folder. It keeps its shape, so no other key stands beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "input-path"))]
    pub adapter: Option<String>,
    /// How the frozen weights are held in memory. Left out, `f32`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_dtype: Option<BaseDtype>,
}

/// How weights that are not trained are held in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BaseDtype {
    /// As they are.
    #[default]
    F32,
    /// Matrices rounded to bf16: half the memory. They are widened inside each product.
    Bf16,
}

impl LoraKeys {
    /// The word for every linear layer, as PEFT has it.
    pub const ALL_LINEAR: &'static str = "all-linear";

    /// Checks the keys of a stage's `lora`, which needs weights to stand beside.
    pub(crate) fn check_beside(&self, stage: &str, start: Option<&str>, problems: &mut Problems) {
        if start.is_none() {
            problems.conflict(
                &format!("{stage}.lora"),
                "an adapter stands beside trained weights, and the stage has no `start`",
            );
        }
        self.check(&format!("{stage}.lora"), problems);
    }

    pub(crate) fn check(&self, path: &str, problems: &mut Problems) {
        if self.target_modules.is_some() && self.target_pattern.is_some() {
            problems.conflict(
                &format!("{path}.target_pattern"),
                "`target_modules` says which layers already",
            );
        }
        if self.adapter.is_none() {
            return;
        }
        let others = [
            ("rank", self.rank.is_some()),
            ("alpha", self.alpha.is_some()),
            ("dropout", self.dropout.is_some()),
            ("rslora", self.rslora.is_some()),
            ("target_modules", self.target_modules.is_some()),
            ("target_pattern", self.target_pattern.is_some()),
        ];
        for (key, _) in others.into_iter().filter(|(_, is_set)| *is_set) {
            problems
                .conflict(&format!("{path}.{key}"), "the adapter that it goes on with has its own");
        }
    }
}
