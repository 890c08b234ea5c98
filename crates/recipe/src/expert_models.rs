//! New models of the families that are mixtures of experts: keys and defaults, one declaration a family.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::decoder_model::{
    DecoderCheck, NewModel, decoder_model, default_initializer_range, eps_5, eps_6, no, theta_1e4,
    theta_1e6,
};
use crate::diagnostics::Diagnostics;

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
        /// Blocks without experts, counted from 0. Default: none.
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
        /// Blocks without experts, counted from 0. Default: none.
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

fn default_aux_loss() -> f64 {
    0.001
}
