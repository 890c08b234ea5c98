//! Log-probabilities of answers, by one function for policy, reference, divergence and validation.
//!
//! The batch's targets mark the tokens of an answer.
//!
//! Shape legend: b texts, t time, n positions (b × t), d model width.

use burn::tensor::{Device, Int, Tensor};
use data::Batch;
use loss::SequenceLogprobs;
use model::{Auxiliary, CausalLm};
use nn::TokenBatch;

/// log π(answer | prompt) of each row, `[b]`.
pub fn answer_logprobs(model: &CausalLm, batch: &Batch, device: &Device) -> Tensor<1> {
    answer_logprobs_and_auxiliary(model, batch, device).0
}

/// As [`answer_logprobs`], with the model's own loss and the load of its experts, for training.
pub(crate) fn answer_logprobs_and_auxiliary(
    model: &CausalLm,
    batch: &Batch,
    device: &Device,
) -> (Tensor<1>, Auxiliary) {
    let Batch { rows: b, sequence_length: t, ids, positions, segments, targets, .. } = batch;
    let tokens = TokenBatch::new(ids, positions, segments, *b, *t, device);
    let output = model.forward(&tokens);
    let targets_n = Tensor::<1, Int>::from_data(targets.as_slice(), device);
    // The product with the head skips positions without a target.
    let hidden_nd = output.hidden_nd();
    let logprobs_n = kernels::linear_logprobs(hidden_nd, model.head(), targets_n, 1.0).logprobs_n;
    (SequenceLogprobs::of_targets(logprobs_n, targets, *t).sums(), output.auxiliary())
}
