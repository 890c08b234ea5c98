//! Activations of the MLP blocks.
//!
//! They deliberately avoid `tanh` and `powf`, the slowest scalar functions of the CPU backend.

pub(crate) mod fused;

use burn::backend::Dispatch;
use burn::tensor::{Tensor, activation};

use self::fused::GateOps;

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
    let out = <Dispatch as GateOps>::swiglu(gate.into_dispatch(), up.into_dispatch());
    Tensor::from_dispatch(out)
}

/// Gaussian error linear unit.
pub fn gelu<const D: usize>(x: Tensor<D>, kind: GeluKind) -> Tensor<D> {
    match kind {
        GeluKind::Exact => activation::gelu(x),
        GeluKind::Tanh => {
            Tensor::from_dispatch(<Dispatch as GateOps>::gelu_tanh(x.into_dispatch()))
        }
    }
}
