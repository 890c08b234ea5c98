//! Start and end of a stage: initial or resumed weights, optimizer state and run-time checks before the loop, `model/` after
//! it. The loop between them is in the stage's own crate.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use fsio::DirWriter;
use model::{Adaptable, CausalLm};
use nn::DropoutKey;
use plan::{Plan, StagePlan};
use recipe::Checkpointing;
use seed::Purpose;
use serde_json::json;

use crate::weight_inputs::weight_inputs;
use crate::weights::{ModelSource, first_weights, resumed_weights};
use crate::{
    BaseModelCache, Checks, Collective, Error, Finished, FirstLoss, Learner, Optimizer,
    ParameterNames, Progress, Result, RunDir, SaveFormat, StageRun, StageSettings, StopFlag,
    TrainedModel, WeightAverage, WeightSource, Weights,
};

/// The inputs of a stage.
pub struct Context<'a> {
    /// The plan of the pipeline.
    pub plan: &'a Plan,
    /// The stage to run.
    pub stage: &'a StagePlan,
    /// The run directory, locked by this process.
    pub run_dir: &'a RunDir,
    /// The device of the trained model, with autodiff.
    pub device: &'a Device,
    /// Receives progress events.
    pub progress: &'a mut dyn Progress,
    /// Set by a signal, or by a caller that wants the stage to stop.
    pub stop: StopFlag,
    /// The replicas that share each step; [`crate::SingleReplica`] on one device.
    pub replicas: &'a dyn Collective,
}

/// Outcome of a stage.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The stage is complete, and so is `model/`.
    Finished(Finished),
    /// A signal stopped the stage after it saved a checkpoint.
    Stopped {
        /// Number of updates made.
        step: u64,
    },
}

/// The state that the loop of a stage updates.
pub struct StageState<'a, M = CausalLm> {
    /// Directory, logs, counters and checkpoints.
    pub run: StageRun<'a>,
    /// The model; its trainable parameters require gradients.
    pub model: M,
    /// Optimizer, run-time checks and replicas.
    pub learner: Learner<'a>,
    /// The form in which weights are saved.
    pub save_format: SaveFormat,
    /// Dropout masks of an adapter.
    pub dropout: Dropout,
}

/// Dropout masks of an adapter: functions of the run's seed, the step and the micro-batch, so that a resumed run draws the
/// same masks.
#[derive(Clone, Debug)]
pub struct Dropout {
    key: DropoutKey,
    seed: u64,
    stage: String,
}

impl Dropout {
    /// Draws the masks of the next forward pass; does nothing without dropout.
    pub fn draw(&self, step: u64, micro_idx: usize) {
        let index = micro_idx as u64;
        self.key.set(seed::derive(self.seed, &self.stage, Purpose::Dropout, step, index));
    }
}

/// Starts or resumes a stage that trains a language model on the next token.
pub fn start_or_resume(context: Context<'_>) -> Result<StageState<'_>> {
    let vocab_size = context.stage.config.vocab_size();
    start_or_resume_with(context, |source| match source {
        WeightSource::New => FirstLoss::Fresh { vocab_size },
        WeightSource::Trained | WeightSource::NewHead => FirstLoss::Pretrained { vocab_size },
    })
}

/// Resumes from the newest checkpoint, or starts from the weights that the plan names; `first_loss` gives the expected
/// first loss by the source of those weights.
///
/// Before the first step a checkpoint is written, read back, compared and removed, so that a full disk or a model that
/// cannot be saved stops the run before anything is lost.
pub fn start_or_resume_with<M: TrainedModel>(
    context: Context<'_>,
    first_loss: impl FnOnce(WeightSource) -> FirstLoss,
) -> Result<StageState<'_, M>> {
    let Context { plan, stage, run_dir, device, progress, stop, replicas } = context;
    let turn = LeaderFirst::wait(replicas)?;
    let settings = StageSettings::of(plan, stage).with_weights(weight_inputs(stage, run_dir)?);
    let mut run = StageRun::open_as(replicas, run_dir, settings, progress, stop)?;
    let resumed = run.resume()?;
    let weights: Weights<M> = match &resumed {
        Some(checkpoint) => resumed_weights(plan, stage, &checkpoint.dir, device)?,
        None => {
            let mut bases = BaseModelCache::new(device).with_base_dtype(stage.lora.as_ref());
            first_weights(plan, ModelSource::of(stage), run_dir, &mut bases)?
        }
    };
    let Weights { model, save_format, source, dropout } = weights;
    let model = with_checkpointing(model, stage, device)?;
    run.set_side_files(save_format.side_files::<M>(stage, run_dir)?);
    let first_loss = if resumed.is_some() { FirstLoss::Unknown } else { first_loss(source) };
    let names = ParameterNames::of(&model);
    let settings = stage.keys.optimizer.clone();
    let optimizer = match &resumed {
        Some(checkpoint) => Optimizer::load(&checkpoint.dir, settings, &model, device)?,
        None => Optimizer::new(settings, &model)?,
    };
    let checks = Checks::start(plan.checks, &model, &names, first_loss);
    let resumed_dir = resumed.as_ref().map(|checkpoint| checkpoint.dir.as_path());
    let average = average_of(stage, resumed_dir, &model, device)?;
    let learner = Learner { optimizer, names, checks, average, replicas, device };
    if resumed.is_none() && plan.checks.dry_save && replicas.is_leader() {
        run.dry_save(
            |dir| write_checkpoint(dir, &save_format, &model, &learner),
            |dir| save_format.compare(dir, &model),
        )?;
    }
    let dropout = Dropout { key: dropout, seed: plan.seed, stage: stage.name.clone() };
    turn.end()?;
    Ok(StageState { run, model, learner, save_format, dropout })
}

/// The average of the trained weights, if the stage has `ema`: that of the checkpoint from which it resumes, or a new one.
pub fn average_of<M: Module>(
    stage: &StagePlan,
    resumed: Option<&Path>,
    model: &M,
    device: &Device,
) -> Result<Option<WeightAverage>> {
    let Some(decay) = stage.keys.ema else { return Ok(None) };
    Ok(Some(match resumed {
        Some(dir) => WeightAverage::load(dir, decay, model, device)?,
        None => WeightAverage::new(decay, model),
    }))
}

/// Turns recomputation of blocks on or off, by the stage's `checkpointing`.
///
/// Errors: `block` on a device where it saves no memory.
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

/// Orders the replicas' access to the run's files: the leader goes first, because it may write files that the others read.
#[must_use]
pub struct LeaderFirst<'a> {
    replicas: &'a dyn Collective,
}

impl<'a> LeaderFirst<'a> {
    /// Waits until the leader has finished; returns at once on the leader.
    pub fn wait(replicas: &'a dyn Collective) -> Result<Self> {
        if !replicas.is_leader() {
            replicas.barrier()?;
        }
        Ok(Self { replicas })
    }

    /// Releases the other replicas.
    pub fn end(self) -> Result<()> {
        if self.replicas.is_leader() { self.replicas.barrier() } else { Ok(()) }
    }
}

/// Writes weights, their average and the optimizer state into a checkpoint.
pub fn write_checkpoint<M: TrainedModel>(
    dir: &mut DirWriter,
    save_format: &SaveFormat,
    model: &M,
    learner: &Learner<'_>,
) -> Result<()> {
    save_format.write(dir, model)?;
    learner.save(dir)
}

/// Ends a stage: writes `model/` and marks the stage as finished, unless a signal stopped it before its last step.
///
/// `model` has the weights of the last update; see [`weights_to_export`].
pub fn finish_stage<M: TrainedModel>(
    mut run: StageRun<'_>,
    model: M,
    save_format: &SaveFormat,
    learner: &Learner<'_>,
) -> Result<Outcome> {
    if !run.is_done() {
        return Ok(Outcome::Stopped { step: run.step() });
    }
    if learner.replicas.is_leader() {
        let load = |dir: &Path, model| save_format.load_into(dir, model);
        let model = weights_to_export(&mut run, model, learner, load)?;
        write_model(&run.dir().model(), save_format, &model, run.side_files())?;
    }
    let mut result = json!(run.exported_eval());
    if let (Some(result), Some(first)) = (result.as_object_mut(), run.first_eval()) {
        result.insert("before".to_owned(), json!(first));
    }
    Ok(Outcome::Finished(run.finish(result)?))
}

/// The weights for `model/`: those of the checkpoint with the best evaluation if early stopping or `eval.export_best` asks
/// for them, else those of the last step, which `model` has. With `ema` they are averages.
///
/// `load` replaces the trained weights of a model by those of a checkpoint.
///
/// Errors: that checkpoint is missing or damaged.
pub fn weights_to_export<M: Module>(
    run: &mut StageRun<'_>,
    model: M,
    learner: &Learner<'_>,
    load: impl FnOnce(&Path, M) -> Result<M>,
) -> Result<M> {
    // The caller writes `model/` next.
    run.check_dir()?;
    let Some(best) = run.best_checkpoint()? else { return Ok(learner.evaluated(&model)) };
    if let Some(eval) = run.exported_eval() {
        let (step, measured, last) = (eval.step, run.measured(eval), run.step());
        run.note(format!(
            "exporting the weights of step {step}, the best evaluation ({measured}), not those of the last step, {last}"
        ));
    }
    match &learner.average {
        Some(average) => Ok(average.of_checkpoint(&best, learner.device)?.applied(&model)),
        None => load(&best, model),
    }
}

/// Writes the `model/` of a finished stage: a Hugging Face directory, or that of an adapter, with the stage's side files.
pub fn write_model<M: TrainedModel>(
    dir: &Path,
    save_format: &SaveFormat,
    model: &M,
    side_files: &[(String, Vec<u8>)],
) -> Result<()> {
    let mut writer = DirWriter::begin(dir)?;
    match save_format {
        SaveFormat::Whole => {
            export::write_weights(&mut writer, model, &export::Options::new(arch::Dtype::F32))?;
        }
        SaveFormat::Adapter { .. } => save_format.write(&mut writer, model)?,
    }
    for (name, bytes) in side_files {
        writer.write(name, bytes)?;
    }
    writer.commit(serde_json::Value::Null)?;
    Ok(())
}
