//! SwiGLU (Shazeer 2020) of gates and values side by side: `silu(gate) · up`.
//!
//! For n results in f32 the forward pass moves 12·n bytes, the backward pass 20·n; both are limited by memory: at least 3.6
//! and 6 ns per 1,000 results at 3.35 TB/s (H100), 2.5 and 4.2 ns at 4.8 TB/s (H200).

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use crate::launch::{ELEMENT_UNITS, Rows, empty, per_element};

/// `[.., 2f]` → `[.., f]`: the first half of each row is the gate.
pub fn forward(gate_up: CubeTensor) -> CubeTensor {
    let gate_up = into_contiguous(gate_up);
    let rows = Rows::of(&gate_up);
    let (width, n) = (rows.width / 2, rows.n * (rows.width / 2));
    let out = empty(&gate_up, rows.with_width(width), DType::F32);
    if n == 0 {
        return out;
    }
    let (cubes, units) = per_element(n);
    let client = gate_up.client.clone();
    #[expect(unsafe_code, reason = "burn's launches check no bounds")]
    // SAFETY: results below n, and both of their operands.
    unsafe {
        swiglu_kernel::launch_unchecked(
            &client,
            cubes,
            units,
            gate_up.into_tensor_arg(),
            out.clone().into_tensor_arg(),
            n as u32,
            width as u32,
            ELEMENT_UNITS,
        );
    }
    out
}

/// The gradient of `gate_up`, in its shape, from the gradient of the result.
pub fn backward(gate_up: CubeTensor, d_out: CubeTensor) -> CubeTensor {
    let [gate_up, d_out] = [gate_up, d_out].map(into_contiguous);
    let rows = Rows::of(&gate_up);
    let (width, n) = (rows.width / 2, rows.n * (rows.width / 2));
    let grad = empty(&gate_up, gate_up.shape(), DType::F32);
    if n == 0 {
        return grad;
    }
    let (cubes, units) = per_element(n);
    let client = gate_up.client.clone();
    #[expect(unsafe_code, reason = "burn's launches check no bounds")]
    // SAFETY: as in the forward pass; the gradient has the shape of the operand.
    unsafe {
        swiglu_backward_kernel::launch_unchecked(
            &client,
            cubes,
            units,
            gate_up.into_tensor_arg(),
            d_out.into_tensor_arg(),
            grad.clone().into_tensor_arg(),
            n as u32,
            width as u32,
            ELEMENT_UNITS,
        );
    }
    grad
}

#[cube(launch_unchecked)]
fn swiglu_kernel(
    gate_up: &Tensor<f32>,
    out: &mut Tensor<f32>,
    n: u32,
    width: u32,
    #[comptime] units: usize,
) {
    let width = width as usize;
    let i = CUBE_POS * units + UNIT_POS as usize;
    if i < n as usize {
        let at = i / width * 2 * width + i % width;
        let gate = gate_up[at];
        out[i] = gate / (1.0f32 + (-gate).exp()) * gate_up[at + width];
    }
}

/// `d_up = d · silu(gate)`, `d_gate = d · up · (s + silu · (1 - s))` with `s = sigmoid(gate)`.
#[cube(launch_unchecked)]
fn swiglu_backward_kernel(
    gate_up: &Tensor<f32>,
    d_out: &Tensor<f32>,
    grad: &mut Tensor<f32>,
    n: u32,
    width: u32,
    #[comptime] units: usize,
) {
    let width = width as usize;
    let i = CUBE_POS * units + UNIT_POS as usize;
    if i < n as usize {
        let at = i / width * 2 * width + i % width;
        let (gate, up, d) = (gate_up[at], gate_up[at + width], d_out[i]);
        let s = 1.0f32 / (1.0f32 + (-gate).exp());
        let silu = gate * s;
        grad[at] = d * up * (s + silu * (1.0f32 - s));
        grad[at + width] = d * silu;
    }
}
