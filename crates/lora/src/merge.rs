//! Merging adapters into the weights, and removing them.
//!
//! All in f32: W' = W + scale · B·A (Hu et al. 2021, section 4.1), and the row norms of DoRA applied once. A merge is not
//! reversible to the bit; a clone of the model keeps the exact weights, whose tensors are shared.

use model::Adaptable;

use crate::{Error, Result};

/// The layers whose adapters were taken out of a model.
#[derive(Clone, Debug)]
pub struct Removed {
    layers: Vec<String>,
}

impl Removed {
    /// The names of the layers that had the adapters, in module order; embedding and output layer come last.
    pub fn layers(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().map(String::as_str)
    }
}

/// Merges every adapter into its layer's weight; the model then has no adapters and no packed weights.
///
/// Errors: there is no adapter, or one has a bias that its layer has no place for.
pub fn merge<M: Adaptable>(mut model: M) -> Result<(M, Removed)> {
    let mut layers = Vec::new();
    for (name, layer) in model.backbone_mut().projections_mut() {
        let adds_bias = layer.adapter().is_some_and(|adapter| adapter.bias().is_some());
        if adds_bias && layer.base().bias.is_none() {
            return Err(Error::NoBias { layer: name });
        }
        layers.extend(layer.merge_adapter().map(|_| name));
        layer.weight_mut().dequantise();
    }
    if let Some(head) = model.output_layer_mut() {
        layers.extend(nn::Projection::merge_adapter(head).map(|_| OUTPUT_LAYER.to_owned()));
    }
    let (name, embedding) = model.backbone_mut().embedding_mut();
    layers.extend(embedding.merge_adapter().map(|_| name));
    if layers.is_empty() { Err(Error::NoAdapter) } else { Ok((model, Removed { layers })) }
}

/// Whether some weight of the model is packed into 4 or 8 bits.
pub fn is_packed<M: Adaptable>(model: &mut M) -> bool {
    let mut layers = model.backbone_mut().projections_mut().into_iter();
    layers.any(|(_, layer)| layer.base().weight.dense().is_none())
}

/// The model with all packed weights unpacked.
#[must_use]
pub fn dequantised<M: Adaptable>(mut model: M) -> M {
    for (_, layer) in model.backbone_mut().projections_mut() {
        layer.weight_mut().dequantise();
    }
    model
}

/// The model without its adapters and with unchanged weights. Parameters of the base model that were trained with an adapter,
/// and what PiSSA took out of a weight, are not put back.
pub fn detach<M: Adaptable>(mut model: M) -> (M, Removed) {
    let mut layers = Vec::new();
    for (name, layer) in model.backbone_mut().projections_mut() {
        layers.extend(layer.set_adapter(None).map(|_| name));
    }
    if let Some(head) = model.output_layer_mut() {
        layers.extend(head.adapter.take().map(|_| OUTPUT_LAYER.to_owned()));
    }
    let (name, embedding) = model.backbone_mut().embedding_mut();
    layers.extend(embedding.adapter.take().map(|_| name));
    (model, Removed { layers })
}

const OUTPUT_LAYER: &str = "lm_head";
