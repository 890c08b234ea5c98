//! Log-probabilities and entropies of the output head, chunk by chunk; the backward pass computes the logits again.
//!
//! With z the logits over temperature, p their softmax and H the entropy,
//! ∂log p(y)/∂z_j = [j = y] − p_j and ∂H/∂z_j = −p_j · (log p_j + H).

use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::autodiff::{CpuTensor, InputGradients, Op, record};
use crate::buffer::filled;
use crate::flex;
use crate::precision::Precision;
use crate::simd::{self, multiversion};
use crate::soft_cap::{soft_cap, soft_cap_gradient};
use crate::team::AllThreads as _;
use crate::vocab_chunks::{TargetRows, VocabChunks};

#[derive(Clone, Debug)]
struct LinearLogProbs {
    hidden: FlexTensor,
    weight: FlexTensor,
    target_rows: TargetRows,
    scale: f32,
    /// Cap of the scaled logits.
    cap: Option<f32>,
    precision: Precision,
    /// log Σ e^z and entropy of each row with a target.
    rows: Vec<(f32, f32)>,
}

/// `log softmax(hidden · weightᵀ · scale)` at each row's target, and the entropy of each row: `[2, n]`, 0 in rows
/// with a negative target. `hidden` is `[n, d]`, `weight` `[v, d]`. With a soft cap, the scaled logits are capped.
///
/// # Panics
/// If a target is not below v.
pub fn logprobs(
    hidden: &CpuTensor,
    weight: &CpuTensor,
    targets: &[i32],
    scale: f32,
    cap: Option<f32>,
    precision: Precision,
) -> CpuTensor {
    let target_rows = TargetRows::new(targets);
    let n_all = target_rows.n_all;
    let mut out = vec![0.0; 2 * n_all];
    let mut rows = Vec::with_capacity(target_rows.rows.len());
    let chunks = VocabChunks::new(hidden.value(), weight.value(), &target_rows, scale, precision);
    chunks.for_chunks(|start, logits| {
        let found = logits
            .par_chunks_mut(chunks.v)
            .zip(&target_rows.targets[start..])
            .map_on_all_threads(|(row, target)| {
                if let Some(cap) = cap {
                    soft_cap(row, cap);
                }
                let logit = row[*target];
                let (log_sum, entropy) = log_sum_and_entropy(row);
                [logit - log_sum, log_sum, entropy]
            });
        for ([logprob, log_sum, entropy], row) in found.into_iter().zip(&target_rows.rows[start..])
        {
            (out[*row], out[n_all + row]) = (logprob, entropy);
            rows.push((log_sum, entropy));
        }
    });
    drop(chunks);
    let op = || LinearLogProbs {
        hidden: hidden.value().clone(),
        weight: weight.value().clone(),
        target_rows,
        scale,
        cap,
        precision,
        rows,
    };
    record(&[hidden, weight], flex::tensor(out, [2, n_all]), op)
}

impl Op for LinearLogProbs {
    fn backward(self, d_out: FlexTensor, inputs: &mut InputGradients<'_>) {
        let Self { hidden, weight, target_rows, scale, cap, precision, rows } = self;
        let d_out = flex::values(&d_out);
        let (d_logprobs, d_entropies) = d_out.split_at(target_rows.n_all);
        let chunks = VocabChunks::new(&hidden, &weight, &target_rows, scale, precision);
        let (n, d, v) = (rows.len(), chunks.d, chunks.v);
        let (needs_hidden, needs_weight) = (inputs.needs(0), inputs.needs(1));
        let mut d_weight = Vec::new();
        let d_hidden = filled(if needs_hidden { n * d } else { 0 }, |d_hidden| {
            d_weight = filled(if needs_weight { v * d } else { 0 }, |d_weight| {
                if n == 0 {
                    d_weight.fill(0.0);
                }
                chunks.for_chunks(|start, logits| {
                    let picked_rows =
                        target_rows.rows[start..].par_iter().zip(&target_rows.targets[start..]);
                    let places = picked_rows.zip(&rows[start..]);
                    logits.par_chunks_mut(v).zip(places).on_all_threads(
                        |(logits, ((row, target), (log_sum, entropy)))| {
                            let (d_logprob, d_entropy) = (d_logprobs[*row], d_entropies[*row]);
                            let capped = cap.map(|cap| {
                                soft_cap(logits, cap);
                                (cap, logits.to_vec())
                            });
                            gradient(logits, *log_sum, *entropy, d_logprob, d_entropy);
                            logits[*target] += d_logprob;
                            if let Some((cap, capped)) = capped {
                                soft_cap_gradient(logits, &capped, cap);
                            }
                        },
                    );
                    chunks.backward(start, logits, d_hidden, d_weight);
                });
            });
        });
        if needs_hidden {
            let d_hidden = target_rows.spread(d_hidden, d);
            inputs.add(0, flex::tensor(d_hidden, [target_rows.n_all, d]));
        }
        if needs_weight {
            inputs.add(1, flex::tensor(d_weight, [v, d]));
        }
    }
}

multiversion! {
    /// log Σ e^z, and log Σ e^z − Σ p·z; overwrites the row.
    fn log_sum_and_entropy(row: &mut [f32]) -> (f32, f32) {
        let largest = simd::max(row);
        let mut lanes = [(0.0_f32, 0.0_f32); 16];
        for chunk in row.chunks(16) {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                let shifted = value - largest;
                let e = simd::exp(shifted);
                lane.0 += e;
                // e^-inf times minus infinity counts as 0, not as NaN.
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

multiversion! {
    /// Replaces logits by their gradients, without the term of the target.
    fn gradient(row: &mut [f32], log_sum: f32, entropy: f32, d_logprob: f32, d_entropy: f32) {
        for value in row {
            let log_p = *value - log_sum;
            let p = simd::exp(log_p);
            let of_entropy = if p > 0.0 { d_entropy * (log_p + entropy) } else { 0.0 };
            *value = -p * (d_logprob + of_entropy);
        }
    }
}
