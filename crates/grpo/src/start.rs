//! The models of GRPO at the start of a stage. Only the policy is trained; its first weights are the reference, where the recipe
//! needs one.

use burn::tensor::Device;
use model::{CausalLm, ScalarModel};
use plan::{GrpoPlan, Plan, StagePlan};
use train::{
    BaseModelCache, Checks, Context, FirstLoss, LeaderFirst, Learner, ModelSource, Optimizer,
    ParameterNames, RunDir, SaveFormat, StageRun, StageSettings, Weights, average_of,
    first_weights, start_dir, weight_inputs, with_checkpointing, write_checkpoint,
};

use crate::{Error, Result};

/// The state that the training loop updates, and the frozen models.
pub(crate) struct State<'a> {
    pub(crate) run: StageRun<'a>,
    pub(crate) policy: CausalLm,
    pub(crate) learner: Learner<'a>,
    pub(crate) save_format: SaveFormat,
    /// The policy before its first update.
    pub(crate) initial: CausalLm,
    pub(crate) reward: Option<ScalarModel>,
}

/// The models with their initial weights.
pub(crate) struct First {
    pub(crate) policy: CausalLm,
    pub(crate) save_format: SaveFormat,
    pub(crate) initial: CausalLm,
    pub(crate) reward: Option<ScalarModel>,
}

/// Reads the models that the plan names; those on the same base share its weights.
pub(crate) fn first(
    plan: &Plan,
    stage: &StagePlan,
    grpo: &GrpoPlan,
    run_dir: &RunDir,
    device: &Device,
) -> Result<First> {
    let mut bases = BaseModelCache::new(device).with_base_dtype(stage.lora.as_ref());
    let first: Weights<CausalLm> =
        first_weights(plan, ModelSource::of(stage), run_dir, &mut bases)?;
    let Weights { model: policy, save_format, .. } = first.without_dropout();
    let reward = match &grpo.reward {
        None => None,
        Some(planned) => {
            let dir = start_dir(stage, &planned.start, run_dir)?.ok_or(Error::NoRewardModel)?;
            let reward: ScalarModel = bases.open(&dir)?;
            Some(model::train_only(reward, &|_| false))
        }
    };
    let initial = generate::without_autodiff(&policy).into_owned();
    let policy = with_checkpointing(policy, stage, device)?;
    Ok(First { policy, save_format, initial, reward })
}

/// Reads the models, and resumes from the newest checkpoint if there is one.
pub(crate) fn start_or_resume<'a>(context: Context<'a>, grpo: &GrpoPlan) -> Result<State<'a>> {
    let Context { plan, stage, run_dir, device, progress, stop, replicas } = context;
    let turn = LeaderFirst::wait(replicas)?;
    let settings = StageSettings::of(plan, stage).with_weights(weight_inputs(stage, run_dir)?);
    let mut run = StageRun::open_as(replicas, run_dir, settings, progress, stop)?;
    let resumed = run.resume()?;

    // Initial weights are needed in any case, for the answers before the first update.
    let First { policy, save_format, initial, reward } = first(plan, stage, grpo, run_dir, device)?;
    let policy = match &resumed {
        None => policy,
        Some(checkpoint) => save_format.load_into(&checkpoint.dir, policy)?,
    };

    run.set_side_files(save_format.side_files::<CausalLm>(stage, run_dir)?);
    let names = ParameterNames::of(&policy);
    let settings = stage.keys.optimizer.clone();
    let optimizer = match &resumed {
        Some(checkpoint) => Optimizer::load(&checkpoint.dir, settings, &policy, device)?,
        None => Optimizer::new(settings, &policy)?,
    };
    let checks = Checks::start(plan.checks, &policy, &names, FirstLoss::Unknown);
    let resumed_dir = resumed.as_ref().map(|checkpoint| checkpoint.dir.as_path());
    let average = average_of(stage, resumed_dir, &policy, device)?;
    let learner = Learner { optimizer, names, checks, average, replicas, device };
    if resumed.is_none() && plan.checks.dry_save && replicas.is_leader() {
        run.dry_save(
            |dir| write_checkpoint(dir, &save_format, &policy, &learner),
            |dir| save_format.compare(dir, &policy),
        )?;
    }
    turn.end()?;
    Ok(State { run, policy, learner, save_format, initial, reward })
}
