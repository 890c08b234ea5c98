//! adapter_model.safetensors: PEFT's names, read with no tensor missing or left over, written in PEFT's order.
//!
//! Each tensor is f32, bf16 or f16 by the file's header. PEFT's names are the model's after one prefix.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use arch::{AdapterError, Dtype};
use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use model::{Adaptable, visit_tensors};
use tensor_file::{SafetensorsWriter, TensorFile};

use super::ADAPTER_WEIGHTS;
use crate::attach::slot_of;
use crate::method::{AdapterTensor, Method, is_adapter_tensor};
use crate::{Error, LoraConfig, Result};

/// PEFT's prefix of the base model's names.
pub const PREFIX: &str = "base_model.model.";

/// An adapter's file, its names and shapes checked against model and settings.
pub(super) struct AdapterFile {
    file: TensorFile,
    head: Option<&'static str>,
}

impl AdapterFile {
    pub(super) fn open<M: Adaptable>(
        dir: &Path,
        model: &mut M,
        config: &LoraConfig,
        layers: &[String],
        saves_head: bool,
    ) -> Result<Self> {
        let path = dir.join(ADAPTER_WEIGHTS);
        if !path.exists() {
            return Err(AdapterError::absent(dir, ADAPTER_WEIGHTS).into());
        }
        let file = TensorFile::open(&path)?;
        let head = model.own_head().filter(|_| saves_head);
        let mut expected: Vec<(String, [usize; 2])> = Vec::new();
        for (name, layer) in model.backbone_mut().projections_mut() {
            if layers.contains(&name) {
                let tensors = Method::of(config).tensors(&slot_of(&name, layer), config);
                let tensors = tensors.into_iter();
                expected.extend(tensors.map(|tensor| (peft_name(&tensor.name), tensor.shape)));
            }
        }
        if let Some(name) = head {
            expected.push((head_name(name), [1, model.config().hidden_size()]));
        }
        check_names(&path, &file, &expected)?;
        for (name, shape) in &expected {
            file.tensor(name)?.with_shape(shape)?.weight_dtype()?;
        }
        Ok(Self { file, head })
    }

    /// The values of a tensor.
    pub(super) fn read(&self, tensor: &AdapterTensor) -> Result<Vec<f32>> {
        let stored = self.file.tensor(&peft_name(&tensor.name))?;
        Ok(stored.with_shape(&tensor.shape)?.weights()?)
    }

    /// Replaces the model's head by the file's, if it has one.
    pub(super) fn read_head<M: Adaptable>(&self, model: &mut M) -> Result<()> {
        let (Some(name), Some(head)) = (self.head, model.own_head_mut()) else { return Ok(()) };
        let shape = head.weight.dims();
        let values = self.file.tensor(&head_name(name))?.with_shape(&shape)?.weights()?;
        head.weight.update(|old| Tensor::from_data(TensorData::new(values, shape), &old.device()));
        Ok(())
    }
}

/// Writes the tensors of a model's adapters, and a head that its base model does not have, under PEFT's names and in its
/// order: equal weights give the bytes that PEFT writes.
pub fn write_weights<M: Adaptable>(model: &M, dtype: Dtype, out: &mut dyn io::Write) -> Result<()> {
    let mut found: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    let head = model.own_head().map(|head| format!("{head}."));
    visit_tensors(model, |name, shape, values| {
        if is_adapter_tensor(name) || head.as_ref().is_some_and(|head| name.starts_with(head)) {
            found.push((peft_name(name), shape.to_vec(), values.to_vec()));
        }
        Ok::<(), Error>(())
    })?;
    if !has_adapters(model) {
        return Err(Error::NoAdapter);
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let weights = found.iter().map(|(name, shape, _)| (name.clone(), shape.clone()));
    let mut writer = SafetensorsWriter::begin_weights(out, weights, dtype)?;
    for (name, _, values) in &found {
        writer.weights(name, values)?;
    }
    Ok(writer.finish()?)
}

fn has_adapters<M: Module>(model: &M) -> bool {
    !crate::adapter_names(model).is_empty()
}

fn peft_name(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn head_name(head: &str) -> String {
    format!("{PREFIX}{head}.weight")
}

fn check_names(path: &Path, file: &TensorFile, expected: &[(String, [usize; 2])]) -> Result<()> {
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
