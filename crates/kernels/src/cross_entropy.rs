//! The output head with its loss: the sum of the cross-entropies of hidden rows and target ids.
//!
//! The mean is the caller's: a loss is a sum and a count, and one place divides.

use burn::tensor::{Int, Tensor, TensorData};
use kernels_cpu::CpuTensor;

use crate::dispatch::{KernelSet, Select};
use crate::head::{Head, HeadLoss, capped};
use crate::matmul::matmul;
use crate::precision::precision;
use crate::target_rows::{gather_rows, host_ids, rows_per_chunk, target_rows};
use crate::weight::as_f32;

/// Sum over rows with `target >= 0` of `-log softmax(logits)[target]`; logits are those of the [`Head`].
///
/// Rows with a negative target are removed before the product and cost nothing. Reads the targets to the host.
pub fn linear_cross_entropy(
    hidden_nd: Tensor<2>,
    head: impl Into<Head>,
    targets_n: Tensor<1, Int>,
) -> HeadLoss {
    let head = head.into();
    let hidden_nd = head.scaled(hidden_nd);
    let Head { weight_vd, soft_cap, .. } = head;
    let weight_vd = weight_vd.into_tensor();
    let device = hidden_nd.device().inner();
    match Select::new().float(&hidden_nd).weight(&weight_vd).kernel_set() {
        KernelSet::Cpu => {
            let (hidden, weight) = (CpuTensor::new(hidden_nd), CpuTensor::new(weight_vd));
            let (targets, cap) = (host_ids(targets_n), soft_cap.map(|cap| cap as f32));
            let loss = kernels_cpu::cross_entropy(&hidden, &weight, &targets, cap, precision());
            let n_correct = Tensor::from_data([loss.n_correct as f32], &device);
            HeadLoss { sum: loss.sum.into_tensor(), n_correct }
        }
        KernelSet::Generic => generic(hidden_nd, as_f32(weight_vd), targets_n, soft_cap),
    }
}

fn generic(
    hidden_nd: Tensor<2>,
    weight_vd: Tensor<2>,
    targets_n: Tensor<1, Int>,
    soft_cap: Option<f64>,
) -> HeadLoss {
    let device = hidden_nd.device().inner();
    let rows = target_rows(targets_n);
    let n = rows.targets.len();
    if n == 0 {
        // Part of the graph, so that a batch without targets has gradients of zero.
        let corner = hidden_nd.slice([0..1, 0..1]) + weight_vd.slice([0..1, 0..1]);
        let sum = corner.mul_scalar(0.0).reshape([1]);
        return HeadLoss { sum, n_correct: Tensor::zeros([1], &device) };
    }
    let hidden_nd = gather_rows(hidden_nd, rows.rows.as_ref());
    #[cfg(feature = "gpu")]
    if crate::gpu::reads(&hidden_nd) {
        let targets_n = Tensor::from_data(TensorData::new(rows.targets, [n]), &device);
        let settings = crate::gpu::HeadSettings {
            soft_cap: soft_cap.map(|cap| cap as f32),
            temperature: 1.0,
            precision: precision(),
            rows_per_chunk: rows_per_chunk(weight_vd.dims()[0]),
        };
        let [sum, n_correct] = crate::gpu::head_loss(hidden_nd, weight_vd, targets_n, settings);
        return HeadLoss { sum, n_correct };
    }
    let [_, d] = hidden_nd.dims();
    let chunk = rows_per_chunk(weight_vd.dims()[0]);
    let (mut losses, mut n_correct) = (Vec::new(), Tensor::zeros([1], &device));
    for (start, targets) in (0..n).step_by(chunk).zip(rows.targets.chunks(chunk)) {
        let m = targets.len();
        let hidden_md = hidden_nd.clone().slice([start..start + m, 0..d]);
        let targets = TensorData::new(targets.to_vec(), [m, 1]);
        let targets_m1 = Tensor::<2, Int>::from_data(targets, &device);
        let logits_mv = matmul(hidden_md, weight_vd.clone().transpose());
        let logits_mv = match soft_cap {
            Some(cap) => capped(logits_mv, cap),
            None => logits_mv,
        };
        let max_m1 = logits_mv.clone().inner().max_dim(1);
        let shifted_mv = logits_mv - max_m1;
        let log_sum_m1 = shifted_mv.clone().exp().sum_dim(1).log();
        let at_target_m1 = shifted_mv.gather(1, targets_m1);
        n_correct = n_correct + at_target_m1.clone().inner().greater_equal_elem(0.0).float().sum();
        losses.push((log_sum_m1 - at_target_m1).sum());
    }
    HeadLoss { sum: Tensor::cat(losses, 0).sum(), n_correct }
}
