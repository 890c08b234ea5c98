//! FLOP and memory formulas against numbers computed by hand, and against measurements.

use std::path::Path;

use arch::{
    AdapterShape, Computation, HeadOutput, KernelPath, LoraConfig, ModelConfig, Targets,
    TrainingShape,
};
use serde_json::json;

use crate::{config, patched, read};

/// Weights of one block's linear layers in `llama.json`.
const BLOCK: u64 = 64 * (64 + 32 + 32) + 64 * 64 + 3 * 64 * 112;
/// Weights of its output layer.
const HEAD: u64 = 320 * 64;

#[test]
fn flops_are_six_per_weight_and_token_plus_attention() {
    let config = read(config!("llama.json"));
    let n_pairs = 10 * 11 / 2;
    let attention = 3.0 * 2.0 * 2.0 * 2.0 * 4.0 * 16.0 * f64::from(n_pairs);
    for (output, head) in [(HeadOutput::CrossEntropy, HEAD), (HeadOutput::Scores, 0)] {
        let forward = 2.0 * (2 * BLOCK + head) as f64 * 30.0 + attention;
        assert_eq!(config.forward_flops(3, 10, output), forward);
        assert_eq!(config.training_flops(3, 10, output), 3.0 * forward);
        // Frozen weights have no gradient.
        let adapters = 3.0 * forward - 2.0 * (2 * BLOCK + head) as f64 * 30.0 + 6.0 * 7.0 * 30.0;
        assert_eq!(config.adapter_training_flops(3, 10, output, 7), adapters);
    }
}

#[test]
fn a_tied_output_layer_is_computed_but_not_a_parameter() {
    let [untied, tied] = [config!("llama.json"), config!("llama-tied-rope3.json")].map(read);
    assert_eq!(untied.n_parameters() - tied.n_parameters(), HEAD);
    let flops = |config: &ModelConfig| config.forward_flops(1, 10, HeadOutput::LogProbs);
    assert_eq!(flops(&tied), flops(&untied));
}

#[test]
fn all_parameters_of_a_dense_model_are_active() {
    for text in [config!("llama.json"), config!("llama-tied-rope3.json"), config!("gpt2.json")] {
        let config = read(text);
        assert_eq!(config.n_active_parameters(), config.n_parameters());
    }
}

/// A token of a mixture of experts uses a share of the experts, the router and all else.
#[test]
fn a_token_uses_a_few_of_many_experts() {
    let of = |text, n_experts: u64, n_used: u64, inner: u64, n_sparse: u64| {
        let config = read(text);
        let idle = n_sparse * (n_experts - n_used) * 3 * 64 * inner;
        assert_eq!(config.n_parameters() - config.n_active_parameters(), idle);
        let flops = config.forward_flops(1, 1, HeadOutput::Scores);
        let head_dim = config.head_dim() as u64;
        let attention = 64 * head_dim * (4 + 2 + 2) + 64 * head_dim * 4;
        let router = 64 * n_experts;
        let sparse = n_used * 3 * 64 * inner + router;
        let dense = (2 - n_sparse) * 3 * 64 * 112;
        let weights = 2 * attention + n_sparse * sparse + dense;
        assert_eq!(flops, (2 * weights + 2 * 4 * 4 * head_dim) as f64);
    };
    of(config!("mixtral.json"), 4, 2, 48, 2);
    of(config!("qwen3_moe.json"), 6, 2, 32, 2);
    of(config!("qwen3_moe-mixed.json"), 6, 3, 32, 1);
}

#[test]
fn windows_bound_the_cache_and_the_attended_pairs() {
    let gemma2 = read(config!("gemma2.json"));
    // A windowed block has room for its window of 8 and 512 positions.
    assert_eq!(gemma2.kv_cache_elements(100), 2 * (2 * 24) * (100 + 100));
    assert_eq!(gemma2.kv_cache_elements(600), 2 * (2 * 24) * (520 + 600));
    let full = gemma2.forward_flops(1, 8, HeadOutput::Scores);
    let longer = gemma2.forward_flops(1, 9, HeadOutput::Scores);
    // The ninth token: 8 pairs in the windowed block, 9 in the other.
    let weights = full - 4.0 * (4 * 24) as f64 * 36.0 * 2.0;
    assert_eq!(longer - full, weights / 8.0 + 4.0 * (4 * 24) as f64 * 17.0);
}

#[test]
fn the_cache_has_keys_and_values_of_every_layer() {
    let llama = read(config!("llama.json"));
    assert_eq!(llama.kv_cache_elements(100), 2 * 2 * (2 * 16) * 100);
    let gpt2 = read(config!("gpt2.json"));
    assert_eq!(gpt2.kv_cache_elements(100), 2 * 2 * 64 * 100);
    for config in [llama, gpt2] {
        assert!((0..config.n_layers()).all(|layer| config.attention_window(layer).is_none()));
    }
}

/// A usual pretraining step.
pub(crate) const FUSED: Computation = Computation {
    kernel_path: KernelPath::Cpu,
    recomputes_blocks: false,
    output: HeadOutput::CrossEntropy,
};

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
    let generic = Computation { kernel_path: KernelPath::Generic, ..FUSED };
    let [short, long] = [32, 64].map(|length| config.training_memory(of(2, length), generic));
    assert!(long.activations > 2 * short.activations, "scores grow with the square");
}

#[test]
fn a_recomputed_block_keeps_its_input_only() {
    let config = read(config!("llama.json"));
    let shape = TrainingShape { rows: 8, sequence_length: 64 };
    let again = Computation { recomputes_blocks: true, ..FUSED };
    let [kept, again] = [FUSED, again].map(|how| config.training_memory(shape, how));
    // Two blocks: queries, keys, values and attention output; residual stream; gate and up; two scales and a sum per head.
    let inside = 2 * 64 + 2 * 32 + 64 + 2 * 112 + 2 + 4;
    assert_eq!(kept.activations - again.activations, 4 * 8 * 64 * 2 * inside);
    assert!(again.peak(1) < kept.peak(1));
}

#[test]
fn the_peak_is_at_the_end_of_a_tiny_step() {
    for text in [config!("llama.json"), config!("llama-tied-rope3.json")] {
        let config = read(text);
        let shape = TrainingShape { rows: 1, sequence_length: 1 };
        let little = config.training_memory(shape, FUSED);
        assert!(little.peak(1) >= 4 * little.weights);
        assert!(little.peak(1) < 4 * little.weights + little.activations + little.logits);
        // CPU kernels accumulate gradients in place; generic ones allocate new gradients.
        assert!((little.peak(1)..little.peak(1) + little.weights).contains(&little.peak(2)));
        let generic = config
            .training_memory(shape, Computation { kernel_path: KernelPath::Generic, ..FUSED });
        assert_eq!(generic.peak(2), generic.peak(1) + generic.weights);
    }
}

/// Measurements with a counting allocator on 2026-11-24 (the example `memory` of bench): kernels, family, task, layers,
/// vocabulary, rows, tokens per row, micro-batches, whether blocks are recomputed; then the bytes held after a forward
/// pass, and the peak over three steps with weights and moments. Llama of width 256 (8 heads, 4 for keys, inner width 688)
/// and gpt2 of width 256 (8 heads); adapters of rank 16 on every layer.
const MEASURED: &str = include_str!("measured_memory.txt");

/// Tolerance of estimates, relative to the measurement. A megabyte is added.
const NEAR: f64 = 0.15;

fn measured_config(family: &str, n_layers: usize, vocab_size: usize) -> ModelConfig {
    let keys = match family {
        "llama" => json!({
            "model_type": "llama", "vocab_size": vocab_size, "rms_norm_eps": 1e-6,
            "rope_theta": 1e4, "hidden_size": 256, "num_hidden_layers": n_layers, "num_attention_heads": 8,
            "num_key_value_heads": 4, "intermediate_size": 688, "max_position_embeddings": 1024,
        }),
        "gpt2" => json!({
            "model_type": "gpt2", "vocab_size": vocab_size, "layer_norm_epsilon": 1e-5,
            "activation_function": "gelu_new", "n_embd": 256, "n_layer": n_layers, "n_head": 8,
            "n_positions": 1024,
        }),
        other => panic!("no measurements of `{other}`"),
    };
    ModelConfig::from_json(&keys, Path::new("x")).expect("good")
}

fn adapters(config: &ModelConfig) -> AdapterShape {
    let (alpha, dropout, targets) = (32.0, 0.0, Targets::AllLinear);
    let lora = LoraConfig { rank: 16, alpha, dropout, targets, ..LoraConfig::default() };
    let layout = lora.layout(config).expect("layers");
    let (n_trained, total_rank) = (layout.n_trained(), layout.total_rank());
    let total_width = layout.total_width();
    AdapterShape { n_trained, total_rank, total_width, has_dropout: false }
}

#[test]
fn estimates_are_near_what_was_measured() {
    let mut n = 0;
    for line in MEASURED.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [kernels, family, task, n_layers, vocab_size, rows, length, n_micro, again, _, peak] =
            fields.as_slice()
        else {
            panic!("malformed line: {line}")
        };
        let size = |text: &str| text.parse::<usize>().expect("a number");
        let config = measured_config(family, size(n_layers), size(vocab_size));
        let shape = TrainingShape { rows: size(rows), sequence_length: size(length) };
        let computation = Computation {
            kernel_path: if *kernels == "fused" { KernelPath::Cpu } else { KernelPath::Generic },
            recomputes_blocks: *again == "true",
            output: match *task {
                "CrossEntropy" | "Lora" | "LoraDropout" => HeadOutput::CrossEntropy,
                "LogProbs" | "LoraLogProbs" => HeadOutput::LogProbs,
                _ => HeadOutput::Scores,
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
fn optimizer_state_counts_in_the_peak() {
    let config = measured_config("llama", 3, 1024);
    let shape = TrainingShape { rows: 4, sequence_length: 128 };
    let adamw = config.training_memory(shape, FUSED);
    let half = adamw.with_optimizer_state(adamw.optimizer / 2);
    assert_eq!(adamw.peak(2) - half.peak(2), adamw.optimizer / 2);
    assert_eq!(adamw.total() - half.total(), adamw.optimizer / 2);
}

#[test]
fn a_frozen_base_in_bf16_takes_half_the_memory() {
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
    assert!(config.training_flops(u64::MAX, u64::MAX, HeadOutput::LogProbs).is_finite());
}
