//! Adapters folded into the weights and taken out again, or switched off.
//!
//! All in f32: W' = W + scale · B·A (Hu et al. 2021, section 4.1). Taking out subtracts, which leaves
//! the rounding of one addition; who needs the exact weights keeps a clone of the model, whose
//! tensors are shared.

use model::Adaptable;
use nn::LoraAdapter;

use crate::{Error, Result};

/// Adapters that were taken out of a model, with the names of their layers in module order.
#[derive(Clone, Debug)]
pub struct Removed {
    adapters: Vec<(String, LoraAdapter)>,
}

impl Removed {
    /// The names of the layers that carried the adapters, in module order.
    pub fn layers(&self) -> impl Iterator<Item = &str> {
        self.adapters.iter().map(|(name, _)| name.as_str())
    }
}

/// Folds every adapter into its weight; the model then has none.
pub fn merge<M: Adaptable>(mut model: M) -> Result<(M, Removed)> {
    let mut adapters = Vec::new();
    for (name, slot) in model.backbone_mut().projections_mut() {
        if let Some(adapter) = slot.set_adapter(None) {
            slot.add_to_weight(adapter.delta_oi());
            adapters.push((name, adapter));
        }
    }
    if adapters.is_empty() { Err(Error::NoAdapter) } else { Ok((model, Removed { adapters })) }
}

/// Takes merged adapters out of the weights and puts them back into their slots.
pub fn unmerge<M: Adaptable>(mut model: M, removed: Removed) -> Result<M> {
    let mut slots = model.backbone_mut().projections_mut();
    for (layer, adapter) in removed.adapters {
        let slot = slots.iter_mut().find(|(name, _)| *name == layer);
        let Some((_, slot)) = slot.filter(|(_, slot)| {
            let [d_out, _] = adapter.lora_B.weight.dims();
            let [_, d_in] = adapter.lora_A.weight.dims();
            slot.adapter().is_none() && slot.widths() == (d_in, d_out)
        }) else {
            return Err(Error::WrongModel { layer });
        };
        slot.add_to_weight(adapter.delta_oi().neg());
        slot.set_adapter(Some(adapter));
    }
    Ok(model)
}

/// The model without its adapters, its weights as they are: the base that they were trained on.
///
/// Weights are shared as handles, so a reference model costs nothing beside the trained one.
pub fn detach<M: Adaptable>(mut model: M) -> (M, Removed) {
    let slots = model.backbone_mut().projections_mut();
    let adapters = slots
        .into_iter()
        .filter_map(|(name, slot)| Some((name, slot.set_adapter(None)?)))
        .collect();
    (model, Removed { adapters })
}
