//! Update rule of one parameter: its state, its step, and the names of the state in a checkpoint.

use std::fmt;

use burn::tensor::{Device, Tensor, TensorData};
use kernels::Moments;
use recipe::AdamwKeys;
use tensor_file::{Element, TensorFile};

use crate::Result;
use crate::saved_tensors::TensorValues;

/// Numbers of one update of one parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    /// Number of this update, from 1.
    pub(super) number: u64,
    /// Learning rate.
    pub(super) lr: f64,
    /// Decoupled weight decay.
    pub(super) weight_decay: f64,
    /// Factor of the gradient: 1 / number of targets, times the clipping factor.
    pub(super) grad_scale: f64,
}

/// The state of one parameter and its update rule.
///
/// A new rule implements this in a file of its own, gets a variant of [`plan::optimizer::UpdateRule`] with its bytes, and
/// a kind in the recipe.
pub(super) trait ParameterState: fmt::Debug + Send {
    /// One update. The weight and the gradient are flat, contiguous, and off the autodiff device.
    fn update(&mut self, weight: Tensor<1>, gradient: Tensor<1>, step: &Step) -> Tensor<1>;

    /// Moments and keys of AdamW, whose updates many parameters can make at once; `None` for other rules.
    fn adamw(&mut self) -> Option<(&mut Moments, AdamwKeys)> {
        None
    }

    /// Every tensor of the state, in the order in which they are saved.
    fn tensors(&self) -> Vec<StateTensor<'_>>;

    /// Takes on saved tensors: all that [`Self::tensors`] names.
    fn restore(&mut self, saved: &mut StateReader<'_>) -> Result<()>;
}

/// A tensor of a parameter's state.
#[derive(Debug)]
pub(super) struct StateTensor<'a> {
    /// The file's name for it is `<prefix>.<parameter>`.
    pub(super) prefix: &'static str,
    pub(super) shape: Vec<usize>,
    pub(super) values: TensorValues<'a>,
}

impl<'a> StateTensor<'a> {
    /// Values of a flat tensor.
    pub(super) fn f32(prefix: &'static str, shape: &[usize], values: &'a Tensor<1>) -> Self {
        Self { prefix, shape: shape.to_vec(), values: TensorValues::F32(values) }
    }

    pub(super) fn n_bytes(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64 * self.values.element_bytes()
    }
}

/// Reads the saved state of one parameter and counts what it has read.
pub(super) struct StateReader<'a> {
    file: &'a TensorFile,
    parameter: &'a str,
    device: &'a Device,
    n_read: usize,
}

impl<'a> StateReader<'a> {
    /// `device` has no autodiff.
    pub(super) fn new(file: &'a TensorFile, parameter: &'a str, device: &'a Device) -> Self {
        Self { file, parameter, device, n_read: 0 }
    }

    /// Whether the file has at least one of these tensors.
    pub(super) fn has_any(&self, tensors: &[StateTensor<'_>]) -> bool {
        tensors.iter().any(|tensor| self.file.get(&self.name(tensor.prefix)).is_some())
    }

    pub(super) fn n_read(&self) -> usize {
        self.n_read
    }

    /// A tensor of f32, flat and on the device.
    pub(super) fn f32(&mut self, prefix: &str, shape: &[usize]) -> Result<Tensor<1>> {
        let values = self.host_f32(prefix, shape)?;
        let n = values.len();
        Ok(Tensor::from_data(TensorData::new(values, [n]), self.device))
    }

    /// The values of a tensor of f32.
    pub(super) fn host_f32(&mut self, prefix: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.values(prefix, shape)
    }

    /// The values of a tensor of bytes.
    pub(super) fn u8(&mut self, prefix: &str, shape: &[usize]) -> Result<Vec<u8>> {
        self.values(prefix, shape)
    }

    fn values<T: Element>(&mut self, prefix: &str, shape: &[usize]) -> Result<Vec<T>> {
        let tensor = self.file.tensor(&self.name(prefix))?.with_shape(shape)?;
        self.n_read += 1;
        Ok(tensor.values()?)
    }

    fn name(&self, prefix: &str) -> String {
        format!("{prefix}.{}", self.parameter)
    }
}
