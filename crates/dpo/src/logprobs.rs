//! Log-probabilities of the answers of pairs, by one function for policy, reference and validation.
//!
//! The batch's targets mark the tokens of an answer.
//!
//! Shape legend: p pairs, b texts (2 × p), t time, n positions (b × t), d model width.

use burn::tensor::{Device, Int, Tensor, TensorData};
use data::Batch;
use loss::{PairLogprobs, SequenceLogprobs};
use model::{Auxiliary, CausalLm};
use nn::TokenBatch;

/// log π(answer | prompt) of both answers of each pair; the rows of `batch` are chosen and rejected texts, alternating.
pub fn answer_logprobs(model: &CausalLm, batch: &Batch, device: &Device) -> PairLogprobs {
    answer_logprobs_and_auxiliary(model, batch, device).0
}

/// As [`answer_logprobs`], with the model's own loss and the load of its experts, for training.
pub(crate) fn answer_logprobs_and_auxiliary(
    model: &CausalLm,
    batch: &Batch,
    device: &Device,
) -> (PairLogprobs, Auxiliary) {
    let Batch { rows: b, sequence_length: t, ids, positions, segments, targets, .. } = batch;
    let (p, t) = (b / 2, *t);
    let tokens = TokenBatch::new(ids, positions, segments, *b, t, device);
    let output = model.forward(&tokens);
    let targets_n = Tensor::<1, Int>::from_data(targets.as_slice(), device);
    // The product with the head skips positions without a target.
    let logprobs = kernels::linear_logprobs(output.hidden_nd(), model.head(), targets_n, 1.0);
    let mask: Vec<f32> = targets.iter().map(|target| f32::from(u8::from(*target >= 0))).collect();
    let mask_n =
        Tensor::<1>::from_data(TensorData::new(mask, [b * t]), &logprobs.logprobs_n.device());
    // The two rows of a pair are consecutive.
    let side = |from: usize| {
        let of = |x_n: &Tensor<1>| x_n.clone().reshape([p, 2 * t]).slice([0..p, from..from + t]);
        SequenceLogprobs::from_tokens(of(&logprobs.logprobs_n), of(&mask_n))
    };
    (PairLogprobs { chosen: side(0), rejected: side(t) }, output.auxiliary())
}
