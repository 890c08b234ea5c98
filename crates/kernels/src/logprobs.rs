//! The output head with log-probabilities of given tokens and the entropies of their distributions.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};
use kernels_cpu::CpuTensor;

use crate::dispatch::{KernelSet, Select};
use crate::head::{Head, capped};
use crate::matmul::matmul;
use crate::precision::precision;
use crate::target_rows::{gather_rows, host_ids, rows_per_chunk, target_rows};
use crate::weight::as_f32;

/// Result of [`linear_logprobs`]; 0 in rows without a target.
#[derive(Clone, Debug)]
pub struct LogProbs {
    /// log p(target) of each row.
    pub logprobs_n: Tensor<1>,
    /// Entropy in nats of each row's distribution.
    pub entropy_n: Tensor<1>,
}

/// `log softmax(logits / temperature)` at each row's target, and the entropy; logits are those of the [`Head`].
///
/// Rows with a negative target are removed before the product and are 0 in both.
pub fn linear_logprobs(
    hidden_nd: Tensor<2>,
    head: impl Into<Head>,
    targets_n: Tensor<1, Int>,
    temperature: f64,
) -> LogProbs {
    let head = head.into();
    let hidden_nd = head.scaled(hidden_nd);
    let Head { weight_vd, soft_cap, .. } = head;
    let weight_vd = weight_vd.into_tensor();
    match Select::new().float(&hidden_nd).weight(&weight_vd).kernel_set() {
        KernelSet::Cpu => {
            let (hidden, weight) = (CpuTensor::new(hidden_nd), CpuTensor::new(weight_vd));
            let (targets, scale) = (host_ids(targets_n), (1.0 / temperature) as f32);
            // The kernel caps logits that are already divided by the temperature.
            let cap = soft_cap.map(|cap| (cap / temperature) as f32);
            let both = kernels_cpu::logprobs(&hidden, &weight, &targets, scale, cap, precision());
            let (both_2n, n): (Tensor<2>, _) = (both.into_tensor(), targets.len());
            let part = |idx: usize| both_2n.clone().slice([idx..idx + 1, 0..n]).reshape([n]);
            LogProbs { logprobs_n: part(0), entropy_n: part(1) }
        }
        KernelSet::Generic => {
            generic(hidden_nd, as_f32(weight_vd), targets_n, temperature, soft_cap)
        }
    }
}

fn generic(
    hidden_nd: Tensor<2>,
    weight_vd: Tensor<2>,
    targets_n: Tensor<1, Int>,
    temperature: f64,
    soft_cap: Option<f64>,
) -> LogProbs {
    let [n_all, d] = hidden_nd.dims();
    let device = hidden_nd.device();
    let rows = target_rows(targets_n);
    let n = rows.targets.len();
    let zeros = Tensor::<1>::zeros([n_all], &device);
    if n == 0 {
        // Part of the graph, so that a batch without targets has gradients of zero.
        let corner = hidden_nd.slice([0..1, 0..1]) + weight_vd.slice([0..1, 0..1]);
        let zeros = zeros + corner.mul_scalar(0.0).reshape([1]);
        return LogProbs { logprobs_n: zeros.clone(), entropy_n: zeros };
    }
    let hidden_nd = gather_rows(hidden_nd, rows.rows.as_ref());
    let scatter = |values_n: Tensor<1>| match &rows.rows {
        Some(rows) => zeros.clone().select_assign(0, rows.clone(), values_n, IndexingUpdateOp::Add),
        None => values_n,
    };
    #[cfg(feature = "gpu")]
    if crate::gpu::reads(&hidden_nd) {
        let ids = TensorData::new(rows.targets.clone(), [n]);
        let targets_n = Tensor::from_data(ids, &device.clone().inner());
        let settings = crate::gpu::HeadSettings {
            soft_cap: soft_cap.map(|cap| cap as f32),
            temperature: temperature as f32,
            precision: precision(),
            rows_per_chunk: rows_per_chunk(weight_vd.dims()[0]),
        };
        let both_2n = crate::gpu::head_logprobs(hidden_nd, weight_vd, targets_n, settings);
        let part = |idx: usize| scatter(both_2n.clone().slice([idx..idx + 1, 0..n]).reshape([n]));
        return LogProbs { logprobs_n: part(0), entropy_n: part(1) };
    }
    let chunk = rows_per_chunk(weight_vd.dims()[0]);
    let (mut logprobs, mut entropy) = (Vec::new(), Vec::new());
    for (start, targets) in (0..n).step_by(chunk).zip(rows.targets.chunks(chunk)) {
        let m = targets.len();
        let hidden_md = hidden_nd.clone().slice([start..start + m, 0..d]);
        let ids = TensorData::new(targets.to_vec(), [m, 1]);
        let targets_m1 = Tensor::<2, Int>::from_data(ids, &device.clone().inner());
        let logits_mv = matmul(hidden_md, weight_vd.clone().transpose());
        let logits_mv = match soft_cap {
            Some(cap) => capped(logits_mv, cap),
            None => logits_mv,
        };
        let logits_mv = logits_mv.div_scalar(temperature);
        let max_m1 = logits_mv.clone().inner().max_dim(1);
        let shifted_mv = logits_mv - max_m1;
        let exp_mv = shifted_mv.clone().exp();
        let sum_m1 = exp_mv.clone().sum_dim(1);
        let log_sum_m1 = sum_m1.clone().log();
        logprobs.push(shifted_mv.clone().gather(1, targets_m1) - log_sum_m1.clone());
        // H = log Σ e^z - Σ p·z
        entropy.push(log_sum_m1 - (exp_mv * shifted_mv).sum_dim(1) / sum_m1);
    }
    let whole = |parts: Vec<Tensor<2>>| scatter(Tensor::cat(parts, 0).reshape([n]));
    LogProbs { logprobs_n: whole(logprobs), entropy_n: whole(entropy) }
}
