//! adapter_model.safetensors: PEFT's names, read with no tensor missing or left over, written in PEFT's order.
//!
//! Each tensor is f32, bf16 or f16 by the file's header. PEFT's names are the model's after one prefix, with `base_layer`
//! between the name of a layer that has factors and its own weight or bias.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use arch::{AdapterError, AdapterLayout, AdapterTensor, Dtype, LayerRole};
use burn::tensor::{Tensor, TensorData};
use model::{Adaptable, visit_tensors};
use tensor_file::{SafetensorsWriter, TensorFile};

use super::ADAPTER_WEIGHTS;
use crate::attach::{is_adapter_tensor, layout_of};
use crate::build::Source;
use crate::{Error, LoraConfig, Result, Targets};

/// PEFT's prefix of the base model's names.
pub const PREFIX: &str = "base_model.model.";

/// PEFT's names of embedding and output layer: with one of them as a target, it saves their base weights too.
const SAVED_WITH_BASE: [&str; 2] = ["embed_tokens", "lm_head"];

/// An adapter's file, its names and shapes checked against model and settings.
pub(super) struct AdapterFile {
    file: TensorFile,
    /// Parameters of the model besides the adapter's own: the model's name, the file's name, the shape.
    base: Vec<(String, String, Vec<usize>)>,
}

impl AdapterFile {
    pub(super) fn open<M: Adaptable>(
        dir: &Path,
        model: &M,
        config: &LoraConfig,
        layout: &AdapterLayout,
        saves_head: bool,
    ) -> Result<Self> {
        let path = dir.join(ADAPTER_WEIGHTS);
        if !path.exists() {
            return Err(AdapterError::absent(dir, ADAPTER_WEIGHTS).into());
        }
        let file = TensorFile::open(&path)?;
        let mut base: Vec<(String, Vec<usize>)> = layout
            .base_parameters
            .iter()
            .map(|spec| (spec.name.clone(), spec.shape.clone()))
            .collect();
        if let Some(head) = model.own_head().filter(|_| saves_head) {
            base.push((format!("{head}.weight"), vec![1, model.config().hidden_size()]));
        }
        let base = base.into_iter().map(|(name, shape)| {
            let in_file = peft_name(layout, &name);
            (name, in_file, shape)
        });
        let base: Vec<_> = base.collect();
        let added = layout.tensors().into_iter();
        let added = added.map(|tensor| (peft_name(layout, &tensor.name), tensor.shape));
        let of_base = base.iter().map(|(_, in_file, shape)| (in_file.clone(), shape.clone()));
        let mut expected: Vec<(String, Vec<usize>)> = added.chain(of_base).collect();
        // Older versions of PEFT leave these out.
        let optional = base_layers(config, layout).into_iter();
        let optional = optional.map(|(name, shape)| (peft_name(layout, &name), shape.to_vec()));
        expected.extend(optional.filter(|(name, _)| file.get(name).is_some()));
        check_names(&path, &file, &expected)?;
        for (name, shape) in &expected {
            file.tensor(name)?.with_shape(shape)?.weight_dtype()?;
        }
        Ok(Self { file, base })
    }

    /// Replaces the base weights of embedding and output layer by the file's, if it has them.
    pub(super) fn replace_base_layers<M: Adaptable>(
        &self,
        model: &mut M,
        layout: &AdapterLayout,
    ) -> Result<()> {
        for layer in &layout.layers {
            let name = format!("{PREFIX}{}.base_layer.weight", layer.name);
            if layer.role == LayerRole::Linear || self.file.get(&name).is_none() {
                continue;
            }
            let shape = match layer.role {
                LayerRole::Linear | LayerRole::Head => [layer.d_out, layer.d_in],
                LayerRole::Embedding => [layer.d_in, layer.d_out],
            };
            let values = TensorData::new(self.stored_values(&name, &shape)?, shape);
            if layer.role == LayerRole::Embedding {
                let (_, embedding) = model.backbone_mut().embedding_mut();
                embedding.weight.update(|old| Tensor::from_data(values.clone(), &old.device()));
            }
            // The two are one weight in a tied base model.
            if (layer.role == LayerRole::Head || layout.unties)
                && let Some(head) = model.output_layer_mut()
            {
                head.weight.update(|old| Tensor::from_data(values, &old.device()));
            }
        }
        Ok(())
    }

    /// Replaces parameters of the model by the file's: biases, saved modules, a head of its own.
    pub(super) fn read_base<M: Adaptable>(&self, model: &mut M) -> Result<()> {
        let mut values = BTreeMap::new();
        for (name, in_file, shape) in &self.base {
            values.insert(name.clone(), self.stored_values(in_file, shape)?);
        }
        if !values.is_empty() {
            let replaced = model::replace_parameters(model.clone(), &mut values);
            *model = replaced;
        }
        Ok(())
    }

    fn stored_values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        Ok(self.file.tensor(name)?.with_shape(shape)?.weights()?)
    }
}

impl Source for AdapterFile {
    fn values(
        &mut self,
        tensor: &AdapterTensor,
        _: &mut dyn FnMut(u64) -> Vec<f32>,
    ) -> Result<Vec<f32>> {
        self.stored_values(&format!("{PREFIX}{}", tensor.name), &tensor.shape)
    }
}

/// The weights of embedding and output layer that PEFT saves with their factors, under the model's names.
fn base_layers(config: &LoraConfig, layout: &AdapterLayout) -> Vec<(String, [usize; 2])> {
    let saves = match &config.targets {
        Targets::Names(names) => {
            SAVED_WITH_BASE.iter().any(|name| names.iter().any(|target| target == name))
        }
        Targets::Pattern(pattern) => SAVED_WITH_BASE.iter().any(|name| pattern.contains(name)),
        Targets::AllLinear | Targets::FamilyDefault => false,
    };
    let layers = layout.layers.iter().filter(|layer| saves && layer.role != LayerRole::Linear);
    layers
        .map(|layer| {
            let shape = match layer.role {
                LayerRole::Linear | LayerRole::Head => [layer.d_out, layer.d_in],
                LayerRole::Embedding => [layer.d_in, layer.d_out],
            };
            (format!("{}.weight", layer.name), shape)
        })
        .collect()
}

/// Writes the tensors of a model's adapters, and what is saved with them, under PEFT's names and in its order: equal weights
/// give the bytes that PEFT writes.
pub fn write_weights<M: Adaptable>(
    model: &M,
    config: &LoraConfig,
    dtype: Dtype,
    out: &mut dyn io::Write,
) -> Result<()> {
    let layout = layout_of(model, config)?;
    let with_base: BTreeSet<String> =
        base_layers(config, &layout).into_iter().map(|(name, _)| name).collect();
    let head = model.own_head().map(|head| format!("{head}."));
    let is_saved = |name: &str| {
        is_adapter_tensor(name)
            || layout.trains(name)
            || with_base.contains(name)
            || head.as_ref().is_some_and(|head| name.starts_with(head))
    };
    if crate::adapter_names(model).is_empty() {
        return Err(Error::NoAdapter);
    }
    let mut found: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    visit_tensors(model, |name, shape, values| {
        if is_saved(name) {
            found.push((peft_name(&layout, name), shape.to_vec(), values.to_vec()));
        }
        Ok::<(), Error>(())
    })?;
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let weights = found.iter().map(|(name, shape, _)| (name.clone(), shape.clone()));
    let mut writer = SafetensorsWriter::begin_weights(out, weights, dtype)?;
    for (name, _, values) in &found {
        writer.weights(name, values)?;
    }
    Ok(writer.finish()?)
}

/// PEFT's name of a parameter.
pub fn peft_name(layout: &AdapterLayout, name: &str) -> String {
    match name.rsplit_once('.') {
        Some((module, last)) if !is_adapter_tensor(name) && layout.has_layer(module) => {
            format!("{PREFIX}{module}.base_layer.{last}")
        }
        _ => format!("{PREFIX}{name}"),
    }
}

fn check_names(path: &Path, file: &TensorFile, expected: &[(String, Vec<usize>)]) -> Result<()> {
    let path = || -> PathBuf { path.to_owned() };
    let mut missing = expected.iter().filter(|(name, _)| file.get(name).is_none());
    if let Some((name, _)) = missing.next() {
        return Err(Error::MissingTensor {
            path: path(),
            name: name.clone(),
            more: missing.count(),
        });
    }
    let known: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    let mut left_over = file.tensors().filter(|tensor| !known.contains(tensor.name()));
    match left_over.next() {
        None => Ok(()),
        Some(tensor) => Err(Error::LeftOver {
            path: path(),
            name: tensor.name().to_owned(),
            more: left_over.count(),
        }),
    }
}
