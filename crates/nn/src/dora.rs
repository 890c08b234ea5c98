//! Weight-decomposed adapters (Liu et al. 2024, "DoRA", equation 5): the rows of W + scale · B·A, scaled to trained
//! magnitudes.
// PEFT's names; a field path is a checkpoint key.
#![allow(non_snake_case)]

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::weight::row_norms;
use crate::{BaseLayer, LoraAdapter};

/// Low-rank factors and the magnitude of each row of the adapted weight.
#[derive(Module, Debug)]
pub struct DoraAdapter {
    lora: LoraAdapter,
    /// `[out]`
    pub lora_magnitude_vector: Param<Tensor<1>>,
}

impl DoraAdapter {
    /// An adapter of given factors and magnitudes, `[out]`.
    ///
    /// # Panics
    /// If there is not one magnitude for each row.
    pub fn new(lora: LoraAdapter, magnitude_o: Tensor<1>) -> Self {
        assert_eq!(lora.lora_B.weight.dims()[0], magnitude_o.dims()[0], "one magnitude a row");
        Self { lora, lora_magnitude_vector: Param::from_tensor(magnitude_o) }
    }

    /// The low-rank factors.
    pub fn lora(&self) -> &LoraAdapter {
        &self.lora
    }

    pub(crate) fn map_lora(self, change: impl FnOnce(LoraAdapter) -> LoraAdapter) -> Self {
        Self { lora: change(self.lora), ..self }
    }

    /// See [`crate::Adapter::forward`]. The norms are constants in the backward pass (section 4.3).
    pub(crate) fn forward<const D: usize>(
        &self,
        x: Tensor<D>,
        base: BaseLayer<'_>,
        y: Tensor<D>,
    ) -> Tensor<D> {
        let factor_o = self.factor(base.weight_f32_oi());
        let plain = match base.bias_o() {
            Some(bias_o) => y.clone() - bias_o.unsqueeze(),
            None => y.clone(),
        };
        let (x, base_product) = match self.lora.active_dropout() {
            // As in PEFT, the change of the base layer's product sees the dropout, the product itself does not.
            Some(dropout) => {
                let x = dropout.apply(x);
                (x.clone(), base.weight.matmul(x, base.layout, None))
            }
            None => (x, plain),
        };
        let low_rank = self.lora.product(x);
        let change = base_product * (factor_o.clone() - 1.0).unsqueeze();
        y + change + low_rank * factor_o.unsqueeze()
    }

    /// See [`crate::Adapter::effective_weight`].
    pub(crate) fn effective_weight(&self, weight_oi: Tensor<2>) -> Tensor<2> {
        let factor_o = self.factor(weight_oi.clone());
        self.lora.effective_weight(weight_oi) * factor_o.unsqueeze_dim(1)
    }

    /// See [`crate::Adapter::merge`].
    pub(crate) fn merge(&self, weight_oi: Tensor<2>) -> Tensor<2> {
        let adapted_oi = self.lora.merge(weight_oi);
        let norms_o = row_norms(adapted_oi.clone());
        let factor_o = self.lora_magnitude_vector.val().inner() / norms_o;
        adapted_oi * factor_o.unsqueeze_dim(1)
    }

    /// Magnitude over norm of each row, `[out]`; the norms stay outside the graph.
    fn factor(&self, weight_oi: Tensor<2>) -> Tensor<1> {
        self.lora_magnitude_vector.val() / row_norms(self.lora.merge(weight_oi))
    }
}
