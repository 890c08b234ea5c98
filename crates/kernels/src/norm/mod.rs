//! RMSNorm and LayerNorm over the last dimension, in f32 as in the reference implementations.
//!
//! On the CPU a norm before a product is part of [`crate::fused_linear`]. On a GPU RMSNorm, and LayerNorm with a bias, are
//! kernels of `kernels-gpu` in each direction.

#[cfg(any(test, feature = "gpu"))]
mod residual;
#[cfg(any(test, feature = "gpu"))]
mod rms_norm;

use burn::tensor::{Tensor, module};
use kernels_cpu::CpuTensor;

use crate::dispatch::{KernelSet, Select};

/// `x / sqrt(mean(x²) + eps) · weight` (Zhang and Sennrich 2019).
pub fn rms_norm(x_btd: Tensor<3>, weight_d: Tensor<1>, eps: f64) -> Tensor<3> {
    match Select::new().float(&x_btd).float(&weight_d).kernel_set() {
        KernelSet::Cpu => {
            let [x, weight] = [CpuTensor::new(x_btd), CpuTensor::new(weight_d)];
            kernels_cpu::rms_norm(x, weight, eps as f32).into_tensor()
        }
        KernelSet::Generic => generic_rms_norm(x_btd, weight_d, eps),
    }
}

pub(crate) fn generic_rms_norm(x_btd: Tensor<3>, weight_d: Tensor<1>, eps: f64) -> Tensor<3> {
    #[cfg(feature = "gpu")]
    if crate::gpu::reads(&x_btd) && crate::gpu::reads(&weight_d) {
        return rms_norm::fused(x_btd, weight_d, eps as f32);
    }
    let rstd_bt1 = x_btd.clone().square().mean_dim(2).add_scalar(eps).sqrt().recip();
    x_btd * rstd_bt1 * weight_d.unsqueeze()
}

/// Whether [`residual_rms_norm`] adds and normalizes in one kernel, in each direction: on a GPU in training. Elsewhere the
/// product before it adds the residual ([`crate::fused_linear`]).
#[cfg_attr(not(feature = "gpu"), expect(unused_variables, reason = "no such kernel"))]
pub fn norms_add_residuals(x_btd: &Tensor<3>) -> bool {
    #[cfg(feature = "gpu")]
    let adds = x_btd.is_autodiff() && crate::gpu::reads(x_btd);
    #[cfg(not(feature = "gpu"))]
    let adds = false;
    adds
}

/// [`rms_norm`] of `x + delta`, and `x + delta`; without `delta` the norm of `x`, and `x`.
///
/// Both results have to reach the loss if the second one does.
pub fn residual_rms_norm(
    x_btd: Tensor<3>,
    delta_btd: Option<Tensor<3>>,
    weight_d: Tensor<1>,
    eps: f64,
) -> [Tensor<3>; 2] {
    #[cfg(feature = "gpu")]
    if norms_add_residuals(&x_btd)
        && crate::gpu::reads(&weight_d)
        && delta_btd.as_ref().is_none_or(crate::gpu::reads)
    {
        return residual::fused(x_btd, delta_btd, weight_d, eps as f32);
    }
    let sum_btd = match delta_btd {
        Some(delta_btd) => x_btd + delta_btd,
        None => x_btd,
    };
    [rms_norm(sum_btd.clone(), weight_d, eps), sum_btd]
}

/// `(x - mean) / sqrt(variance + eps) · weight + bias`, with the biased variance (Ba et al. 2016).
pub fn layer_norm(
    x_btd: Tensor<3>,
    weight_d: Tensor<1>,
    bias_d: Option<Tensor<1>>,
    eps: f64,
) -> Tensor<3> {
    let select = Select::new().float(&x_btd).float(&weight_d).optional(bias_d.as_ref());
    match select.kernel_set() {
        KernelSet::Cpu => {
            let [x, weight] = [CpuTensor::new(x_btd), CpuTensor::new(weight_d)];
            kernels_cpu::layer_norm(x, weight, bias_d.map(CpuTensor::new), eps as f32).into_tensor()
        }
        KernelSet::Generic => generic_layer_norm(x_btd, weight_d, bias_d, eps),
    }
}

pub(crate) fn generic_layer_norm(
    x_btd: Tensor<3>,
    weight_d: Tensor<1>,
    bias_d: Option<Tensor<1>>,
    eps: f64,
) -> Tensor<3> {
    #[cfg(feature = "gpu")]
    if let Some(bias_d) = &bias_d
        && crate::gpu::reads(&x_btd)
        && crate::gpu::reads(&weight_d)
        && crate::gpu::reads(bias_d)
    {
        return crate::gpu::layer_norm(x_btd, weight_d, bias_d.clone(), eps as f32);
    }
    module::layer_norm(x_btd, weight_d, bias_d, eps)
}
