//! `[model]`: a new model in config.json's own words, or the folder of one that exists. Knows no
//! formula: sizes become parameters in `arch`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::problems::Problems;
use crate::rope::RopeScaling;

/// The model of the stages that have no `start`: exactly one of `family`, for new weights, and
/// `start`, for a folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "family", rename_all = "lowercase")]
pub enum ModelSection {
    /// RMSNorm, rotary positions, grouped key-value heads, SwiGLU.
    Llama(LlamaModel),
    /// LayerNorm, learned positions, GELU.
    Gpt2(Gpt2Model),
    /// Weights that exist already.
    #[serde(untagged)]
    Start(StartModel),
}

/// Weights that exist already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StartModel {
    /// A Hugging Face folder (config.json, safetensors, tokenizer.json), beside the recipe or under
    /// `data:`.
    #[schemars(extend("format" = "input-path"))]
    pub start: String,
}

/// A new model of the family `llama`; the keys are those of its config.json.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools, reason = "config.json has these keys")]
pub struct LlamaModel {
    /// The width of the model.
    #[schemars(range(min = 2, max = 65_536))]
    pub hidden_size: usize,
    /// The number of blocks.
    #[schemars(range(min = 1, max = 1024))]
    pub num_hidden_layers: usize,
    /// The number of query heads.
    #[schemars(range(min = 1, max = 1024))]
    pub num_attention_heads: usize,
    /// The number of key and value heads; it divides the query heads. Left out, as many as query
    /// heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub num_key_value_heads: Option<usize>,
    /// The width inside the feed-forward part.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub intermediate_size: usize,
    /// The width of a head, an even number. Left out, `hidden_size` over `num_attention_heads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 4096))]
    pub head_dim: Option<usize>,
    /// The number of tokens. Left out, the tokenizer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub vocab_size: Option<usize>,
    /// The longest text that the model is made for, in tokens. Left out, the longest
    /// `sequence_length` of the recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub max_position_embeddings: Option<usize>,
    /// What keeps the norms from dividing by zero.
    #[serde(default = "default_rms_norm_eps")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 0.1))]
    pub rms_norm_eps: f64,
    /// The base of the rotary positions.
    #[serde(default = "default_rope_theta")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e12))]
    pub rope_theta: f64,
    /// How the rotary positions stretch to longer texts. Left out, not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the output layer is the token embedding itself.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Whether the attention's projections have biases.
    #[serde(default)]
    pub attention_bias: bool,
    /// Whether the feed-forward projections have biases.
    #[serde(default)]
    pub mlp_bias: bool,
    /// The standard deviation of the new weights.
    #[serde(default = "default_initializer_range")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1.0))]
    pub initializer_range: f64,
    /// The activation in the feed-forward part.
    #[serde(default = "default_hidden_act")]
    pub hidden_act: Activation,
}

/// A new model of the family `gpt2`; the keys are those of its config.json, and `bias`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gpt2Model {
    /// The width of the model; the heads divide it.
    #[schemars(range(min = 1, max = 65_536))]
    pub n_embd: usize,
    /// The number of blocks.
    #[schemars(range(min = 1, max = 1024))]
    pub n_layer: usize,
    /// The number of heads.
    #[schemars(range(min = 1, max = 1024))]
    pub n_head: usize,
    /// The number of learned positions: no text can be longer. Left out, the longest
    /// `sequence_length` of the recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub n_positions: Option<usize>,
    /// The width inside the feed-forward part. Left out, 4 × `n_embd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub n_inner: Option<usize>,
    /// The number of tokens. Left out, the tokenizer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub vocab_size: Option<usize>,
    /// What keeps the norms from dividing by zero.
    #[serde(default = "default_layer_norm_epsilon")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 0.1))]
    pub layer_norm_epsilon: f64,
    /// The activation in the feed-forward part.
    #[serde(default = "default_activation_function")]
    pub activation_function: Activation,
    /// Whether the output layer is the token embedding itself.
    #[serde(default = "default_true")]
    pub tie_word_embeddings: bool,
    /// The standard deviation of the new weights.
    #[serde(default = "default_initializer_range")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1.0))]
    pub initializer_range: f64,
    /// Whether projections and norms have biases. Temper's own key: with `false` there are no such
    /// parameters in training, and exports write them as zeros.
    #[serde(default = "default_true")]
    pub bias: bool,
}

/// An activation function, under the name that config.json gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x times its sigmoid, as Llama's.
    Silu,
    /// GELU, exact.
    Gelu,
    /// GELU by tanh, as GPT-2's.
    GeluNew,
    /// The same formula under its other name.
    GeluPytorchTanh,
}

impl ModelSection {
    pub(crate) const PATH: &'static str = "model";

    /// The vocabulary size, where the recipe names one.
    pub fn vocab_size(&self) -> Option<usize> {
        match self {
            Self::Llama(keys) => keys.vocab_size,
            Self::Gpt2(keys) => keys.vocab_size,
            Self::Start(_) => None,
        }
    }

    /// The most positions that the model takes, with the key that says it, where the recipe names
    /// them.
    pub fn max_positions(&self) -> Option<(&'static str, usize)> {
        match self {
            Self::Llama(keys) => {
                keys.max_position_embeddings.map(|n| ("max_position_embeddings", n))
            }
            Self::Gpt2(keys) => keys.n_positions.map(|n| ("n_positions", n)),
            Self::Start(_) => None,
        }
    }

    /// config.json of a new model, `vocab_size` and the positions filled in where the recipe leaves
    /// them out; `None` for a folder, which has its own.
    pub fn config_json(&self, vocab_size: usize, max_positions: usize) -> Option<Value> {
        let (keys, model_type, positions_key) = match self {
            Self::Llama(keys) => (serde_json::to_value(keys), "llama", "max_position_embeddings"),
            Self::Gpt2(keys) => (serde_json::to_value(keys), "gpt2", "n_positions"),
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

    pub(crate) fn check(&self, problems: &mut Problems) {
        match self {
            Self::Llama(keys) => keys.check(problems),
            Self::Gpt2(keys) => keys.check(problems),
            Self::Start(_) => {}
        }
    }
}

impl LlamaModel {
    fn check(&self, problems: &mut Problems) {
        let heads = self.num_attention_heads;
        if let Some(kv_heads) = self.num_key_value_heads
            && !heads.is_multiple_of(kv_heads)
        {
            problems.value(
                "model.num_key_value_heads",
                &format!("must divide `num_attention_heads` ({heads})"),
                kv_heads,
            );
        }
        match self.head_dim {
            Some(head_dim) if !head_dim.is_multiple_of(2) => {
                problems.value("model.head_dim", "must be even for rotary positions", head_dim);
            }
            None if !self.hidden_size.is_multiple_of(2 * heads) => problems.value(
                "model.hidden_size",
                &format!("must be a multiple of 2 × `num_attention_heads` ({heads}) unless `head_dim` is given"),
                self.hidden_size,
            ),
            Some(_) | None => {}
        }
        if let Some(rope) = &self.rope_scaling {
            rope.check("model.rope_scaling", problems);
        }
    }
}

impl Gpt2Model {
    fn check(&self, problems: &mut Problems) {
        if !self.n_embd.is_multiple_of(self.n_head) {
            problems.value(
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
