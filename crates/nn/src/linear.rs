//! Matrix products with a trained weight, in the two layouts of Hugging Face checkpoints.
//!
//! Each has a slot for an adapter; without one nothing is computed for it. They deliberately
//! initialise nothing: values come from a checkpoint or from seeded numbers.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use kernels::{LinearMap, WeightLayout};

use crate::{LoraAdapter, Projection};

/// `x · weightᵀ + bias`; weight `[out, in]`, as `torch.nn.Linear`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Param<Tensor<2>>,
    /// `[out]`
    pub bias: Option<Param<Tensor<1>>>,
    /// What is added to the product.
    pub adapter: Option<LoraAdapter>,
}

impl Linear {
    /// A layer of given values.
    pub fn new(weight_oi: Tensor<2>, bias_o: Option<Tensor<1>>) -> Self {
        let bias = bias_o.map(Param::from_tensor);
        Self { weight: Param::from_tensor(weight_oi), bias, adapter: None }
    }

    /// `[.., in]` → `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let bias_o = self.bias.as_ref().map(Param::val);
        match &self.adapter {
            None => kernels::linear(x, self.weight.val(), bias_o),
            Some(adapter) => {
                adapter.add_to(kernels::linear(x.clone(), self.weight.val(), bias_o), x)
            }
        }
    }
}

impl Projection for Linear {
    fn widths(&self) -> (usize, usize) {
        let [d_out, d_in] = self.weight.dims();
        (d_in, d_out)
    }

    fn weight(&self) -> Tensor<2> {
        self.weight.val()
    }

    fn adapter(&self) -> Option<&LoraAdapter> {
        self.adapter.as_ref()
    }

    fn set_adapter(&mut self, adapter: Option<LoraAdapter>) -> Option<LoraAdapter> {
        std::mem::replace(&mut self.adapter, adapter)
    }

    fn add_to_weight(&mut self, delta_oi: Tensor<2>) {
        self.weight = kernels::update_param(self.weight.clone(), |weight_oi| weight_oi + delta_oi);
    }

    fn apply(&self, x_bti: Tensor<3>) -> Tensor<3> {
        self.forward(x_bti)
    }

    fn map(&self) -> Option<LinearMap> {
        let adapter = match &self.adapter {
            Some(adapter) => Some(adapter.fused()?),
            None => None,
        };
        let bias_o = self.bias.as_ref().map(Param::val);
        Some(LinearMap { weight: self.weight.val(), layout: WeightLayout::OutIn, bias_o, adapter })
    }
}

/// `x · weight + bias`; weight `[in, out]`, as GPT-2's `Conv1D`.
#[derive(Module, Debug)]
pub struct Conv1d {
    /// `[in, out]`
    pub weight: Param<Tensor<2>>,
    /// `[out]`
    pub bias: Option<Param<Tensor<1>>>,
    /// What is added to the product.
    pub adapter: Option<LoraAdapter>,
}

impl Conv1d {
    /// A layer of given values.
    pub fn new(weight_io: Tensor<2>, bias_o: Option<Tensor<1>>) -> Self {
        let bias = bias_o.map(Param::from_tensor);
        Self { weight: Param::from_tensor(weight_io), bias, adapter: None }
    }

    /// `[.., in]` → `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let bias_o = self.bias.as_ref().map(Param::val);
        match &self.adapter {
            None => kernels::linear_io(x, self.weight.val(), bias_o),
            Some(adapter) => {
                adapter.add_to(kernels::linear_io(x.clone(), self.weight.val(), bias_o), x)
            }
        }
    }
}

impl Projection for Conv1d {
    fn widths(&self) -> (usize, usize) {
        let [d_in, d_out] = self.weight.dims();
        (d_in, d_out)
    }

    fn weight(&self) -> Tensor<2> {
        self.weight.val()
    }

    fn adapter(&self) -> Option<&LoraAdapter> {
        self.adapter.as_ref()
    }

    fn set_adapter(&mut self, adapter: Option<LoraAdapter>) -> Option<LoraAdapter> {
        std::mem::replace(&mut self.adapter, adapter)
    }

    fn add_to_weight(&mut self, delta_oi: Tensor<2>) {
        let delta_io = delta_oi.transpose();
        self.weight = kernels::update_param(self.weight.clone(), |weight_io| weight_io + delta_io);
    }

    fn apply(&self, x_bti: Tensor<3>) -> Tensor<3> {
        self.forward(x_bti)
    }

    fn map(&self) -> Option<LinearMap> {
        let adapter = match &self.adapter {
            Some(adapter) => Some(adapter.fused()?),
            None => None,
        };
        let bias_o = self.bias.as_ref().map(Param::val);
        Some(LinearMap { weight: self.weight.val(), layout: WeightLayout::InOut, bias_o, adapter })
    }
}
