//! What maps read, computed from what is kept: forward once more, and the gradient back through it.
//!
//! It deliberately multiplies no matrices.

use burn::backend::TensorMetadata;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::LinearInput;
use super::layer_norm::LayerNorm;
use crate::activation::fused::{gelu_block, gelu_block_backward};
use crate::autodiff::{Cpu, InputGradients, fits};
use crate::buffer::{TASK, filled, rows_per_task};
use crate::flex;
use crate::norm::rows::{norm_row, norm_row_backward, rstd};
use crate::vector::{sigmoid, widest};

/// Rows whose part of a norm weight's gradient is summed first.
const BLOCK: usize = 64;

/// [`LinearInput`] on the CPU. The input is the operation's first, a norm's weight its second.
#[derive(Clone, Debug)]
// A handful live at a time: what they take on the stack does not matter.
#[allow(clippy::large_enum_variant)]
pub(super) enum CpuRead {
    /// The values; none where no gradient needs them.
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

pub(super) fn read_fits(read: &LinearInput) -> bool {
    match read {
        LinearInput::Plain(x) | LinearInput::SwiGlu(x) | LinearInput::GeluTanh(x) => fits(x),
        LinearInput::LayerNorm { x_btd, weight_d, bias_d, .. } => {
            fits(x_btd) && fits(weight_d) && bias_d.as_ref().is_none_or(fits)
        }
        LinearInput::RmsNorm { x_btd, weight_d, .. } => fits(x_btd) && fits(weight_d),
    }
}

/// The inputs of the operation, in order, and what the maps read with `n` rows of it.
pub(super) fn split(read: LinearInput) -> (Vec<Cpu>, CpuRead) {
    match read {
        LinearInput::Plain(x) => {
            let x = Cpu::new(x);
            let value = x.value().clone();
            (vec![x], CpuRead::Plain(Some(value)))
        }
        LinearInput::SwiGlu(x) => {
            let x = Cpu::new(x);
            let value = x.value().clone();
            (vec![x], CpuRead::SwiGlu(value))
        }
        LinearInput::GeluTanh(x) => {
            let x = Cpu::new(x);
            let value = x.value().clone();
            (vec![x], CpuRead::GeluTanh(value))
        }
        LinearInput::LayerNorm { x_btd, weight_d, bias_d, eps } => {
            let mut inputs = vec![Cpu::new(x_btd), Cpu::new(weight_d)];
            inputs.extend(bias_d.map(Cpu::new));
            let value = |idx: usize| inputs.get(idx).map(|input: &Cpu| input.value().clone());
            let read = LayerNorm::new(inputs[0].value(), inputs[1].value(), value(2), eps as f32);
            (inputs, CpuRead::LayerNorm(read))
        }
        LinearInput::RmsNorm { x_btd, weight_d, eps } => {
            let [b, t, d] = x_btd.dims();
            let (x, weight) = (Cpu::new(x_btd), Cpu::new(weight_d));
            let values = flex::values(x.value());
            let rstd = filled(b * t, |out| {
                let rows = rows_per_task(d);
                let tasks = out.par_chunks_mut(rows).zip(values.par_chunks(rows * d));
                tasks.for_each(|(out, x)| rstd(out, x, eps as f32));
            });
            let read = CpuRead::RmsNorm {
                x: x.value().clone(),
                weight: weight.value().clone(),
                rstd: flex::tensor(rstd, [b * t]),
            };
            drop(values);
            (vec![x, weight], read)
        }
    }
}

impl CpuRead {
    /// Inputs of the operation that belong to it.
    pub(super) fn n_inputs(&self) -> usize {
        match self {
            Self::Plain(_) | Self::GeluTanh(_) | Self::SwiGlu(_) => 1,
            Self::RmsNorm { .. } => 2,
            Self::LayerNorm(norm) => norm.n_inputs(),
        }
    }

    /// The same without what only the gradients of parameters need.
    pub(super) fn without_values(&self) -> Self {
        match self {
            Self::Plain(_) => Self::Plain(None),
            other => other.clone(),
        }
    }

    /// What the maps read.
    pub(super) fn values(&self) -> std::borrow::Cow<'_, [f32]> {
        match self {
            Self::Plain(Some(x)) => flex::values(x),
            Self::Plain(None) => Vec::new().into(),
            Self::RmsNorm { x, weight, rstd } => {
                let (x, weight, rstd) = (flex::values(x), flex::values(weight), flex::values(rstd));
                let d = weight.len();
                let rows = rows_per_task(d);
                let fill = |out: &mut [f32]| {
                    let tasks = out.par_chunks_mut(rows * d).zip(x.par_chunks(rows * d));
                    tasks.zip(rstd.par_chunks(rows)).for_each(|((out, x), rstd)| {
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
                    tasks.for_each(|(out, x)| gelu_block(out, x));
                };
                filled(x.len(), fill).into()
            }
            Self::SwiGlu(x) => {
                let (width, x) = (last(x), flex::values(x));
                let (half, rows) = (width / 2, rows_per_task(width));
                let fill = |out: &mut [f32]| {
                    let tasks = out.par_chunks_mut(rows * half).zip(x.par_chunks(rows * width));
                    tasks.for_each(|(out, x)| {
                        for (out, x) in out.chunks_mut(half).zip(x.chunks(width)) {
                            swiglu_row(out, x);
                        }
                    });
                };
                filled(x.len() / 2, fill).into()
            }
        }
    }

    /// Hands on the gradient of what the maps read.
    pub(super) fn backward(&self, d_read: Vec<f32>, inputs: &mut InputGradients<'_>) {
        match self {
            Self::Plain(_) => unreachable!("its gradient needs no further step"),
            Self::LayerNorm(norm) => norm.backward(d_read, inputs),
            Self::GeluTanh(x) => {
                let mut d_x = d_read;
                let values = flex::values(x);
                let tasks = d_x.par_chunks_mut(TASK).zip(values.par_chunks(TASK));
                tasks.for_each(|(d_x, x)| gelu_block_backward(d_x, x));
                inputs.add(0, flex::tensor(d_x, x.shape()));
            }
            Self::SwiGlu(x) => {
                let (width, values) = (last(x), flex::values(x));
                let (half, rows) = (width / 2, rows_per_task(width));
                let d_x = filled(values.len(), |out| {
                    let tasks =
                        out.par_chunks_mut(rows * width).zip(values.par_chunks(rows * width));
                    tasks.zip(d_read.par_chunks(rows * half)).for_each(|((out, x), d_read)| {
                        let rows = out.chunks_mut(width).zip(x.chunks(width));
                        for ((out, x), d_read) in rows.zip(d_read.chunks(half)) {
                            swiglu_row_backward(out, x, d_read);
                        }
                    });
                });
                inputs.add(0, flex::tensor(d_x, x.shape()));
            }
            Self::RmsNorm { x, weight, rstd } => {
                let shape = x.shape();
                let (x, rstd) = (flex::values(x), flex::values(rstd));
                let (d_x, d_weight) =
                    rms_norm_backward(&x, &flex::values(weight), &rstd, d_read, inputs.wants(1));
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

/// The gradients by x (in the buffer of the output's) and, if wanted, by the weight.
pub(crate) fn rms_norm_backward(
    x: &[f32],
    weight: &[f32],
    rstd: &[f32],
    mut d_out: Vec<f32>,
    want_weight: bool,
) -> (Vec<f32>, Option<Vec<f32>>) {
    let d = weight.len();
    let blocks = d_out.par_chunks_mut(BLOCK * d).zip(x.par_chunks(BLOCK * d));
    let parts: Vec<Vec<f32>> = blocks
        .zip(rstd.par_chunks(BLOCK))
        .map(|((d_out, x), rstd)| {
            let mut d_weight = vec![0.0; if want_weight { d } else { 0 }];
            for ((d_out, x), rstd) in d_out.chunks_mut(d).zip(x.chunks(d)).zip(rstd) {
                norm_row_backward(d_out, x, weight, *rstd, &mut d_weight);
            }
            d_weight
        })
        .collect();
    let d_weight = want_weight.then(|| {
        let mut sum = vec![0.0; d];
        for part in &parts {
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        sum
    });
    (d_out, d_weight)
}

widest! {
    /// `x` holds gates, then what they open.
    fn swiglu_row(out: &mut [f32], x: &[f32]) {
        let (gate, up) = x.split_at(out.len());
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate * sigmoid(*gate) * up;
        }
    }
}

widest! {
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
