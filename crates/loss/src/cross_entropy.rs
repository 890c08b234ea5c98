//! Next-token cross-entropy over the positions that have a target.
//!
//! Targets are already shifted by one: data does that once, when it builds a batch. Any negative target means none.

use burn::tensor::{Int, Tensor};

use crate::LossSum;

/// Sum of `-log p(target)` over the `count` rows with a target.
///
/// The caller knows `count` from the host's batch; counting on the device would have to wait for it.
pub fn cross_entropy(
    hidden_nd: Tensor<2>,
    head_vd: Tensor<2>,
    targets_n: Tensor<1, Int>,
    count: u64,
) -> LossSum {
    LossSum { sum: kernels::linear_cross_entropy(hidden_nd, head_vd, targets_n), count }
}
