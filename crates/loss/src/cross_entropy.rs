//! Next-token cross-entropy over the positions that have a target.
//!
//! Targets are already shifted by one: data does that once, when it builds a batch. Any negative target means none.

use burn::tensor::{Int, Tensor};

use crate::LossSum;

/// The loss of next-token predictions, and how many of them were right.
#[derive(Clone, Debug)]
pub struct NextTokenLoss {
    /// Sum of `-log p(target)`.
    pub loss: LossSum,
    /// The number of targets of which no other token is more probable, shape `[1]`; has no gradient.
    pub n_correct: Tensor<1>,
}

/// Sum of `-log p(target)` over the `count` rows with a target.
///
/// The caller knows `count` from the host's batch; counting on the device would have to wait for it.
pub fn cross_entropy(
    hidden_nd: Tensor<2>,
    head: impl Into<kernels::Head>,
    targets_n: Tensor<1, Int>,
    count: u64,
) -> LossSum {
    next_token(hidden_nd, head, targets_n, count).loss
}

/// [`cross_entropy`] with the number of right predictions.
pub fn next_token(
    hidden_nd: Tensor<2>,
    head: impl Into<kernels::Head>,
    targets_n: Tensor<1, Int>,
    count: u64,
) -> NextTokenLoss {
    let found = kernels::linear_cross_entropy(hidden_nd, head, targets_n);
    NextTokenLoss { loss: LossSum { sum: found.sum, count }, n_correct: found.n_correct }
}
