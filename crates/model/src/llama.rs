//! The family `llama` (Touvron et al. 2023): full attention, biases may be present.

use arch::LlamaConfig;
use nn::HeadLayout;

use crate::rope_decoder::RopeDecoderSpec;

/// First part of parameter names.
pub(crate) const PREFIX: &str = "model";

pub(crate) fn spec(config: &LlamaConfig) -> RopeDecoderSpec {
    RopeDecoderSpec {
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        intermediate_size: config.intermediate_size,
        heads: HeadLayout {
            n_heads: config.num_attention_heads,
            n_kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            scale: (config.head_dim as f64).powf(-0.5),
        },
        windows: vec![None; config.num_hidden_layers],
        rms_norm_eps: config.rms_norm_eps,
        qk_norm: false,
        qkv_bias: config.attention_bias,
        o_bias: config.attention_bias,
        mlp_bias: config.mlp_bias,
        rope: config.rope_parameters,
        n_positions: config.max_position_embeddings,
    }
}
