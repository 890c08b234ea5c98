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
    let rope_table = 4 * 128 * 16;
    assert_eq!(rows.activations - rope_table, 2 * (small.activations - rope_table));
    assert_eq!(rows.logits, 2 * small.logits);
    let long = config.training_memory(TrainingShape { rows: 2, sequence_length: 64 });
    assert!(long.activations > 2 * small.activations, "scores grow with the square");
}

#[test]
fn the_peak_counts_what_stands_at_once() {
    let head = 4 * 320 * 64;
    for (text, tied) in [(config!("llama.json"), 0), (config!("llama-tied-rope3.json"), 1)] {
        let config = read(text);
        let memory = config.training_memory(TrainingShape { rows: 8, sequence_length: 64 });
        let first = memory.activations + memory.logits + head;
        assert!(first > memory.gradients + 2 * head);
        assert_eq!(memory.peak(1), 3 * memory.weights + first);
        assert_eq!(memory.peak(2), 4 * memory.weights + first);
        // A single token leaves little but weights.
        let little = config.training_memory(TrainingShape { rows: 1, sequence_length: 1 });
        assert_eq!(little.peak(1), 4 * little.weights + 2 * head * tied);
    }
}

/// A measurement of one shape, in megabytes.
struct Measured {
    family: &'static str,
    n_layers: usize,
    vocab_size: usize,
    rows: usize,
    sequence_length: usize,
    /// Held after the forward pass.
    forward: f64,
    /// The most in use in a backward pass; weights and moments not counted.
    peak: f64,
}

/// What a counting allocator measured on 2026-11-24: llama of width 256 (8 heads, 4 for keys, inner width 688) and
/// gpt2 of width 256 (8 heads).
const MEASURED: [Measured; 14] = [
    measured("llama", 1, 1024, 8, 128, 26.5, 32.2),
    measured("llama", 5, 1024, 8, 128, 116.2, 120.9),
    measured("llama", 3, 1024, 4, 256, 84.5, 91.0),
    measured("llama", 3, 1024, 2, 1024, 317.7, 427.9),
    measured("llama", 2, 50_000, 8, 128, 48.7, 162.6),
    measured("llama", 5, 1024, 1, 64, 7.8, 21.1),
    measured("llama", 12, 256, 32, 64, 489.7, 497.1),
    measured("gpt2", 1, 1024, 8, 128, 28.4, 35.7),
    measured("gpt2", 5, 1024, 8, 128, 120.9, 128.2),
    measured("gpt2", 3, 1024, 4, 256, 87.2, 94.6),
    measured("gpt2", 3, 1024, 2, 1024, 323.2, 433.6),
    measured("gpt2", 2, 50_000, 8, 128, 51.5, 164.2),
    measured("gpt2", 5, 1024, 1, 64, 10.1, 23.3),
    measured("gpt2", 12, 256, 32, 64, 512.6, 525.6),
];

const fn measured(
    family: &'static str,
    n_layers: usize,
    vocab_size: usize,
    rows: usize,
    sequence_length: usize,
    forward: f64,
    peak: f64,
) -> Measured {
    Measured { family, n_layers, vocab_size, rows, sequence_length, forward, peak }
}

#[test]
fn estimates_are_near_what_was_measured() {
    for case in MEASURED {
        let keys = match case.family {
            "llama" => json!({
                "hidden_size": 256, "num_hidden_layers": case.n_layers, "num_attention_heads": 8,
                "num_key_value_heads": 4, "intermediate_size": 688, "max_position_embeddings": 1024,
            }),
            _ => json!({
                "n_embd": 256, "n_layer": case.n_layers, "n_head": 8, "n_positions": 1024,
            }),
        };
        let family = Family::from_name(case.family).expect("a known family");
        let keys = keys.as_object().expect("an object");
        let config = ModelConfig::for_new_model(family, keys, case.vocab_size, Path::new("x"));
        let Measured { rows, sequence_length, forward, peak, .. } = case;
        let memory = config.expect("good").training_memory(TrainingShape { rows, sequence_length });
        let found = memory.activations as f64 / 1e6;
        let name = format!("{}, {} layers, {rows} x {sequence_length}", case.family, case.n_layers);
        assert!((found - forward).abs() < 0.06 * forward + 4.0, "{name}: {found}, not {forward}");
        let found = (memory.peak(1) - memory.weights - memory.optimizer) as f64 / 1e6;
        assert!((found - peak).abs() < 0.15 * peak + 4.0, "{name}: {found}, not {peak}");
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
