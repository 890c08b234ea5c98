//! Adafactor (Shazeer and Stern 2018) with given learning rates, as transformers 5 has it.
//!
//! The second moment of a matrix is the product of one number per row and one per column. The first moment, where there
//! is one, is of updates after the learning rate; decay uses the rate after `scale_parameter`.

use burn::tensor::{Device, Tensor};
use recipe::AdafactorKeys;

use super::state::{ParameterState, StateReader, StateTensor, Step};
use crate::Result;

/// Second moment, and first moment if `beta1` is set.
#[derive(Debug)]
pub(super) struct Adafactor {
    keys: AdafactorKeys,
    shape: Vec<usize>,
    second: SecondMoment,
    first: Option<Tensor<1>>,
}

/// Running means of the squared gradient.
// One for each parameter, so its size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
enum SecondMoment {
    /// Over each row and over each column, flat.
    Factored { row: Tensor<1>, column: Tensor<1>, shapes: FactorShapes },
    /// Of every element: vectors.
    Full(Tensor<1>),
}

impl Adafactor {
    /// Zeros for a parameter of this shape.
    pub(super) fn new(keys: AdafactorKeys, shape: &[usize], device: &Device) -> Self {
        let zeros = |shape: &[usize]| Tensor::zeros([shape.iter().product::<usize>()], device);
        let second = match FactorShapes::of(shape) {
            Some(shapes) => SecondMoment::Factored {
                row: zeros(&shapes.row),
                column: zeros(&shapes.column),
                shapes,
            },
            None => SecondMoment::Full(zeros(shape)),
        };
        let first = keys.beta1.map(|_| zeros(shape));
        Self { keys, shape: shape.to_vec(), second, first }
    }

    /// Leading dimensions as one, rows, columns.
    fn dims(&self) -> [usize; 3] {
        match self.shape.as_slice() {
            [leading @ .., rows, columns] => [leading.iter().product(), *rows, *columns],
            [n] => [1, 1, *n],
            [] => [1, 1, 1],
        }
    }
}

impl ParameterState for Adafactor {
    fn update(&mut self, weight: Tensor<1>, gradient: Tensor<1>, step: &Step) -> Tensor<1> {
        let keys = self.keys;
        let dims = self.dims();
        let n: usize = dims.iter().product();
        let beta2 = 1.0 - (step.number as f64).powf(keys.decay_rate);
        let gradient = gradient.mul_scalar(step.grad_scale);
        let squares = gradient.clone().square().add_scalar(keys.eps[0]);
        let inverse_root = self.second.update(squares.reshape(dims), beta2);
        let update = gradient.reshape(dims) * inverse_root;
        // No update is larger than the threshold, by its root mean square.
        let too_large = rms(update.clone()).div_scalar(keys.clip_threshold).clamp_min(1.0);
        let scale = if keys.scale_parameter {
            rms(weight.clone().reshape(dims)).clamp_min(keys.eps[1]).mul_scalar(step.lr)
        } else {
            Tensor::full([1, 1, 1], step.lr, &weight.device())
        };
        let mut update = (update / too_large * scale.clone()).reshape([n]);
        if let (Some(first), Some(beta1)) = (&mut self.first, keys.beta1) {
            first.inplace(|first| first.mul_scalar(beta1) + update.mul_scalar(1.0 - beta1));
            update = first.clone();
        }
        let keep = scale.mul_scalar(-step.weight_decay).add_scalar(1.0);
        (weight.reshape(dims) * keep).reshape([n]) - update
    }

    fn tensors(&self) -> Vec<StateTensor<'_>> {
        let mut tensors = match &self.second {
            SecondMoment::Factored { row, column, shapes } => vec![
                StateTensor::f32("row", &shapes.row, row),
                StateTensor::f32("col", &shapes.column, column),
            ],
            SecondMoment::Full(full) => vec![StateTensor::f32("v", &self.shape, full)],
        };
        tensors.extend(self.first.iter().map(|first| StateTensor::f32("m", &self.shape, first)));
        tensors
    }

    fn restore(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        match &mut self.second {
            SecondMoment::Factored { row, column, shapes } => {
                *row = saved.f32("row", &shapes.row)?;
                *column = saved.f32("col", &shapes.column)?;
            }
            SecondMoment::Full(full) => *full = saved.f32("v", &self.shape)?,
        }
        if let Some(first) = &mut self.first {
            *first = saved.f32("m", &self.shape)?;
        }
        Ok(())
    }
}

impl SecondMoment {
    /// Takes in squared gradients and returns 1 / √ of the moment, which may have to be broadcast.
    fn update(&mut self, squares: Tensor<3>, beta2: f64) -> Tensor<3> {
        let [leading, rows, columns] = squares.dims();
        let mean = |old: Tensor<1>, new: Tensor<3>| {
            let n = new.dims().iter().product::<usize>();
            old.mul_scalar(beta2) + new.reshape([n]).mul_scalar(1.0 - beta2)
        };
        match self {
            Self::Factored { row, column, .. } => {
                row.inplace(|row| mean(row, squares.clone().mean_dim(2)));
                column.inplace(|column| mean(column, squares.mean_dim(1)));
                let row = row.clone().reshape([leading, rows, 1]);
                let row = row.clone() / row.mean_dim(1);
                let column = column.clone().reshape([leading, 1, columns]);
                row.sqrt().recip() * column.sqrt().recip()
            }
            Self::Full(full) => {
                full.inplace(|full| mean(full, squares));
                full.clone().sqrt().recip().reshape([leading, rows, columns])
            }
        }
    }
}

/// The root mean square of all elements. Rows are summed first, so that no sum is long.
fn rms(x: Tensor<3>) -> Tensor<3> {
    x.square().mean_dim(2).mean_dim(1).mean_dim(0).sqrt()
}

/// Shapes of the two factors.
#[derive(Debug)]
struct FactorShapes {
    /// The parameter's shape without its last dimension.
    row: Vec<usize>,
    /// The parameter's shape without its last dimension but one.
    column: Vec<usize>,
}

impl FactorShapes {
    /// None for a vector, which is not factored.
    fn of(shape: &[usize]) -> Option<Self> {
        match shape {
            [leading @ .., rows, columns] => Some(Self {
                row: [leading, &[*rows]].concat(),
                column: [leading, &[*columns]].concat(),
            }),
            [_] | [] => None,
        }
    }
}
