//! How a stage begins: its session opened, weights and moments taken up from a checkpoint, from what it starts from, or
//! fresh, and a save tried once. The loop that follows is the stage's own.

use std::path::Path;

use burn::tensor::Device;
use fsio::DirWriter;
use model::{Adaptable, CausalLm};
use nn::DropoutKey;
use plan::{Plan, StagePlan};
use recipe::Checkpointing;
use seed::Purpose;

use crate::weights::{ModelSource, first_weights, resumed_weights};
use crate::{
    BaseModelCache, Checks, Collective, Error, Finished, FirstLoss, Optimizer, ParameterNames,
    Progress, Result, RunDir, SaveFormat, StageRun, StageSettings, StopFlag, TrainedModel,
    WeightSource, Weights,
};

/// What a stage is given to run.
pub struct Context<'a> {
    /// The whole pipeline.
    pub plan: &'a Plan,
    /// This stage of it.
    pub stage: &'a StagePlan,
    /// The run's folder, locked by this process.
    pub run_dir: &'a RunDir,
    /// Where it computes, with autodiff.
    pub device: &'a Device,
    /// Whoever watches.
    pub progress: &'a mut dyn Progress,
    /// Whether somebody asked to stop.
    pub stop: StopFlag,
    /// The replicas that take part; [`crate::SingleReplica`] on one device.
    pub replicas: &'a dyn Collective,
}

/// How a stage ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All steps were made, and `model/` is in place.
    Finished(Finished),
    /// A signal stopped it after this many steps, with a checkpoint saved.
    Stopped {
        /// Steps made.
        step: u64,
    },
}

/// What a stage's loop works on.
pub struct StageState<'a, M = CausalLm> {
    /// The session: logs, counters, checkpoints.
    pub run: StageRun<'a>,
    /// The weights, with gradients for what is trained.
    pub model: M,
    /// The optimizer with its state.
    pub optimizer: Optimizer,
    /// The parameters in module order.
    pub names: ParameterNames,
    /// The checks of the first minute.
    pub checks: Checks,
    /// The form in which the weights are kept.
    pub save_format: SaveFormat,
    /// The masks of an adapter's dropout.
    pub dropout: Dropout,
}

/// Draws the masks of an adapter's dropout: functions of the run's seed, the step and the micro-batch, so that a resumed
/// run draws the same.
#[derive(Clone, Debug)]
pub struct Dropout {
    key: DropoutKey,
    seed: u64,
    stage: String,
}

impl Dropout {
    /// Call it before each forward that is trained on; without dropout it changes nothing.
    pub fn draw(&self, step: u64, micro_idx: usize) {
        let index = micro_idx as u64;
        self.key.set(seed::derive(self.seed, &self.stage, Purpose::Dropout, step, index));
    }
}

/// Begins a stage that trains a language model on the next token.
pub fn start_or_resume(context: Context<'_>) -> Result<StageState<'_>> {
    let vocab_size = context.stage.config.vocab_size();
    start_or_resume_with(context, |origin| match origin {
        WeightSource::New => FirstLoss::Fresh { vocab_size },
        WeightSource::Trained | WeightSource::NewHead => FirstLoss::Pretrained { vocab_size },
    })
}

/// Opens the session and takes up the newest checkpoint, or begins anew with the weights that the plan names; what the
/// first loss must be near follows from where those came from.
///
/// Before a first step a checkpoint is written, read back, compared and removed, so that a disk or a model that
/// cannot be saved stops the run while nothing is lost.
pub fn start_or_resume_with<M: TrainedModel>(
    context: Context<'_>,
    first_loss: impl FnOnce(WeightSource) -> FirstLoss,
) -> Result<StageState<'_, M>> {
    let Context { plan, stage, run_dir, device, progress, stop, replicas } = context;
    let turn = LeaderFirst::wait(replicas)?;
    let settings = StageSettings::of(plan, stage);
    let mut run = StageRun::open_as(replicas, run_dir, settings, progress, stop)?;
    let resumed = run.resume()?;
    let weights: Weights<M> = match &resumed {
        Some(checkpoint) => resumed_weights(plan, stage, &checkpoint.dir, device)?,
        None => {
            let mut bases = BaseModelCache::new(device).with_base_dtype(stage.lora.as_ref());
            first_weights(plan, ModelSource::of(stage), run_dir, &mut bases)?
        }
    };
    let Weights { model, save_format, origin, dropout } = weights;
    let model = with_checkpointing(model, stage, device)?;
    run.set_side_files(save_format.side_files::<M>(stage)?);
    let first_loss = if resumed.is_some() { FirstLoss::Unknown } else { first_loss(origin) };
    let names = ParameterNames::of(&model);
    let settings = stage.keys.optimizer.clone();
    let optimizer = match &resumed {
        Some(checkpoint) => Optimizer::load(&checkpoint.dir, settings, &model, device)?,
        None => Optimizer::new(settings, &model)?,
    };
    let checks = Checks::start(plan.checks, &model, &names, first_loss);
    if resumed.is_none() && plan.checks.dry_save && replicas.is_leader() {
        run.dry_save(
            |dir| write_checkpoint(dir, &save_format, &model, &optimizer),
            |dir| save_format.compare(dir, &model),
        )?;
    }
    let dropout = Dropout { key: dropout, seed: plan.seed, stage: stage.name.clone() };
    turn.end()?;
    Ok(StageState { run, model, optimizer, names, checks, save_format, dropout })
}

/// The model as the stage's `checkpointing` says.
///
/// Errors: a device on which it would save nothing.
pub fn with_checkpointing<M: Adaptable>(
    mut model: M,
    stage: &StagePlan,
    device: &Device,
) -> Result<M> {
    let recomputes = stage.keys.checkpointing == Checkpointing::Block;
    if recomputes && !kernels::recomputes_on(device) {
        return Err(Error::Checkpointing { stage: stage.name.clone() });
    }
    model.backbone_mut().recompute_blocks(recomputes);
    Ok(model)
}

/// A replica's turn at the files of a run: the leader's comes first, for it may write what the others read.
#[must_use]
pub struct LeaderFirst<'a> {
    replicas: &'a dyn Collective,
}

impl<'a> LeaderFirst<'a> {
    /// Waits until the leader has had its turn.
    pub fn wait(replicas: &'a dyn Collective) -> Result<Self> {
        if !replicas.is_leader() {
            replicas.barrier()?;
        }
        Ok(Self { replicas })
    }

    /// Lets the others go on.
    pub fn end(self) -> Result<()> {
        if self.replicas.is_leader() { self.replicas.barrier() } else { Ok(()) }
    }
}

/// Writes weights and moments into a checkpoint's folder.
pub fn write_checkpoint<M: TrainedModel>(
    dir: &mut DirWriter,
    save_format: &SaveFormat,
    model: &M,
    optimizer: &Optimizer,
) -> Result<()> {
    save_format.write(dir, model)?;
    optimizer.save(dir)
}

/// Writes a finished stage's `model/`: a Hugging Face folder, or an adapter's.
pub fn write_model<M: TrainedModel>(
    dir: &Path,
    save_format: &SaveFormat,
    model: &M,
    stage: &StagePlan,
) -> Result<()> {
    if *save_format == SaveFormat::Whole {
        export::hugging_face(model, &stage.tokenizer, arch::Dtype::F32, dir)?;
        return Ok(());
    }
    let mut writer = DirWriter::begin(dir)?;
    save_format.write(&mut writer, model)?;
    for (name, bytes) in save_format.side_files::<M>(stage)? {
        writer.write(&name, bytes)?;
    }
    writer.commit(serde_json::Value::Null)?;
    Ok(())
}
