//! Attaching fresh adapters, and freezing what is not trained with them.
//!
//! Fresh adapters change nothing until they are trained: B is zero. Starting values follow from the
//! seed and each layer's name. It deliberately reads no file.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use model::{Adaptable, parameter_names, train_only};
use nn::{DropoutKey, LoraAdapter, LoraDropout, Projection};
use seed::{Purpose, Rng};

use crate::{Error, LoraConfig, Result};

/// A model with adapters.
#[derive(Debug)]
pub struct Adapted<M> {
    /// The model, frozen but for its adapters and its own head.
    pub model: M,
    /// Names of the layers that carry an adapter, in module order.
    pub layers: Vec<String>,
    /// Where the key of the dropout masks is set before each tracked forward, if there is dropout.
    pub dropout: DropoutKey,
}

/// Attaches fresh adapters and freezes the rest: A uniform in ±1/√in (as PEFT's Kaiming
/// initialisation with a = √5 comes out), B zero.
///
/// Each factor's values are a function of `seed` and its name.
pub fn attach<M: Adaptable>(mut model: M, config: &LoraConfig, seed: u64) -> Result<Adapted<M>> {
    config.check()?;
    let layers = layers_of(&model, config)?;
    let dropout = attach_from(&mut model, config, &layers, &mut |name, (d_in, d_out)| {
        let key = seed::derive(seed, &format!("{name}.lora_A.weight"), Purpose::LoraInit, 0, 0);
        let (mut rng, bound) = (Rng::new(key), 1.0 / (d_in as f64).sqrt());
        let a = (0..config.rank * d_in).map(|_| ((2.0 * rng.f64() - 1.0) * bound) as f32);
        Ok((a.collect(), vec![0.0; d_out * config.rank]))
    })?;
    Ok(Adapted { model: train_adapters_only(model), layers, dropout })
}

/// The names of the layers that the targets mean, in module order.
pub(crate) fn layers_of<M: Adaptable>(model: &M, config: &LoraConfig) -> Result<Vec<String>> {
    Ok(config.layers(model.config())?.into_iter().map(|layer| layer.name).collect())
}

/// Freezes everything but adapters and the head that the base does not have.
#[must_use]
pub fn train_adapters_only<M: Adaptable>(model: M) -> M {
    let head = model.own_head().map(|head| format!("{head}."));
    train_only(model, &|name| {
        is_factor(name) || head.as_ref().is_some_and(|head| name.starts_with(head))
    })
}

/// The model with adapters that drop nothing.
#[must_use]
pub fn without_dropout<M: Adaptable>(mut model: M) -> M {
    for (_, slot) in model.backbone_mut().projections_mut() {
        if let Some(adapter) = slot.set_adapter(None) {
            slot.set_adapter(Some(adapter.without_dropout()));
        }
    }
    model
}

/// The names of all factors of a model's adapters, in module order.
pub fn adapter_names<M: Module>(model: &M) -> Vec<String> {
    parameter_names(model).into_iter().filter(|name| is_factor(name)).collect()
}

/// The values of A `[r, in]` and B `[out, r]`.
pub(crate) type Factors = (Vec<f32>, Vec<f32>);

/// Puts an adapter into the slot of each named layer; `factors` gives the values of A and B.
pub(crate) fn attach_from<M: Adaptable>(
    model: &mut M,
    config: &LoraConfig,
    layers: &[String],
    factors: &mut dyn FnMut(&str, (usize, usize)) -> Result<Factors>,
) -> Result<DropoutKey> {
    let key = DropoutKey::default();
    let mut slots = model.backbone_mut().projections_mut();
    slots.retain(|(name, _)| layers.contains(name));
    if let Some((layer, _)) = slots.iter().find(|(_, slot)| slot.adapter().is_some()) {
        return Err(Error::Occupied { layer: layer.clone() });
    }
    for (name, slot) in slots {
        let values = factors(&name, slot.widths())?;
        slot.set_adapter(Some(adapter(config, &name, slot, values, &key)));
    }
    Ok(key)
}

fn adapter(
    config: &LoraConfig,
    name: &str,
    slot: &dyn Projection,
    (a, b): Factors,
    key: &DropoutKey,
) -> LoraAdapter {
    let (d_in, d_out) = slot.widths();
    let device: Device = slot.weight().device();
    let lora_a_ri = Tensor::from_data(TensorData::new(a, [config.rank, d_in]), &device);
    let lora_b_or = Tensor::from_data(TensorData::new(b, [d_out, config.rank]), &device);
    let dropout = (config.dropout > 0.0)
        .then(|| LoraDropout::new(config.dropout, name.to_owned(), key.clone()));
    LoraAdapter::new(lora_a_ri, lora_b_or, config.scale(), dropout)
}

pub(crate) fn is_factor(name: &str) -> bool {
    name.ends_with(".lora_A.weight") || name.ends_with(".lora_B.weight")
}
