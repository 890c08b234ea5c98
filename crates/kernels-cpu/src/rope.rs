//! Rotary position embedding of a tensor of heads.

use burn::backend::TensorMetadata;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::autodiff::{CpuTensor, InputGradients, Op, record};
use crate::buffer::{filled, rows_per_task};
use crate::flex;
use crate::rotation::{rotate, rotate_back};
use crate::team::AllThreads as _;

/// Rotates each head's pairs `(x[j], x[j + k/2])` of `x` `[b, t, h, k]` by their angles, whose cosines and sines are
/// `[b, t, k / 2]`.
pub fn rope(x: &CpuTensor, cos: FlexTensor, sin: FlexTensor) -> CpuTensor {
    let out = rotate_heads(x.value(), &cos, &sin, rotate);
    record(&[x], out, || RopeBackward { cos, sin })
}

#[derive(Clone, Debug)]
struct RopeBackward {
    cos: FlexTensor,
    sin: FlexTensor,
}

impl Op for RopeBackward {
    fn backward(self, d_out: FlexTensor, inputs: &mut InputGradients<'_>) {
        inputs.add(0, rotate_heads(&d_out, &self.cos, &self.sin, rotate_back));
    }
}

/// Applies `rotate` (or `rotate_back`) to each head at each position.
fn rotate_heads(
    x: &FlexTensor,
    cos: &FlexTensor,
    sin: &FlexTensor,
    rotate: fn(&mut [f32], &[f32], &[f32], &[f32], f32),
) -> FlexTensor {
    let shape = x.shape();
    let [h, k] = [shape[2], shape[3]];
    let (values, cos, sin) = (flex::values(x), flex::values(cos), flex::values(sin));
    let half = k / 2;
    let rows = rows_per_task(h * k);
    let out = filled(values.len(), |out| {
        let tasks = out.par_chunks_mut(rows * h * k).zip(values.par_chunks(rows * h * k));
        let angles = cos.par_chunks(rows * half).zip(sin.par_chunks(rows * half));
        tasks.zip(angles).on_all_threads(|((out, x), (cos, sin))| {
            let positions = out.chunks_mut(h * k).zip(x.chunks(h * k));
            for ((out, x), (cos, sin)) in positions.zip(cos.chunks(half).zip(sin.chunks(half))) {
                for (out, x) in out.chunks_mut(k).zip(x.chunks(k)) {
                    rotate(out, x, cos, sin, 1.0);
                }
            }
        });
    });
    flex::tensor(out, shape)
}
