//! `lora = { … }`: a low-rank adapter that is trained in place of the weights. The layers of a
//! model are checked by `plan`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostics::Diagnostics;

/// Low-rank adapter (LoRA) on frozen weights: a new one of a given shape, or an existing one to
/// continue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraKeys {
    /// Rank of the adapter. Default: 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub rank: Option<usize>,
    /// Scale of the adapter: its output is multiplied by `alpha` / `rank`. Default: twice the rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e6))]
    pub alpha: Option<f64>,
    /// Dropout probability on the adapter's inputs during training. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub dropout: Option<f64>,
    /// Rank-stabilized LoRA: multiply by `alpha` / √`rank` instead. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rslora: Option<bool>,
    /// Layers that get an adapter, by the last part of their names: `["q_proj", "v_proj"]`.
    /// Default: `["all-linear"]`, every linear layer except the output layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000))]
    pub target_modules: Option<Vec<String>>,
    /// Layers that get an adapter, by a regular expression that must match the whole name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub target_pattern: Option<String>,
    /// Existing adapter to continue, made for the weights of `start`: a stage trained with `lora`,
    /// or a PEFT directory. It keeps its shape, so only `base_dtype` may be set as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "input-path"))]
    pub adapter: Option<String>,
    /// Type of the frozen base weights in memory. Default: `f32`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_dtype: Option<BaseDtype>,
}

/// Type of frozen weights in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BaseDtype {
    /// As stored.
    #[default]
    F32,
    /// Matrices rounded to bf16, which halves their memory. Products convert them to f32.
    Bf16,
}

impl LoraKeys {
    /// Name for every linear layer, as in PEFT.
    pub const ALL_LINEAR: &'static str = "all-linear";

    /// Checks the `lora` of a stage, which needs weights to start from.
    pub(crate) fn check_beside(
        &self,
        stage: &str,
        start: Option<&str>,
        diagnostics: &mut Diagnostics,
    ) {
        if start.is_none() {
            diagnostics.conflict(
                &format!("{stage}.lora"),
                "an adapter needs trained weights, and the stage has no `start`",
            );
        }
        self.check(&format!("{stage}.lora"), diagnostics);
    }

    pub(crate) fn check(&self, path: &str, diagnostics: &mut Diagnostics) {
        if self.target_modules.is_some() && self.target_pattern.is_some() {
            diagnostics.conflict(
                &format!("{path}.target_pattern"),
                "`target_modules` already names the layers",
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
            diagnostics
                .conflict(&format!("{path}.{key}"), "the adapter that it continues has its own");
        }
    }
}
