//! The models of the self-test, as config.json values: one per architecture, each fast enough for a second on a slow CPU.
//!
//! Widths are not multiples of the kernels' tiles, so that errors at the borders of tiles are found.

use serde_json::{Value, json};

pub(super) const VOCABULARY: u64 = 515;
/// Rows and tokens of a batch.
pub(super) const ROWS: usize = 3;
pub(super) const LENGTH: usize = 72;

/// Name and config.json of each model.
pub(super) fn descriptions() -> [(&'static str, Value); 2] {
    let llama = json!({
        "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 200,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "rope_theta": 10_000.0,
        "tie_word_embeddings": false, "hidden_act": "silu",
    });
    let gpt2 = json!({
        "model_type": "gpt2", "vocab_size": VOCABULARY, "n_embd": 72, "n_layer": 2, "n_head": 3,
        "n_positions": 128, "n_inner": 288, "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new", "tie_word_embeddings": true,
    });
    [("llama", llama), ("gpt2", gpt2)]
}
