//! Log-probabilities of the answers of pairs, by one function for policy, reference and validation.
//!
//! The batch's targets mark the tokens of an answer.
//!
//! Shape legend: p pairs, b texts (2 × p), t time, n positions (b × t), d model width.

use burn::tensor::{Device, Int, Tensor, TensorData};
use data::Batch;
use loss::{PairLogprobs, SequenceLogprobs, answer_weights, pair_weights};
use model::{Auxiliary, CausalLm};
use nn::TokenBatch;

/// How the log-probabilities of an answer's tokens are added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Weight of the tokens beyond the length of the pair's shorter answer; `None` for 1.
    pub ld_alpha: Option<f64>,
    /// Whether pairs get weights from the policy's probabilities.
    pub use_weighting: bool,
}

/// Log-probabilities of both answers of each pair under the policy.
#[derive(Clone, Debug)]
pub struct PolicyLogprobs {
    /// The answers.
    pub pairs: PairLogprobs,
    /// Weight of each pair, `[p]`, without a gradient; `None` for 1.
    pub weights_p: Option<Tensor<1>>,
}

/// log π(answer | prompt) of both answers of each pair; the rows of `batch` are chosen and rejected texts, alternating.
pub fn answer_logprobs(
    model: &CausalLm,
    batch: &Batch,
    reading: Reading,
    device: &Device,
) -> PolicyLogprobs {
    answer_logprobs_and_auxiliary(model, batch, reading, device).0
}

/// As [`answer_logprobs`], with the model's own loss and the load of its experts, for training.
pub(crate) fn answer_logprobs_and_auxiliary(
    model: &CausalLm,
    batch: &Batch,
    reading: Reading,
    device: &Device,
) -> (PolicyLogprobs, Auxiliary) {
    let Batch { rows: b, sequence_length: t, ids, positions, segments, targets, .. } = batch;
    let (p, t) = (b / 2, *t);
    let tokens = TokenBatch::new(ids, positions, segments, *b, t, device);
    let output = model.forward(&tokens);
    let targets_n = Tensor::<1, Int>::from_data(targets.as_slice(), device);
    // The product with the head skips positions without a target.
    let of_targets = |temperature: f64| {
        let hidden_nd = output.hidden_nd();
        kernels::linear_logprobs(hidden_nd, model.head(), targets_n.clone(), temperature)
    };
    let logprobs_n = of_targets(1.0).logprobs_n;
    let mask: Vec<bool> = targets.iter().map(|target| *target >= 0).collect();
    let weights = answer_weights(&mask, t, reading.ld_alpha.unwrap_or(1.0));
    let mask: Vec<f32> = mask.into_iter().map(|is_target| f32::from(u8::from(is_target))).collect();
    let floats = |values: Vec<f32>| {
        Tensor::<1>::from_data(TensorData::new(values, [b * t]), &logprobs_n.device())
    };
    let (mask_n, weights_n) = (floats(mask), floats(weights));
    // The two rows of a pair are consecutive.
    let side = |logprobs_n: &Tensor<1>, from: usize| {
        let of = |x_n: &Tensor<1>| x_n.clone().reshape([p, 2 * t]).slice([0..p, from..from + t]);
        let sums = SequenceLogprobs::from_tokens(of(logprobs_n), of(&mask_n));
        match reading.ld_alpha {
            None => sums,
            Some(_) => sums.weighted(of(logprobs_n), of(&weights_n)),
        }
    };
    let both = |logprobs_n: &Tensor<1>| PairLogprobs {
        chosen: side(logprobs_n, 0),
        rejected: side(logprobs_n, t),
    };
    let weights_p = reading.use_weighting.then(|| {
        let sharpened_n = of_targets(0.5).logprobs_n;
        pair_weights(&both(&logprobs_n), &both(&sharpened_n))
    });
    (PolicyLogprobs { pairs: both(&logprobs_n), weights_p }, output.auxiliary())
}
