//! RMSNorm and LayerNorm over the last dimension, in f32 as in the reference implementations.
//!
//! On the CPU a norm before a product is part of [`crate::fused_linear`], and a norm alone is made of tensor operations. On
//! a GPU RMSNorm is a kernel of `kernels-gpu` in each direction.

#[cfg(any(test, feature = "cuda"))]
mod rms_norm;

use burn::tensor::{Tensor, module};

/// `x / sqrt(mean(x²) + eps) · weight` (Zhang and Sennrich 2019).
pub fn rms_norm(x_btd: Tensor<3>, weight_d: Tensor<1>, eps: f64) -> Tensor<3> {
    #[cfg(feature = "cuda")]
    if has_gpu_kernel(&x_btd, &weight_d) {
        return rms_norm::fused(x_btd, weight_d, eps as f32);
    }
    let rstd_bt1 = x_btd.clone().square().mean_dim(2).add_scalar(eps).sqrt().recip();
    x_btd * rstd_bt1 * weight_d.unsqueeze()
}

/// `(x - mean) / sqrt(variance + eps) · weight + bias`, with the biased variance (Ba et al. 2016).
pub fn layer_norm(
    x_btd: Tensor<3>,
    weight_d: Tensor<1>,
    bias_d: Option<Tensor<1>>,
    eps: f64,
) -> Tensor<3> {
    module::layer_norm(x_btd, weight_d, bias_d, eps)
}

/// Whether a kernel of `kernels-gpu` computes this call.
#[cfg(feature = "cuda")]
fn has_gpu_kernel(x: &Tensor<3>, weight: &Tensor<1>) -> bool {
    let are_f32 = [x.dtype(), weight.dtype()] == [burn::tensor::DType::F32; 2];
    are_f32 && !crate::device::is_cpu(&x.device()) && !crate::dispatch::generic_is_selected()
}
