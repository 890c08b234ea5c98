//! Logits, loss and both gradients in one walk over chunks of rows, on the CPU.
//!
//! The forward pass computes the gradients too, while a chunk's probabilities are at hand; the
//! backward pass only scales them. Logits of all rows never exist at once.

use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::autodiff::{Cpu, InputGradients, Op, record};
use crate::buffer::{TASK, filled};
use crate::flex;
use crate::head::{Head, Picked};
use crate::precision::precision;
use crate::vector::{self, widest};

/// The gradients of the loss by hidden and weight; none where they are not wanted.
#[derive(Clone, Debug)]
struct CrossEntropy {
    d_hidden: Option<FlexTensor>,
    d_weight: Option<FlexTensor>,
}

pub(super) fn cross_entropy(hidden: Tensor<2>, weight: Tensor<2>, targets: &[i32]) -> Tensor<1> {
    let (hidden, weight) = (Cpu::new(hidden), Cpu::new(weight));
    let picked = Picked::new(targets);
    let head = Head::new(hidden.value(), weight.value(), &picked, 1.0, precision());
    let (n, d, v) = (picked.rows.len(), head.d, head.v);
    let (want_hidden, want_weight) = (hidden.is_tracked(), weight.is_tracked());
    let mut loss = 0.0;
    let mut d_weight = Vec::new();
    let d_hidden = filled(if want_hidden { n * d } else { 0 }, |d_hidden| {
        d_weight = filled(if want_weight { v * d } else { 0 }, |d_weight| {
            if n == 0 {
                d_weight.fill(0.0);
            }
            head.for_chunks(|start, logits| {
                let targets = &picked.targets[start..];
                let rows = logits.par_chunks_mut(v).zip(targets);
                let losses: Vec<f64> = rows.map(|(row, target)| row_loss(row, *target)).collect();
                loss += losses.iter().sum::<f64>();
                head.back(start, logits, d_hidden, d_weight);
            });
        });
    });
    let d_hidden = want_hidden.then(|| picked.spread(d_hidden, d));
    let op = || CrossEntropy {
        d_hidden: d_hidden.map(|values| flex::tensor(values, [picked.n_all, d])),
        d_weight: want_weight.then(|| flex::tensor(d_weight, [v, d])),
    };
    record(&[&hidden, &weight], flex::tensor(vec![loss as f32], [1]), op).into_tensor()
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
    gradient.storage_mut::<f32>().par_chunks_mut(TASK).for_each(|values| scale(values, factor));
    gradient
}

/// The loss of one row of logits, which become the loss's gradient by them.
fn row_loss(row: &mut [f32], target: usize) -> f64 {
    let logit = row[target];
    let log_sum = softmax(row);
    row[target] -= 1.0;
    f64::from(log_sum - logit)
}

widest! {
    fn scale(values: &mut [f32], factor: f32) {
        for value in values.iter_mut() {
            *value *= factor;
        }
    }
}

widest! {
    /// The softmax of a row in place; gives the logarithm of the summed exponentials.
    fn softmax(row: &mut [f32]) -> f32 {
        let largest = vector::max(row);
        let sum = vector::exp_and_sum(row, largest);
        let inverse = 1.0 / sum;
        for value in row {
            *value *= inverse;
        }
        sum.ln() + largest
    }
}
