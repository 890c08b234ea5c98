//! `[model]`: a new model with the keys of its config.json, or the directory of an existing one.
//! Sizes become parameters in `arch`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::decoder_model::{DecoderCheck, decoder_model};
use crate::diagnostics::Diagnostics;

/// The keys of a new model.
trait NewModel {
    /// Vocabulary size, where the recipe names one.
    fn vocab_size(&self) -> Option<usize>;

    /// The key of the maximum sequence length.
    fn positions_key(&self) -> &'static str {
        "max_position_embeddings"
    }

    /// Maximum sequence length, where the recipe sets it.
    fn max_positions(&self) -> Option<usize>;

    /// The keys as in config.json.
    fn keys(&self) -> serde_json::Result<Value>;

    fn check(&self, diagnostics: &mut Diagnostics);
}

/// Declares [`ModelSection`] with a variant per family, and the match over them.
macro_rules! families {
    ($($(#[$doc:meta])* $name:literal $family:ident($model:ident),)+) => {
        /// Model of the stages that have no `start`: exactly one of `family`, for a new model, and `start`,
        /// for an existing one.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "family")]
        // A recipe has one of these, so its size does not matter.
        #[allow(clippy::large_enum_variant)]
        pub enum ModelSection {
            $($(#[$doc])* #[serde(rename = $name)] $family($model),)+
            /// An existing model.
            #[serde(untagged)]
            Start(StartModel),
        }

        impl ModelSection {
            /// The family's name and keys of a new model.
            fn new_model(&self) -> Option<(&'static str, &dyn NewModel)> {
                match self {
                    $(Self::$family(keys) => Some(($name, keys)),)+
                    Self::Start(_) => None,
                }
            }
        }
    };
}

families! {
    /// Llama: RMSNorm, rotary position embeddings, grouped-query attention, SwiGLU.
    "llama" Llama(LlamaModel),
    /// GPT-2: LayerNorm, learned position embeddings, GELU.
    "gpt2" Gpt2(Gpt2Model),
    /// Qwen3: Llama with an RMSNorm on each query head and each key head.
    "qwen3" Qwen3(Qwen3Model),
    /// Mistral: Llama with an attention window in all blocks.
    "mistral" Mistral(MistralModel),
    /// Qwen2 and Qwen2.5: Llama with biases of queries, keys and values.
    "qwen2" Qwen2(Qwen2Model),
    /// Gemma 2: norms before and after each half of a block, soft caps, windows in every other block, GeGLU.
    "gemma2" Gemma2(Gemma2Model),
    /// Gemma 3 without images: Gemma 2 with norms on queries and keys in place of soft caps.
    "gemma3_text" Gemma3Text(Gemma3TextModel),
    /// Phi-3: Llama with packed projections.
    "phi3" Phi3(Phi3Model),
    /// OLMo 2: norms after each half of a block, and over whole queries and keys.
    "olmo2" Olmo2(Olmo2Model),
    /// OLMo 3: OLMo 2 with windows in three of four blocks.
    "olmo3" Olmo3(Olmo3Model),
    /// SmolLM3: Llama with blocks without positions.
    "smollm3" SmolLm3(SmolLm3Model),
    /// Granite: Llama with multipliers of embeddings, scores, residual stream and logits.
    "granite" Granite(GraniteModel),
    /// Mixtral: Mistral with experts in place of the feed-forward layers.
    "mixtral" Mixtral(MixtralModel),
    /// Qwen2 with experts, one of which every token is sent to.
    "qwen2_moe" Qwen2Moe(Qwen2MoeModel),
    /// Qwen3 with experts.
    "qwen3_moe" Qwen3Moe(Qwen3MoeModel),
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

decoder_model! {
    /// A new model of the family `llama`. The keys are those of its config.json.
    LlamaModel {
        head_dim: Divided, rms_norm_eps: "eps_5", rope_theta: "theta_1e4", tie_word_embeddings: "no";
        /// Whether the attention projections have biases.
        #[serde(default)]
        attention_bias: bool,
        /// Whether the feed-forward layers have biases.
        #[serde(default)]
        mlp_bias: bool,
        /// Activation function of the feed-forward layers.
        #[serde(default = "default_hidden_act")]
        hidden_act: Activation,
    }
}

decoder_model! {
    /// A new model of the family `qwen3`. The keys are those of its config.json.
    Qwen3Model {
        head_dim: Constant("128"), rms_norm_eps: "eps_6", rope_theta: "theta_1e6", tie_word_embeddings: "no";
        /// Whether the attention projections have biases.
        #[serde(default)]
        attention_bias: bool,
        /// Activation function of the feed-forward layers.
        #[serde(default = "default_hidden_act")]
        hidden_act: Activation,
        /// Whether the blocks from `max_window_layers` on attend to a window of `sliding_window` tokens.
        #[serde(default)]
        use_sliding_window: bool,
        /// Number of tokens that a token attends to in blocks with a window, itself included.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 16_777_216))]
        sliding_window: Option<usize>,
        /// Number of blocks without a window. Default: 28.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 0, max = 1024))]
        max_window_layers: Option<usize>,
    }
}

decoder_model! {
    /// A new model of the family `mistral`. The keys are those of its config.json.
    MistralModel {
        head_dim: Divided, rms_norm_eps: "eps_6", rope_theta: "theta_1e4", tie_word_embeddings: "no";
        /// Number of tokens that a token attends to, itself included.
        #[serde(default = "default_window")]
        #[schemars(range(min = 1, max = 16_777_216))]
        sliding_window: usize,
    }
}

decoder_model! {
    /// A new model of the family `qwen2`. The keys are those of its config.json.
    Qwen2Model {
        head_dim: Divided, rms_norm_eps: "eps_6", rope_theta: "theta_1e4", tie_word_embeddings: "no";
        /// Whether the blocks from `max_window_layers` on attend to a window of `sliding_window` tokens.
        #[serde(default)]
        use_sliding_window: bool,
        /// Number of tokens that a token attends to in blocks with a window, itself included.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 16_777_216))]
        sliding_window: Option<usize>,
        /// Number of blocks without a window. Default: 28.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 0, max = 1024))]
        max_window_layers: Option<usize>,
    }
}

decoder_model! {
    /// A new model of the family `gemma2`. The keys are those of its config.json.
    Gemma2Model {
        head_dim: Constant("256"), rms_norm_eps: "eps_6", rope_theta: "theta_1e4", tie_word_embeddings: "yes";
        /// Attention scores are divided by the square root of this number.
        #[serde(default = "default_query_scalar")]
        #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e6))]
        query_pre_attn_scalar: f64,
        /// Number of tokens that a token attends to in every other block, the first included.
        #[serde(default = "default_window")]
        #[schemars(range(min = 1, max = 16_777_216))]
        sliding_window: usize,
        /// Soft cap of attention scores.
        #[serde(default = "default_score_cap")]
        #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e6))]
        attn_logit_softcapping: f64,
        /// Soft cap of logits.
        #[serde(default = "default_logit_cap")]
        #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e6))]
        final_logit_softcapping: f64,
    }
}

decoder_model! {
    /// A new model of the family `gemma3_text`. The keys are those of its config.json.
    Gemma3TextModel {
        head_dim: Constant("256"), rms_norm_eps: "eps_6", rope_theta: "theta_1e6", tie_word_embeddings: "yes";
        /// Attention scores are divided by the square root of this number.
        #[serde(default = "default_query_scalar")]
        #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e6))]
        query_pre_attn_scalar: f64,
        /// Number of tokens that a token attends to in blocks with a window, itself included.
        #[serde(default = "default_window")]
        #[schemars(range(min = 1, max = 16_777_216))]
        sliding_window: usize,
        /// Every block of this number has full attention, the others a window.
        #[serde(default = "default_window_pattern")]
        #[schemars(range(min = 1, max = 1024))]
        sliding_window_pattern: usize,
        /// Base of the rotary position embeddings in blocks with a window.
        #[serde(default = "theta_1e4")]
        #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e12))]
        rope_local_base_freq: f64,
    }
}

decoder_model! {
    /// A new model of the family `phi3`. The keys are those of its config.json.
    Phi3Model {
        head_dim: Divided, rms_norm_eps: "eps_5", rope_theta: "theta_1e4", tie_word_embeddings: "no";
        /// Number of tokens that a token attends to, itself included. Default: all earlier ones.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 16_777_216))]
        sliding_window: Option<usize>,
        /// Share of each head that is rotated.
        #[serde(default = "default_one")]
        #[schemars(range(min = 0.01, max = 1.0))]
        partial_rotary_factor: f64,
    }
}

decoder_model! {
    /// A new model of the family `olmo2`. The keys are those of its config.json.
    Olmo2Model {
        head_dim: Divided, rms_norm_eps: "eps_5", rope_theta: "theta_1e4", tie_word_embeddings: "no";
        /// Whether the attention projections have biases.
        #[serde(default)]
        attention_bias: bool,
    }
}

decoder_model! {
    /// A new model of the family `olmo3`. The keys are those of its config.json.
    Olmo3Model {
        head_dim: Divided, rms_norm_eps: "eps_5", rope_theta: "theta_5e5", tie_word_embeddings: "no";
        /// Number of tokens that a token attends to in blocks with a window, itself included.
        #[serde(default = "default_window")]
        #[schemars(range(min = 1, max = 16_777_216))]
        sliding_window: usize,
        /// Whether the attention projections have biases.
        #[serde(default)]
        attention_bias: bool,
    }
}

decoder_model! {
    /// A new model of the family `smollm3`. The keys are those of its config.json.
    SmolLm3Model {
        head_dim: Divided, rms_norm_eps: "eps_6", rope_theta: "theta_2e6", tie_word_embeddings: "yes";
        /// Every block of this number has no positions.
        #[serde(default = "default_no_rope_interval")]
        #[schemars(range(min = 1, max = 1024))]
        no_rope_layer_interval: usize,
        /// Whether the attention projections have biases.
        #[serde(default)]
        attention_bias: bool,
        /// Whether the feed-forward layers have biases.
        #[serde(default)]
        mlp_bias: bool,
    }
}

decoder_model! {
    /// A new model of the family `granite`. The keys are those of its config.json.
    GraniteModel {
        head_dim: Divided, rms_norm_eps: "eps_6", rope_theta: "theta_1e4", tie_word_embeddings: "no";
        /// Factor of token embeddings.
        #[serde(default = "default_one")]
        #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e6))]
        embedding_multiplier: f64,
        /// Factor of attention scores.
        #[serde(default = "default_one")]
        #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e6))]
        attention_multiplier: f64,
        /// Factor of what each half of a block adds to the residual stream.
        #[serde(default = "default_one")]
        #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e6))]
        residual_multiplier: f64,
        /// Divisor of logits.
        #[serde(default = "default_one")]
        #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e6))]
        logits_scaling: f64,
        /// Whether the attention projections have biases.
        #[serde(default)]
        attention_bias: bool,
        /// Whether the feed-forward layers have biases.
        #[serde(default)]
        mlp_bias: bool,
    }
}

decoder_model! {
    /// A new model of the family `mixtral`. The keys are those of its config.json; `intermediate_size` is the width of an
    /// expert.
    MixtralModel {
        head_dim: Divided, rms_norm_eps: "eps_5", rope_theta: "theta_1e6", tie_word_embeddings: "no";
        /// Number of tokens that a token attends to, itself included. Default: all earlier ones.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 16_777_216))]
        sliding_window: Option<usize>,
        /// Number of experts.
        #[schemars(range(min = 1, max = 4096))]
        num_local_experts: usize,
        /// Number of experts that a token is sent to.
        #[schemars(range(min = 1, max = 4096))]
        num_experts_per_tok: usize,
        /// Factor of the load-balancing loss; 0: none.
        #[serde(default = "default_aux_loss")]
        #[schemars(range(min = 0.0, max = 1000.0))]
        router_aux_loss_coef: f64,
    }
}

decoder_model! {
    /// A new model of the family `qwen2_moe`. The keys are those of its config.json.
    Qwen2MoeModel {
        head_dim: Divided, rms_norm_eps: "eps_6", rope_theta: "theta_1e4", tie_word_embeddings: "no";
        /// Number of experts.
        #[schemars(range(min = 1, max = 4096))]
        num_experts: usize,
        /// Number of experts that a token is sent to.
        #[schemars(range(min = 1, max = 4096))]
        num_experts_per_tok: usize,
        /// Width of an expert.
        #[schemars(range(min = 1, max = 1_048_576))]
        moe_intermediate_size: usize,
        /// Width of the expert that every token is sent to.
        #[schemars(range(min = 1, max = 1_048_576))]
        shared_expert_intermediate_size: usize,
        /// Whether the probabilities of a token's experts are divided by their sum.
        #[serde(default)]
        norm_topk_prob: bool,
        /// Blocks without experts, counted from 0.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        mlp_only_layers: Vec<usize>,
        /// Factor of the load-balancing loss; 0: none.
        #[serde(default = "default_aux_loss")]
        #[schemars(range(min = 0.0, max = 1000.0))]
        router_aux_loss_coef: f64,
    }
}

decoder_model! {
    /// A new model of the family `qwen3_moe`. The keys are those of its config.json.
    Qwen3MoeModel {
        head_dim: Divided, rms_norm_eps: "eps_6", rope_theta: "theta_1e4", tie_word_embeddings: "no";
        /// Number of experts.
        #[schemars(range(min = 1, max = 4096))]
        num_experts: usize,
        /// Number of experts that a token is sent to.
        #[schemars(range(min = 1, max = 4096))]
        num_experts_per_tok: usize,
        /// Width of an expert.
        #[schemars(range(min = 1, max = 1_048_576))]
        moe_intermediate_size: usize,
        /// Whether the probabilities of a token's experts are divided by their sum.
        #[serde(default)]
        norm_topk_prob: bool,
        /// Blocks without experts, counted from 0.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        mlp_only_layers: Vec<usize>,
        /// Factor of the load-balancing loss; 0: none.
        #[serde(default = "default_aux_loss")]
        #[schemars(range(min = 0.0, max = 1000.0))]
        router_aux_loss_coef: f64,
        /// Whether the attention projections have biases.
        #[serde(default)]
        attention_bias: bool,
    }
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
        self.new_model().is_some()
    }

    /// Vocabulary size, where the recipe names one.
    pub fn vocab_size(&self) -> Option<usize> {
        self.new_model()?.1.vocab_size()
    }

    /// Maximum sequence length with its key, where the recipe sets it.
    pub fn max_positions(&self) -> Option<(&'static str, usize)> {
        let (_, model) = self.new_model()?;
        Some((model.positions_key(), model.max_positions()?))
    }

    /// config.json of a new model. A vocabulary size or maximum sequence length that the recipe
    /// leaves out is filled in. None for an existing model, which has its own file.
    pub fn config_json(&self, vocab_size: usize, max_positions: usize) -> Option<Value> {
        let (model_type, model) = self.new_model()?;
        let Ok(Value::Object(keys)) = model.keys() else { return None };
        let mut config = serde_json::Map::new();
        config.insert("model_type".to_owned(), model_type.into());
        config.extend(keys);
        config.entry("vocab_size").or_insert(vocab_size.into());
        config.entry(model.positions_key()).or_insert(max_positions.into());
        Some(Value::Object(config))
    }

    pub(crate) fn check(&self, diagnostics: &mut Diagnostics) {
        if let Some((_, model)) = self.new_model() {
            model.check(diagnostics);
        }
    }
}

impl NewModel for Gpt2Model {
    fn vocab_size(&self) -> Option<usize> {
        self.vocab_size
    }

    fn positions_key(&self) -> &'static str {
        "n_positions"
    }

    fn max_positions(&self) -> Option<usize> {
        self.n_positions
    }

    fn keys(&self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }

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

fn no() -> bool {
    false
}

fn yes() -> bool {
    true
}

fn eps_5() -> f64 {
    1e-5
}

fn eps_6() -> f64 {
    1e-6
}

fn theta_1e4() -> f64 {
    10_000.0
}

fn theta_5e5() -> f64 {
    500_000.0
}

fn theta_1e6() -> f64 {
    1_000_000.0
}

fn theta_2e6() -> f64 {
    2_000_000.0
}

fn default_one() -> f64 {
    1.0
}

fn default_window() -> usize {
    4096
}

fn default_window_pattern() -> usize {
    6
}

fn default_no_rope_interval() -> usize {
    4
}

fn default_query_scalar() -> f64 {
    256.0
}

fn default_score_cap() -> f64 {
    50.0
}

fn default_logit_cap() -> f64 {
    30.0
}

fn default_aux_loss() -> f64 {
    0.001
}

fn default_layer_norm_epsilon() -> f64 {
    1e-5
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
