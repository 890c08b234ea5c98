//! `lora = { … }`: a low-rank adapter that is trained in place of the weights. The layers of a
//! model are checked by `plan`.

use std::collections::BTreeMap;

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
    /// Layers that get an adapter, by the last part of their names: `["q_proj", "v_proj"]`. The
    /// embedding (`embed_tokens`, `wte`) and the output layer (`lm_head`) are possible too.
    /// Default: `["all-linear"]`, every linear layer except the output layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000))]
    pub target_modules: Option<Vec<String>>,
    /// Layers that get an adapter, by a regular expression that must match the whole name.
    /// Default: none, `target_modules` counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub target_pattern: Option<String>,
    /// Layers without an adapter that `target_modules` would give one, by the last part of their
    /// names. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000))]
    pub exclude_modules: Option<Vec<String>>,
    /// Layers without an adapter, by a regular expression that must match the whole name. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub exclude_pattern: Option<String>,
    /// Blocks whose layers get an adapter, counted from 0. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 10000))]
    pub layers_to_transform: Option<Vec<usize>>,
    /// Ranks of some layers: a regular expression on the last parts of their names = rank. The first
    /// in alphabetical order that matches counts. Default: none, all layers have `rank`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank_pattern: Option<BTreeMap<String, usize>>,
    /// Values of `alpha` for some layers, as in `rank_pattern`. Default: none, all layers have `alpha`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha_pattern: Option<BTreeMap<String, f64>>,
    /// Weight-decomposed LoRA (DoRA): each output of a layer has a trained magnitude besides.
    /// Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_dora: Option<bool>,
    /// Starting values of the adapter. Default: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<LoraInit>,
    /// Biases of the model that are trained besides. Default: `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias: Option<LoraBias>,
    /// Train a bias in each adapter. Such an adapter can be merged only into layers that have a
    /// bias. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora_bias: Option<bool>,
    /// Modules that are trained as a whole and saved with the adapter, by the end of their names:
    /// `["embed_tokens", "lm_head"]`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000))]
    pub modules_to_save: Option<Vec<String>>,
    /// Ids of tokens whose embeddings are trained besides, such as new special tokens. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100_000))]
    pub trainable_token_indices: Option<Vec<u32>>,
    /// Existing adapter to continue, made for the weights of `start`: a stage trained with `lora`,
    /// or a PEFT directory. It keeps its shape, so only `base_dtype` may be set as well. Default: a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "input-path"))]
    pub adapter: Option<String>,
    /// Type of the frozen base weights in memory. Products convert them to f32. Default: `f32`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_dtype: Option<BaseDtype>,
}

/// Type of frozen weights in memory.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum BaseDtype {
    /// As stored.
    #[default]
    F32,
    /// Matrices rounded to bf16, which halves their memory. Products convert them to f32.
    Bf16,
    /// Matrices of the blocks in 8 bits, one scale per row (as LLM.int8()).
    Int8,
    /// Matrices of the blocks in 4-bit NormalFloat with double quantization (QLoRA).
    Nf4,
}

/// Starting values of an adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LoraInit {
    /// Random values and zeros, so that the adapter starts as no change.
    #[default]
    Default,
    /// The largest singular values of each weight, which are taken out of the frozen weight (PiSSA).
    Pissa,
    /// The first columns of each weight's QR decomposition, which are taken out of the frozen weight
    /// (OLoRA).
    Olora,
}

/// Biases that are trained besides an adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoraBias {
    /// None.
    #[default]
    None,
    /// Every bias of the model.
    All,
    /// The biases of layers with an adapter.
    LoraOnly,
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
        if self.exclude_modules.is_some() && self.exclude_pattern.is_some() {
            diagnostics.conflict(
                &format!("{path}.exclude_pattern"),
                "`exclude_modules` already names the layers",
            );
        }
        let takes_out = self.init.is_some_and(|init| init != LoraInit::Default);
        let conflicts = [
            (
                "layers_to_transform",
                self.layers_to_transform.is_some() && self.target_pattern.is_some(),
                "`target_pattern` already selects whole names",
            ),
            (
                "lora_bias",
                self.lora_bias == Some(true) && self.use_dora == Some(true),
                "DoRA has no bias in the adapter",
            ),
            (
                "lora_bias",
                self.lora_bias == Some(true) && takes_out,
                "the decomposition of a weight has no bias",
            ),
            (
                "base_dtype",
                takes_out && self.base_dtype.is_some_and(|dtype| dtype != BaseDtype::F32),
                "`init` takes a part out of weights in f32",
            ),
        ];
        for (key, _, reason) in conflicts.into_iter().filter(|(_, conflict, _)| *conflict) {
            diagnostics.conflict(&format!("{path}.{key}"), reason);
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
            ("exclude_modules", self.exclude_modules.is_some()),
            ("exclude_pattern", self.exclude_pattern.is_some()),
            ("layers_to_transform", self.layers_to_transform.is_some()),
            ("rank_pattern", self.rank_pattern.is_some()),
            ("alpha_pattern", self.alpha_pattern.is_some()),
            ("use_dora", self.use_dora.is_some()),
            ("init", self.init.is_some()),
            ("bias", self.bias.is_some()),
            ("lora_bias", self.lora_bias.is_some()),
            ("modules_to_save", self.modules_to_save.is_some()),
            ("trainable_token_indices", self.trainable_token_indices.is_some()),
        ];
        for (key, _) in others.into_iter().filter(|(_, is_set)| *is_set) {
            diagnostics
                .conflict(&format!("{path}.{key}"), "the adapter that it continues has its own");
        }
    }
}
