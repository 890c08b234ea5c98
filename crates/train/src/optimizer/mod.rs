//! The optimizer of a stage: one update rule and state per parameter, in module order, with clipping by the global norm.
//!
//! An update needs a [`GradNorm`], which only finite gradients have: weights and state never see a NaN. Which rule a
//! parameter gets is decided by [`plan::optimizer`]; each rule is a [`ParameterState`] in a file of its own. State is
//! saved by parameter name in `optimizer.safetensors`.

mod adafactor;
mod adamw;
mod adamw8bit;
mod blockwise;
mod muon;
mod parameter;
mod state;
mod together;

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor};
use fsio::DirWriter;
use plan::optimizer::{ParameterUpdate, UpdateRule, unmatched_group};
use tensor_file::TensorFile;

use self::adafactor::Adafactor;
use self::adamw::AdamW;
use self::adamw8bit::AdamW8bit;
use self::muon::Muon;
use self::parameter::Parameter;
use self::state::{ParameterState, StateReader, Step};
use self::together::Together;
use crate::gradients::{GradNorm, Gradients};
use crate::saved_tensors::write_tensors;
use crate::{Error, Result};

/// The optimizer's file in a checkpoint.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";
/// Metadata of that file: the kind of the optimizer, and how many updates it has made.
const KIND: &str = "kind";
const N_UPDATES: &str = "n_updates";

/// The optimizer that a recipe describes, with its state.
#[derive(Debug)]
pub struct Optimizer {
    settings: recipe::Optimizer,
    slots: Vec<Slot>,
    /// One counter for all parameters.
    n_updates: u64,
}

/// One parameter of the model.
#[derive(Debug)]
struct Slot {
    parameter: Parameter,
    update: ParameterUpdate,
    /// Made at the first update; a parameter without gradients has none.
    state: Option<Box<dyn ParameterState>>,
}

impl Optimizer {
    /// The optimizer of a model that has made no update.
    ///
    /// Errors: a group whose pattern matches no trained parameter.
    pub fn new<M: Module>(settings: recipe::Optimizer, model: &M) -> Result<Self> {
        let parameters = parameter::parameters(model);
        let trained = parameters.iter().filter(|parameter| parameter.trained);
        if let Some(group) = unmatched_group(&settings, trained.map(|p| p.name.as_str())) {
            let pattern = settings.groups.get(group).map(|group| group.pattern.clone());
            return Err(Error::UnmatchedGroup { pattern: pattern.unwrap_or_default() });
        }
        let slot = |parameter: Parameter| {
            let update = ParameterUpdate::of(&settings, &parameter.name, &parameter.shape);
            Slot { parameter, update, state: None }
        };
        let slots = parameters.into_iter().map(slot).collect();
        Ok(Self { settings, slots, n_updates: 0 })
    }

    /// Number of updates made.
    pub fn n_updates(&self) -> u64 {
        self.n_updates
    }

    /// One update of every parameter that has a gradient. `lr` is the rate that the schedule gives for the optimizer's
    /// own peak; parameters with another peak follow in proportion.
    ///
    /// AdamW updates in place on the CPU as long as nobody else holds the parameters: consume the graph and drop copies
    /// of the model first.
    pub fn step<M: Module>(
        &mut self,
        model: M,
        gradients: Gradients,
        norm: GradNorm,
        lr: f64,
    ) -> M {
        self.n_updates += 1;
        let clip = clip_scale(self.settings.max_grad_norm, norm.value());
        let mut update = Update {
            n_updates: self.n_updates,
            lr,
            peak: self.settings.lr,
            grad_scale: clip / norm.n_targets() as f64,
            slots: &mut self.slots,
            gradients,
            together: Together::default(),
            idx: 0,
        };
        let model = model.map(&mut update);
        let Update { together, slots, .. } = update;
        together.put_back(model, slots)
    }

    /// Writes the state as tensors named `<what>.<parameter>`, with the kind and the number of updates as metadata.
    pub fn save(&self, dir: &mut DirWriter) -> Result<()> {
        let mut tensors = Vec::new();
        for slot in &self.slots {
            for tensor in slot.state.iter().flat_map(|state| state.tensors()) {
                let name = format!("{}.{}", tensor.prefix, slot.parameter.name);
                tensors.push((name, tensor.shape, tensor.values));
            }
        }
        let metadata = BTreeMap::from([
            (KIND.to_owned(), self.settings.kind.name().to_owned()),
            (N_UPDATES.to_owned(), self.n_updates.to_string()),
        ]);
        write_tensors(dir, OPTIMIZER_FILE, &metadata, &tensors)
    }

    /// Reads what `save` wrote for the same model, from a verified checkpoint.
    ///
    /// Errors: state of another kind, of another model, or in another shape; and those of [`Self::new`].
    pub fn load<M: Module>(
        dir: &Path,
        settings: recipe::Optimizer,
        model: &M,
        device: &Device,
    ) -> Result<Self> {
        let file = TensorFile::map(&dir.join(OPTIMIZER_FILE))?;
        let unexpected = |reason: &str| Error::TensorFile {
            path: file.path().to_owned(),
            reason: reason.to_owned(),
        };
        let kind = file.metadata(KIND).ok_or_else(|| unexpected("has no kind of optimizer"))?;
        if kind != settings.kind.name() {
            return Err(Error::OtherOptimizer {
                path: dir.join(OPTIMIZER_FILE),
                found: kind.to_owned(),
                wanted: settings.kind.name(),
            });
        }
        let n_updates = file.metadata(N_UPDATES).and_then(|text| text.parse().ok());
        let n_updates = n_updates.ok_or_else(|| unexpected("has no number of updates"))?;
        let mut optimizer = Self { n_updates, ..Self::new(settings, model)? };
        let device = device.clone().inner();
        let mut n_read = 0;
        for slot in optimizer.slots.iter_mut().filter(|slot| slot.parameter.trained) {
            let mut state = slot.new_state(&device);
            let mut reader = StateReader::new(&file, &slot.parameter.name, &device);
            if reader.has_any(&state.tensors()) {
                state.restore(&mut reader)?;
                n_read += reader.n_read();
                slot.state = Some(state);
            }
        }
        if n_read != file.n_tensors() {
            return Err(unexpected("has state of parameters that the model does not train"));
        }
        Ok(optimizer)
    }

    /// Bytes that the state takes.
    pub fn state_bytes(&self) -> u64 {
        let states = self.slots.iter().filter_map(|slot| slot.state.as_ref());
        states.flat_map(|state| state.tensors()).map(|tensor| tensor.n_bytes()).sum()
    }

    /// A tensor of a parameter's state that is held as f32, flat: `m` and `v` of AdamW, for instance.
    pub fn state(&self, prefix: &str, name: &str) -> Option<&Tensor<1>> {
        let slot = self.slots.iter().find(|slot| slot.parameter.name == name)?;
        let tensors = slot.state.as_ref()?.tensors();
        tensors.into_iter().find(|tensor| tensor.prefix == prefix)?.values.as_tensor()
    }

    /// The rate of each trained parameter, by name, where the schedule gives `lr` for the optimizer's own peak.
    pub fn rates(&self, lr: f64) -> impl Iterator<Item = (&str, f64)> {
        let trained = self.slots.iter().filter(|slot| slot.parameter.trained);
        let peak = self.settings.lr;
        trained.map(move |slot| (slot.parameter.name.as_str(), rate(slot.update.lr, peak, lr)))
    }
}

impl Slot {
    /// Makes the state before the first update.
    fn prepare<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.state.is_none() {
            self.state = Some(self.new_state(&param.val().device().inner()));
        }
    }

    /// State before the first update: zeros. The one place where rules become code.
    fn new_state(&self, device: &Device) -> Box<dyn ParameterState> {
        let shape = &self.parameter.shape;
        match self.update.rule {
            UpdateRule::AdamW(keys) => Box::new(AdamW::new(keys, shape, device)),
            UpdateRule::AdamW8bit(keys) => Box::new(AdamW8bit::new(keys, shape)),
            UpdateRule::Muon(keys) => Box::new(Muon::new(keys, &self.parameter, device)),
            UpdateRule::Adafactor(keys) => Box::new(Adafactor::new(keys, shape, device)),
        }
    }
}

/// The factor of gradients, as torch's `clip_grad_norm_` computes it; a maximum of 0 turns clipping off.
pub fn clip_scale(max_grad_norm: f64, norm: f64) -> f64 {
    if max_grad_norm > 0.0 { (max_grad_norm / (norm + 1e-6)).min(1.0) } else { 1.0 }
}

/// The rate at which a peak of `own` stands when one of `peak` stands at `lr`.
fn rate(own: f64, peak: f64, lr: f64) -> f64 {
    // Not rounded where the peaks are the same.
    if own.to_bits() == peak.to_bits() { lr } else { own * (lr / peak) }
}

struct Update<'a> {
    n_updates: u64,
    lr: f64,
    peak: f64,
    grad_scale: f64,
    slots: &'a mut [Slot],
    gradients: Gradients,
    together: Together,
    idx: usize,
}

impl ModuleMapper for Update<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let idx = self.idx;
        self.idx += 1;
        let Some(gradient) = self.gradients.take(idx) else { return param };
        let Some(slot) = self.slots.get_mut(idx) else { return param };
        let step = Step {
            number: self.n_updates,
            lr: rate(slot.update.lr, self.peak, self.lr),
            weight_decay: slot.update.weight_decay,
            grad_scale: self.grad_scale,
        };
        slot.prepare(&param);
        match slot.state.as_mut().and_then(|state| state.adamw()) {
            Some((moments, keys)) if kernels::updates_together(&param.val()) => {
                let step = adamw::settings(&keys, &step);
                self.together.take(idx, param, gradient, (moments, step))
            }
            _ => update_param(param, slot, gradient, &step),
        }
    }
}

fn update_param<const D: usize>(
    param: Param<Tensor<D>>,
    slot: &mut Slot,
    gradient: Tensor<1>,
    step: &Step,
) -> Param<Tensor<D>> {
    kernels::update_param(param, |weight| {
        let shape = weight.dims();
        let flat: Tensor<1> = weight.reshape([shape.iter().product::<usize>()]);
        match &mut slot.state {
            Some(state) => state.update(flat, gradient, step).reshape(shape),
            None => flat.reshape(shape),
        }
    })
}
