//! RMSNorm and LayerNorm with their weights.
//!
//! Inside a block a norm is part of the linear layer that reads it, and its output is never a tensor of its own:
//! [`RmsNorm::linear_input`], [`LayerNorm::linear_input`].

use burn::module::{Module, Param};
use burn::tensor::Tensor;

/// Root-mean-square norm with a weight.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[d]`
    pub weight: Param<Tensor<1>>,
    #[module(skip)]
    eps: f64,
    #[module(skip)]
    adds_one: bool,
}

impl RmsNorm {
    /// A norm of a given weight.
    pub fn new(weight_d: Tensor<1>, eps: f64) -> Self {
        Self { weight: Param::from_tensor(weight_d), eps, adds_one: false }
    }

    /// The same norm, which multiplies by 1 + weight (Gemma).
    #[must_use]
    pub fn adding_one(self) -> Self {
        Self { adds_one: true, ..self }
    }

    /// The factors of the normalised values, `[d]`.
    fn gain(&self) -> Tensor<1> {
        let weight_d = self.weight.val();
        if self.adds_one { weight_d.add_scalar(1.0) } else { weight_d }
    }

    /// The norm of `x` over its last dimension.
    pub fn forward(&self, x_btd: Tensor<3>) -> Tensor<3> {
        kernels::rms_norm(x_btd, self.gain(), self.eps)
    }

    /// The norm of `x + delta`, and `x + delta`; without `delta` the norm of `x`, and `x`. Both results have to reach the loss
    /// if the second one does.
    pub fn forward_residual(
        &self,
        x_btd: Tensor<3>,
        delta_btd: Option<Tensor<3>>,
    ) -> [Tensor<3>; 2] {
        kernels::residual_rms_norm(x_btd, delta_btd, self.gain(), self.eps)
    }

    /// The norm of heads, `[b, t, h, k]`: of each head's vector if the weight is `[k]`, of all heads together if it is
    /// `[h · k]`.
    pub fn forward_heads(&self, x_bthk: Tensor<4>) -> Tensor<4> {
        let [b, t, h, k] = x_bthk.dims();
        let width = self.weight.dims()[0];
        self.forward(x_bthk.reshape([b, t * h * k / width, width])).reshape([b, t, h, k])
    }

    /// The norm of `x`, computed by the linear layers that read it.
    pub fn linear_input(&self, x_btd: Tensor<3>) -> kernels::LinearInput {
        kernels::LinearInput::RmsNorm { x_btd, weight_d: self.gain(), eps: self.eps }
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

    /// The norm of `x`, computed by the linear layers that read it.
    pub fn linear_input(&self, x_btd: Tensor<3>) -> kernels::LinearInput {
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
