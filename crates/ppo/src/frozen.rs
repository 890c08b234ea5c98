//! The models of PPO at the start of a stage: the policy and value models are trained; the reference and reward models
//! stay frozen. Models on the same base share its weights.

use burn::tensor::Device;
use model::{CausalLm, ScalarModel};
use plan::{Plan, PpoPlan, StagePlan};
use rl::{ActorCritic, RewardSources};
use train::{
    BaseModelCache, Checks, Context, FirstLoss, LeaderFirst, Learner, ModelSource, Optimizer,
    ParameterNames, RunDir, SaveFormat, StageRun, StageSettings, Weights, average_of,
    compare_trained, first_weights, load_trained, weight_inputs, with_checkpointing,
};

use crate::{Result, VALUE_FILE, write_checkpoint};

/// The frozen models.
#[derive(Debug)]
pub struct FrozenModels {
    /// Reference model: the policy before its first update.
    pub reference: CausalLm,
    /// Reward models, judges and programs.
    pub sources: RewardSources,
}

/// The state that the training loop updates.
pub(crate) struct StageState<'a> {
    pub(crate) run: StageRun<'a>,
    pub(crate) actors: ActorCritic,
    pub(crate) learner: Learner<'a>,
    /// The form in which the policy is saved.
    pub(crate) save_format: SaveFormat,
    pub(crate) frozen: FrozenModels,
}

/// The models with their initial weights.
pub(crate) struct First {
    pub(crate) actors: ActorCritic,
    pub(crate) save_format: SaveFormat,
    pub(crate) frozen: FrozenModels,
}

/// Reads the models that the plan names; those on the same base share its weights.
pub(crate) fn first(
    plan: &Plan,
    stage: &StagePlan,
    ppo: &PpoPlan,
    run_dir: &RunDir,
    device: &Device,
) -> Result<First> {
    let mut bases = BaseModelCache::new(device)
        .with_base_dtype(stage.lora.as_ref())
        .training(ppo.value_lora.as_ref());
    let first: Weights<CausalLm> =
        first_weights(plan, ModelSource::of(stage), run_dir, &mut bases)?;
    let Weights { model: policy, save_format, .. } = first.without_dropout();
    let role =
        ModelSource { stage, name: "value-base", start: &ppo.value, lora: ppo.value_lora.as_ref() };
    let value: Weights<ScalarModel> = first_weights(plan, role, run_dir, &mut bases)?;
    let value = value.without_dropout().model;
    let at_once = stage.micro_batch.max(plan::MIN_SAMPLED_TOGETHER);
    let sources = RewardSources::open(&ppo.rewards, stage, run_dir, &mut bases, at_once)?;
    let reference = generate::without_autodiff(&policy).into_owned();
    let policy = with_checkpointing(policy, stage, device)?;
    let value = with_checkpointing(value, stage, device)?;
    let (actors, frozen) = (ActorCritic { policy, value }, FrozenModels { reference, sources });
    Ok(First { actors, save_format, frozen })
}

/// Reads the models, and resumes from the newest checkpoint if there is one.
pub(crate) fn start_or_resume<'a>(context: Context<'a>, ppo: &PpoPlan) -> Result<StageState<'a>> {
    let Context { plan, stage, run_dir, device, progress, stop, replicas } = context;
    let turn = LeaderFirst::wait(replicas)?;
    let settings = StageSettings::of(plan, stage).with_weights(weight_inputs(stage, run_dir)?);
    let mut run = StageRun::open_as(replicas, run_dir, settings, progress, stop)?;
    let resumed = run.resume()?;

    // Initial weights are needed in any case: the reference is the policy before its first update.
    let First { actors, save_format, frozen } = first(plan, stage, ppo, run_dir, device)?;
    let actors = match &resumed {
        None => actors,
        Some(checkpoint) => ActorCritic {
            policy: save_format.load_into(&checkpoint.dir, actors.policy)?,
            value: load_trained(actors.value, &checkpoint.dir.join(VALUE_FILE), &str::to_owned)?,
        },
    };

    run.set_side_files(save_format.side_files::<CausalLm>(stage, run_dir)?);
    let names = ParameterNames::of(&actors);
    let settings = stage.keys.optimizer.clone();
    let optimizer = match &resumed {
        Some(checkpoint) => Optimizer::load(&checkpoint.dir, settings, &actors, device)?,
        None => Optimizer::new(settings, &actors)?,
    };
    let checks = Checks::start(plan.checks, &actors, &names, FirstLoss::Unknown);
    let resumed_dir = resumed.as_ref().map(|checkpoint| checkpoint.dir.as_path());
    let average = average_of(stage, resumed_dir, &actors, device)?;
    let learner = Learner { optimizer, names, checks, average, replicas, device };
    if resumed.is_none() && plan.checks.dry_save && replicas.is_leader() {
        run.dry_save(
            |dir| write_checkpoint(dir, &save_format, &actors, &learner),
            |dir| {
                save_format.compare(dir, &actors.policy)?;
                compare_trained(&dir.join(VALUE_FILE), &str::to_owned, &actors.value)
            },
        )?;
    }
    turn.end()?;
    Ok(StageState { run, actors, learner, save_format, frozen })
}
