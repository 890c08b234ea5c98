//! Activations of the MLP blocks.
//!
//! They deliberately avoid `tanh` and `powf`, the slowest scalar functions of the CPU backend.

use burn::tensor::{Tensor, activation};

/// Which GELU a model was trained with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeluKind {
    /// Hendrycks and Gimpel (2016), the tanh approximation; `gelu_new` and `gelu_pytorch_tanh`.
    Tanh,
    /// x·Φ(x) with the error function; `gelu`.
    Exact,
}

/// `x · sigmoid(x)`.
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.clone() * activation::sigmoid(x)
}

/// `silu(gate) · up` (Shazeer 2020, "GLU Variants Improve Transformer").
pub fn swiglu<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    silu(gate) * up
}

/// Gaussian error linear unit.
pub fn gelu<const D: usize>(x: Tensor<D>, kind: GeluKind) -> Tensor<D> {
    match kind {
        GeluKind::Exact => activation::gelu(x),
        // (1 + tanh u) / 2 = sigmoid(2u), which is faster and loses no digits for negative u.
        GeluKind::Tanh => {
            let two_root_two_over_pi = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
            let cubic = x.clone().square().mul_scalar(0.044_715).add_scalar(1.0);
            let two_u = (x.clone() * cubic).mul_scalar(two_root_two_over_pi);
            x * activation::sigmoid(two_u)
        }
    }
}
