//! FLOP and memory formulas against numbers worked out by hand.

use std::path::Path;

use arch::{
    AdapterShape, Computation, Family, KernelPath, LoraConfig, ModelConfig, Output, Targets,
    TrainingShape,
};
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

/// The step of pretraining, as it is usually computed.
pub(crate) const FUSED: Computation =
    Computation { bodies: KernelPath::Cpu, recomputes_blocks: false, output: Output::CrossEntropy };

#[test]
fn memory_parts_add_up_and_grow_with_the_right_sizes() {
    let config = read(config!("llama.json"));
    let of = |rows, sequence_length| TrainingShape { rows, sequence_length };
    let small = config.training_memory(of(2, 32), FUSED);
    assert_eq!(small.weights, 4 * config.n_parameters());
    assert_eq!((small.gradients, small.optimizer), (small.weights, 2 * small.weights));
    let parts =
        small.weights + small.gradients + small.optimizer + small.activations + small.logits;
    assert_eq!(small.total(), parts);
    let rope_table = 4 * 128 * 16;
    for other in [of(4, 32), of(2, 64)] {
        let more = config.training_memory(other, FUSED);
        assert_eq!(more.activations - rope_table, 2 * (small.activations - rope_table));
    }
    let plain = Computation { bodies: KernelPath::Generic, ..FUSED };
    let [short, long] = [32, 64].map(|length| config.training_memory(of(2, length), plain));
    assert!(long.activations > 2 * short.activations, "scores grow with the square");
}

#[test]
fn a_block_that_is_computed_again_keeps_its_input() {
    let config = read(config!("llama.json"));
    let shape = TrainingShape { rows: 8, sequence_length: 64 };
    let again = Computation { recomputes_blocks: true, ..FUSED };
    let [kept, again] = [FUSED, again].map(|how| config.training_memory(shape, how));
    // Two blocks: queries, keys and values, attended; the middle; gate and up; two scales and a sum for each head.
    let inside = 2 * 64 + 2 * 32 + 64 + 2 * 112 + 2 + 4;
    assert_eq!(kept.activations - again.activations, 4 * 8 * 64 * 2 * inside);
    assert!(again.peak(1) < kept.peak(1));
}

#[test]
fn the_peak_counts_the_end_where_there_is_little_else() {
    for text in [config!("llama.json"), config!("llama-tied-rope3.json")] {
        let config = read(text);
        let shape = TrainingShape { rows: 1, sequence_length: 1 };
        let little = config.training_memory(shape, FUSED);
        assert!(little.peak(1) >= 4 * little.weights);
        assert!(little.peak(1) < 4 * little.weights + little.activations + little.logits);
        // Fused products add to the sums of earlier micro-batches; plain ones make gradients of their own.
        assert!((little.peak(1)..little.peak(1) + little.weights).contains(&little.peak(2)));
        let plain =
            config.training_memory(shape, Computation { bodies: KernelPath::Generic, ..FUSED });
        assert_eq!(plain.peak(2), plain.peak(1) + plain.weights);
    }
}

/// What a counting allocator measured on 2026-11-24 (the example `memory` of bench): bodies, family, task, layers,
/// vocabulary, rows, tokens of a row, micro-batches, whether blocks are computed again; then the bytes held after a forward
/// pass, and the most over three steps with weights and moments. Llama of width 256 (8 heads, 4 for keys, inner width 688)
/// and gpt2 of width 256 (8 heads); adapters of rank 16 on every layer.
const MEASURED: &str = include_str!("measured_memory.txt");

/// How far an estimate may lie from what was measured, beside a megabyte.
const NEAR: f64 = 0.15;

fn measured_config(family: &str, n_layers: usize, vocab_size: usize) -> ModelConfig {
    let keys = match family {
        "llama" => json!({
            "hidden_size": 256, "num_hidden_layers": n_layers, "num_attention_heads": 8,
            "num_key_value_heads": 4, "intermediate_size": 688, "max_position_embeddings": 1024,
        }),
        _ => json!({ "n_embd": 256, "n_layer": n_layers, "n_head": 8, "n_positions": 1024 }),
    };
    let family = Family::from_name(family).expect("a known family");
    let keys = keys.as_object().expect("an object");
    ModelConfig::for_new_model(family, keys, vocab_size, Path::new("x")).expect("good")
}

fn adapters(config: &ModelConfig) -> AdapterShape {
    let (alpha, dropout, targets) = (32.0, 0.0, Targets::AllLinear);
    let lora = LoraConfig { rank: 16, alpha, dropout, rslora: false, targets };
    let layers = lora.layers(config).expect("layers");
    let widths = layers.iter().map(|layer| (layer.d_in + layer.d_out) as u64).sum();
    let (n_trained, ranks) = (lora.n_parameters(&layers), 16 * layers.len() as u64);
    AdapterShape { n_trained, ranks, widths, has_dropout: false }
}

#[test]
fn estimates_are_near_what_was_measured() {
    let mut n = 0;
    for line in MEASURED.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [bodies, family, task, n_layers, vocab_size, rows, length, n_micro, again, _, peak] =
            fields.as_slice()
        else {
            panic!("a line of another form: {line}")
        };
        let size = |text: &str| text.parse::<usize>().expect("a number");
        let config = measured_config(family, size(n_layers), size(vocab_size));
        let shape = TrainingShape { rows: size(rows), sequence_length: size(length) };
        let computation = Computation {
            bodies: if *bodies == "fused" { KernelPath::Cpu } else { KernelPath::Generic },
            recomputes_blocks: *again == "true",
            output: match *task {
                "CrossEntropy" | "Lora" | "LoraDropout" => Output::CrossEntropy,
                "LogProbs" | "LoraLogProbs" => Output::LogProbs,
                _ => Output::Scores,
            },
        };
        let memory = if task.starts_with("Lora") {
            let has_dropout = *task == "LoraDropout";
            let adapters = AdapterShape { has_dropout, ..adapters(&config) };
            config.adapter_training_memory(shape, computation, adapters)
        } else {
            config.training_memory(shape, computation)
        };
        let (found, peak) = (memory.peak(size(n_micro) as u64) as f64, size(peak) as f64);
        let off = (found - peak) / peak;
        assert!((found - peak).abs() < NEAR * peak + 1e6, "{line}: {found}, {off:+.3}");
        n += 1;
    }
    assert!(n > 250, "{n} measurements");
}

#[test]
fn a_frozen_base_in_bf16_takes_half_and_nothing_else_changes() {
    let config = measured_config("llama", 3, 1024);
    let shape = TrainingShape { rows: 4, sequence_length: 128 };
    let whole = config.adapter_training_memory(shape, FUSED, adapters(&config));
    let half = whole.with_frozen_in_bf16();
    assert_eq!(whole.weights - half.weights, 2 * config.n_parameters());
    assert_eq!(whole.peak(1) - half.peak(1), 2 * config.n_parameters());
    let trained = config.training_memory(shape, FUSED);
    assert_eq!(trained.with_frozen_in_bf16().weights, trained.weights);
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
    assert_eq!(config.training_memory(shape, FUSED).total(), u64::MAX);
    assert!(config.training_flops(u64::MAX, u64::MAX).is_finite());
}
