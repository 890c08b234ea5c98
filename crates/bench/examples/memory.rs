//! Memory of training steps, retained and at the peak, counted by the allocator. It prints the lines of
//! `crates/arch/tests/it/measured_memory.txt`, with which a test compares the estimates.
//!
//! `cargo run --release -p bench --example memory [PART OF A NAME]`; `TEMPER_KERNELS=generic` measures the generic kernels.
//! Cases run one after the other, because the count is the whole process's.

// An example prints.
#![allow(clippy::print_stdout)]

use std::path::Path;

use arch::ModelConfig;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use kernels::CountingAllocator;
use lora::LoraConfig;
use model::{Adaptable, CausalLm, ScalarModel};
use nn::TokenBatch;
use serde_json::json;
use train::{Gradients, Optimizer, ParameterNames, StepPlace};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Task {
    CrossEntropy,
    LogProbs,
    Scores,
    Lora,
    LoraLogProbs,
    LoraDropout,
}

struct Case {
    family: &'static str,
    task: Task,
    n_layers: usize,
    vocab_size: usize,
    rows: usize,
    length: usize,
    n_micro: usize,
    recomputes: bool,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in ["llama", "gpt2"] {
        let shapes = [
            (1, 1024, 8, 128),
            (5, 1024, 8, 128),
            (3, 1024, 4, 256),
            (3, 1024, 2, 1024),
            (2, 50_000, 8, 128),
            (5, 1024, 1, 64),
            (12, 256, 32, 64),
        ];
        for recomputes in [false, true] {
            for (n_layers, vocab_size, rows, length) in shapes {
                for task in [
                    Task::CrossEntropy,
                    Task::LogProbs,
                    Task::Scores,
                    Task::Lora,
                    Task::LoraLogProbs,
                    Task::LoraDropout,
                ] {
                    let n_micro = 1;
                    cases.push(Case {
                        family,
                        task,
                        n_layers,
                        vocab_size,
                        rows,
                        length,
                        n_micro,
                        recomputes,
                    });
                }
            }
            let (task, n_micro) = (Task::CrossEntropy, 2);
            cases.push(Case {
                family,
                task,
                n_layers: 5,
                vocab_size: 1024,
                rows: 8,
                length: 128,
                n_micro,
                recomputes,
            });
        }
    }
    cases
}

fn main() {
    let part = std::env::args().nth(1).unwrap_or_default();
    kernels::configure_allocator();
    kernels::on_pool(|| {
        for case in cases() {
            let name = format!(
                "{} {:?} {} {} {} {} {} {}",
                case.family,
                case.task,
                case.n_layers,
                case.vocab_size,
                case.rows,
                case.length,
                case.n_micro,
                case.recomputes
            );
            if name.contains(&part) {
                let [held, peak] = measure(&case);
                let kernels = kernels::kernel_set(&kernels::Device::flex());
                println!("{kernels:?} {name} {held} {peak}");
            }
        }
    });
}

fn config(case: &Case) -> ModelConfig {
    let value = match case.family {
        "llama" => json!({
            "model_type": "llama", "vocab_size": case.vocab_size, "hidden_size": 256,
            "num_hidden_layers": case.n_layers, "num_attention_heads": 8, "num_key_value_heads": 4,
            "intermediate_size": 688, "max_position_embeddings": 1024, "rms_norm_eps": 1e-6,
            "rope_theta": 10_000.0, "tie_word_embeddings": false, "hidden_act": "silu",
        }),
        _ => json!({
            "model_type": "gpt2", "vocab_size": case.vocab_size, "n_embd": 256, "n_layer": case.n_layers,
            "n_head": 8, "n_positions": 1024, "n_inner": 1024, "layer_norm_epsilon": 1e-5,
            "activation_function": "gelu_new", "tie_word_embeddings": true,
        }),
    };
    ModelConfig::from_json(&value, Path::new("memory")).expect("a config")
}

/// Bytes retained after a forward pass in addition to weights and moments, and the peak of three steps, in addition to
/// the bytes before them.
fn measure(case: &Case) -> [usize; 2] {
    let before = CountingAllocator::in_use();
    let device = Device::flex().autodiff();
    let config = config(case);
    let mut model = CausalLm::init(&config, 0, &device);
    model.backbone.recompute_blocks(case.recomputes);
    let adapter = LoraConfig { rank: 16, alpha: 32.0, ..LoraConfig::default() };
    let loss = |model: &CausalLm, tokens: &TokenBatch, targets: &[i32]| {
        let hidden_nd = model.forward(tokens).hidden_nd();
        let targets_n = Tensor::<1, Int>::from_data(targets, &Device::flex());
        if matches!(case.task, Task::LogProbs | Task::LoraLogProbs) {
            return kernels::linear_logprobs(hidden_nd, model.head_weight(), targets_n, 1.0)
                .logprobs_n
                .sum();
        }
        loss::cross_entropy(hidden_nd, model.head_weight(), targets_n, 1).sum
    };
    match case.task {
        Task::Scores => {
            let CausalLm { backbone, lm_head, .. } = model;
            drop(lm_head);
            let model = ScalarModel::from_backbone(backbone, &config, 1);
            steps(case, before, model, |model, tokens, _| model.values(tokens).sum())
        }
        Task::Lora | Task::LoraLogProbs | Task::LoraDropout => {
            let dropout = if case.task == Task::LoraDropout { 0.1 } else { 0.0 };
            let adapter = LoraConfig { dropout, ..adapter };
            let adapted = lora::attach(model, &adapter, 1).expect("attached");
            adapted.dropout.set(1);
            steps(case, before, adapted.model, loss)
        }
        Task::CrossEntropy | Task::LogProbs => steps(case, before, model, loss),
    }
}

fn steps<M: Module + Adaptable>(
    case: &Case,
    before: usize,
    mut model: M,
    loss: impl Fn(&M, &TokenBatch, &[i32]) -> Tensor<1>,
) -> [usize; 2] {
    let names = ParameterNames::of(&model);
    let settings = recipe::Optimizer { weight_decay: 0.01, ..recipe::Optimizer::adamw(1e-4) };
    let mut optimizer = Optimizer::new(settings, &model).expect("no groups");
    let n = case.rows * case.length;
    let ids: Vec<u32> = (0..n).map(|i| (i * 31 % case.vocab_size) as u32).collect();
    let targets: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
    let mut held = 0;
    CountingAllocator::start();
    for step in 0..3 {
        let mut gradients = Gradients::new(&names);
        for _ in 0..case.n_micro {
            let start = CountingAllocator::in_use();
            let tokens = TokenBatch::of_rows(&ids, case.rows, &Device::flex());
            let loss = loss(&model, &tokens, &targets);
            held = CountingAllocator::in_use() - start;
            gradients.accumulate(&model, || loss.backward());
        }
        let norm =
            gradients.norm(n as u64, StepPlace { step: step + 1, samples: &[] }).expect("finite");
        model = optimizer.step(model, gradients, norm, 1e-4);
    }
    [held, CountingAllocator::peak() - before]
}
