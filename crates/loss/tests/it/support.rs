//! Tensors from slices, gradients by name, and the logistic function in f64.

use burn::tensor::{Bool, Device, Tensor, TensorData};
use testkit::values;

/// Non-repeating numbers in -2..2.
pub(crate) fn wave(n: usize, factor: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * factor + factor).sin() * 2.0).collect()
}

pub(crate) fn constant(values: &[f32]) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &Device::flex())
}

/// A constant on the autodiff device.
pub(crate) fn untracked(values: &[f32]) -> Tensor<1> {
    let device = Device::flex().autodiff();
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &device)
}

pub(crate) fn tracked(values: &[f32]) -> Tensor<1> {
    untracked(values).set_require_grad(true)
}

pub(crate) fn mask(values: &[bool]) -> Tensor<1, Bool> {
    let device = Device::flex();
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &device)
}

/// The gradient of a loss with respect to a leaf.
pub(crate) fn gradient(loss: &Tensor<1>, leaf: &Tensor<1>) -> Vec<f32> {
    values(&leaf.grad(&loss.backward()).expect("a gradient"))
}

pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// -log sigmoid(x)
pub(crate) fn softplus_of_minus(x: f64) -> f64 {
    (-x).max(0.0) + (-x.abs()).exp().ln_1p()
}
