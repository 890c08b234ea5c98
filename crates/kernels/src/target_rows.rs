//! Rows with a target, for the generic kernels: targets are read to the host once, and rows without one cost nothing.

use burn::tensor::{Int, Tensor, TensorData};

/// Rows with a target, in order, and those targets.
pub(crate) struct TargetRows {
    /// Indices of the rows; `None` if every row has a target.
    pub(crate) rows: Option<Tensor<1, Int>>,
    /// Targets of those rows.
    pub(crate) targets: Vec<i32>,
}

/// The values of an int tensor.
pub(crate) fn host_ids<const D: usize>(ids: Tensor<D, Int>) -> Vec<i32> {
    ids.inner().into_data().convert::<i32>().iter::<i32>().collect()
}

/// The rows whose target is not negative.
pub(crate) fn target_rows(targets_n: Tensor<1, Int>) -> TargetRows {
    let device = targets_n.device().inner();
    let all = host_ids(targets_n);
    let rows: Vec<i32> =
        (0..).zip(&all).filter(|(_, target)| **target >= 0).map(|(i, _)| i).collect();
    if rows.len() == all.len() {
        return TargetRows { rows: None, targets: all };
    }
    let targets = all.into_iter().filter(|target| *target >= 0).collect();
    let n_rows = rows.len();
    let rows = Tensor::from_data(TensorData::new(rows, [n_rows]), &device);
    TargetRows { rows: Some(rows), targets }
}

/// The rows of `x` that have a target.
pub(crate) fn gather_rows(x_nd: Tensor<2>, rows: Option<&Tensor<1, Int>>) -> Tensor<2> {
    match rows {
        Some(rows) => x_nd.select(0, rows.clone()),
        None => x_nd,
    }
}

/// Rows of `width` values per chunk of at most 32 MiB of f32.
pub(crate) fn rows_per_chunk(width: usize) -> usize {
    (8 * 1024 * 1024 / width.max(1)).clamp(16, 1024)
}
