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
