//! The positions of a batch that have a target.

use burn::tensor::{Int, Tensor, TensorData};
use data::Batch;

/// The rows of positions with a target.
pub(crate) fn at_targets(hidden_nd: Tensor<2>, batch: &Batch) -> Tensor<2> {
    let targets = batch.targets.iter().enumerate().filter(|(_, target)| **target >= 0);
    let positions: Vec<i64> = targets.map(|(at, _)| at as i64).collect();
    let m = positions.len();
    let positions = TensorData::new(positions, [m]);
    let positions_m = Tensor::<1, Int>::from_data(positions, &hidden_nd.device());
    hidden_nd.select(0, positions_m)
}
