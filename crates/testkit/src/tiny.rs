//! Tiny models as config.json values, and byte ids as a stand-in for a tokenizer.
//!
//! Sizes differ from each other where possible, so that swapped axes fail a test.

use serde_json::{Value, json};

/// A Llama-shaped model of 2 blocks: 4 query heads on 2 key-value heads, untied.
pub fn tiny_llama(vocab_size: usize) -> Value {
    json!({
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "intermediate_size": 56,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": false,
        "hidden_act": "silu",
    })
}

/// A model of 2 blocks of each family of decoders but Llama, with windows, caps, experts and scalings that matter in texts of
/// a few tokens.
pub fn tiny_decoders(vocab_size: usize) -> Vec<Value> {
    let of = |model_type: &str, own: Value| {
        let mut keys = tiny_llama(vocab_size);
        keys["model_type"] = json!(model_type);
        if let (Value::Object(keys), Value::Object(own)) = (&mut keys, own) {
            for key in ["architectures", "hidden_act"] {
                keys.remove(key);
            }
            keys.extend(own);
        }
        keys
    };
    let windowed = json!({
        "use_sliding_window": true, "sliding_window": 4, "max_window_layers": 1,
    });
    let longrope = json!({
        "head_dim": 16, "partial_rotary_factor": 0.5, "original_max_position_embeddings": 8,
        "rope_scaling": {
            "type": "longrope", "short_factor": [1.0, 1.2, 1.5, 2.0], "long_factor": [1.0, 2.0, 4.0, 8.0],
        },
    });
    let experts = json!({
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
        "norm_topk_prob": true, "router_aux_loss_coef": 0.01,
    });
    let shared = json!({
        "num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 20, "mlp_only_layers": [0],
    });
    vec![
        of("mistral", json!({ "sliding_window": 5 })),
        of("qwen2", windowed.clone()),
        of("qwen3", windowed),
        of(
            "gemma2",
            json!({
                "query_pre_attn_scalar": 7.0, "sliding_window": 4, "attn_logit_softcapping": 5.0,
                "final_logit_softcapping": 3.0,
            }),
        ),
        of(
            "gemma3_text",
            json!({
                "query_pre_attn_scalar": 7.0, "sliding_window": 4, "sliding_window_pattern": 2,
            }),
        ),
        of("phi3", longrope),
        of("olmo2", json!({})),
        of("olmo3", json!({ "sliding_window": 4 })),
        of("exaone4", json!({ "sliding_window": 4, "sliding_window_pattern": 2 })),
        of("smollm3", json!({ "no_rope_layer_interval": 2 })),
        of(
            "granite",
            json!({
                "embedding_multiplier": 3.0, "attention_multiplier": 0.4, "residual_multiplier": 0.6,
                "logits_scaling": 1.5,
            }),
        ),
        of("mixtral", json!({ "num_local_experts": 4, "num_experts_per_tok": 2 })),
        of("qwen2_moe", shared),
        of("qwen3_moe", experts),
        of(
            "llama",
            json!({
                "max_position_embeddings": 16, "rope_scaling": { "type": "dynamic", "factor": 4.0 },
            }),
        ),
    ]
}

/// A GPT-2-shaped model of 2 blocks, tied; without biases if `bias` is false.
pub fn tiny_gpt2(vocab_size: usize, bias: bool) -> Value {
    json!({
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": vocab_size,
        "n_embd": 30,
        "n_layer": 2,
        "n_head": 3,
        "n_positions": 64,
        "n_inner": 88,
        "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new",
        "tie_word_embeddings": true,
        "bias": bias,
    })
}

/// Each byte is its own id; three special ids follow.
#[derive(Clone, Copy, Debug)]
pub struct ByteIds;

impl ByteIds {
    /// Separates texts.
    pub const END_OF_TEXT: u32 = 256;
    /// Ends a turn of a chat.
    pub const END_OF_TURN: u32 = 257;
    /// Pads rows.
    pub const PAD: u32 = 258;
    /// The number of ids.
    pub const VOCAB_SIZE: usize = 259;

    /// The ids of a text.
    pub fn encode(text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    /// The text of ids; ids of no byte are omitted.
    pub fn decode(ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().filter_map(|id| u8::try_from(*id).ok()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
