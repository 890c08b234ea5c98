//! Methods of adapting a frozen layer, one variant each.
//!
//! A method sees the layer's input, the base layer and the base layer's output, so it is not limited to
//! adding something to the weight: DoRA (Liu et al. 2024) rescales the rows of the whole product.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::row_adapters::Chosen;
use crate::{BaseLayer, DoraAdapter, LoraAdapter, RowAdapters, TokenRows};

/// The adapter of a linear layer.
#[derive(Module, Debug)]
pub enum Adapter {
    /// Low-rank adaptation (Hu et al. 2021).
    Lora(LoraAdapter),
    /// Low-rank adaptation with trained magnitudes (Liu et al. 2024).
    Dora(DoraAdapter),
    /// Trained rows of the weight, for an output layer.
    Tokens(TokenRows),
    /// Low-rank adapters of which each row of a batch has one or none. They are part of no weight.
    ByRow(RowAdapters),
}

/// An adapter as fused kernels see it.
// Few exist at a time, so their size on the stack does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum FusedForm {
    /// It changes nothing.
    Nothing,
    /// A low-rank product.
    Product(kernels::Adapter),
    /// Something else.
    Other,
}

impl Adapter {
    /// The adapted layer's output for the input `x`, given the base layer's output `y`, bias included:
    /// `[.., in]` and `[.., out]` → `[.., out]`.
    pub fn forward<const D: usize>(
        &self,
        x: Tensor<D>,
        base: BaseLayer<'_>,
        y: Tensor<D>,
    ) -> Tensor<D> {
        match self {
            Self::Lora(lora) => lora.forward(x, y),
            Self::Dora(dora) => dora.forward(x, base, y),
            Self::Tokens(rows) => kernels::linear(x, rows.replace(base.weight_oi()), base.bias_o()),
            Self::ByRow(adapters) => adapters.forward(x, y),
        }
    }

    /// The weight of the adapted layer in training, `[out, in]` both: losses that take an output layer's weight read it. A
    /// bias of B is no part of it.
    pub fn effective_weight(&self, weight_oi: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Lora(lora) => lora.effective_weight(weight_oi),
            Self::Dora(dora) => dora.effective_weight(weight_oi),
            Self::Tokens(rows) => rows.replace(weight_oi),
            Self::ByRow(_) => weight_oi,
        }
    }

    /// The weight that gives the adapted layer's output without an adapter; `[out, in]` both, off
    /// autodiff.
    pub fn merge(&self, weight_oi: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Lora(lora) => lora.merge(weight_oi),
            Self::Dora(dora) => dora.merge(weight_oi),
            Self::Tokens(rows) => rows.merge(weight_oi),
            Self::ByRow(_) => weight_oi.inner(),
        }
    }

    /// Bias added to the bias of the layer, `[out]`, off autodiff.
    pub fn bias(&self) -> Option<Tensor<1>> {
        match self {
            Self::Lora(lora) => lora.bias(),
            Self::Dora(_) | Self::Tokens(_) | Self::ByRow(_) => None,
        }
    }

    /// The form that fused kernels compute; another one while dropout is active, and where rows have different adapters.
    pub fn fused_form(&self) -> FusedForm {
        let of = |lora: &LoraAdapter| lora.low_rank().map_or(FusedForm::Other, FusedForm::Product);
        match self {
            Self::Lora(lora) => of(lora),
            Self::Dora(_) | Self::Tokens(_) => FusedForm::Other,
            Self::ByRow(adapters) => match adapters.chosen() {
                Chosen::None => FusedForm::Nothing,
                Chosen::One(lora) => of(lora),
                Chosen::Several => FusedForm::Other,
            },
        }
    }

    /// The same adapter without dropout.
    #[must_use]
    pub fn without_dropout(self) -> Self {
        match self {
            Self::Lora(lora) => Self::Lora(lora.without_dropout()),
            Self::Dora(dora) => Self::Dora(dora.map_lora(LoraAdapter::without_dropout)),
            Self::Tokens(rows) => Self::Tokens(rows),
            Self::ByRow(adapters) => Self::ByRow(adapters),
        }
    }

    /// The same adapter with the dropout masks of the current key, whatever key is set later and whether or not its
    /// parameters are trained: a forward that is recomputed draws the same masks.
    #[must_use]
    pub fn with_pinned_dropout(self) -> Self {
        match self {
            Self::Lora(lora) => Self::Lora(lora.with_pinned_dropout()),
            Self::Dora(dora) => Self::Dora(dora.map_lora(LoraAdapter::with_pinned_dropout)),
            Self::Tokens(rows) => Self::Tokens(rows),
            Self::ByRow(adapters) => Self::ByRow(adapters),
        }
    }
}
