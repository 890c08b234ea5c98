//! The product with a low-rank adapter, added to the product with the weight.

use burn::tensor::Tensor;
use kernels_cpu::WeightLayout;

use crate::dispatch::{KernelSet, Select};
use crate::linear::{cpu_linear, generic_linear};

/// `y + scale · (x·Aᵀ)·Bᵀ` over the last dimension, A `[r, in]`, B `[out, r]`.
///
/// The factors are never multiplied with each other: a dense update would cost as much as the weight.
pub fn add_lora<const D: usize>(
    y: Tensor<D>,
    x: Tensor<D>,
    a_ri: Tensor<2>,
    b_or: Tensor<2>,
    scale: f64,
) -> Tensor<D> {
    match Select::new().float(&x).weight(&a_ri).weight(&b_or).kernel_set() {
        KernelSet::Cpu => {
            let narrow = cpu_linear(x, a_ri.into(), WeightLayout::OutIn, None).mul_scalar(scale);
            y + cpu_linear(narrow, b_or.into(), WeightLayout::OutIn, None)
        }
        KernelSet::Generic => generic_add_lora(y, x, a_ri, b_or, scale),
    }
}

pub(crate) fn generic_add_lora<const D: usize>(
    y: Tensor<D>,
    x: Tensor<D>,
    a_ri: Tensor<2>,
    b_or: Tensor<2>,
    scale: f64,
) -> Tensor<D> {
    // Scaling the narrow product costs least.
    let narrow = generic_linear(x, a_ri, None).mul_scalar(scale);
    y + generic_linear(narrow, b_or, None)
}
