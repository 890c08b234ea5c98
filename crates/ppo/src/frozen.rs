//! The four models of PPO as a stage begins: policy and value model, which learn, and their frozen company. Models on the
//! same base share its weights.
//!
//! It deliberately has no loop.

use burn::tensor::Device;
use model::{CausalLm, ScalarModel};
use plan::{Plan, PpoPlan, StagePlan};
use rl::ActorCritic;
use train::{
    BaseModelCache, Checks, Context, FirstLoss, LeaderFirst, ModelSource, Optimizer,
    ParameterNames, RunDir, SaveFormat, StageRun, StageSettings, Weights, compare_trained,
    first_weights, load_trained, start_dir, with_checkpointing,
};

use crate::{Error, Result, VALUE_FILE, write_checkpoint};

/// The models that do not learn.
#[derive(Debug)]
pub struct FrozenModels {
    /// What the policy was before its first update.
    pub reference: CausalLm,
    /// What scores answers.
    pub reward: ScalarModel,
}

/// What the loop works on.
pub(crate) struct StageState<'a> {
    pub(crate) run: StageRun<'a>,
    pub(crate) actors: ActorCritic,
    pub(crate) optimizer: Optimizer,
    pub(crate) checks: Checks,
    /// How the policy is kept.
    pub(crate) save_format: SaveFormat,
    pub(crate) frozen: FrozenModels,
}

/// The models as a run begins with them.
pub(crate) struct First {
    pub(crate) actors: ActorCritic,
    pub(crate) save_format: SaveFormat,
    pub(crate) frozen: FrozenModels,
}

/// Reads the models that the plan names; those on the same base share its weights.
pub(crate) fn first(
    plan: &Plan,
    stage: &StagePlan,
    run_dir: &RunDir,
    device: &Device,
) -> Result<First> {
    let ppo = stage.ppo.as_ref().ok_or(Error::NoSection)?;
    let mut bases = BaseModelCache::new(device).with_base_dtype(stage.lora.as_ref());
    let first: Weights<CausalLm> =
        first_weights(plan, ModelSource::of(stage), run_dir, &mut bases)?;
    let Weights { model: policy, save_format, .. } = first.without_dropout();
    let role =
        ModelSource { stage, name: "value-base", start: &ppo.value, lora: ppo.value_lora.as_ref() };
    let value: Weights<ScalarModel> = first_weights(plan, role, run_dir, &mut bases)?;
    let value = value.without_dropout().model;
    let reward = reward_model(ppo, stage, run_dir, &mut bases)?;
    let reference = generate::without_autodiff(&policy).into_owned();
    let policy = with_checkpointing(policy, stage, device)?;
    let value = with_checkpointing(value, stage, device)?;
    let (actors, frozen) = (ActorCritic { policy, value }, FrozenModels { reference, reward });
    Ok(First { actors, save_format, frozen })
}

/// Opens the session, reads the models, and takes up the newest checkpoint where there is one.
pub(crate) fn start_or_resume(context: Context<'_>) -> Result<StageState<'_>> {
    let Context { plan, stage, run_dir, device, progress, stop, replicas } = context;
    let turn = LeaderFirst::wait(replicas)?;
    let settings = StageSettings::of(plan, stage);
    let mut run = StageRun::open_as(replicas, run_dir, settings, progress, stop)?;
    let resumed = run.resume()?;

    // First weights in any case: the reference is what the policy was before its first update.
    let First { actors, save_format, frozen } = first(plan, stage, run_dir, device)?;
    let actors = match &resumed {
        None => actors,
        Some(checkpoint) => ActorCritic {
            policy: save_format.load_into(&checkpoint.dir, actors.policy)?,
            value: load_trained(actors.value, &checkpoint.dir.join(VALUE_FILE), "")?,
        },
    };

    run.set_side_files(save_format.side_files::<CausalLm>(stage)?);
    let names = ParameterNames::of(&actors);
    let settings = stage.keys.optimizer.clone();
    let optimizer = match &resumed {
        Some(checkpoint) => Optimizer::load(&checkpoint.dir, settings, &actors, device)?,
        None => Optimizer::new(settings, &actors)?,
    };
    let checks = Checks::start(plan.checks, &actors, &names, FirstLoss::Unknown);
    if resumed.is_none() && plan.checks.dry_save && replicas.is_leader() {
        run.dry_save(
            |dir| write_checkpoint(dir, &save_format, &actors, &optimizer),
            |dir| {
                save_format.compare(dir, &actors.policy)?;
                compare_trained(&dir.join(VALUE_FILE), "", &actors.value)
            },
        )?;
    }
    turn.end()?;
    Ok(StageState { run, actors, optimizer, checks, save_format, frozen })
}

fn reward_model(
    ppo: &PpoPlan,
    stage: &StagePlan,
    run_dir: &RunDir,
    bases: &mut BaseModelCache,
) -> Result<ScalarModel> {
    let dir = start_dir(stage, &ppo.reward, run_dir)?.ok_or(Error::NoSection)?;
    let reward: ScalarModel = bases.open(&dir)?;
    Ok(model::train_only(reward, &|_| false))
}
