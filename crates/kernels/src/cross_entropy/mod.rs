//! The output head with its loss: the summed cross-entropy of hidden rows against target ids.
//!
//! It deliberately divides nothing: a loss is a sum and a count, and one place divides.

mod fused;

use burn::backend::Dispatch;
use burn::tensor::{Int, Tensor, TensorData};

use self::fused::HeadOps;
use crate::rows::{gather_rows, target_rows};

/// Sum over rows with `target >= 0` of `-log softmax(hidden · weightᵀ)[target]`, shape `[1]`.
///
/// Rows with a negative target are left out before the product and cost nothing. Reads the targets
/// to the host.
pub fn linear_cross_entropy(
    hidden_nd: Tensor<2>,
    weight_vd: Tensor<2>,
    targets_n: Tensor<1, Int>,
) -> Tensor<1> {
    let device = hidden_nd.device().inner();
    let picked = target_rows(targets_n);
    let n = picked.targets.len();
    if n == 0 {
        // Still part of the graph, so that a batch without targets has gradients of zero.
        let corner = hidden_nd.slice([0..1, 0..1]) + weight_vd.slice([0..1, 0..1]);
        return corner.mul_scalar(0.0).reshape([1]);
    }
    let hidden_nd = gather_rows(hidden_nd, picked.rows.as_ref());
    let targets = TensorData::new(picked.targets, [n, 1]);
    let targets_n1 = Tensor::<2, Int>::from_data(targets, &device);
    let loss = <Dispatch as HeadOps>::cross_entropy(
        hidden_nd.into_dispatch(),
        weight_vd.into_dispatch(),
        targets_n1.into_dispatch(),
    );
    Tensor::from_dispatch(loss)
}
