//! A linear layer without its adapter, as adapters see it.

use burn::module::Param;
use burn::tensor::Tensor;
use kernels::WeightLayout;

use crate::Weight;

/// The weight, its layout and the bias of a layer.
#[derive(Clone, Copy, Debug)]
pub struct BaseLayer<'a> {
    /// The weight as it is stored.
    pub weight: &'a Weight,
    /// The weight's layout.
    pub layout: WeightLayout,
    /// `[out]`
    pub bias: Option<&'a Param<Tensor<1>>>,
}

impl BaseLayer<'_> {
    /// `(in, out)`
    pub fn widths(&self) -> (usize, usize) {
        let [rows, columns] = self.weight.dims();
        match self.layout {
            WeightLayout::OutIn => (columns, rows),
            WeightLayout::InOut => (rows, columns),
        }
    }

    /// `[out]`
    pub fn bias_o(&self) -> Option<Tensor<1>> {
        self.bias.map(Param::val)
    }

    /// The weight as `[out, in]`, whatever its layout.
    pub fn weight_oi(&self) -> Tensor<2> {
        match self.layout {
            WeightLayout::OutIn => self.weight.val(),
            WeightLayout::InOut => self.weight.val().transpose(),
        }
    }

    /// As [`Self::weight_oi`], in f32.
    pub fn weight_f32_oi(&self) -> Tensor<2> {
        crate::weight::widened(self.weight_oi())
    }

    /// The layer as fused kernels read it, with an adapter; `None` if its weight is packed.
    pub(crate) fn linear_map(
        &self,
        adapter: Option<kernels::Adapter>,
    ) -> Option<kernels::LinearMap> {
        let (weight, bias_o) = (self.weight.in_place()?, self.bias_o());
        Some(kernels::LinearMap { weight, layout: self.layout, bias_o, adapter })
    }

    /// `[.., in]` → `[.., out]`, bias included.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.weight.matmul(x, self.layout, self.bias_o())
    }
}
