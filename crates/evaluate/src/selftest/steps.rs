//! Training steps on random batches with two texts per row, and the values that are compared.
//!
//! A batch is a function of its step, so a resumed run gets the same batches.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use model::CausalLm;
use nn::TokenBatch;
use recipe::{AdamwKeys, OptimizerKind};
use seed::Rng;
use train::{Gradients, Optimizer, ParameterNames, StepPlace};

use super::models::{LENGTH, ROWS, VOCABULARY};
use crate::error::{Error, Result};
use crate::host_values::host_values;

const LR: f64 = 1e-3;

/// A model after some training steps, with values of the first step and losses of all.
pub(super) struct Trained {
    pub(super) model: CausalLm,
    pub(super) optimizer: Optimizer,
    /// Logits of the first batch before the first step.
    pub(super) logits: Vec<f32>,
    /// Gradients of the first step by parameter.
    pub(super) gradients: Vec<(String, Vec<f32>)>,
    /// Mean loss of each step.
    pub(super) losses: Vec<f32>,
}

impl Trained {
    pub(super) fn weights(&self) -> Result<Vec<(String, Vec<f32>)>> {
        Self::weights_of(&self.model)
    }

    pub(super) fn weights_of(model: &CausalLm) -> Result<Vec<(String, Vec<f32>)>> {
        let mut weights = Vec::new();
        model::visit_tensors(model, |name, _, values| {
            weights.push((name.to_owned(), values.to_vec()));
            Ok::<(), Error>(())
        })?;
        Ok(weights)
    }
}

pub(super) fn settings() -> recipe::Optimizer {
    // eps is larger than rounding errors: with a small one, the sign of a gradient that is noise would decide a whole step.
    let keys = AdamwKeys { betas: [0.9, 0.95], eps: 1e-6 };
    recipe::Optimizer {
        kind: OptimizerKind::AdamW(keys),
        weight_decay: 0.1,
        max_grad_norm: 1.0,
        ..recipe::Optimizer::adamw(LR)
    }
}

/// Trains a new model for `n` steps.
pub(super) fn train(model: CausalLm, n: u64, device: &Device) -> Result<Trained> {
    let (tokens, _) = batch(0, device);
    let valid = model.valid();
    let logits = host_values(&valid.logits(valid.forward(&tokens).hidden_btd));
    drop(valid);
    let names = ParameterNames::of(&model);
    let mut first = Gradients::new(&names);
    let (loss, _) = loss(&model, 0, device);
    first.accumulate(&model, || loss.sum.backward());
    let gradients = names
        .iter()
        .filter_map(|name| first.get(name).map(|sum| (name.to_owned(), host_values(sum))))
        .collect();
    let optimizer = Optimizer::new(settings(), &model)?;
    let (model, optimizer, losses) = continue_training(model, optimizer, 0..n, device)?;
    Ok(Trained { model, optimizer, logits, gradients, losses })
}

/// Trains for a range of steps; returns the mean loss of each.
pub(super) fn continue_training(
    mut model: CausalLm,
    mut optimizer: Optimizer,
    steps: std::ops::Range<u64>,
    device: &Device,
) -> Result<(CausalLm, Optimizer, Vec<f32>)> {
    let names = ParameterNames::of(&model);
    let mut losses = Vec::new();
    for step in steps {
        let (loss, n_targets) = loss(&model, step, device);
        losses.push((loss.value() / n_targets as f64) as f32);
        let mut gradients = Gradients::new(&names);
        gradients.accumulate(&model, || loss.sum.backward());
        let norm = gradients.norm(n_targets, StepPlace { step: step + 1, samples: &[] })?;
        model = optimizer.step(model, gradients, norm, LR);
    }
    Ok((model, optimizer, losses))
}

fn loss(model: &CausalLm, step: u64, device: &Device) -> (loss::LossSum, u64) {
    let (tokens, targets) = batch(step, device);
    let n_targets = targets.iter().filter(|target| **target >= 0).count() as u64;
    let targets_n = Tensor::<1, Int>::from_data(targets.as_slice(), &device.clone().inner());
    let hidden_nd = model.forward(&tokens).hidden_nd();
    (loss::cross_entropy(hidden_nd, model.head_weight(), targets_n, n_targets), n_targets)
}

/// Random ids, two texts per row; the targets are the next ids, and none at the end of a text.
fn batch(step: u64, device: &Device) -> (TokenBatch, Vec<i32>) {
    let mut rng = Rng::new(step);
    let n = ROWS * LENGTH;
    let ids: Vec<u32> = (0..n).map(|_| rng.below(VOCABULARY) as u32).collect();
    let (mut positions, mut segments) = (Vec::with_capacity(n), Vec::with_capacity(n));
    for row in 0..ROWS {
        let border = LENGTH / 2 + 5 * row;
        positions.extend((0..border as u32).chain(0..(LENGTH - border) as u32));
        segments.extend((0..LENGTH).map(|t| i32::from(t >= border)));
    }
    let next = |i: usize| {
        let same_text = !(i + 1).is_multiple_of(LENGTH) && segments.get(i) == segments.get(i + 1);
        ids.get(i + 1).filter(|_| same_text).map_or(-1, |id| *id as i32)
    };
    let targets = (0..n).map(next).collect();
    (TokenBatch::new(&ids, &positions, &segments, ROWS, LENGTH, device), targets)
}
