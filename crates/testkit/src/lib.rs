//! Shared by tests: golden files, comparisons that report where two tensors differ, tiny models.
//!
//! A development dependency only. Of the workspace's crates it depends on tensor-file alone, so that every crate may use
//! it; tiny models are therefore config.json values.

mod compare;
mod golden;
mod tiny;

pub use compare::{Difference, Tolerance, assert_close, difference};
pub use golden::{Golden, golden_dir};
pub use tiny::{ByteIds, tiny_gpt2, tiny_llama};

use burn::tensor::{Device, Tensor, TensorData};

/// The row-major values of a tensor, on the host.
///
/// # Panics
/// If they cannot be read.
pub fn values<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
    x.clone().inner().into_data().convert::<f32>().iter::<f32>().collect()
}

/// A tensor on the CPU with non-repeating values in -2..2, which depend on `factor`.
pub fn wave<const D: usize>(shape: [usize; D], factor: f32) -> Tensor<D> {
    let n = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|i| (i as f32 * factor + factor).sin() * 2.0).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}
