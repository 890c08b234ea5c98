//! Group-relative policy optimization on rewards (Shao et al. 2024, "DeepSeekMath") and its relatives, among them leave-one-out
//! REINFORCE (Ahmadian et al. 2024, "Back to Basics"). The computations of an update are in `rl`, where `temper verify` replays
//! them.

mod answers;
mod error;
mod rewarded;
mod sampled;
mod settings;
mod start;

use burn::tensor::Device;
use model::CausalLm;
use plan::{GrpoPlan, Plan, StagePlan};
use rl::{
    Prompts, ScoredGroups, StatedRewards, moved_towards, score_groups, update_groups, weights_hash,
};
use seed::Purpose;
use train::{Context, Outcome, RunDir, SingleReplica, StepReport, weights_to_export, write_model};

use sampled::{Sampled, Sampler};
use start::write_checkpoint;

pub use answers::{AnswerMetrics, sampling};
pub use error::{Error, Result};
pub use settings::settings;

/// Trains from the newest checkpoint, or from the policy's initial weights, to the last update.
pub fn run(context: Context<'_>, grpo: &GrpoPlan) -> Result<Outcome> {
    let (plan, stage, device, replicas) =
        (context.plan, context.stage, context.device, context.replicas);
    let (section, settings) = (&grpo.section, settings(grpo, stage));
    let start::State {
        mut run,
        mut policy,
        mut learner,
        save_format,
        initial,
        mut reference,
        sources,
    } = start::start_or_resume(context, grpo)?;
    let before = if replicas.is_leader() {
        answers::before(plan, stage, grpo, &initial, &sources, device)?
    } else {
        answers::Before::default()
    };
    drop(initial);
    let sync_steps = section.ref_model_sync_steps();
    // A reference model that follows the policy changes.
    let frozen_hash =
        |reference: Option<&CausalLm>| reference.filter(|_| sync_steps.is_none()).map(weights_hash);
    let reference_hash = frozen_hash(reference.as_ref());
    let sampler = Sampler { plan, stage, grpo, sources: &sources, device, replicas };

    if run.first_eval_due()
        && let Some(metrics) = &before.metrics
    {
        run.log_first_eval(metrics.row(0))?;
        if !metrics.is_rewarded() {
            run.warn_unrewarded_eval(&reward_names(grpo));
        }
    }
    evaluate::log_first_samples(&mut run, plan, stage, || learner.evaluated(&policy))?;

    while run.has_next_step() {
        // 1. Several completions of each prompt, and the reward of each.
        let step = run.step();
        let batch = stage.dataset.batch(step);
        let prompts = Prompts::of_batch(&batch, &stage.dataset);
        let Sampled { rollouts, rewards, metrics, .. } = sampler.groups(&policy, &prompts, step)?;

        // 2. The advantage of each completion over the others of its group.
        let mut scored = score_groups(
            rollouts,
            rewards,
            &policy,
            reference.as_ref(),
            &settings,
            device,
            replicas,
        )?;
        scored.metrics.extend(metrics);

        // 3. Updates on completions of all groups mixed: every pass takes them in the same order.
        let order = order(plan.seed, &stage.name, step, scored.episodes.len());
        let orders = vec![order; section.num_iterations];
        let lr = train::lr(&stage.keys.schedule, stage.keys.optimizer.lr, step, stage.max_steps);
        let updated = update_groups(policy, &mut learner, lr, &scored, &orders, &settings)?;
        policy = updated.policy;

        run.log_step(report(&scored, updated.metrics, lr))?;
        let n_unrewarded = scored.episodes.iter().filter(|e| e.reward.is_nan()).count();
        run.count_unrewarded(n_unrewarded, scored.episodes.len(), &reward_names(grpo));
        if sync_steps.is_some_and(|every| run.step().is_multiple_of(every)) {
            let alpha = section.ref_model_mixup_alpha();
            reference = reference.map(|model| moved_towards(model, &policy, alpha, &policy));
        }
        if run.sample_table_due() {
            let policy = learner.evaluated(&policy);
            let step = run.step();
            for row in answers::table(&policy, &before, plan, stage, grpo, &sources, step, device)?
            {
                run.log_sample(row)?;
            }
        }
        evaluate::log_samples(&mut run, plan, stage, || learner.evaluated(&policy))?;
        if run.eval_due() {
            let policy = learner.evaluated(&policy);
            let step = run.step();
            let mut is_rewarded = true;
            let validation = || {
                let metrics = answers::validation(plan, stage, grpo, &policy, &sources, device)?;
                is_rewarded = metrics.is_rewarded();
                Ok::<_, Error>(metrics.row(step))
            };
            run.log_eval(evaluate::evaluation(plan, stage, &policy, step, validation)?)?;
            if !is_rewarded {
                run.warn_unrewarded_eval(&reward_names(grpo));
            }
        }
        let followed_by = reference.as_ref().filter(|_| sync_steps.is_some());
        run.save_if_due(|dir| write_checkpoint(dir, &save_format, &policy, &learner, followed_by))?;
    }

    if !run.is_done() {
        return Ok(Outcome::Stopped { step: run.step() });
    }
    if frozen_hash(reference.as_ref()) != reference_hash {
        return Err(Error::ReferenceChanged);
    }
    if !replicas.is_leader() {
        return Ok(Outcome::Finished(run.finish(serde_json::Value::Null)?));
    }
    let load = |dir: &std::path::Path, policy: CausalLm| save_format.load_into(dir, policy);
    let policy = weights_to_export(&mut run, policy, &learner, load)?;
    run.warn_of_unrewarded(&reward_names(grpo));
    let result = answers::result(&before, run.exported_eval(), &policy, plan, stage, grpo)?;
    write_model(&run.dir().model(), &save_format, &policy, run.side_files())?;
    Ok(Outcome::Finished(run.finish(result)?))
}

/// Names of the rewards, for messages.
fn reward_names(grpo: &GrpoPlan) -> Vec<String> {
    grpo.rewards.stated.names().map(str::to_owned).collect()
}

/// The row of an update: means over its optimizer steps, and metrics of its completions.
fn report(
    scored: &ScoredGroups,
    mut metrics: std::collections::BTreeMap<String, f64>,
    lr: f64,
) -> StepReport {
    let tokens = scored.rollouts.episodes.iter().map(|episode| episode.episode().len() as u64);
    let [loss, grad_norm] =
        ["loss", "grad_norm"].map(|name| metrics.remove(name).unwrap_or(f64::NAN));
    metrics.extend(scored.metrics.clone());
    StepReport { loss, grad_norm, lr, tokens: tokens.sum(), extra: metrics }
}

/// The order of completions in an update: a permutation that depends on the run's seed, the stage's name and the update.
pub fn order(seed: u64, stage: &str, step: u64, n_episodes: usize) -> Vec<usize> {
    let n = n_episodes as u64;
    let key = seed::derive(seed, stage, Purpose::Shuffle, step, 0);
    (0..n).map(|i| seed::shuffled_index(key, n, i) as usize).collect()
}

/// Scored groups, with the rewards that were computed from their text.
#[derive(Clone, Debug)]
pub struct Groups {
    /// The completions, those of a prompt adjacent.
    pub scored: ScoredGroups,
    /// Rewards that need no reward model, with reasons; `None` if reward models compute all.
    pub stated: Option<StatedRewards>,
}

/// The first groups of a run, sampled and scored by the functions that training calls, without an update. `n` is the number
/// of prompts.
pub fn first_groups(
    plan: &Plan,
    stage: &StagePlan,
    grpo: &GrpoPlan,
    run_dir: &RunDir,
    n: usize,
    device: &Device,
) -> Result<Groups> {
    let start::First { policy, initial, sources, .. } =
        start::first(plan, stage, grpo, run_dir, device)?;
    let batch = stage.dataset.batch(0);
    let prompts = Prompts::of_batch(&batch, &stage.dataset).first(n);
    let replicas = &SingleReplica;
    let sampler = Sampler { plan, stage, grpo, sources: &sources, device, replicas };
    let Sampled { rollouts, rewards, stated, .. } = sampler.groups(&policy, &prompts, 0)?;
    let settings = settings(grpo, stage);
    let reference = Some(&initial);
    let scored = score_groups(rollouts, rewards, &policy, reference, &settings, device, replicas)?;
    Ok(Groups { scored, stated })
}
