//! Trainable parameters of a model in one safetensors file, for additional models of a checkpoint such as PPO's value model.
//!
//! Frozen parameters are not in the file; they are read again from their source.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};
use fsio::DirWriter;
use kernels::update_param;
use tensor_file::{TensorFile, TensorView};

use crate::parameters::{ParameterNames, for_each_value};
use crate::saved_tensors::{TensorValues, write_tensors};
use crate::{Error, Result};

/// Writes every trainable parameter under its name.
pub fn save_trained<M: Module>(dir: &mut DirWriter, file: &str, model: &M) -> Result<()> {
    let names = ParameterNames::of(model);
    let mut names = names.iter();
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    for_each_value(model, |values, shape, trained| {
        let Some(name) = names.next().filter(|_| trained) else { return };
        tensors.push((name.to_owned(), shape.to_vec(), values.to_vec()));
    });
    let host = tensors
        .iter()
        .map(|(name, shape, values)| (name.clone(), shape.clone(), TensorValues::HostF32(values)));
    let tensors: Vec<_> = host.collect();
    write_tensors(dir, file, &BTreeMap::new(), &tensors)
}

/// Replaces the trainable parameters of a model by those of a file; `in_file` maps a parameter's name to the file's.
///
/// Errors: a missing parameter or another shape.
pub fn load_trained<M: Module>(
    model: M,
    path: &Path,
    in_file: &dyn Fn(&str) -> String,
) -> Result<M> {
    let names = ParameterNames::of(&model);
    let file = TensorFile::map(path)?;
    let mut mapper = Load { file: &file, in_file, names: &names, idx: 0, error: None };
    let model = model.map(&mut mapper);
    match mapper.error {
        Some(error) => Err(error),
        None => Ok(model),
    }
}

/// Compares every trainable parameter with a file bit by bit; `in_file` maps a parameter's name to the file's.
pub fn compare_trained<M: Module>(
    path: &Path,
    in_file: &dyn Fn(&str) -> String,
    model: &M,
) -> Result<()> {
    let names = ParameterNames::of(model);
    let (file, mut names) = (TensorFile::map(path)?, names.iter());
    let (mut differing, mut failed) = (None, None);
    for_each_value(model, |now, shape, trained| {
        let Some(name) = names.next().filter(|_| trained) else { return };
        let saved = file.get(&in_file(name)).filter(|saved| saved.shape() == shape);
        match saved.map(TensorView::values).transpose() {
            Ok(Some(saved)) if bits_equal(now, &saved) => {}
            Ok(_) => {
                differing.get_or_insert_with(|| name.to_owned());
            }
            Err(e) => failed = Some(e),
        }
    });
    match (failed, differing) {
        (Some(error), _) => Err(error.into()),
        (None, Some(parameter)) => Err(Error::DrySave { path: path.to_owned(), parameter }),
        (None, None) => Ok(()),
    }
}

fn bits_equal(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

struct Load<'a> {
    file: &'a TensorFile,
    in_file: &'a dyn Fn(&str) -> String,
    names: &'a ParameterNames,
    idx: usize,
    error: Option<Error>,
}

impl Load<'_> {
    fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let saved = self.file.tensor(&(self.in_file)(name))?;
        Ok(saved.with_shape(shape)?.values()?)
    }
}

impl ModuleMapper for Load<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let idx = self.idx;
        self.idx += 1;
        if self.error.is_some() || !param.val().is_require_grad() {
            return param;
        }
        update_param(param, |old| {
            let shape = old.dims();
            match self.values(self.names.get(idx), &shape) {
                Ok(values) => Tensor::from_data(TensorData::new(values, shape), &old.device()),
                Err(error) => {
                    self.error = Some(error);
                    old
                }
            }
        })
    }
}
