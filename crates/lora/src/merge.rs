//! Merging adapters into the weights, and removing them.
//!
//! All in f32: W' = W + scale · B·A (Hu et al. 2021, section 4.1). A merge is not reversible to the bit; a clone of the
//! model keeps the exact weights, whose tensors are shared.

use model::Adaptable;
use nn::Adapter;

use crate::{Error, Result};

/// Adapters taken out of a model, with the names of their layers in module order.
#[derive(Clone, Debug)]
pub struct Removed {
    adapters: Vec<(String, Adapter)>,
}

impl Removed {
    /// The names of the layers that had the adapters, in module order.
    pub fn layers(&self) -> impl Iterator<Item = &str> {
        self.adapters.iter().map(|(name, _)| name.as_str())
    }
}

/// Merges every adapter into its layer's weight; the model then has no adapters.
pub fn merge<M: Adaptable>(mut model: M) -> Result<(M, Removed)> {
    let slots = model.backbone_mut().projections_mut().into_iter();
    let adapters: Vec<_> =
        slots.filter_map(|(name, layer)| Some((name, layer.merge_adapter()?))).collect();
    if adapters.is_empty() { Err(Error::NoAdapter) } else { Ok((model, Removed { adapters })) }
}

/// The model without its adapters and with unchanged weights: the base model that they were trained on.
///
/// Weights are shared as handles, so a reference model takes no memory beside the trained one.
pub fn detach<M: Adaptable>(mut model: M) -> (M, Removed) {
    let slots = model.backbone_mut().projections_mut().into_iter();
    let adapters =
        slots.filter_map(|(name, layer)| Some((name, layer.set_adapter(None)?))).collect();
    (model, Removed { adapters })
}
