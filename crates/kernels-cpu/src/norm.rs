//! RMSNorm and LayerNorm alone, as they are before a product in [`crate::fused_linear`].

use burn::backend::TensorMetadata;
use burn_flex::FlexTensor;

use crate::autodiff::{CpuTensor, InputGradients, Op, record};
use crate::flex;
use crate::fused_linear::{CpuLinearInput, InputState, prepare};

/// `x / sqrt(mean(x²) + eps) · weight` over the last axis: `[b, t, d]` and `[d]` → `[b, t, d]`.
pub fn rms_norm(x: CpuTensor, weight: CpuTensor, eps: f32) -> CpuTensor {
    norm(CpuLinearInput::RmsNorm { x, weight, eps })
}

/// `(x − mean) / sqrt(variance + eps) · weight + bias` over the last axis, with the biased variance: `[b, t, d]` and `[d]` →
/// `[b, t, d]`.
pub fn layer_norm(x: CpuTensor, weight: CpuTensor, bias: Option<CpuTensor>, eps: f32) -> CpuTensor {
    norm(CpuLinearInput::LayerNorm { x, weight, bias, eps })
}

fn norm(input: CpuLinearInput) -> CpuTensor {
    let (inputs, state) = prepare(input);
    let shape = inputs[0].value().shape();
    let out = flex::tensor(state.values().into_owned(), shape);
    let inputs: Vec<&CpuTensor> = inputs.iter().collect();
    record(&inputs, out, || Norm { state })
}

#[derive(Clone, Debug)]
struct Norm {
    state: InputState,
}

impl Op for Norm {
    fn backward(self, d_out: FlexTensor, inputs: &mut InputGradients<'_>) {
        self.state.backward(flex::values(&d_out).into_owned(), inputs);
    }
}
