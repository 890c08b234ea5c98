//! Next-token cross-entropy over the positions that have a target.
//!
//! Nothing is shifted here: targets are already the next tokens, shifted once where batches are
//! made. A negative target means none, whatever its value.

use burn::tensor::{Int, Tensor};

use crate::LossSum;

/// Sum of `-log p(target)` over rows with a target; `count` is how many those are.
///
/// `count` comes from the host, where the batch was made: reading it back would wait for the device.
pub fn cross_entropy(
    hidden_nd: Tensor<2>,
    head: impl Into<kernels::Head>,
    targets_n: Tensor<1, Int>,
    count: u64,
) -> LossSum {
    LossSum { sum: kernels::linear_cross_entropy(hidden_nd, head, targets_n), count }
}
