//! RMSNorm and LayerNorm with their weights.
//!
//! They deliberately expose the form that linear layers read: inside a block no norm exists as a tensor.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

/// Root-mean-square norm with a weight.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[d]`
    pub weight: Param<Tensor<1>>,
    #[module(skip)]
    eps: f64,
}

impl RmsNorm {
    /// A norm of given weight.
    pub fn new(weight_d: Tensor<1>, eps: f64) -> Self {
        Self { weight: Param::from_tensor(weight_d), eps }
    }

    /// The norm of `x`.
    pub fn forward(&self, x_btd: Tensor<3>) -> Tensor<3> {
        kernels::rms_norm(x_btd, self.weight.val(), self.eps)
    }

    /// The norm of `x` as what linear layers read.
    pub fn read(&self, x_btd: Tensor<3>) -> kernels::LinearInput {
        kernels::LinearInput::RmsNorm { x_btd, weight_d: self.weight.val(), eps: self.eps }
    }
}

/// Layer norm with a weight and, usually, a bias.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[d]`
    pub weight: Param<Tensor<1>>,
    /// `[d]`
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    eps: f64,
}

impl LayerNorm {
    /// A norm of given values.
    pub fn new(weight_d: Tensor<1>, bias_d: Option<Tensor<1>>, eps: f64) -> Self {
        Self { weight: Param::from_tensor(weight_d), bias: bias_d.map(Param::from_tensor), eps }
    }

    /// The norm of `x` as what linear layers read.
    pub fn read(&self, x_btd: Tensor<3>) -> kernels::LinearInput {
        let bias_d = self.bias.as_ref().map(Param::val);
        kernels::LinearInput::LayerNorm {
            x_btd,
            weight_d: self.weight.val(),
            bias_d,
            eps: self.eps,
        }
    }

    /// The norm of `x`.
    pub fn forward(&self, x_btd: Tensor<3>) -> Tensor<3> {
        let bias_d = self.bias.as_ref().map(Param::val);
        kernels::layer_norm(x_btd, self.weight.val(), bias_d, self.eps)
    }
}
