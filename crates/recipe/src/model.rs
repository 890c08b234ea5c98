//! `[model]`: a new model with the keys of its config.json, or the directory of an existing one.
//! Sizes become parameters in `arch`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::diagnostics::Diagnostics;
use crate::rope::RopeScaling;

/// Model of the stages that have no `start`: exactly one of `family`, for a new model, and `start`,
/// for an existing one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "family", rename_all = "lowercase")]
pub enum ModelSection {
    /// Llama: RMSNorm, rotary position embeddings, grouped-query attention, SwiGLU.
    Llama(LlamaModel),
    /// GPT-2: LayerNorm, learned position embeddings, GELU.
    Gpt2(Gpt2Model),
    /// Qwen3: Llama with an RMSNorm on each query head and each key head.
    Qwen3(Qwen3Model),
    /// An existing model.
    #[serde(untagged)]
    Start(StartModel),
}

/// An existing model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StartModel {
    /// Hugging Face directory (config.json, safetensors, tokenizer.json), relative to the recipe or
    /// under `data:`.
    #[schemars(extend("format" = "input-path"))]
    pub start: String,
}

/// A new model of the family `llama`. The keys are those of its config.json.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools, reason = "config.json has these keys")]
pub struct LlamaModel {
    /// Width of the model.
    #[schemars(range(min = 2, max = 65_536))]
    pub hidden_size: usize,
    /// Number of blocks.
    #[schemars(range(min = 1, max = 1024))]
    pub num_hidden_layers: usize,
    /// Number of query heads.
    #[schemars(range(min = 1, max = 1024))]
    pub num_attention_heads: usize,
    /// Number of key and value heads; it must divide the number of query heads. Default: one per
    /// query head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub num_key_value_heads: Option<usize>,
    /// Width of the feed-forward layers.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub intermediate_size: usize,
    /// Width of a head, an even number. Default: `hidden_size` / `num_attention_heads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 4096))]
    pub head_dim: Option<usize>,
    /// Vocabulary size. Default: that of the tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub vocab_size: Option<usize>,
    /// Maximum sequence length, in tokens. Default: the longest `sequence_length` of the recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub max_position_embeddings: Option<usize>,
    /// Added to the denominator of RMSNorm for numerical stability.
    #[serde(default = "default_rms_norm_eps")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 0.1))]
    pub rms_norm_eps: f64,
    /// Base of the rotary position embeddings.
    #[serde(default = "default_rope_theta")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e12))]
    pub rope_theta: f64,
    /// Scaling of the rotary position embeddings to longer sequences. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the output layer shares the token embedding's weights.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Whether the attention projections have biases.
    #[serde(default)]
    pub attention_bias: bool,
    /// Whether the feed-forward layers have biases.
    #[serde(default)]
    pub mlp_bias: bool,
    /// Standard deviation of new weights.
    #[serde(default = "default_initializer_range")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1.0))]
    pub initializer_range: f64,
    /// Activation function of the feed-forward layers.
    #[serde(default = "default_hidden_act")]
    pub hidden_act: Activation,
}

/// A new model of the family `qwen3`, with full attention in all blocks. The keys are those of its config.json.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Qwen3Model {
    /// Width of the model.
    #[schemars(range(min = 2, max = 65_536))]
    pub hidden_size: usize,
    /// Number of blocks.
    #[schemars(range(min = 1, max = 1024))]
    pub num_hidden_layers: usize,
    /// Number of query heads.
    #[schemars(range(min = 1, max = 1024))]
    pub num_attention_heads: usize,
    /// Number of key and value heads; it must divide the number of query heads. Default: one per
    /// query head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub num_key_value_heads: Option<usize>,
    /// Width of the feed-forward layers.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub intermediate_size: usize,
    /// Width of a head, an even number.
    #[serde(default = "default_qwen3_head_dim")]
    #[schemars(range(min = 2, max = 4096))]
    pub head_dim: usize,
    /// Vocabulary size. Default: that of the tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub vocab_size: Option<usize>,
    /// Maximum sequence length, in tokens. Default: the longest `sequence_length` of the recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub max_position_embeddings: Option<usize>,
    /// Added to the denominator of RMSNorm for numerical stability.
    #[serde(default = "default_qwen3_rms_norm_eps")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 0.1))]
    pub rms_norm_eps: f64,
    /// Base of the rotary position embeddings.
    #[serde(default = "default_qwen3_rope_theta")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e12))]
    pub rope_theta: f64,
    /// Scaling of the rotary position embeddings to longer sequences. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the output layer shares the token embedding's weights.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Whether the attention projections have biases.
    #[serde(default)]
    pub attention_bias: bool,
    /// Standard deviation of new weights.
    #[serde(default = "default_initializer_range")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1.0))]
    pub initializer_range: f64,
    /// Activation function of the feed-forward layers.
    #[serde(default = "default_hidden_act")]
    pub hidden_act: Activation,
}

/// A new model of the family `gpt2`. The keys are those of its config.json, and `bias`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gpt2Model {
    /// Width of the model, a multiple of the number of heads.
    #[schemars(range(min = 1, max = 65_536))]
    pub n_embd: usize,
    /// Number of blocks.
    #[schemars(range(min = 1, max = 1024))]
    pub n_layer: usize,
    /// Number of heads.
    #[schemars(range(min = 1, max = 1024))]
    pub n_head: usize,
    /// Number of learned positions, the maximum sequence length. Default: the longest
    /// `sequence_length` of the recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub n_positions: Option<usize>,
    /// Width of the feed-forward layers. Default: 4 × `n_embd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub n_inner: Option<usize>,
    /// Vocabulary size. Default: that of the tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub vocab_size: Option<usize>,
    /// Added to the denominator of LayerNorm for numerical stability.
    #[serde(default = "default_layer_norm_epsilon")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 0.1))]
    pub layer_norm_epsilon: f64,
    /// Activation function of the feed-forward layers.
    #[serde(default = "default_activation_function")]
    pub activation_function: Activation,
    /// Whether the output layer shares the token embedding's weights.
    #[serde(default = "default_true")]
    pub tie_word_embeddings: bool,
    /// Standard deviation of new weights.
    #[serde(default = "default_initializer_range")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1.0))]
    pub initializer_range: f64,
    /// Whether projections and norms have biases. A key of Temper: with `false` these parameters do
    /// not exist in training, and exports write them as zeros.
    #[serde(default = "default_true")]
    pub bias: bool,
}

/// Activation function, under its name in config.json.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x · sigmoid(x), as in Llama.
    Silu,
    /// Exact GELU.
    Gelu,
    /// GELU with the tanh approximation, as in GPT-2.
    GeluNew,
    /// The same function under its other name.
    GeluPytorchTanh,
}

impl ModelSection {
    pub(crate) const PATH: &'static str = "model";

    /// Whether the section describes a new model.
    pub fn is_new(&self) -> bool {
        match self {
            Self::Llama(_) | Self::Gpt2(_) | Self::Qwen3(_) => true,
            Self::Start(_) => false,
        }
    }

    /// Vocabulary size, where the recipe names one.
    pub fn vocab_size(&self) -> Option<usize> {
        match self {
            Self::Llama(keys) => keys.vocab_size,
            Self::Gpt2(keys) => keys.vocab_size,
            Self::Qwen3(keys) => keys.vocab_size,
            Self::Start(_) => None,
        }
    }

    /// Maximum sequence length with its key, where the recipe sets it.
    pub fn max_positions(&self) -> Option<(&'static str, usize)> {
        match self {
            Self::Llama(keys) => {
                keys.max_position_embeddings.map(|n| ("max_position_embeddings", n))
            }
            Self::Gpt2(keys) => keys.n_positions.map(|n| ("n_positions", n)),
            Self::Qwen3(keys) => {
                keys.max_position_embeddings.map(|n| ("max_position_embeddings", n))
            }
            Self::Start(_) => None,
        }
    }

    /// config.json of a new model. A vocabulary size or maximum sequence length that the recipe
    /// leaves out is filled in. None for an existing model, which has its own file.
    pub fn config_json(&self, vocab_size: usize, max_positions: usize) -> Option<Value> {
        let (keys, model_type, positions_key) = match self {
            Self::Llama(keys) => (serde_json::to_value(keys), "llama", "max_position_embeddings"),
            Self::Gpt2(keys) => (serde_json::to_value(keys), "gpt2", "n_positions"),
            Self::Qwen3(keys) => (serde_json::to_value(keys), "qwen3", "max_position_embeddings"),
            Self::Start(_) => return None,
        };
        let Ok(Value::Object(keys)) = keys else { return None };
        let mut config = serde_json::Map::new();
        config.insert("model_type".to_owned(), model_type.into());
        config.extend(keys);
        config.entry("vocab_size").or_insert(vocab_size.into());
        config.entry(positions_key).or_insert(max_positions.into());
        Some(Value::Object(config))
    }

    pub(crate) fn check(&self, diagnostics: &mut Diagnostics) {
        match self {
            Self::Llama(keys) => keys.check(diagnostics),
            Self::Gpt2(keys) => keys.check(diagnostics),
            Self::Qwen3(keys) => keys.check(diagnostics),
            Self::Start(_) => {}
        }
    }
}

impl LlamaModel {
    fn check(&self, diagnostics: &mut Diagnostics) {
        let heads = self.num_attention_heads;
        check_kv_heads(heads, self.num_key_value_heads, diagnostics);
        match self.head_dim {
            Some(head_dim) if !head_dim.is_multiple_of(2) => {
                diagnostics.value("model.head_dim", HEAD_DIM_IS_EVEN, head_dim);
            }
            None if !self.hidden_size.is_multiple_of(2 * heads) => diagnostics.value(
                "model.hidden_size",
                &format!("must be a multiple of 2 × `num_attention_heads` ({heads}) unless `head_dim` is given"),
                self.hidden_size,
            ),
            Some(_) | None => {}
        }
        if let Some(rope) = &self.rope_scaling {
            rope.check("model.rope_scaling", diagnostics);
        }
    }
}

impl Qwen3Model {
    fn check(&self, diagnostics: &mut Diagnostics) {
        check_kv_heads(self.num_attention_heads, self.num_key_value_heads, diagnostics);
        if !self.head_dim.is_multiple_of(2) {
            diagnostics.value("model.head_dim", HEAD_DIM_IS_EVEN, self.head_dim);
        }
        if let Some(rope) = &self.rope_scaling {
            rope.check("model.rope_scaling", diagnostics);
        }
    }
}

const HEAD_DIM_IS_EVEN: &str = "must be even for rotary positions";

fn check_kv_heads(heads: usize, kv_heads: Option<usize>, diagnostics: &mut Diagnostics) {
    if let Some(kv_heads) = kv_heads
        && !heads.is_multiple_of(kv_heads)
    {
        diagnostics.value(
            "model.num_key_value_heads",
            &format!("must divide `num_attention_heads` ({heads})"),
            kv_heads,
        );
    }
}

impl Gpt2Model {
    fn check(&self, diagnostics: &mut Diagnostics) {
        if !self.n_embd.is_multiple_of(self.n_head) {
            diagnostics.value(
                "model.n_embd",
                &format!("must be a multiple of `n_head` ({})", self.n_head),
                self.n_embd,
            );
        }
    }
}

fn default_true() -> bool {
    true
}

fn default_rms_norm_eps() -> f64 {
    1e-5
}

fn default_qwen3_head_dim() -> usize {
    128
}

fn default_qwen3_rms_norm_eps() -> f64 {
    1e-6
}

fn default_qwen3_rope_theta() -> f64 {
    1_000_000.0
}

fn default_layer_norm_epsilon() -> f64 {
    1e-5
}

fn default_rope_theta() -> f64 {
    10_000.0
}

fn default_initializer_range() -> f64 {
    0.02
}

fn default_hidden_act() -> Activation {
    Activation::Silu
}

fn default_activation_function() -> Activation {
    Activation::GeluNew
}
