//! The input of linear maps: its norm or gate, computed forward and again in the backward pass.

use burn::backend::TensorMetadata;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::CpuLinearInput;
use super::layer_norm::LayerNorm;
use crate::activation::{gelu_block, gelu_block_backward};
use crate::autodiff::{CpuTensor, InputGradients};
use crate::buffer::{TASK, filled, rows_per_task};
use crate::flex;
use crate::norm_rows::{norm_row, norm_row_backward, rstd};
use crate::simd::{multiversion, sigmoid};
use crate::team::AllThreads as _;

/// Rows per partial sum of a norm weight's gradient.
const BLOCK: usize = 64;

/// State of a [`CpuLinearInput`] for the backward pass. Its tensor is the operation's first input, a norm's
/// weight the second.
#[derive(Clone, Debug)]
// Few exist at a time, so their size on the stack does not matter.
#[allow(clippy::large_enum_variant)]
pub(crate) enum InputState {
    /// The values, if a gradient needs them.
    Plain(Option<FlexTensor>),
    RmsNorm {
        x: FlexTensor,
        weight: FlexTensor,
        rstd: FlexTensor,
    },
    LayerNorm(LayerNorm),
    GeluTanh(FlexTensor),
    SwiGlu(FlexTensor),
}

/// The operation's first inputs, in order, and the state.
pub(crate) fn prepare(input: CpuLinearInput) -> (Vec<CpuTensor>, InputState) {
    match input {
        CpuLinearInput::Plain(x) => {
            let value = x.value().clone();
            (vec![x], InputState::Plain(Some(value)))
        }
        CpuLinearInput::SwiGlu(x) => {
            let value = x.value().clone();
            (vec![x], InputState::SwiGlu(value))
        }
        CpuLinearInput::GeluTanh(x) => {
            let value = x.value().clone();
            (vec![x], InputState::GeluTanh(value))
        }
        CpuLinearInput::LayerNorm { x, weight, bias, eps } => {
            let bias_value = bias.as_ref().map(|bias| bias.value().clone());
            let norm = LayerNorm::new(x.value(), weight.value(), bias_value, eps);
            let mut inputs = vec![x, weight];
            inputs.extend(bias);
            (inputs, InputState::LayerNorm(norm))
        }
        CpuLinearInput::RmsNorm { x, weight, eps } => {
            let [b, t, d] = x.dims();
            let values = flex::values(x.value());
            let rstd = filled(b * t, |out| {
                let rows = rows_per_task(d);
                let tasks = out.par_chunks_mut(rows).zip(values.par_chunks(rows * d));
                tasks.on_all_threads(|(out, x)| rstd(out, x, eps));
            });
            drop(values);
            let state = InputState::RmsNorm {
                x: x.value().clone(),
                weight: weight.value().clone(),
                rstd: flex::tensor(rstd, [b * t]),
            };
            (vec![x, weight], state)
        }
    }
}

impl InputState {
    /// Number of the operation's inputs that belong to it.
    pub(super) fn n_inputs(&self) -> usize {
        match self {
            Self::Plain(_) | Self::GeluTanh(_) | Self::SwiGlu(_) => 1,
            Self::RmsNorm { .. } => 2,
            Self::LayerNorm(norm) => norm.n_inputs(),
        }
    }

    /// The same without the values that only the gradients of parameters need.
    pub(super) fn without_values(&self) -> Self {
        match self {
            Self::Plain(_) => Self::Plain(None),
            Self::RmsNorm { .. } | Self::LayerNorm(_) | Self::GeluTanh(_) | Self::SwiGlu(_) => {
                self.clone()
            }
        }
    }

    /// The values that the maps multiply.
    pub(crate) fn values(&self) -> std::borrow::Cow<'_, [f32]> {
        match self {
            Self::Plain(Some(x)) => flex::values(x),
            Self::Plain(None) => Vec::new().into(),
            Self::RmsNorm { x, weight, rstd } => {
                let (x, weight, rstd) = (flex::values(x), flex::values(weight), flex::values(rstd));
                let d = weight.len();
                let rows = rows_per_task(d);
                let fill = |out: &mut [f32]| {
                    let tasks = out.par_chunks_mut(rows * d).zip(x.par_chunks(rows * d));
                    tasks.zip(rstd.par_chunks(rows)).on_all_threads(|((out, x), rstd)| {
                        for ((out, x), rstd) in out.chunks_mut(d).zip(x.chunks(d)).zip(rstd) {
                            norm_row(out, x, &weight, *rstd);
                        }
                    });
                };
                filled(x.len(), fill).into()
            }
            Self::LayerNorm(norm) => norm.values().into(),
            Self::GeluTanh(x) => {
                let x = flex::values(x);
                let fill = |out: &mut [f32]| {
                    let tasks = out.par_chunks_mut(TASK).zip(x.par_chunks(TASK));
                    tasks.on_all_threads(|(out, x)| gelu_block(out, x));
                };
                filled(x.len(), fill).into()
            }
            Self::SwiGlu(x) => {
                let (width, x) = (last(x), flex::values(x));
                let (half, rows) = (width / 2, rows_per_task(width));
                let fill = |out: &mut [f32]| {
                    let tasks = out.par_chunks_mut(rows * half).zip(x.par_chunks(rows * width));
                    tasks.on_all_threads(|(out, x)| {
                        for (out, x) in out.chunks_mut(half).zip(x.chunks(width)) {
                            swiglu_row(out, x);
                        }
                    });
                };
                filled(x.len() / 2, fill).into()
            }
        }
    }

    /// Adds the gradients of the inputs, given the gradient of [`Self::values`].
    pub(crate) fn backward(&self, d_values: Vec<f32>, inputs: &mut InputGradients<'_>) {
        match self {
            Self::Plain(_) => unreachable!("the gradient of a plain input is passed on as it is"),
            Self::LayerNorm(norm) => norm.backward(d_values, inputs),
            Self::GeluTanh(x) => {
                let mut d_x = d_values;
                let values = flex::values(x);
                let tasks = d_x.par_chunks_mut(TASK).zip(values.par_chunks(TASK));
                tasks.on_all_threads(|(d_x, x)| gelu_block_backward(d_x, x));
                inputs.add(0, flex::tensor(d_x, x.shape()));
            }
            Self::SwiGlu(x) => {
                let (width, values) = (last(x), flex::values(x));
                let (half, rows) = (width / 2, rows_per_task(width));
                let d_x = filled(values.len(), |out| {
                    let tasks =
                        out.par_chunks_mut(rows * width).zip(values.par_chunks(rows * width));
                    tasks.zip(d_values.par_chunks(rows * half)).on_all_threads(
                        |((out, x), d_values)| {
                            let rows = out.chunks_mut(width).zip(x.chunks(width));
                            for ((out, x), d_values) in rows.zip(d_values.chunks(half)) {
                                swiglu_row_backward(out, x, d_values);
                            }
                        },
                    );
                });
                inputs.add(0, flex::tensor(d_x, x.shape()));
            }
            Self::RmsNorm { x, weight, rstd } => {
                let shape = x.shape();
                let (x, rstd) = (flex::values(x), flex::values(rstd));
                let (d_x, d_weight) =
                    rms_norm_backward(&x, &flex::values(weight), &rstd, d_values, inputs.needs(1));
                inputs.add(0, flex::tensor(d_x, shape));
                if let Some(d_weight) = d_weight {
                    let d = d_weight.len();
                    inputs.add(1, flex::tensor(d_weight, [d]));
                }
            }
        }
    }
}

fn last(x: &FlexTensor) -> usize {
    x.layout().shape().last().copied().unwrap_or(1)
}

/// The gradients of x (in the buffer of the output's gradient) and, if needed, of the weight.
fn rms_norm_backward(
    x: &[f32],
    weight: &[f32],
    rstd: &[f32],
    mut d_out: Vec<f32>,
    needs_weight: bool,
) -> (Vec<f32>, Option<Vec<f32>>) {
    let d = weight.len();
    let blocks = d_out.par_chunks_mut(BLOCK * d).zip(x.par_chunks(BLOCK * d));
    let parts = blocks.zip(rstd.par_chunks(BLOCK)).map_on_all_threads(|((d_out, x), rstd)| {
        let mut d_weight = vec![0.0; if needs_weight { d } else { 0 }];
        for ((d_out, x), rstd) in d_out.chunks_mut(d).zip(x.chunks(d)).zip(rstd) {
            norm_row_backward(d_out, x, weight, *rstd, &mut d_weight);
        }
        d_weight
    });
    let d_weight = needs_weight.then(|| {
        let mut sum = vec![0.0; d];
        for part in &parts {
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        sum
    });
    (d_out, d_weight)
}

multiversion! {
    /// `x` holds gates, then the values that they scale.
    fn swiglu_row(out: &mut [f32], x: &[f32]) {
        let (gate, up) = x.split_at(out.len());
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate * sigmoid(*gate) * up;
        }
    }
}

multiversion! {
    fn swiglu_row_backward(d_x: &mut [f32], x: &[f32], d_out: &[f32]) {
        let (gate, up) = x.split_at(d_out.len());
        let (d_gate, d_up) = d_x.split_at_mut(d_out.len());
        let out = d_gate.iter_mut().zip(d_up);
        for (((d_gate, d_up), (gate, up)), d_out) in out.zip(gate.iter().zip(up)).zip(d_out) {
            let s = sigmoid(*gate);
            let silu = gate * s;
            *d_gate = d_out * up * (s + silu * (1.0 - s));
            *d_up = d_out * silu;
        }
    }
}
