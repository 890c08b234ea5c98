//! Activations of the MLP blocks.
//!
//! They avoid `tanh` and `powf`, the slowest scalar functions of burn's CPU backend.

mod gates;

use burn::backend::Dispatch;
use burn::tensor::{Tensor, activation};
use kernels_cpu::CpuTensor;

use self::gates::GateOps;
use crate::dispatch::{KernelSet, Select};

/// Variant of GELU.
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
    match Select::new().float(&gate).float(&up).kernel_set() {
        KernelSet::Cpu => {
            kernels_cpu::swiglu(&CpuTensor::new(gate), &CpuTensor::new(up)).into_tensor()
        }
        KernelSet::Generic => generic_swiglu(gate, up),
    }
}

/// Gaussian error linear unit.
pub fn gelu<const D: usize>(x: Tensor<D>, kind: GeluKind) -> Tensor<D> {
    match (kind, Select::new().float(&x).kernel_set()) {
        (GeluKind::Exact, KernelSet::Cpu) => activation::gelu(x),
        (GeluKind::Exact, KernelSet::Generic) => generic_gelu_exact(x),
        (GeluKind::Tanh, KernelSet::Cpu) => {
            kernels_cpu::gelu_tanh(&CpuTensor::new(x)).into_tensor()
        }
        (GeluKind::Tanh, KernelSet::Generic) => generic_gelu_tanh(x),
    }
}

pub(crate) fn generic_swiglu<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    let out = <Dispatch as GateOps>::swiglu(gate.into_dispatch(), up.into_dispatch());
    Tensor::from_dispatch(out)
}

/// By operations that have their own derivatives: on other devices than the CPU, burn differentiates the tanh approximation
/// in the backward pass of this one, which is off by 5e-4.
fn generic_gelu_exact<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let erf = (x.clone() / std::f64::consts::SQRT_2).erf();
    x * (erf + 1.0) / 2.0
}

pub(crate) fn generic_gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as GateOps>::gelu_tanh(x.into_dispatch()))
}
