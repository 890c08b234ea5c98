//! The next-token loss of a replayed batch.

use burn::tensor::{Int, Tensor, TensorData};
use loss::LossSum;
use model::CausalLm;
use nn::TokenBatch;

/// The summed loss of a batch, with a graph if the model has one.
pub(super) fn summed_loss(
    model: &CausalLm,
    tokens: &TokenBatch,
    targets: &[i32],
    n_targets: u64,
) -> LossSum {
    losses(model, tokens, targets, n_targets).0
}

/// The summed loss of a batch, and the model's auxiliary loss.
pub(super) fn losses(
    model: &CausalLm,
    tokens: &TokenBatch,
    targets: &[i32],
    n_targets: u64,
) -> (LossSum, Option<Tensor<1>>) {
    let output = model.forward(tokens);
    let device = tokens.ids_bt.device();
    let targets = TensorData::new(targets.to_vec(), [targets.len()]);
    let targets_n = Tensor::<1, Int>::from_data(targets, &device);
    let loss = loss::cross_entropy(output.hidden_nd(), model.head(), targets_n, n_targets);
    (loss, output.aux_loss)
}
