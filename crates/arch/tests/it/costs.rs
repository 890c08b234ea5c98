//! FLOP and memory formulas against numbers worked out by hand.

use std::path::Path;

use arch::{ModelConfig, TrainingShape};
use serde_json::json;

use crate::{config, patched, read};

#[test]
fn product_weights_count_the_head_also_where_it_is_tied() {
    let per_block = 64 * (64 + 32 + 32) + 64 * 64 + 3 * 64 * 112;
    let untied = read(config!("llama.json"));
    assert_eq!(untied.n_product_weights(), 2 * per_block + 320 * 64);
    let tied = read(config!("llama-tied-rope3.json"));
    assert_eq!(tied.n_product_weights(), untied.n_product_weights());
    assert_eq!(untied.n_parameters() - tied.n_parameters(), 320 * 64);
}

#[test]
fn flops_are_six_for_each_weight_and_token_plus_attention() {
    let config = read(config!("llama.json"));
    let pairs = 10 * 11 / 2;
    let attention = 2.0 * 2.0 * 2.0 * 4.0 * 16.0 * pairs as f64;
    let forward = 2.0 * config.n_product_weights() as f64 * 10.0 + attention;
    assert_eq!(config.forward_flops(10, pairs), forward);
    assert_eq!(config.training_flops(10, pairs), 3.0 * forward);
}

#[test]
fn memory_parts_add_up_and_grow_with_the_right_sizes() {
    let config = read(config!("llama.json"));
    let small = config.training_memory(TrainingShape { rows: 2, sequence_length: 32 });
    assert_eq!(small.weights, 4 * config.n_parameters());
    assert_eq!((small.gradients, small.optimizer), (small.weights, 2 * small.weights));
    let parts =
        small.weights + small.gradients + small.optimizer + small.activations + small.logits;
    assert_eq!(small.total(), parts);
    let rows = config.training_memory(TrainingShape { rows: 4, sequence_length: 32 });
    assert_eq!(rows.activations, 2 * small.activations);
    assert_eq!(rows.logits, 2 * small.logits);
    let long = config.training_memory(TrainingShape { rows: 2, sequence_length: 64 });
    assert!(long.activations > 2 * small.activations, "scores grow with the square");
}

#[test]
fn the_largest_allowed_sizes_overflow_nothing() {
    let huge = json!({
        "vocab_size": 1 << 22, "hidden_size": 1 << 14, "num_attention_heads": 1 << 7,
        "num_key_value_heads": 1, "head_dim": 1 << 7, "intermediate_size": 1 << 16,
        "num_hidden_layers": 1 << 9, "max_position_embeddings": 1 << 24,
    });
    let value = patched(config!("llama.json"), &huge);
    let config = ModelConfig::from_json(&value, Path::new("x")).expect("within the limits");
    let shape = TrainingShape { rows: usize::MAX, sequence_length: usize::MAX };
    assert_eq!(config.training_memory(shape).total(), u64::MAX);
    assert!(config.training_flops(u64::MAX, u64::MAX).is_finite());
}
