//! Values of tensors on the host.

use burn::tensor::Tensor;

/// The values of a tensor in row-major order.
pub(crate) fn host_values<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
    kernels::with_host_values(x, <[f32]>::to_vec)
}
