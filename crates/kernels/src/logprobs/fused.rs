//! Log-probabilities and entropies on the CPU, chunk by chunk, with logits made anew for backward.
//!
//! With z the logits over temperature, p their softmax and H the entropy,
//! ∂log p(y)/∂z_j = [j = y] − p_j and ∂H/∂z_j = −p_j · (log p_j + H).

use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::LogProbs;
use crate::autodiff::{Cpu, InputGradients, Op, record};
use crate::buffer::filled;
use crate::flex;
use crate::head::{Head, Picked};
use crate::precision::{Precision, precision};
use crate::vector::{self, widest};

#[derive(Clone, Debug)]
struct LinearLogProbs {
    hidden: FlexTensor,
    weight: FlexTensor,
    picked: Picked,
    scale: f32,
    precision: Precision,
    /// log Σ e^z and entropy of each picked row.
    rows: Vec<(f32, f32)>,
}

pub(super) fn logprobs(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: &[i32],
    temperature: f64,
) -> LogProbs {
    let (hidden, weight) = (Cpu::new(hidden), Cpu::new(weight));
    let picked = Picked::new(targets);
    let scale = (1.0 / temperature) as f32;
    let n_all = picked.n_all;
    let mut out = vec![0.0; 2 * n_all];
    let mut rows = Vec::with_capacity(picked.rows.len());
    let precision = precision();
    let head = Head::new(hidden.value(), weight.value(), &picked, scale, precision);
    head.for_chunks(|start, logits| {
        let found: Vec<[f32; 3]> = logits
            .par_chunks_mut(head.v)
            .zip(&picked.targets[start..])
            .map(|(row, target)| {
                let logit = row[*target];
                let (log_sum, entropy) = log_sum_and_entropy(row);
                [logit - log_sum, log_sum, entropy]
            })
            .collect();
        for ([logprob, log_sum, entropy], row) in found.into_iter().zip(&picked.rows[start..]) {
            (out[*row], out[n_all + row]) = (logprob, entropy);
            rows.push((log_sum, entropy));
        }
    });
    drop(head);
    let op = || LinearLogProbs {
        hidden: hidden.value().clone(),
        weight: weight.value().clone(),
        picked,
        scale,
        precision,
        rows,
    };
    let both = record(&[&hidden, &weight], flex::tensor(out, [2, n_all]), op);
    let both_2n: Tensor<2> = both.into_tensor();
    let part = |idx: usize| both_2n.clone().slice([idx..idx + 1, 0..n_all]).reshape([n_all]);
    LogProbs { logprobs_n: part(0), entropy_n: part(1) }
}

impl Op for LinearLogProbs {
    fn backward(self, d_out: FlexTensor, inputs: &mut InputGradients<'_>) {
        let Self { hidden, weight, picked, scale, precision, rows } = self;
        let d_out = flex::values(&d_out);
        let (d_logprobs, d_entropies) = d_out.split_at(picked.n_all);
        let head = Head::new(&hidden, &weight, &picked, scale, precision);
        let (n, d, v) = (rows.len(), head.d, head.v);
        let (want_hidden, want_weight) = (inputs.wants(0), inputs.wants(1));
        let mut d_weight = Vec::new();
        let d_hidden = filled(if want_hidden { n * d } else { 0 }, |d_hidden| {
            d_weight = filled(if want_weight { v * d } else { 0 }, |d_weight| {
                if n == 0 {
                    d_weight.fill(0.0);
                }
                head.for_chunks(|start, logits| {
                    let picked_rows = picked.rows[start..].par_iter().zip(&picked.targets[start..]);
                    let places = picked_rows.zip(&rows[start..]);
                    logits.par_chunks_mut(v).zip(places).for_each(
                        |(logits, ((row, target), (log_sum, entropy)))| {
                            let (d_logprob, d_entropy) = (d_logprobs[*row], d_entropies[*row]);
                            gradient(logits, *log_sum, *entropy, d_logprob, d_entropy);
                            logits[*target] += d_logprob;
                        },
                    );
                    head.back(start, logits, d_hidden, d_weight);
                });
            });
        });
        if want_hidden {
            let d_hidden = picked.spread(d_hidden, d);
            inputs.add(0, flex::tensor(d_hidden, [picked.n_all, d]));
        }
        if want_weight {
            inputs.add(1, flex::tensor(d_weight, [v, d]));
        }
    }
}

widest! {
    /// log Σ e^z, and log Σ e^z − Σ p·z; the row is used up.
    fn log_sum_and_entropy(row: &mut [f32]) -> (f32, f32) {
        let largest = vector::max(row);
        let mut lanes = [(0.0_f32, 0.0_f32); 16];
        for chunk in row.chunks(16) {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                let shifted = value - largest;
                let e = vector::exp(shifted);
                lane.0 += e;
                // e^-inf times minus infinity is nothing, not NaN.
                lane.1 += if e > 0.0 { e * shifted } else { 0.0 };
            }
        }
        let (mut sum, mut weighted) = (0.0, 0.0);
        for lane in lanes {
            sum += lane.0;
            weighted += lane.1;
        }
        (sum.ln() + largest, sum.ln() - weighted / sum)
    }
}

widest! {
    /// Logits become the gradient by them, but for the target's own part.
    fn gradient(row: &mut [f32], log_sum: f32, entropy: f32, d_logprob: f32, d_entropy: f32) {
        for value in row {
            let log_p = *value - log_sum;
            let p = vector::exp(log_p);
            let of_entropy = if p > 0.0 { d_entropy * (log_p + entropy) } else { 0.0 };
            *value = -p * (d_logprob + of_entropy);
        }
    }
}
