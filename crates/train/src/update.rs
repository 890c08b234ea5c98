//! One optimizer update: from the sums of a step to checked new weights, the same on every replica.
//!
//! Forward and backward passes stay in the loop of each stage.

use burn::module::Module;
use burn::tensor::Device;
use fsio::DirWriter;
use model::ExpertLoad;

use crate::parameters::fingerprints;
use crate::stage_run::StepReport;
use crate::{
    Checks, Collective, Error, Gradients, Optimizer, ParameterNames, Result, SingleReplica,
    StepPlace, WeightAverage,
};

/// Everything that turns gradients into an update, the model apart.
pub struct Learner<'a> {
    /// The optimizer and its state.
    pub optimizer: Optimizer,
    /// The parameters in module order.
    pub names: ParameterNames,
    /// The run-time checks.
    pub checks: Checks,
    /// The average of the trained weights, with `ema`.
    pub average: Option<WeightAverage>,
    /// The replicas that share each step.
    pub replicas: &'a dyn Collective,
    /// The device of the model, with autodiff.
    pub device: &'a Device,
}

impl<'a> Learner<'a> {
    /// A learner for one replica without run-time checks, for replays and benchmarks.
    pub fn unchecked(optimizer: Optimizer, names: ParameterNames, device: &'a Device) -> Self {
        let checks = Checks::none(&names);
        let (average, replicas) = (None, &SingleReplica);
        Self { optimizer, names, checks, average, replicas, device }
    }

    /// Starts a step whose mean loss is over `n_terms` targets, pairs or episodes on all replicas together.
    ///
    /// Errors: `n_terms` is 0 and the check `targets` is on.
    pub fn begin_step<'s>(&self, n_terms: u64, place: StepPlace<'s>) -> Result<StepSums<'s>> {
        self.checks.targets(n_terms, place)?;
        let (gradients, expert_load) = (Gradients::new(&self.names), ExpertLoad::default());
        Ok(StepSums { gradients, loss: 0.0, expert_load, n_terms, place })
    }

    /// Writes the optimizer state and the average of the weights into a checkpoint.
    pub fn save(&self, dir: &mut DirWriter) -> Result<()> {
        self.optimizer.save(dir)?;
        self.average.as_ref().map_or(Ok(()), |average| average.save(dir))
    }

    /// The model with the weights that are evaluated and exported: averaged ones with `ema`, else those of the last update.
    ///
    /// Drop it before the next update, which otherwise copies every weight.
    pub fn evaluated<M: Module>(&self, model: &M) -> M {
        match &self.average {
            Some(average) => average.applied(model),
            None => model.clone(),
        }
    }
}

/// Sums over one replica's share of a step: the loss is a sum over terms, divided once by their number in the whole step.
/// Splitting the step into micro-batches therefore bounds memory and changes nothing else.
#[derive(Debug)]
pub struct StepSums<'s> {
    /// Gradients of the summed loss.
    pub gradients: Gradients,
    /// The summed loss.
    pub loss: f64,
    /// Tokens of each expert in this replica's share; metrics have those of the leader.
    pub expert_load: ExpertLoad,
    /// Terms of the mean, in the whole step.
    n_terms: u64,
    place: StepPlace<'s>,
}

/// Makes one update with learning rate `lr`: reduces sums over replicas, checks loss and gradients, clips by the global
/// norm, steps the optimizer, checks the new weights, compares them between replicas and averages them.
///
/// Errors: a non-finite loss or gradient, with the weights as before the step; a failed check; a lost replica.
pub fn apply_update<M: Module>(
    model: M,
    learner: &mut Learner<'_>,
    sums: StepSums<'_>,
    lr: f64,
) -> Result<(M, StepReport)> {
    let Learner { optimizer, checks, average, replicas, device, .. } = learner;
    let StepSums { mut gradients, loss, expert_load, n_terms, place } = sums;
    let loss = replicas.sum(loss)? / n_terms as f64;
    checks.loss(loss, place)?;
    gradients.all_reduce(*replicas, device)?;
    // The norm of the mean gradient. A non-finite one is an error, so it never reaches weights or optimizer state.
    let norm = gradients.norm(n_terms, place)?;
    checks.gradients(&gradients);
    let model = optimizer.step(model, gradients, norm, lr);
    checks.updated(&model, lr, place)?;
    compare_replicas(*replicas, &model, place.step)?;
    if let Some(average) = average {
        average.update(&model);
    }
    let (grad_norm, extra) = (norm.value(), expert_load.metrics());
    let report = StepReport { loss, grad_norm, lr, extra, ..StepReport::default() };
    Ok((model, report))
}

/// Compares the weights of all replicas; a difference is a bug and an error.
///
/// `step` is the 1-based number of the update. The comparison reads all weights, so it is made at steps that are powers of
/// two or multiples of 1024.
pub fn compare_replicas<M: Module>(replicas: &dyn Collective, model: &M, step: u64) -> Result<()> {
    if replicas.world_size() == 1 || !(step.is_power_of_two() || step.is_multiple_of(1024)) {
        return Ok(());
    }
    let halves = |hash: u64| [(hash >> 32) as f64, f64::from(hash as u32)];
    let mine = fingerprints(model).into_iter().flat_map(|print| halves(print.hash)).collect();
    let all = replicas.all_gather(mine)?;
    let first = all.first();
    match all.iter().position(|other| Some(other) != first) {
        Some(rank) => Err(Error::ReplicasDiffer { rank, step }),
        None => Ok(()),
    }
}
