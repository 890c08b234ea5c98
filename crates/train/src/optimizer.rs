//! AdamW in module order, with clipping by the global norm folded in.
//!
//! It deliberately cannot be called without a finite gradient norm: weights and moments never see a
//! NaN. Its state is keyed by parameter name and saved as safetensors.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData};
use fsio::DirWriter;
use kernels::{AdamwStep, Moments, adamw_step, update_param};

use crate::Result;
use crate::gradients::{GradNorm, Gradients};
use crate::parameters::ParameterNames;
use crate::tensor_file::{TensorFile, write_tensors};

/// The file in a checkpoint.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";

/// AdamW (Loshchilov and Hutter 2019), decay on tensors of rank 2 and more.
#[derive(Debug)]
pub struct AdamW {
    settings: recipe::Optimizer,
    names: ParameterNames,
    /// How many updates were made: one counter for all parameters.
    n_updates: u64,
    slots: Vec<Option<Slot>>,
}

#[derive(Debug)]
struct Slot {
    moments: Moments,
    shape: Vec<usize>,
}

impl AdamW {
    /// An optimizer that has made no update.
    pub fn new(settings: recipe::Optimizer, names: &ParameterNames) -> Self {
        let slots = names.iter().map(|_| None).collect();
        Self { settings, names: names.clone(), n_updates: 0, slots }
    }

    /// How many updates were made.
    pub fn n_updates(&self) -> u64 {
        self.n_updates
    }

    /// One update of every parameter that has a gradient.
    ///
    /// In place on the CPU as long as nobody else holds the parameters: consume the graph and drop
    /// copies of the model first.
    pub fn step<M: Module>(
        &mut self,
        model: M,
        gradients: Gradients,
        norm: GradNorm,
        lr: f64,
    ) -> M {
        self.n_updates += 1;
        let step = AdamwStep {
            lr,
            beta1: self.settings.betas[0],
            beta2: self.settings.betas[1],
            eps: self.settings.eps,
            weight_decay: self.settings.weight_decay,
            step: self.n_updates,
            grad_scale: clip_scale(self.settings.max_grad_norm, norm.value())
                / norm.n_targets() as f64,
        };
        let mut update = Update { slots: &mut self.slots, gradients, step, idx: 0 };
        model.map(&mut update)
    }

    /// Writes the moments as `m.<name>` and `v.<name>`, and the number of updates as metadata.
    pub fn save(&self, dir: &mut DirWriter) -> Result<()> {
        let mut tensors = Vec::new();
        for (name, slot) in self.names.iter().zip(&self.slots) {
            let Some(slot) = slot else { continue };
            tensors.push((format!("m.{name}"), slot.shape.clone(), &slot.moments.m));
            tensors.push((format!("v.{name}"), slot.shape.clone(), &slot.moments.v));
        }
        let metadata = BTreeMap::from([("n_updates".to_owned(), self.n_updates.to_string())]);
        write_tensors(dir, OPTIMIZER_FILE, &metadata, &tensors)
    }

    /// Reads what `save` wrote, from a verified checkpoint.
    pub fn load(
        dir: &Path,
        settings: recipe::Optimizer,
        names: &ParameterNames,
        device: &Device,
    ) -> Result<Self> {
        let file = TensorFile::open(&dir.join(OPTIMIZER_FILE))?;
        let n_updates = file.metadata("n_updates").and_then(|text| text.parse().ok());
        let n_updates = n_updates.ok_or_else(|| file.error("has no number of updates"))?;
        let mut optimizer = Self { n_updates, ..Self::new(settings, names) };
        let mut n_read = 0;
        for (name, slot) in names.iter().zip(&mut optimizer.slots) {
            let Some((shape, m)) = file.tensor(&format!("m.{name}"))? else { continue };
            let Some((v_shape, v)) = file.tensor(&format!("v.{name}"))? else {
                return Err(file.error(&format!("lacks the second moment: `{name}`")));
            };
            if shape != v_shape {
                return Err(file.error(&format!("moments differ in shape: `{name}`")));
            }
            let moments = Moments { m: flat(m, device), v: flat(v, device) };
            *slot = Some(Slot { moments, shape });
            n_read += 2;
        }
        if n_read != file.len() {
            return Err(file.error("has moments of parameters that the model lacks"));
        }
        Ok(optimizer)
    }

    /// The moments of one parameter, flat: first, second.
    pub fn moments(&self, name: &str) -> Option<(&Tensor<1>, &Tensor<1>)> {
        let idx = self.names.iter().position(|known| known == name)?;
        let slot = self.slots.get(idx)?.as_ref()?;
        Some((&slot.moments.m, &slot.moments.v))
    }
}

/// What gradients are multiplied by, as torch's `clip_grad_norm_` does it; 0 is no clipping.
pub fn clip_scale(max_grad_norm: f64, norm: f64) -> f64 {
    if max_grad_norm > 0.0 { (max_grad_norm / (norm + 1e-6)).min(1.0) } else { 1.0 }
}

fn flat(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), &device.clone().inner())
}

struct Update<'a> {
    slots: &'a mut [Option<Slot>],
    gradients: Gradients,
    step: AdamwStep,
    idx: usize,
}

impl ModuleMapper for Update<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let idx = self.idx;
        self.idx += 1;
        let Some(gradient) = self.gradients.take(idx) else { return param };
        let Some(slot) = self.slots.get_mut(idx) else { return param };
        let step = if D >= 2 { self.step } else { AdamwStep { weight_decay: 0.0, ..self.step } };
        update_param(param, |weight| {
            let shape = weight.dims();
            let slot = slot.get_or_insert_with(|| Slot {
                moments: Moments::zeros_like(&weight),
                shape: shape.to_vec(),
            });
            adamw_step(weight, gradient.reshape(shape), &mut slot.moments, &step)
        })
    }
}
