//! Gradients of a step, accumulated over its micro-batches in module order.
//!
//! They are gradients of summed losses: the optimizer divides once by the number of targets.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients as BurnGradients, Tensor};
use kernels::{accumulate, donate_grad_buffer, reclaim_grad_buffer, sums_of_squares};

use crate::parameters::ParameterNames;
use crate::{Collective, Error, Result, StepPlace};

/// One flat gradient sum for each parameter that has a gradient.
#[derive(Debug)]
pub struct Gradients {
    names: ParameterNames,
    sums: Vec<Option<Tensor<1>>>,
}

/// The global norm of the mean gradient. It is finite: an update cannot be made without one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradNorm {
    norm: f64,
    n_targets: u64,
}

impl GradNorm {
    /// The norm, before clipping.
    pub fn value(self) -> f64 {
        self.norm
    }

    /// The number of targets by which gradients of the summed loss are divided.
    pub fn n_targets(self) -> u64 {
        self.n_targets
    }
}

impl Gradients {
    /// No gradients yet.
    pub fn new(names: &ParameterNames) -> Self {
        Self { names: names.clone(), sums: vec![None; names.len()] }
    }

    /// Calls `backward` and adds the gradients of the parameters to the sums.
    ///
    /// Matrix products add to the sums in place where possible, which avoids a second copy of all gradients. Drop the graph
    /// before the optimizer runs, or every weight is copied.
    pub fn accumulate<M: Module>(&mut self, model: &M, backward: impl FnOnce() -> BurnGradients) {
        model.visit(&mut DonateBuffers { sums: &mut self.sums, idx: 0 });
        let gradients = backward();
        model.visit(&mut Accumulate { gradients, sums: &mut self.sums, idx: 0 });
    }

    /// Sums the gradients of all replicas in the order of ranks, so that each has the sums of the whole step.
    ///
    /// `device` is this replica's device. A replica with an empty share of the step has no gradients and adds zeros.
    pub fn all_reduce(&mut self, replicas: &dyn Collective, device: &Device) -> Result<()> {
        if replicas.world_size() == 1 {
            return Ok(());
        }
        let length = |sum: &Option<Tensor<1>>| sum.as_ref().map_or(0.0, |sum| sum.dims()[0] as f64);
        let lengths = replicas.all_gather(self.sums.iter().map(length).collect())?;
        let longest = |idx: usize| {
            lengths.iter().filter_map(|of| of.get(idx)).fold(0.0_f64, |max, n| max.max(*n)) as usize
        };
        let mut mine = Vec::new();
        for (idx, sum) in self.sums.iter_mut().enumerate() {
            match (sum.take(), longest(idx)) {
                (Some(sum), _) => mine.push((idx, sum)),
                (None, 0) => {}
                (None, n) => mine.push((idx, Tensor::zeros([n], &device.clone().inner()))),
            }
        }
        let (places, mine): (Vec<usize>, Vec<Tensor<1>>) = mine.into_iter().unzip();
        for (idx, sum) in places.into_iter().zip(replicas.all_reduce(mine)?) {
            if let Some(place) = self.sums.get_mut(idx) {
                *place = Some(sum);
            }
        }
        Ok(())
    }

    /// The global norm of the gradients divided by `n_targets`, accumulated in f64 in module order.
    ///
    /// Errors: a non-finite gradient, with its parameter and samples. Without a norm there is no update, so it never reaches
    /// weights or optimizer state.
    pub fn norm(&self, n_targets: u64, place: StepPlace<'_>) -> Result<GradNorm> {
        let mut sum = 0.0;
        for (name, squares) in self.names.iter().zip(self.sums_of_squares()) {
            let Some(squares) = squares else { continue };
            if !squares.is_finite() {
                return Err(Error::NonFiniteGradient {
                    parameter: name.to_owned(),
                    place: place.to_owned(),
                });
            }
            sum += squares;
        }
        Ok(GradNorm { norm: sum.sqrt() / n_targets.max(1) as f64, n_targets: n_targets.max(1) })
    }

    /// The names of parameters without a gradient, in module order.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        self.names.iter().zip(&self.sums).filter(|(_, sum)| sum.is_none()).map(|(name, _)| name)
    }

    /// The flat gradient of one parameter.
    pub fn get(&self, name: &str) -> Option<&Tensor<1>> {
        let idx = self.names.iter().position(|known| known == name)?;
        self.sums.get(idx)?.as_ref()
    }

    /// Whether each parameter, in module order, has a gradient with a nonzero element.
    pub(crate) fn are_nonzero(&self) -> impl Iterator<Item = bool> {
        self.sums_of_squares()
            .into_iter()
            .map(|squares| squares.is_some_and(|squares| squares > 0.0))
    }

    /// Σ g² of each parameter that has a gradient, in module order, in one transfer from the device.
    fn sums_of_squares(&self) -> Vec<Option<f64>> {
        let gradients: Vec<&Tensor<1>> = self.sums.iter().flatten().collect();
        let mut squares = sums_of_squares(&gradients).into_iter();
        self.sums.iter().map(|sum| sum.as_ref().and_then(|_| squares.next())).collect()
    }

    pub(crate) fn take(&mut self, idx: usize) -> Option<Tensor<1>> {
        self.sums.get_mut(idx)?.take()
    }
}

struct DonateBuffers<'a> {
    sums: &'a mut [Option<Tensor<1>>],
    idx: usize,
}

impl ModuleVisitor for DonateBuffers<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let slot = self.sums.get_mut(self.idx);
        self.idx += 1;
        let Some(slot) = slot else { return };
        *slot = slot.take().and_then(|sum| donate_grad_buffer(&param.val(), sum));
    }
}

struct Accumulate<'a> {
    gradients: BurnGradients,
    sums: &'a mut [Option<Tensor<1>>],
    idx: usize,
}

impl ModuleVisitor for Accumulate<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let slot = self.sums.get_mut(self.idx);
        self.idx += 1;
        let Some(slot) = slot else { return };
        if let Some(sum) = reclaim_grad_buffer(&param.val()) {
            *slot = Some(sum);
        }
        let Some(gradient) = param.val().grad_remove(&mut self.gradients) else { return };
        let n: usize = gradient.dims().iter().product();
        let gradient = gradient.inner().reshape([n]);
        *slot = Some(accumulate(slot.take(), gradient));
    }
}
