//! Training steps: forward pass, backward pass, clipping at 1.0, AdamW. Nothing is saved or logged.

use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use lora::LoraConfig;
use loss::LossSum;
use model::{CausalLm, ScalarModel};
use nn::TokenBatch;
use seed::Rng;
use train::{Gradients, Optimizer, ParameterNames, StepPlace};

use crate::workload::Kind;
use crate::{Clock, Report, Result, Workload, finish};

/// Untimed repetitions at the start.
const N_WARM: usize = 2;
const N_STEPS: usize = 8;
const LR: f64 = 1e-4;

pub(crate) fn run(
    workload: Workload,
    n_steps: Option<usize>,
    clock: Clock,
    device: &Device,
) -> Result<Report> {
    let device = device.clone().autodiff();
    let config = workload.config()?;
    let n_steps = n_steps.unwrap_or(N_STEPS);
    let model = CausalLm::init(&config, 0, &device);
    let next_token = |model: &CausalLm, tokens: &TokenBatch, ids: &[u32]| {
        let hidden_nd = model.forward(tokens).hidden_nd();
        let targets = targets(ids, workload.length);
        let n_targets = targets.iter().filter(|target| **target >= 0).count() as u64;
        let targets_n = Tensor::<1, Int>::from_data(targets.as_slice(), &device);
        loss::cross_entropy(hidden_nd, model.head(), targets_n, n_targets)
    };
    match workload.kind {
        Kind::Reward => {
            let model = ScalarModel::from_backbone(model.backbone, &config, 1);
            steps(workload, n_steps, clock, &device, model, |model, tokens, _| {
                pair_loss(model, tokens)
            })
        }
        Kind::Lora => {
            let config = LoraConfig { rank: 16, alpha: 32.0, ..LoraConfig::default() };
            steps(
                workload,
                n_steps,
                clock,
                &device,
                lora::attach(model, &config, 1)?.model,
                next_token,
            )
        }
        Kind::Pretrain | Kind::Generation | Kind::Ppo | Kind::Grpo => {
            steps(workload, n_steps, clock, &device, model, next_token)
        }
    }
}

/// The next token of each position in its row; -1 for the last one.
fn targets(ids: &[u32], length: usize) -> Vec<i32> {
    let row = |ids: &[u32]| {
        let next = ids.iter().skip(1).map(|id| *id as i32);
        next.chain(std::iter::once(-1)).collect::<Vec<_>>()
    };
    ids.chunks(length).flat_map(row).collect()
}

fn pair_loss(model: &ScalarModel, tokens: &TokenBatch) -> LossSum {
    let [b, t] = tokens.dims();
    let scores_b = model.scores_at(tokens, &vec![t - 1; b]);
    let side = |start: usize| scores_b.clone().narrow(0, start, b / 2);
    loss::pairwise_reward(side(0), side(b / 2), None)
}

/// AdamW with torch's defaults and clipping at 1.0.
pub(crate) fn optimizer_settings(lr: f64, weight_decay: f64) -> recipe::Optimizer {
    recipe::Optimizer {
        kind: recipe::OptimizerKind::AdamW(recipe::AdamwKeys { betas: [0.9, 0.999], eps: 1e-8 }),
        weight_decay,
        max_grad_norm: 1.0,
        ..recipe::Optimizer::adamw(lr)
    }
}

fn steps<M: Module>(
    workload: Workload,
    n_steps: usize,
    clock: Clock,
    device: &Device,
    mut model: M,
    loss_of: impl Fn(&M, &TokenBatch, &[u32]) -> LossSum,
) -> Result<Report> {
    let vocab_size = workload.config()?.vocab_size() as f64;
    let names = ParameterNames::of(&model);
    let mut optimizer = Optimizer::new(optimizer_settings(LR, 0.01), &model)?;
    let mut rng = Rng::new(0);
    let mut report = Report::new(workload);
    for step in 0..n_steps + N_WARM {
        let start = Instant::now();
        let n = workload.rows * workload.length;
        let ids: Vec<u32> = (0..n).map(|_| (rng.f64() * vocab_size) as u32).collect();
        let tokens = TokenBatch::of_rows(&ids, workload.rows, device);
        let loss = loss_of(&model, &tokens, &ids);
        let n_targets = loss.count;
        let mut gradients = Gradients::new(&names);
        gradients.accumulate(&model, || loss.sum.backward());
        let place = StepPlace { step: step as u64 + 1, samples: &[] };
        let norm = gradients.norm(n_targets, place)?;
        model = optimizer.step(model, gradients, norm, LR);
        finish(device);
        report.add(step, N_WARM, start.elapsed().as_secs_f64(), clock);
    }
    report.note_memory(device);
    Ok(report)
}
