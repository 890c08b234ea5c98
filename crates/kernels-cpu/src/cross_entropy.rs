//! Cross-entropy of the output head: logits, loss and both gradients in one pass over chunks of rows.
//!
//! The forward pass computes the gradients too, while a chunk's probabilities are in memory; the backward
//! pass only scales them. The logits of all rows never exist at once.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::autodiff::{CpuTensor, InputGradients, Op, record};
use crate::buffer::{TASK, filled};
use crate::flex;
use crate::precision::Precision;
use crate::simd::{self, multiversion};
use crate::soft_cap::{soft_cap, soft_cap_gradient};
use crate::team::AllThreads as _;
use crate::vocab_chunks::{TargetRows, VocabChunks};

/// Gradients of the loss with respect to hidden states and weight, where they are needed.
#[derive(Clone, Debug)]
struct CrossEntropy {
    d_hidden: Option<FlexTensor>,
    d_weight: Option<FlexTensor>,
}

/// A summed loss, and how many of its targets were the model's first choice.
#[derive(Debug)]
pub struct SummedLoss {
    /// The sum over the rows with a target, shape `[1]`.
    pub sum: CpuTensor,
    /// The number of rows in which no logit is larger than the target's.
    pub n_correct: u64,
}

/// Sum over the rows of `hidden` `[n, d]` with `target >= 0` of `-log softmax(hidden · weightᵀ)[target]`, with
/// `weight` `[v, d]`. With a soft cap, logits are capped before the softmax.
///
/// # Panics
/// If a target is not below v.
pub fn cross_entropy(
    hidden: &CpuTensor,
    weight: &CpuTensor,
    targets: &[i32],
    cap: Option<f32>,
    precision: Precision,
) -> SummedLoss {
    let target_rows = TargetRows::new(targets);
    let chunks = VocabChunks::new(hidden.value(), weight.value(), &target_rows, 1.0, precision);
    let (n, d, v) = (target_rows.rows.len(), chunks.d, chunks.v);
    let (needs_hidden, needs_weight) = (hidden.is_tracked(), weight.is_tracked());
    let (mut loss, mut n_correct) = (0.0, 0);
    let mut d_weight = Vec::new();
    let d_hidden = filled(if needs_hidden { n * d } else { 0 }, |d_hidden| {
        d_weight = filled(if needs_weight { v * d } else { 0 }, |d_weight| {
            if n == 0 {
                d_weight.fill(0.0);
            }
            chunks.for_chunks(|start, logits| {
                let targets = &target_rows.targets[start..];
                let rows = logits.par_chunks_mut(v).zip(targets);
                let losses = rows.map_on_all_threads(|(row, target)| row_loss(row, *target, cap));
                loss += losses.iter().map(|row| row.loss).sum::<f64>();
                n_correct += losses.iter().filter(|row| row.is_correct).count() as u64;
                chunks.backward(start, logits, d_hidden, d_weight);
            });
        });
    });
    let d_hidden = needs_hidden.then(|| target_rows.spread(d_hidden, d));
    let op = || CrossEntropy {
        d_hidden: d_hidden.map(|values| flex::tensor(values, [target_rows.n_all, d])),
        d_weight: needs_weight.then(|| flex::tensor(d_weight, [v, d])),
    };
    let sum = record(&[hidden, weight], flex::tensor(vec![loss as f32], [1]), op);
    SummedLoss { sum, n_correct }
}

impl Op for CrossEntropy {
    fn backward(self, d_out: FlexTensor, inputs: &mut InputGradients<'_>) {
        let factor = flex::values(&d_out)[0];
        for (idx, gradient) in [self.d_hidden, self.d_weight].into_iter().enumerate() {
            if let Some(gradient) = gradient {
                inputs.add(idx, scaled(gradient, factor));
            }
        }
    }
}

fn scaled(gradient: FlexTensor, factor: f32) -> FlexTensor {
    if factor == 1.0 {
        return gradient;
    }
    let mut gradient = flex::own(gradient);
    gradient
        .storage_mut::<f32>()
        .par_chunks_mut(TASK)
        .on_all_threads(|values| scale(values, factor));
    gradient
}

struct RowLoss {
    loss: f64,
    /// Whether the target's logit is the largest.
    is_correct: bool,
}

/// The loss of one row of logits; replaces the logits by their gradients.
fn row_loss(row: &mut [f32], target: usize, cap: Option<f32>) -> RowLoss {
    let capped = cap.map(|cap| {
        soft_cap(row, cap);
        (cap, row.to_vec())
    });
    let logit = row[target];
    let (log_sum, largest) = softmax(row);
    row[target] -= 1.0;
    if let Some((cap, capped)) = capped {
        soft_cap_gradient(row, &capped, cap);
    }
    RowLoss { loss: f64::from(log_sum - logit), is_correct: logit >= largest }
}

multiversion! {
    fn scale(values: &mut [f32], factor: f32) {
        for value in values.iter_mut() {
            *value *= factor;
        }
    }
}

multiversion! {
    /// Softmax of a row in place; returns the logarithm of the sum of exponentials, and the largest value.
    fn softmax(row: &mut [f32]) -> (f32, f32) {
        let largest = simd::max(row);
        let sum = simd::exp_and_sum(row, largest);
        let inverse = 1.0 / sum;
        for value in row {
            *value *= inverse;
        }
        (sum.ln() + largest, largest)
    }
}
