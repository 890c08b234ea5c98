//! Frozen weights in bf16.

use burn::tensor::{DType, Tensor};

/// The weight rounded to bf16 and stored so. Every operation of this crate accepts it as a weight; its gradient is not
/// computed.
pub fn round_weight<const D: usize>(weight: Tensor<D>) -> Tensor<D> {
    weight.cast(DType::BF16)
}

/// The weight in f32, for the generic kernels.
pub(crate) fn as_f32<const D: usize>(weight: Tensor<D>) -> Tensor<D> {
    if weight.dtype() == DType::F32 { weight } else { weight.cast(DType::F32) }
}
