//! An exponential moving average of the trained weights (`ema`), for evaluation and the finished model.
//!
//! After the first update the average equals the weights; each later update moves it towards them:
//!
//! ```text
//! a ← a + (1 − decay) (w − a)
//! ```
//!
//! (Polyak and Juditsky 1992 for averaged iterates; the exponential form and its start are those of
//! `torch.optim.swa_utils.AveragedModel` with `get_ema_multi_avg_fn(decay)`.)

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use fsio::DirWriter;
use tensor_file::TensorFile;

use crate::parameters::ParameterNames;
use crate::saved_tensors::{TensorValues, write_tensors};
use crate::{Error, Result};

/// The file of a checkpoint with the averaged weights.
pub const AVERAGE_FILE: &str = "ema.safetensors";
/// Metadata of that file: the number of updates that the average has seen.
const N_UPDATES: &str = "n_updates";

/// An exponential moving average of a model's trained parameters.
#[derive(Clone, Debug)]
pub struct WeightAverage {
    decay: f64,
    n_updates: u64,
    names: ParameterNames,
    /// By parameter in module order; `None` where a parameter is not averaged.
    averages: Vec<Option<Average>>,
}

/// The average of one parameter, off the autodiff device.
#[derive(Clone, Debug)]
struct Average {
    shape: Vec<usize>,
    values: Tensor<1>,
}

impl WeightAverage {
    /// The average of a model that has made no update. It covers the trained parameters that
    /// [`plan::optimizer::is_averaged`] names.
    pub fn new<M: Module>(decay: f64, model: &M) -> Self {
        let names = ParameterNames::of(model);
        let mut start = Start { names: &names, averages: Vec::new() };
        model.visit(&mut start);
        let averages = start.averages;
        Self { decay, n_updates: 0, names, averages }
    }

    /// Includes the weights of an update.
    pub fn update<M: Module>(&mut self, model: &M) {
        self.n_updates += 1;
        let share = if self.n_updates == 1 { 1.0 } else { 1.0 - self.decay };
        model.visit(&mut Update { share, averages: self.averages.iter_mut() });
    }

    /// The model with averaged weights. Parameters that are not averaged are shared with `model`.
    pub fn applied<M: Module>(&self, model: &M) -> M {
        model.clone().map(&mut Apply { averages: self.averages.iter() })
    }

    /// Writes the average under the parameters' names.
    pub fn save(&self, dir: &mut DirWriter) -> Result<()> {
        let averages = self.names.iter().zip(&self.averages);
        let tensors: Vec<_> = averages
            .filter_map(|(name, average)| {
                let Average { shape, values } = average.as_ref()?;
                Some((name.to_owned(), shape.clone(), TensorValues::F32(values)))
            })
            .collect();
        let metadata = BTreeMap::from([(N_UPDATES.to_owned(), self.n_updates.to_string())]);
        write_tensors(dir, AVERAGE_FILE, &metadata, &tensors)
    }

    /// Reads what [`Self::save`] wrote for the same model, from a verified checkpoint.
    ///
    /// Errors: no such file, or one of another model.
    pub fn load<M: Module>(dir: &Path, decay: f64, model: &M, device: &Device) -> Result<Self> {
        Self::new(decay, model).of_checkpoint(dir, device)
    }

    /// The average that a verified checkpoint of the same stage has.
    ///
    /// Errors: those of [`Self::load`].
    pub fn of_checkpoint(&self, dir: &Path, device: &Device) -> Result<Self> {
        let file = TensorFile::map(&dir.join(AVERAGE_FILE))?;
        let unexpected = |reason: &str| Error::TensorFile {
            path: file.path().to_owned(),
            reason: reason.to_owned(),
        };
        let n_updates = file.metadata(N_UPDATES).and_then(|text| text.parse().ok());
        let n_updates = n_updates.ok_or_else(|| unexpected("has no number of updates"))?;
        let device = device.clone().inner();
        let mut loaded = Self { n_updates, ..self.clone() };
        let mut n_read = 0;
        for (name, average) in self.names.iter().zip(&mut loaded.averages) {
            let Some(average) = average else { continue };
            let values: Vec<f32> = file.tensor(name)?.with_shape(&average.shape)?.values()?;
            let n = values.len();
            average.values = Tensor::from_data(TensorData::new(values, [n]), &device);
            n_read += 1;
        }
        if n_read != file.n_tensors() {
            return Err(unexpected("has averages of parameters that the model does not train"));
        }
        Ok(loaded)
    }
}

fn flat<const D: usize>(value: Tensor<D>) -> Tensor<1> {
    let n_elements = value.shape().num_elements();
    value.inner().reshape([n_elements])
}

struct Start<'a> {
    names: &'a ParameterNames,
    averages: Vec<Option<Average>>,
}

impl ModuleVisitor for Start<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let name = self.names.get(self.averages.len());
        let is_averaged = value.is_require_grad() && plan::optimizer::is_averaged(name);
        self.averages.push(
            is_averaged.then(|| Average { shape: value.dims().to_vec(), values: flat(value) }),
        );
    }
}

struct Update<'a> {
    share: f64,
    averages: std::slice::IterMut<'a, Option<Average>>,
}

impl ModuleVisitor for Update<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(Some(average)) = self.averages.next() else { return };
        let weights = flat(param.val());
        average.values = if self.share < 1.0 {
            let old = average.values.clone();
            (weights - old.clone()).mul_scalar(self.share) + old
        } else {
            weights
        };
    }
}

struct Apply<'a> {
    averages: std::slice::Iter<'a, Option<Average>>,
}

impl ModuleMapper for Apply<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(Some(average)) = self.averages.next() else { return param };
        kernels::update_param(param, |weights| average.values.clone().reshape(weights.dims()))
    }
}
