//! Rotary position embedding (Su et al. 2021) in the half-split layout of Hugging Face.
//!
//! It deliberately computes no angles: the tables come from arch, gathered per position by nn.

use burn::backend::TensorMetadata;
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::attention::{Turn, turn};
use crate::autodiff::{Cpu, InputGradients, Op, fits, record};
use crate::buffer::{filled, rows_per_task};
use crate::flex;

/// Rotates each head's pairs `(x[j], x[j + k/2])` by its position's angle `j`.
///
/// `cos_btc` and `sin_btc` hold one value a pair, `c = k / 2`; a model's attention factor is
/// already multiplied in.
pub fn rope(x_bthk: Tensor<4>, cos_btc: Tensor<3>, sin_btc: Tensor<3>) -> Tensor<4> {
    let constant = !cos_btc.is_autodiff() && !sin_btc.is_autodiff();
    if constant && fits(&x_bthk) && fits(&cos_btc) && fits(&sin_btc) {
        let x = Cpu::new(x_bthk);
        let (cos, sin) = (Cpu::new(cos_btc).into_value(), Cpu::new(sin_btc).into_value());
        let out = turned(x.value(), &cos, &sin, Turn::Forward);
        return record(&[&x], out, || Rotation { cos, sin }).into_tensor();
    }
    plain(x_bthk, cos_btc, sin_btc)
}

fn plain(x_bthk: Tensor<4>, cos_btc: Tensor<3>, sin_btc: Tensor<3>) -> Tensor<4> {
    let [b, t, h, k] = x_bthk.dims();
    let half = k / 2;
    let first = x_bthk.clone().slice([0..b, 0..t, 0..h, 0..half]);
    let second = x_bthk.slice([0..b, 0..t, 0..h, half..k]);
    let cos = cos_btc.unsqueeze_dim::<4>(2);
    let sin = sin_btc.unsqueeze_dim::<4>(2);
    let rotated_first = first.clone() * cos.clone() - second.clone() * sin.clone();
    let rotated_second = second * cos + first * sin;
    Tensor::cat(vec![rotated_first, rotated_second], 3)
}

#[derive(Clone, Debug)]
struct Rotation {
    cos: FlexTensor,
    sin: FlexTensor,
}

impl Op for Rotation {
    fn backward(self, d_out: FlexTensor, inputs: &mut InputGradients<'_>) {
        inputs.add(0, turned(&d_out, &self.cos, &self.sin, Turn::Back));
    }
}

fn turned(x: &FlexTensor, cos: &FlexTensor, sin: &FlexTensor, direction: Turn) -> FlexTensor {
    let shape = x.shape();
    let [h, k] = [shape[2], shape[3]];
    let (values, cos, sin) = (flex::values(x), flex::values(cos), flex::values(sin));
    let half = k / 2;
    let rows = rows_per_task(h * k);
    let out = filled(values.len(), |out| {
        let tasks = out.par_chunks_mut(rows * h * k).zip(values.par_chunks(rows * h * k));
        let angles = cos.par_chunks(rows * half).zip(sin.par_chunks(rows * half));
        tasks.zip(angles).for_each(|((out, x), (cos, sin))| {
            let places = out.chunks_mut(h * k).zip(x.chunks(h * k));
            for ((out, x), (cos, sin)) in places.zip(cos.chunks(half).zip(sin.chunks(half))) {
                for (out, x) in out.chunks_mut(k).zip(x.chunks(k)) {
                    turn(out, x, cos, sin, direction);
                }
            }
        });
    });
    flex::tensor(out, shape)
}
