//! FLOP and memory formulas against numbers worked out by hand.

use std::path::Path;

use arch::{Family, ModelConfig, TrainingShape};
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
    let copies_of_weights = 4 * 2 * (64 * (64 + 32 + 32 + 64) + 3 * 64 * 112) + 4 * 128 * 16;
    assert_eq!(rows.activations - copies_of_weights, 2 * (small.activations - copies_of_weights));
    assert_eq!(rows.logits, 2 * small.logits);
    let long = config.training_memory(TrainingShape { rows: 2, sequence_length: 64 });
    assert!(long.activations > 2 * small.activations - copies_of_weights, "scores grow squared");
}

#[test]
fn the_peak_counts_what_stands_at_once() {
    let config = read(config!("llama.json"));
    let memory = config.training_memory(TrainingShape { rows: 8, sequence_length: 64 });
    let passing = memory.activations + memory.logits;
    assert!(passing > memory.gradients);
    assert_eq!(memory.peak(1), 3 * memory.weights + passing);
    assert_eq!(memory.peak(2), 4 * memory.weights + passing);
    assert_eq!(memory.peak(2), memory.total());
    let little = config.training_memory(TrainingShape { rows: 1, sequence_length: 1 });
    assert!(little.peak(1) >= 4 * little.weights);
}

/// What a counting allocator measured on the plain bodies: llama of width 256 (8 heads, 4 for keys, inner width 688)
/// and gpt2 of width 256 (8 heads), by layers, vocabulary, rows and length: megabytes held after the forward pass
/// and at the peak of the backward pass, weights not counted.
const MEASURED: [(&str, usize, usize, usize, usize, f64, f64); 9] = [
    ("llama", 1, 1024, 8, 128, 44.5, 57.2),
    ("llama", 5, 1024, 8, 128, 201.1, 213.7),
    ("llama", 3, 1024, 4, 256, 160.5, 173.2),
    ("llama", 3, 1024, 4, 512, 461.1, 491.6),
    ("llama", 1, 16_384, 8, 128, 44.5, 178.8),
    ("gpt2", 1, 1024, 8, 128, 49.4, 69.3),
    ("gpt2", 5, 1024, 8, 128, 225.9, 245.9),
    ("gpt2", 3, 1024, 4, 256, 175.4, 188.1),
    ("gpt2", 3, 1024, 4, 512, 499.6, 518.7),
];

#[test]
fn estimates_are_near_what_was_measured() {
    for (family, n_layers, vocab_size, rows, sequence_length, forward, peak) in MEASURED {
        let keys = match family {
            "llama" => json!({
                "hidden_size": 256, "num_hidden_layers": n_layers, "num_attention_heads": 8,
                "num_key_value_heads": 4, "intermediate_size": 688, "max_position_embeddings": 1024,
            }),
            _ => json!({ "n_embd": 256, "n_layer": n_layers, "n_head": 8, "n_positions": 1024 }),
        };
        let family = Family::from_name(family).expect("a known family");
        let keys = keys.as_object().expect("an object");
        let config = ModelConfig::for_new_model(family, keys, vocab_size, Path::new("x"));
        let memory = config.expect("good").training_memory(TrainingShape { rows, sequence_length });
        let found = memory.activations as f64 / 1e6;
        assert!((found / forward - 1.0).abs() < 0.06, "forward: {found} instead of {forward}");
        let found = (memory.activations + memory.logits) as f64 / 1e6;
        // The temporaries of a block's backward are not counted; they show where there is one block.
        assert!((found / peak - 1.0).abs() < 0.14, "backward: {found} instead of {peak}");
    }
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
