//! RMSNorm and LayerNorm over the last dimension, alone or after the sum with a residual.
//!
//! They deliberately keep everything in f32, as the reference implementations do.

pub(crate) mod rows;

use burn::tensor::{Tensor, module};

/// `x / sqrt(mean(x²) + eps) · weight` (Zhang and Sennrich 2019).
pub fn rms_norm(x_btd: Tensor<3>, weight_d: Tensor<1>, eps: f64) -> Tensor<3> {
    let rstd_bt1 = x_btd.clone().square().mean_dim(2).add_scalar(eps).sqrt().recip();
    x_btd * rstd_bt1 * weight_d.unsqueeze()
}

/// The norm of `x + residual`, and that sum: `(normed, sum)`.
pub fn add_rms_norm(
    x_btd: Tensor<3>,
    residual_btd: Tensor<3>,
    weight_d: Tensor<1>,
    eps: f64,
) -> (Tensor<3>, Tensor<3>) {
    let sum_btd = x_btd + residual_btd;
    (rms_norm(sum_btd.clone(), weight_d, eps), sum_btd)
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

/// The norm of `x + residual`, and that sum: `(normed, sum)`.
pub fn add_layer_norm(
    x_btd: Tensor<3>,
    residual_btd: Tensor<3>,
    weight_d: Tensor<1>,
    bias_d: Option<Tensor<1>>,
    eps: f64,
) -> (Tensor<3>, Tensor<3>) {
    let sum_btd = x_btd + residual_btd;
    (layer_norm(sum_btd.clone(), weight_d, bias_d, eps), sum_btd)
}
