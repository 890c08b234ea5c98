//! Linear layers in the two layouts of Hugging Face checkpoints, each with a slot for an adapter.
//!
//! They are built from values; where those come from is the caller's choice.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use kernels::WeightLayout;

use crate::projection::forward;
use crate::{Adapter, BaseLayer, Projection, Weight};

/// `x · weightᵀ + bias`; weight `[out, in]`, as in `torch.nn.Linear`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Weight,
    /// `[out]`
    pub bias: Option<Param<Tensor<1>>>,
    /// Changes the output.
    pub adapter: Option<Adapter>,
}

impl Linear {
    /// A layer of given values.
    pub fn new(weight_oi: Tensor<2>, bias_o: Option<Tensor<1>>) -> Self {
        Self::of_weight(Weight::new(weight_oi), bias_o)
    }

    /// A layer of a given weight `[out, in]`, which may be packed.
    pub fn of_weight(weight: Weight, bias_o: Option<Tensor<1>>) -> Self {
        Self { weight, bias: bias_o.map(Param::from_tensor), adapter: None }
    }

    /// `[.., in]` → `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        forward(self.base(), self.adapter(), x)
    }
}

impl Projection for Linear {
    fn base(&self) -> BaseLayer<'_> {
        let (weight, bias) = (&self.weight, self.bias.as_ref());
        BaseLayer { weight, layout: WeightLayout::OutIn, bias }
    }

    fn weight_mut(&mut self) -> &mut Weight {
        &mut self.weight
    }

    fn bias_mut(&mut self) -> &mut Option<Param<Tensor<1>>> {
        &mut self.bias
    }

    fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    fn set_adapter(&mut self, adapter: Option<Adapter>) -> Option<Adapter> {
        std::mem::replace(&mut self.adapter, adapter)
    }
}

/// `x · weight + bias`; weight `[in, out]`, as in GPT-2's `Conv1D`.
#[derive(Module, Debug)]
pub struct Conv1d {
    /// `[in, out]`
    pub weight: Weight,
    /// `[out]`
    pub bias: Option<Param<Tensor<1>>>,
    /// Changes the output.
    pub adapter: Option<Adapter>,
}

impl Conv1d {
    /// A layer of given values.
    pub fn new(weight_io: Tensor<2>, bias_o: Option<Tensor<1>>) -> Self {
        let bias = bias_o.map(Param::from_tensor);
        Self { weight: Weight::new(weight_io), bias, adapter: None }
    }

    /// `[.., in]` → `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        forward(self.base(), self.adapter(), x)
    }
}

impl Projection for Conv1d {
    fn base(&self) -> BaseLayer<'_> {
        let (weight, bias) = (&self.weight, self.bias.as_ref());
        BaseLayer { weight, layout: WeightLayout::InOut, bias }
    }

    fn weight_mut(&mut self) -> &mut Weight {
        &mut self.weight
    }

    fn bias_mut(&mut self) -> &mut Option<Param<Tensor<1>>> {
        &mut self.bias
    }

    fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    fn set_adapter(&mut self, adapter: Option<Adapter>) -> Option<Adapter> {
        std::mem::replace(&mut self.adapter, adapter)
    }
}
