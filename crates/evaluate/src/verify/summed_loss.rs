//! The next-token loss of a replayed batch.

use burn::tensor::{Int, Tensor, TensorData};
use model::CausalLm;
use nn::TokenBatch;

/// The summed loss of a batch, with a graph if the model has one.
pub(super) fn summed_loss(
    model: &CausalLm,
    tokens: &TokenBatch,
    targets: &[i32],
    n_targets: u64,
) -> loss::LossSum {
    let n = targets.len();
    let hidden_nd = model.forward(tokens).hidden_nd();
    let device = tokens.ids_bt.device();
    let targets_n = Tensor::<1, Int>::from_data(TensorData::new(targets.to_vec(), [n]), &device);
    loss::cross_entropy(hidden_nd, model.head_weight(), targets_n, n_targets)
}
