//! Exported directories: weights read back to the bit, ids, shards, zeros for absent biases, no files after a failure.

mod directory;
mod gguf;
mod weights;

use std::path::Path;

use arch::{Family, ModelConfig};
use model::CausalLm;
use serde_json::{Map, Value, json};
use tokenizer::{ChatTemplate, Tokenizer, default_special_tokens};

pub(crate) fn byte_tokenizer() -> Tokenizer {
    let text = "the cat sat on the mat, the dog sat on the cat; ".repeat(4);
    Tokenizer::train_byte_bpe(std::iter::once(text), 280, &default_special_tokens())
        .expect("bytes and specials fit")
}

pub(crate) fn chat_tokenizer() -> Tokenizer {
    let template = ChatTemplate::builtin("chatml").expect("a built-in template");
    byte_tokenizer().with_chat_template(template)
}

pub(crate) fn config(family: Family, vocab_size: usize, more: Value) -> ModelConfig {
    // Decoders with rotary positions have the same keys.
    let keys = if family == Family::Gpt2 {
        json!({
            "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64,
            "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new",
        })
    } else {
        json!({
            "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "intermediate_size": 24, "max_position_embeddings": 64,
            "rms_norm_eps": 1e-6, "rope_theta": 1e4,
        })
    };
    let mut map: Map<String, Value> = object(keys);
    map.extend(object(experts(family)));
    map.insert("model_type".to_owned(), json!(family.name()));
    map.insert("vocab_size".to_owned(), json!(vocab_size));
    map.extend(object(more));
    ModelConfig::from_json(&Value::Object(map), Path::new("test")).expect("a good config")
}

/// Keys of families with experts.
fn experts(family: Family) -> Value {
    match family.name() {
        "mixtral" => json!({ "num_local_experts": 4, "num_experts_per_tok": 2 }),
        "qwen2_moe" => json!({
            "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12,
            "shared_expert_intermediate_size": 20,
        }),
        "qwen3_moe" => json!({
            "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12,
            "norm_topk_prob": true,
        }),
        _ => json!({}),
    }
}

pub(crate) fn model(family: Family, vocab_size: usize, more: Value) -> CausalLm {
    let device = kernels::device("cpu").expect("every machine has one");
    CausalLm::init(&config(family, vocab_size, more), 7, &device)
}

pub(crate) fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("a file of the export");
    serde_json::from_str(&text).expect("JSON")
}

fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(map) = value { map } else { Map::new() }
}
