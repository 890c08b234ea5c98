//! The output head with its loss: the summed cross-entropy of hidden rows against target ids.
//!
//! It deliberately divides nothing: a loss is a sum and a count, and one place divides.

mod fused;

use burn::tensor::{Int, Tensor, TensorData};

use crate::autodiff::fits;
use crate::product::matmul;
use crate::rows::{gather_rows, host_ids, rows_per_chunk, target_rows};
use crate::stored::{as_f32, weight_fits};

/// Sum over rows with `target >= 0` of `-log softmax(hidden · weightᵀ)[target]`, shape `[1]`.
///
/// Rows with a negative target are left out before the product and cost nothing. Reads the targets
/// to the host.
pub fn linear_cross_entropy(
    hidden_nd: Tensor<2>,
    weight_vd: Tensor<2>,
    targets_n: Tensor<1, Int>,
) -> Tensor<1> {
    if fits(&hidden_nd) && weight_fits(&weight_vd) {
        return fused::cross_entropy(hidden_nd, weight_vd, &host_ids(targets_n));
    }
    plain(hidden_nd, as_f32(weight_vd), targets_n)
}

fn plain(hidden_nd: Tensor<2>, weight_vd: Tensor<2>, targets_n: Tensor<1, Int>) -> Tensor<1> {
    let device = hidden_nd.device().inner();
    let picked = target_rows(targets_n);
    let n = picked.targets.len();
    if n == 0 {
        // Still part of the graph, so that a batch without targets has gradients of zero.
        let corner = hidden_nd.slice([0..1, 0..1]) + weight_vd.slice([0..1, 0..1]);
        return corner.mul_scalar(0.0).reshape([1]);
    }
    let hidden_nd = gather_rows(hidden_nd, picked.rows.as_ref());
    let [_, d] = hidden_nd.dims();
    let chunk = rows_per_chunk(weight_vd.dims()[0]);
    let mut losses = Vec::new();
    for (start, targets) in (0..n).step_by(chunk).zip(picked.targets.chunks(chunk)) {
        let m = targets.len();
        let hidden_md = hidden_nd.clone().slice([start..start + m, 0..d]);
        let targets = TensorData::new(targets.to_vec(), [m, 1]);
        let targets_m1 = Tensor::<2, Int>::from_data(targets, &device);
        let logits_mv = matmul(hidden_md, weight_vd.clone().transpose());
        let max_m1 = logits_mv.clone().inner().max_dim(1);
        let shifted_mv = logits_mv - max_m1;
        let log_sum_m1 = shifted_mv.clone().exp().sum_dim(1).log();
        losses.push((log_sum_m1 - shifted_mv.gather(1, targets_m1)).sum());
    }
    Tensor::cat(losses, 0).sum()
}
