//! adapter_model.safetensors: PEFT's names, read without a gap or a left-over, written in its order.
//!
//! The file's own header says how each tensor is stored; f32, bf16 and f16 are read. It deliberately
//! maps names by one prefix and nothing else.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use arch::{AdapterError, Dtype};
use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use model::{Adaptable, SafetensorsFile, SafetensorsWriter, visit_tensors};

use super::ADAPTER_WEIGHTS;
use crate::attach::{Factors, is_factor};
use crate::{Error, LoraConfig, Result};

/// What PEFT puts before the base's names.
pub const PREFIX: &str = "base_model.model.";

/// An adapter's file whose names and shapes have been checked against model and settings.
pub(super) struct AdapterFile {
    file: SafetensorsFile,
    rank: usize,
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
        let file = SafetensorsFile::open(&path)?;
        let head = model.own_head().filter(|_| saves_head);
        let mut expected: Vec<(String, [usize; 2])> = Vec::new();
        for (name, slot) in model.backbone_mut().projections_mut() {
            if layers.contains(&name) {
                let (d_in, d_out) = slot.widths();
                let [a, b] = factor_names(&name);
                expected.extend([(a, [config.rank, d_in]), (b, [d_out, config.rank])]);
            }
        }
        if let Some(name) = head {
            expected.push((head_name(name), [1, model.config().hidden_size()]));
        }
        check_names(&path, &file, &expected)?;
        for (name, shape) in &expected {
            file.check(name, shape)?;
        }
        Ok(Self { file, rank: config.rank, head })
    }

    /// The values of a layer's A and B.
    pub(super) fn factors(
        &mut self,
        layer: &str,
        (d_in, d_out): (usize, usize),
    ) -> Result<Factors> {
        let [a, b] = factor_names(layer);
        Ok((self.file.read(&a, &[self.rank, d_in])?, self.file.read(&b, &[d_out, self.rank])?))
    }

    /// Puts the file's head, if it has one, into the model.
    pub(super) fn read_head<M: Adaptable>(&mut self, model: &mut M) -> Result<()> {
        let (Some(name), Some(head)) = (self.head, model.own_head_mut()) else { return Ok(()) };
        let shape = head.weight.dims();
        let values = self.file.read(&head_name(name), &shape)?;
        head.weight = kernels::update_param(head.weight.clone(), |old| {
            Tensor::from_data(TensorData::new(values, shape), &old.device())
        });
        Ok(())
    }
}

/// Writes the factors of a model's adapters, and the head that its base does not have, under PEFT's
/// names and in its order: equal weights give the very bytes that PEFT writes.
pub fn write_weights<M: Adaptable>(model: &M, dtype: Dtype, out: &mut dyn io::Write) -> Result<()> {
    let mut found: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    let head = model.own_head().map(|head| format!("{head}."));
    visit_tensors(model, |name, shape, values| {
        if is_factor(name) || head.as_ref().is_some_and(|head| name.starts_with(head)) {
            found.push((format!("{PREFIX}{name}"), shape.to_vec(), values.to_vec()));
        }
        Ok::<(), Error>(())
    })?;
    if !has_factors(model) {
        return Err(Error::NoAdapter);
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let table = found.iter().map(|(name, shape, _)| (name.clone(), shape.clone())).collect();
    let mut writer = SafetensorsWriter::begin(out, table, dtype)?;
    for (name, _, values) in &found {
        writer.tensor(name, values)?;
    }
    Ok(writer.finish()?)
}

fn has_factors<M: Module>(model: &M) -> bool {
    !crate::adapter_names(model).is_empty()
}

fn factor_names(layer: &str) -> [String; 2] {
    ["A", "B"].map(|factor| format!("{PREFIX}{layer}.lora_{factor}.weight"))
}

fn head_name(head: &str) -> String {
    format!("{PREFIX}{head}.weight")
}

fn check_names(
    path: &Path,
    file: &SafetensorsFile,
    expected: &[(String, [usize; 2])],
) -> Result<()> {
    let path = || -> PathBuf { path.to_owned() };
    let mut missing = expected.iter().filter(|(name, _)| file.tensor(name).is_none());
    if let Some((name, _)) = missing.next() {
        return Err(Error::MissingTensor {
            path: path(),
            name: name.clone(),
            more: missing.count(),
        });
    }
    let known: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    let mut left = file.tensors().iter().filter(|info| !known.contains(info.name.as_str()));
    match left.next() {
        None => Ok(()),
        Some(info) => {
            Err(Error::LeftOver { path: path(), name: info.name.clone(), more: left.count() })
        }
    }
}
