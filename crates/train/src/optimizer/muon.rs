//! Muon (Jordan 2024): the momentum of a matrix, made orthogonal by a Newton–Schulz iteration, is its update.
//!
//! As `torch.optim.Muon` has it: the momentum is a running mean, decay uses the rate before it is adjusted by shape, and
//! the iteration has Jordan's coefficients. It runs in f32, where torch rounds to bf16.

use burn::tensor::{Device, Tensor};
use kernels::{Precision, linear, linear_io, with_precision};
use recipe::{AdjustLr, MuonKeys};

use super::parameter::Parameter;
use super::state::{ParameterState, StateReader, StateTensor, Step};
use crate::Result;

/// Coefficients of the quintic aX + b(XXᵀ)X + c(XXᵀ)²X.
const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];
/// Smallest norm that a matrix is divided by.
const EPS: f64 = 1e-7;

/// The momentum of one matrix.
#[derive(Debug)]
pub(super) struct Muon {
    keys: MuonKeys,
    shape: Vec<usize>,
    is_in_out: bool,
    momentum: Tensor<1>,
}

impl Muon {
    /// Zeros for a matrix.
    pub(super) fn new(keys: MuonKeys, parameter: &Parameter, device: &Device) -> Self {
        let shape = parameter.shape.clone();
        let momentum = Tensor::zeros([shape.iter().product::<usize>()], device);
        Self { keys, shape, is_in_out: parameter.is_in_out, momentum }
    }

    /// Rows and columns as stored.
    fn dims(&self) -> [usize; 2] {
        match self.shape.as_slice() {
            [rows, columns] => [*rows, *columns],
            // Only matrices get this rule.
            other => [1, other.iter().product()],
        }
    }

    /// The factor of the learning rate. torch's formulas are of `Linear`'s `[out, in]`, whatever the matrix is stored as.
    fn lr_factor(&self) -> f64 {
        let [rows, columns] = self.dims();
        let [d_out, d_in] = if self.is_in_out { [columns, rows] } else { [rows, columns] };
        let ratio = d_out as f64 / d_in as f64;
        match self.keys.adjust_lr {
            AdjustLr::MatchRmsAdamw => 0.2 * (d_out.max(d_in) as f64).sqrt(),
            AdjustLr::Original => ratio.max(1.0).sqrt(),
            AdjustLr::SpectralUnclamped => ratio.sqrt(),
        }
    }
}

impl ParameterState for Muon {
    fn update(&mut self, weight: Tensor<1>, gradient: Tensor<1>, step: &Step) -> Tensor<1> {
        let keys = self.keys;
        let gradient = gradient.mul_scalar(step.grad_scale);
        let before = gradient.clone() - self.momentum.clone();
        self.momentum.inplace(|momentum| momentum + before.mul_scalar(1.0 - keys.momentum));
        let update = if keys.nesterov {
            // From the momentum back towards the gradient, by 1 − momentum.
            let back = self.momentum.clone() - gradient;
            self.momentum.clone() - back.mul_scalar(1.0 - keys.momentum)
        } else {
            self.momentum.clone()
        };
        let n = self.shape.iter().product::<usize>();
        let update = orthogonalise(update.reshape(self.dims()), keys.ns_steps).reshape([n]);
        let weight = weight.mul_scalar(1.0 - step.lr * step.weight_decay);
        weight - update.mul_scalar(step.lr * self.lr_factor())
    }

    fn tensors(&self) -> Vec<StateTensor<'_>> {
        vec![StateTensor::f32("momentum", &self.shape, &self.momentum)]
    }

    fn restore(&mut self, saved: &mut StateReader<'_>) -> Result<()> {
        self.momentum = saved.f32("momentum", &self.shape)?;
        Ok(())
    }
}

/// Moves the singular values of a matrix near 1 and keeps its singular vectors: Newton–Schulz after division by the
/// Frobenius norm (Jordan 2024). Products are f32 in any run; the smaller side is the one that is squared.
fn orthogonalise(matrix: Tensor<2>, n_steps: usize) -> Tensor<2> {
    let [rows, columns] = matrix.dims();
    if rows > columns {
        return contiguous(orthogonalise(contiguous(matrix.transpose()), n_steps).transpose());
    }
    let [a, b, c] = COEFFICIENTS;
    // Rows first, so that no sum is long.
    let norm = matrix.clone().square().sum_dim(1).sum_dim(0).sqrt().clamp_min(EPS);
    let mut x = matrix / norm;
    with_precision(Precision::F32, || {
        for _ in 0..n_steps {
            let gram = linear(x.clone(), x.clone(), None);
            // A Gram matrix is its own transpose.
            let square = linear(gram.clone(), gram.clone(), None);
            let factor = gram.mul_scalar(b) + square.mul_scalar(c);
            x = x.clone().mul_scalar(a) + linear_io(factor, x, None);
        }
    });
    x
}

/// The same matrix, row after row in memory.
fn contiguous(matrix: Tensor<2>) -> Tensor<2> {
    let [rows, columns] = matrix.dims();
    matrix.reshape([rows * columns]).reshape([rows, columns])
}
