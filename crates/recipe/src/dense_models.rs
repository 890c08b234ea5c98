//! New models of the families with rotary positions: keys and defaults, one declaration a family.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::activation::Activation;
use crate::decoder_model::{
    DecoderCheck, NewModel, decoder_model, default_initializer_range, eps_5, eps_6, no, theta_1e4,
    theta_1e6, theta_2e6, theta_5e5, yes,
};
use crate::diagnostics::Diagnostics;

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
        /// Number of tokens that a token attends to in blocks with a window, itself included. Default: none.
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
        /// Number of tokens that a token attends to in blocks with a window, itself included. Default: none.
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
    /// A new model of the family `exaone4`. The keys are those of its config.json.
    Exaone4Model {
        head_dim: Divided, rms_norm_eps: "eps_5", rope_theta: "theta_1e6", tie_word_embeddings: "no";
        /// Number of tokens that a token attends to in blocks with a window, itself included.
        #[serde(default = "default_window")]
        #[schemars(range(min = 1, max = 16_777_216))]
        sliding_window: usize,
        /// Every block of this number has full attention and no positions, the others a window.
        #[serde(default = "default_no_rope_interval")]
        #[schemars(range(min = 2, max = 1024))]
        sliding_window_pattern: usize,
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

fn default_hidden_act() -> Activation {
    Activation::Silu
}
