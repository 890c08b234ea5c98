//! The models of GRPO at the start of a stage. Only the policy is trained; its first weights are the reference, where the recipe
//! needs one.

use std::path::Path;

use burn::tensor::Device;
use fsio::DirWriter;
use model::CausalLm;
use plan::{GrpoPlan, Plan, StagePlan};
use rl::{RewardSources, moved_towards};
use train::{
    BaseModelCache, Checks, Context, FirstLoss, LeaderFirst, Learner, ModelSource, Optimizer,
    ParameterNames, RunDir, SaveFormat, StageRun, StageSettings, Weights, average_of,
    first_weights, load_trained, save_trained, weight_inputs, with_checkpointing,
};

use crate::Result;

/// The state that the training loop updates, and the frozen models.
pub(crate) struct State<'a> {
    pub(crate) run: StageRun<'a>,
    pub(crate) policy: CausalLm,
    pub(crate) learner: Learner<'a>,
    pub(crate) save_format: SaveFormat,
    /// The policy before its first update.
    pub(crate) initial: CausalLm,
    /// The reference model, if the recipe needs one.
    pub(crate) reference: Option<CausalLm>,
    pub(crate) sources: RewardSources,
}

/// The models with their initial weights.
pub(crate) struct First {
    pub(crate) policy: CausalLm,
    pub(crate) save_format: SaveFormat,
    pub(crate) initial: CausalLm,
    pub(crate) sources: RewardSources,
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
    let at_once = grpo.sampled_together(stage.micro_batch);
    let sources = RewardSources::open(&grpo.rewards, stage, run_dir, &mut bases, at_once)?;
    let initial = generate::without_autodiff(&policy).into_owned();
    let policy = with_checkpointing(policy, stage, device)?;
    Ok(First { policy, save_format, initial, sources })
}

/// Reads the models, and resumes from the newest checkpoint if there is one.
pub(crate) fn start_or_resume<'a>(context: Context<'a>, grpo: &GrpoPlan) -> Result<State<'a>> {
    let Context { plan, stage, run_dir, device, progress, stop, replicas } = context;
    let turn = LeaderFirst::wait(replicas)?;
    let settings = StageSettings::of(plan, stage).with_weights(weight_inputs(stage, run_dir)?);
    let mut run = StageRun::open_as(replicas, run_dir, settings, progress, stop)?;
    let resumed = run.resume()?;

    // Initial weights are needed in any case, for the answers before the first update.
    let First { policy, save_format, initial, sources } =
        first(plan, stage, grpo, run_dir, device)?;
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
            |dir| train::write_checkpoint(dir, &save_format, &policy, &learner),
            |dir| save_format.compare(dir, &policy),
        )?;
    }
    let reference = reference(grpo, &initial, &policy, resumed_dir)?;
    turn.end()?;
    Ok(State { run, policy, learner, save_format, initial, reference, sources })
}

/// The file of a checkpoint with the trained parameters of a reference model that follows the policy.
const REFERENCE_FILE: &str = "reference.safetensors";

/// The reference model: the policy's first weights, or those of the checkpoint if it follows the policy.
fn reference(
    grpo: &GrpoPlan,
    initial: &CausalLm,
    policy: &CausalLm,
    resumed: Option<&Path>,
) -> Result<Option<CausalLm>> {
    match resumed {
        _ if !grpo.has_reference => Ok(None),
        Some(dir) if grpo.section.sync_ref_model => {
            let saved = load_trained(policy.clone(), &dir.join(REFERENCE_FILE), &str::to_owned)?;
            Ok(Some(generate::without_autodiff(&saved).into_owned()))
        }
        _ => Ok(Some(initial.clone())),
    }
}

/// Writes a checkpoint, with the reference model if it follows the policy.
pub(crate) fn write_checkpoint(
    dir: &mut DirWriter,
    save_format: &SaveFormat,
    policy: &CausalLm,
    learner: &Learner<'_>,
    followed_by: Option<&CausalLm>,
) -> train::Result<()> {
    train::write_checkpoint(dir, save_format, policy, learner)?;
    match followed_by {
        None => Ok(()),
        Some(reference) => {
            let saved = moved_towards(policy.clone(), reference, 1.0, policy);
            save_trained(dir, REFERENCE_FILE, &saved)
        }
    }
}
