//! Attaching new adapters, and freezing the rest of the model.
//!
//! New adapters leave the model's output as it is: LoRA's B is zero. Starting values are a function of the seed and each
//! tensor's name.

use burn::module::Module;
use model::{Adaptable, parameter_names, train_only};
use nn::{DropoutKey, Projection};

use crate::method::{AdapterTensor, Method, Slot, is_adapter_tensor};
use crate::{Error, LoraConfig, Result};

/// A model with adapters.
#[derive(Debug)]
pub struct Adapted<M> {
    /// The model, frozen except for its adapters and its own head.
    pub model: M,
    /// Names of the layers that have an adapter, in module order.
    pub layers: Vec<String>,
    /// Key of the dropout masks, to be set before each tracked forward if there is dropout.
    pub dropout: DropoutKey,
}

/// Attaches new adapters and freezes the rest.
///
/// LoRA starts with A uniform in ±1/√in, as PEFT's Kaiming initialisation with a = √5, and B zero. Each tensor's values
/// are a function of `seed` and its name.
pub fn attach<M: Adaptable>(mut model: M, config: &LoraConfig, seed: u64) -> Result<Adapted<M>> {
    config.check()?;
    let layers = layers_of(&model, config)?;
    let mut start = |tensor: &AdapterTensor| Ok(tensor.starting_values(seed));
    let dropout = attach_from(&mut model, config, &layers, &mut start)?;
    Ok(Adapted { model: train_adapters_only(model), layers, dropout })
}

/// The names of the layers that the targets select, in module order.
pub(crate) fn layers_of<M: Adaptable>(model: &M, config: &LoraConfig) -> Result<Vec<String>> {
    Ok(config.layers(model.config())?.into_iter().map(|layer| layer.name).collect())
}

/// Freezes everything but adapters and a head that the base model does not have.
#[must_use]
pub fn train_adapters_only<M: Adaptable>(model: M) -> M {
    let head = model.own_head().map(|head| format!("{head}."));
    train_only(model, &|name| {
        is_adapter_tensor(name) || head.as_ref().is_some_and(|head| name.starts_with(head))
    })
}

/// The model with its adapters' dropout switched off.
#[must_use]
pub fn without_dropout<M: Adaptable>(mut model: M) -> M {
    for (_, layer) in model.backbone_mut().projections_mut() {
        if let Some(adapter) = layer.set_adapter(None) {
            layer.set_adapter(Some(adapter.without_dropout()));
        }
    }
    model
}

/// The names of all tensors of a model's adapters, in module order.
pub fn adapter_names<M: Module>(model: &M) -> Vec<String> {
    parameter_names(model).into_iter().filter(|name| is_adapter_tensor(name)).collect()
}

/// Puts an adapter into the slot of each named layer; `values` gives those of each tensor.
pub(crate) fn attach_from<M: Adaptable>(
    model: &mut M,
    config: &LoraConfig,
    layers: &[String],
    values: &mut dyn FnMut(&AdapterTensor) -> Result<Vec<f32>>,
) -> Result<DropoutKey> {
    let (key, method) = (DropoutKey::default(), Method::of(config));
    let mut slots = model.backbone_mut().projections_mut();
    slots.retain(|(name, _)| layers.contains(name));
    if let Some((layer, _)) = slots.iter().find(|(_, layer)| layer.adapter().is_some()) {
        return Err(Error::Occupied { layer: layer.clone() });
    }
    for (name, layer) in slots {
        let slot = slot_of(&name, layer);
        let tensors = method.tensors(&slot, config);
        let values = tensors.iter().map(&mut *values).collect::<Result<_>>()?;
        let adapter = method.build(&slot, config, values, &key);
        layer.set_adapter(Some(adapter));
    }
    Ok(key)
}

pub(crate) fn slot_of<'a>(name: &'a str, layer: &dyn Projection) -> Slot<'a> {
    let (d_in, d_out) = layer.widths();
    Slot { name, d_in, d_out, device: layer.base().weight.device() }
}
