//! Attaching new adapters, and freezing the rest of the model.
//!
//! New adapters leave the model's output as it is. Starting values are a function of the seed, each tensor's name and the
//! base weights.

use arch::{AdaptedLayer, AdapterLayout, AdapterTensorKind, LayerRole, TokenRows};
use burn::module::Module;
use model::{Adaptable, parameter_names, train_only};
use nn::{DropoutKey, Projection};

use crate::build::{Source, StartingValues, build_embedding, build_linear, build_rows};
use crate::{Error, LoraConfig, Result};

/// A model with adapters.
#[derive(Debug)]
pub struct Adapted<M> {
    /// The model, frozen except for its adapters, its own head and what the configuration trains with them.
    pub model: M,
    /// Names of the layers that have factors, in module order.
    pub layers: Vec<String>,
    /// Key of the dropout masks, to be set before each tracked forward if there is dropout.
    pub dropout: DropoutKey,
}

/// Attaches new adapters and freezes the rest.
///
/// By default A starts uniform in ±1/√in, as PEFT's Kaiming initialisation with a = √5, and B zero. Each tensor's values
/// are a function of `seed`, its name and the base weights.
///
/// Errors: a setting does not fit the model, or has no effect on it.
pub fn attach<M: Adaptable>(model: M, config: &LoraConfig, seed: u64) -> Result<Adapted<M>> {
    let layout = layout_of(&model, config)?;
    config.check_use(&layout, model.config())?;
    let model = untied(model, &layout)?;
    attach_from(model, config, &layout, &mut StartingValues { seed })
}

/// Tensors of an adapter of this configuration on a model.
pub fn layout_of<M: Adaptable>(model: &M, config: &LoraConfig) -> Result<AdapterLayout> {
    Ok(match model.own_head() {
        Some(_) => config.scalar_layout(model.config())?,
        None => config.layout(model.config())?,
    })
}

/// The model with an output layer of its own, if the layout requires one.
pub(crate) fn untied<M: Adaptable>(mut model: M, layout: &AdapterLayout) -> Result<M> {
    if layout.unties {
        model.untie()?;
    }
    Ok(model)
}

/// Freezes everything but adapters, what the layout trains with them, and a head that the base model does not have.
#[must_use]
pub fn train_adapters_only<M: Adaptable>(model: M, layout: &AdapterLayout) -> M {
    let head = model.own_head().map(|head| format!("{head}."));
    train_only(model, &|name| {
        is_adapter_tensor(name)
            || layout.trains(name)
            || head.as_ref().is_some_and(|head| name.starts_with(head))
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

/// Whether a parameter of this name belongs to an adapter.
pub(crate) fn is_adapter_tensor(name: &str) -> bool {
    AdapterTensorKind::of_name(name).is_some()
}

/// Puts the layout's adapters into the slots of a model, which is untied if the layout says so, and freezes the rest.
pub(crate) fn attach_from<M: Adaptable>(
    mut model: M,
    config: &LoraConfig,
    layout: &AdapterLayout,
    source: &mut dyn Source,
) -> Result<Adapted<M>> {
    let key = DropoutKey::default();
    let of_name = |name: &str| layout.layers.iter().find(|layer| layer.name == name);
    for (name, slot) in model.backbone_mut().projections_mut() {
        if let Some(layer) = of_name(&name) {
            attach_linear(slot, layer, config, layout, source, &key)?;
        }
    }
    if let Some(layer) = layout.layers.iter().find(|layer| layer.role == LayerRole::Head)
        && let Some(head) = model.output_layer_mut()
    {
        attach_linear(head, layer, config, layout, source, &key)?;
    }
    if let Some(layer) = layout.layers.iter().find(|layer| layer.role == LayerRole::Embedding) {
        let (name, embedding) = model.backbone_mut().embedding_mut();
        if embedding.adapter.is_some() {
            return Err(Error::Occupied { layer: name });
        }
        embedding.adapter = Some(build_embedding(embedding, layer, layout, source)?);
    }
    for rows in &layout.tokens {
        attach_rows(&mut model, rows, layout, source)?;
    }
    let layers = layout.layers.iter().map(|layer| layer.name.clone()).collect();
    Ok(Adapted { model: train_adapters_only(model, layout), layers, dropout: key })
}

fn attach_linear(
    slot: &mut dyn Projection,
    layer: &AdaptedLayer,
    config: &LoraConfig,
    layout: &AdapterLayout,
    source: &mut dyn Source,
    key: &DropoutKey,
) -> Result<()> {
    if slot.adapter().is_some() {
        return Err(Error::Occupied { layer: layer.name.clone() });
    }
    let adapter = build_linear(slot, layer, config, layout, source, key)?;
    slot.set_adapter(Some(adapter));
    Ok(())
}

fn attach_rows<M: Adaptable>(
    model: &mut M,
    rows: &TokenRows,
    layout: &AdapterLayout,
    source: &mut dyn Source,
) -> Result<()> {
    let occupied = || Err(Error::Occupied { layer: rows.module.clone() });
    if rows.is_head {
        let Some(head) = model.output_layer_mut() else { return Ok(()) };
        if head.adapter.is_some() {
            return occupied();
        }
        let built = build_rows(head.weight.val(), rows, layout, source)?;
        head.adapter = Some(nn::Adapter::Tokens(built));
    } else {
        let (_, embedding) = model.backbone_mut().embedding_mut();
        if embedding.adapter.is_some() {
            return occupied();
        }
        let built = build_rows(embedding.weight.val(), rows, layout, source)?;
        embedding.adapter = Some(nn::EmbeddingAdapter::Tokens(built));
    }
    Ok(())
}
