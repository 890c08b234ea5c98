//! The product with a low-rank adapter, added to the product with the weight.
//!
//! It deliberately never multiplies the factors with each other: a dense update costs as much as
//! the weight.

use burn::tensor::Tensor;

use crate::linear;

/// `y + scale · (x·Aᵀ)·Bᵀ` over the last dimension, A `[r, in]`, B `[out, r]`.
pub fn add_lora<const D: usize>(
    y: Tensor<D>,
    x: Tensor<D>,
    a_ri: Tensor<2>,
    b_or: Tensor<2>,
    scale: f64,
) -> Tensor<D> {
    // Scaling the narrow product costs least.
    let narrow = linear(x, a_ri, None).mul_scalar(scale);
    y + linear(narrow, b_or, None)
}
