//! How a stage begins: its session opened, weights and moments taken up from a checkpoint, from what it starts from, or
//! fresh, and a save tried once. The loop that follows is the stage's own.

use std::path::PathBuf;

use burn::tensor::Device;
use fsio::DirWriter;
use model::{CausalLm, SavedModel, load_causal_lm};
use plan::{Plan, StagePlan, Start};
use seed::Purpose;

use crate::{
    AdamW, Checks, Error, Finished, FirstLoss, ParameterNames, Progress, Result, RunDir, StageRun,
    StageSettings, StopFlag, compare_model, save_model,
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
pub struct Begun<'a, M = CausalLm> {
    /// The session: logs, counters, checkpoints.
    pub run: StageRun<'a>,
    /// The weights.
    pub model: M,
    /// The moments.
    pub optimizer: AdamW,
    /// The parameters in module order.
    pub names: ParameterNames,
    /// The checks of the first minute.
    pub checks: Checks,
}

/// Begins a stage that trains a language model.
pub fn begin(context: Context<'_>) -> Result<Begun<'_>> {
    let (plan, stage, run_dir, device) =
        (context.plan, context.stage, context.run_dir, context.device);
    let vocab_size = stage.config.vocab_size();
    begin_with(context, || {
        let first_loss = match &stage.start {
            Start::Fresh => FirstLoss::Fresh { vocab_size },
            Start::Stage(_) | Start::Directory(_) => FirstLoss::Pretrained { vocab_size },
        };
        Ok((first_model(plan, stage, run_dir, device)?, first_loss))
    })
}

/// Opens the session and takes up the newest checkpoint, or begins anew with what `first` gives: the first weights, and
/// what the first loss must be near.
///
/// Before a first step a checkpoint is written, read back, compared and removed, so that a disk or a model that
/// cannot be saved stops the run while nothing is lost.
pub fn begin_with<M: SavedModel>(
    context: Context<'_>,
    first: impl FnOnce() -> Result<(M, FirstLoss)>,
) -> Result<Begun<'_, M>> {
    let Context { plan, stage, run_dir, device, progress, stop } = context;
    let dtype = arch::Dtype::F32;
    let settings = StageSettings {
        stage: stage.name.clone(),
        max_steps: stage.max_steps,
        n_parameters: stage.cost.n_parameters,
        n_trained: stage.cost.n_trained,
        keys: stage.keys.clone(),
        recipe_toml: plan.recipe_toml.clone(),
        side_files: export::description_files(
            &stage.config,
            M::ARCHITECTURE,
            &stage.tokenizer,
            dtype,
        )?,
        inputs: stage.inputs.clone(),
    };
    let mut run = StageRun::open(run_dir, settings, progress, stop)?;
    let resumed = run.resume()?;
    let (model, first_loss) = match &resumed {
        Some(checkpoint) => (M::load(&checkpoint.dir, device)?, FirstLoss::Unknown),
        None => first()?,
    };
    let names = ParameterNames::of(&model);
    let settings = stage.keys.optimizer.clone();
    let optimizer = match &resumed {
        Some(checkpoint) => AdamW::load(&checkpoint.dir, settings, &names, device)?,
        None => AdamW::new(settings, &names),
    };
    let checks = Checks::start(plan.checks, &model, &names, first_loss);
    if resumed.is_none() && plan.checks.dry_save {
        run.dry_save(
            |dir| write_checkpoint(dir, &model, &optimizer),
            |dir| compare_model(dir, &model, &names),
        )?;
    }
    Ok(Begun { run, model, optimizer, names, checks })
}

/// Writes weights and moments into a checkpoint's folder.
pub fn write_checkpoint<M: SavedModel>(
    dir: &mut DirWriter,
    model: &M,
    optimizer: &AdamW,
) -> Result<()> {
    save_model(dir, |out| model.write_safetensors(out, arch::Dtype::F32))?;
    optimizer.save(dir)
}

fn first_model(
    plan: &Plan,
    stage: &StagePlan,
    run_dir: &RunDir,
    device: &Device,
) -> Result<CausalLm> {
    match start_dir(stage, run_dir)? {
        None => {
            let seed = seed::derive(plan.seed, &stage.name, Purpose::Init, 0, 0);
            Ok(CausalLm::init(&stage.config, seed, device))
        }
        Some(dir) => Ok(load_causal_lm(&dir, device)?),
    }
}

/// Where a stage's first weights lie; none for new ones.
pub fn start_dir(stage: &StagePlan, run_dir: &RunDir) -> Result<Option<PathBuf>> {
    match &stage.start {
        Start::Fresh => Ok(None),
        Start::Directory(dir) => Ok(Some(dir.clone())),
        Start::Stage(name) => {
            let dir = run_dir.stage(name).model();
            if !dir.is_dir() {
                return Err(Error::StageNotRun { stage: stage.name.clone(), start: name.clone() });
            }
            Ok(Some(dir))
        }
    }
}
