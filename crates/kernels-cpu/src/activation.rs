//! SwiGLU and the tanh GELU, one pass over memory each way.
//!
//! Only the inputs are kept: the rest is cheap to compute again.

use burn::backend::TensorMetadata;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::autodiff::{CpuTensor, InputGradients, Op, record};
use crate::buffer::{TASK, filled};
use crate::flex;
use crate::simd::{multiversion, sigmoid};
use crate::team::AllThreads as _;

/// 2·sqrt(2/π), from (1 + tanh u) / 2 = sigmoid(2u).
const TWO_ROOT: f32 = 1.595_769;
const CUBIC: f32 = 0.044_715;

/// `gate · sigmoid(gate) · up`, of two tensors of one shape.
pub fn swiglu(gate: &CpuTensor, up: &CpuTensor) -> CpuTensor {
    let (gates, ups) = (flex::values(gate.value()), flex::values(up.value()));
    let out = filled(gates.len(), |out| {
        let tasks = out.par_chunks_mut(TASK).zip(gates.par_chunks(TASK)).zip(ups.par_chunks(TASK));
        tasks.on_all_threads(|((out, gate), up)| swiglu_block(out, gate, up));
    });
    let out = flex::tensor(out, gate.value().shape());
    let op = || SwiGlu { gate: gate.value().clone(), up: up.value().clone() };
    record(&[gate, up], out, op)
}

#[derive(Clone, Debug)]
struct SwiGlu {
    gate: FlexTensor,
    up: FlexTensor,
}

impl Op for SwiGlu {
    fn backward(self, d_out: FlexTensor, inputs: &mut InputGradients<'_>) {
        let (gates, ups) = (flex::values(&self.gate), flex::values(&self.up));
        let mut d_up = flex::own(d_out);
        let d_gate = filled(gates.len(), |d_gate| {
            let d_up = d_up.storage_mut::<f32>().par_chunks_mut(TASK);
            let tasks = d_gate.par_chunks_mut(TASK).zip(d_up);
            let tasks = tasks.zip(gates.par_chunks(TASK).zip(ups.par_chunks(TASK)));
            tasks.on_all_threads(|((d_gate, d_up), (gate, up))| {
                swiglu_block_backward(d_gate, d_up, gate, up);
            });
        });
        inputs.add(0, flex::tensor(d_gate, self.gate.shape()));
        inputs.add(1, d_up);
    }
}

/// GELU by the tanh approximation (Hendrycks and Gimpel 2016).
pub fn gelu_tanh(x: &CpuTensor) -> CpuTensor {
    let values = flex::values(x.value());
    let out = filled(values.len(), |out| {
        let tasks = out.par_chunks_mut(TASK).zip(values.par_chunks(TASK));
        tasks.on_all_threads(|(out, x)| gelu_block(out, x));
    });
    let out = flex::tensor(out, x.value().shape());
    record(&[x], out, || GeluTanh { x: x.value().clone() })
}

#[derive(Clone, Debug)]
struct GeluTanh {
    x: FlexTensor,
}

impl Op for GeluTanh {
    fn backward(self, d_out: FlexTensor, inputs: &mut InputGradients<'_>) {
        let values = flex::values(&self.x);
        let mut d_x = flex::own(d_out);
        let tasks = d_x.storage_mut::<f32>().par_chunks_mut(TASK).zip(values.par_chunks(TASK));
        tasks.on_all_threads(|(d_x, x)| gelu_block_backward(d_x, x));
        inputs.add(0, d_x);
    }
}

multiversion! {
    fn swiglu_block(out: &mut [f32], gate: &[f32], up: &[f32]) {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate * sigmoid(*gate) * up;
        }
    }
}

multiversion! {
    /// Replaces `d_up`, which is the gradient of the output, by the gradient of up.
    fn swiglu_block_backward(d_gate: &mut [f32], d_up: &mut [f32], gate: &[f32], up: &[f32]) {
        let out = d_gate.iter_mut().zip(d_up);
        for ((d_gate, d_up), (gate, up)) in out.zip(gate.iter().zip(up)) {
            let s = sigmoid(*gate);
            let silu = gate * s;
            *d_gate = *d_up * up * (s + silu * (1.0 - s));
            *d_up *= silu;
        }
    }
}

multiversion! {
    fn gelu_block(out: &mut [f32], x: &[f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = x * sigmoid(TWO_ROOT * x * (1.0 + CUBIC * x * x));
        }
    }
}

multiversion! {
    /// Replaces `d_x`, which is the gradient of the output, by the gradient of x.
    fn gelu_block_backward(d_x: &mut [f32], x: &[f32]) {
        for (d_x, x) in d_x.iter_mut().zip(x) {
            let square = x * x;
            let s = sigmoid(TWO_ROOT * x * (1.0 + CUBIC * square));
            let inner = TWO_ROOT * x * (1.0 + 3.0 * CUBIC * square);
            *d_x *= s * (1.0 + inner * (1.0 - s));
        }
    }
}
