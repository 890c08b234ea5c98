//! Methods of adapting a frozen layer, one variant each.
//!
//! A method sees the layer's input, the base layer and the base layer's output, so it is not limited to
//! adding something to the weight: DoRA (Liu et al. 2024) rescales the rows of the whole product.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::{BaseLayer, LoraAdapter};

/// The adapter of a layer.
#[derive(Module, Debug)]
pub enum Adapter {
    /// Low-rank adaptation (Hu et al. 2021).
    Lora(LoraAdapter),
}

impl Adapter {
    /// The adapted layer's output for the input `x`, given the base layer's output `y`, bias included:
    /// `[.., in]` and `[.., out]` → `[.., out]`.
    pub fn forward<const D: usize>(
        &self,
        x: Tensor<D>,
        _base: BaseLayer<'_>,
        y: Tensor<D>,
    ) -> Tensor<D> {
        match self {
            Self::Lora(lora) => lora.forward(x, y),
        }
    }

    /// The weight that gives the adapted layer's output without an adapter; `[out, in]` both, off
    /// autodiff.
    pub fn merge(&self, weight_oi: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Lora(lora) => lora.merge(weight_oi),
        }
    }

    /// The form that fused kernels compute; `None` while dropout is active.
    pub fn low_rank(&self) -> Option<kernels::Adapter> {
        match self {
            Self::Lora(lora) => lora.low_rank(),
        }
    }

    /// The same adapter without dropout.
    #[must_use]
    pub fn without_dropout(self) -> Self {
        match self {
            Self::Lora(lora) => Self::Lora(lora.without_dropout()),
        }
    }

    /// The same adapter with the dropout masks of the current key, whatever key is set later and whether or not its
    /// parameters are trained: a forward that is recomputed draws the same masks.
    #[must_use]
    pub fn with_pinned_dropout(self) -> Self {
        match self {
            Self::Lora(lora) => Self::Lora(lora.with_pinned_dropout()),
        }
    }
}
