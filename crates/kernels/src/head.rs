//! The output head of a language model: hidden states to logits.

use burn::tensor::Tensor;

use crate::linear::linear;
use crate::weight::WeightTensor;

/// `cap(hidden · weightᵀ · scale)`.
#[derive(Clone, Debug)]
pub struct Head {
    /// The weight, `[v, d]`.
    pub weight_vd: WeightTensor,
    /// Factor of the logits.
    pub scale: f64,
    /// Soft cap of the scaled logits: `cap · tanh(logit / cap)` (Gemma Team 2024, Gemma 2, section 2).
    pub soft_cap: Option<f64>,
}

impl From<Tensor<2>> for Head {
    /// A head without factor and cap.
    fn from(weight_vd: Tensor<2>) -> Self {
        WeightTensor::Dense(weight_vd).into()
    }
}

impl From<WeightTensor> for Head {
    /// A head without factor and cap.
    fn from(weight_vd: WeightTensor) -> Self {
        Self { weight_vd, scale: 1.0, soft_cap: None }
    }
}

impl Head {
    /// Hidden states `[.., d]` to logits `[.., v]`.
    pub fn logits<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        self.capped(linear(self.scaled(hidden), self.weight_vd.clone(), None))
    }

    /// Logits under the soft cap.
    pub fn capped<const D: usize>(&self, logits: Tensor<D>) -> Tensor<D> {
        match self.soft_cap {
            Some(cap) => capped(logits, cap),
            None => logits,
        }
    }

    /// Hidden states with the factor of the logits.
    pub fn scaled<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        if self.scale == 1.0 { hidden } else { hidden.mul_scalar(self.scale) }
    }
}

/// A summed cross-entropy, and how many of its targets were the model's first choice.
#[derive(Clone, Debug)]
pub struct HeadLoss {
    /// The sum over rows with a target, shape `[1]`.
    pub sum: Tensor<1>,
    /// The number of rows in which no logit is larger than the target's, shape `[1]`; has no gradient.
    pub n_correct: Tensor<1>,
}

/// `cap · tanh(x / cap)`.
pub(crate) fn capped<const D: usize>(x: Tensor<D>, cap: f64) -> Tensor<D> {
    x.div_scalar(cap).tanh().mul_scalar(cap)
}
