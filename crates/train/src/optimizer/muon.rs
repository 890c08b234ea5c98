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
    let iterate = |x: Tensor<2>, _| {
        let gram = linear(x.clone(), x.clone(), None);
        // A Gram matrix is its own transpose.
        let square = linear(gram.clone(), gram.clone(), None);
        let factor = gram.mul_scalar(b) + square.mul_scalar(c);
        x.clone().mul_scalar(a) + linear_io(factor, x, None)
    };
    with_precision(Precision::F32, || (0..n_steps).fold(matrix / norm, iterate))
}

/// The same matrix, row after row in memory.
fn contiguous(matrix: Tensor<2>) -> Tensor<2> {
    let [rows, columns] = matrix.dims();
    matrix.reshape([rows * columns]).reshape([rows, columns])
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;
    use proptest::prelude::*;

    use super::*;

    /// Square matrices as rows.
    type Rows = Vec<Vec<f64>>;

    fn product(a: &Rows, b: &Rows) -> Rows {
        let entry =
            |row: &Vec<f64>, j: usize| row.iter().zip(b).map(|(x, other)| x * other[j]).sum();
        a.iter().map(|row| (0..b[0].len()).map(|j| entry(row, j)).collect()).collect()
    }

    fn transposed(a: &Rows) -> Rows {
        (0..a[0].len()).map(|j| a.iter().map(|row| row[j]).collect()).collect()
    }

    fn rows_of(matrix: &Tensor<2>) -> Rows {
        let [_, columns] = matrix.dims();
        kernels::with_host_values(matrix, |values| {
            values.chunks(columns).map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect()
        })
    }

    /// Eigenvalues of a symmetric matrix by cyclic Jacobi rotations.
    fn eigenvalues(mut a: Rows) -> Vec<f64> {
        let n = a.len();
        for _ in 0..60 {
            for p in 0..n {
                for q in p + 1..n {
                    let angle = 0.5 * (2.0 * a[p][q]).atan2(a[q][q] - a[p][p]);
                    let (sin, cos) = angle.sin_cos();
                    for row in &mut a {
                        let (x, y) = (row[p], row[q]);
                        (row[p], row[q]) = (cos * x - sin * y, sin * x + cos * y);
                    }
                    let (upper, lower) = a.split_at_mut(q);
                    for (x, y) in upper[p].iter_mut().zip(&mut lower[0]) {
                        (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
                    }
                }
            }
        }
        (0..n).map(|i| a[i][i]).collect()
    }

    fn matrix(values: Vec<f32>, rows: usize, columns: usize) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values, [rows, columns]), &Device::flex())
    }

    /// The singular values of the result, and how far it is from having the argument's singular vectors: XᵀG is
    /// symmetric if X is a polynomial of G in the sense of the iteration.
    fn check(values: Vec<f32>, rows: usize, columns: usize) -> (Vec<f64>, f64) {
        let g = matrix(values, rows, columns);
        let x = rows_of(&orthogonalise(g.clone(), 5));
        let g = rows_of(&g);
        let gram = if rows <= columns {
            product(&x, &transposed(&x))
        } else {
            product(&transposed(&x), &x)
        };
        let mixed = product(&transposed(&x), &g);
        let size = mixed.iter().flatten().fold(0.0_f64, |most, entry| most.max(entry.abs()));
        let skew = mixed
            .iter()
            .zip(transposed(&mixed))
            .flat_map(|(a, b)| a.iter().zip(b).map(|(a, b)| (a - b).abs()).collect::<Vec<_>>());
        (
            eigenvalues(gram).iter().map(|e| e.max(0.0).sqrt()).collect(),
            skew.fold(0.0, f64::max) / size,
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Random matrices, wide, square and tall, at any scale: singular values are near 1, singular vectors stay.
        #[test]
        fn singular_values_come_near_1(
            seed in any::<u64>(),
            (rows, columns) in prop_oneof![(1_usize..12, 12_usize..40), (12_usize..40, 1_usize..12)],
            exponent in -12_i32..12,
        ) {
            let mut rng = seed::Rng::new(seed);
            let scale = 2.0_f32.powi(exponent);
            let values = (0..rows * columns).map(|_| (rng.f64() as f32 - 0.5) * scale).collect();
            let (singular, skew) = check(values, rows, columns);
            // The quintic's fixed band; small singular values of a random matrix have not all reached it.
            for value in singular {
                prop_assert!((0.5..1.25).contains(&value), "{value}");
            }
            prop_assert!(skew < 1e-4, "{skew}");
        }
    }

    #[test]
    fn a_matrix_of_zeros_stays() {
        let x = orthogonalise(matrix(vec![0.0; 6], 2, 3), 5);
        assert!(rows_of(&x).concat().iter().all(|value| *value == 0.0));
    }
}
