//! Matrix products with a trained weight, in the two layouts of Hugging Face checkpoints.
//!
//! They deliberately initialise nothing: values come from a checkpoint or from seeded numbers.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

/// `x · weightᵀ + bias`; weight `[out, in]`, as `torch.nn.Linear`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Param<Tensor<2>>,
    /// `[out]`
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// A layer of given values.
    pub fn new(weight_oi: Tensor<2>, bias_o: Option<Tensor<1>>) -> Self {
        Self { weight: Param::from_tensor(weight_oi), bias: bias_o.map(Param::from_tensor) }
    }

    /// `[.., in]` → `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        kernels::linear(x, self.weight.val(), self.bias.as_ref().map(Param::val))
    }
}

/// `x · weight + bias`; weight `[in, out]`, as GPT-2's `Conv1D`.
#[derive(Module, Debug)]
pub struct Conv1d {
    /// `[in, out]`
    pub weight: Param<Tensor<2>>,
    /// `[out]`
    pub bias: Option<Param<Tensor<1>>>,
}

impl Conv1d {
    /// A layer of given values.
    pub fn new(weight_io: Tensor<2>, bias_o: Option<Tensor<1>>) -> Self {
        Self { weight: Param::from_tensor(weight_io), bias: bias_o.map(Param::from_tensor) }
    }

    /// `[.., in]` → `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        kernels::linear_io(x, self.weight.val(), self.bias.as_ref().map(Param::val))
    }
}
