//! Proximal policy optimization against a reward model or rewards computed from the text (Schulman et al. 2017; Ouyang et al.
//! 2022 for language models). The computations of an update are in `rl`, where `temper verify` replays them.

mod answers;
mod error;
mod frozen;
mod metrics;
mod settings;

use std::path::Path;

use burn::tensor::Device;
use fsio::DirWriter;
use plan::{Plan, PpoPlan, StagePlan};
use rl::{ActorCritic, Scored, adapted_kl_coef, reward_metrics, weights_hash};
use seed::Purpose;
use train::{
    Context, Learner, Outcome, RunDir, SaveFormat, SingleReplica, StageRun, StepReport,
    save_trained, weights_to_export, write_model,
};

pub use answers::{Answers, sampling};
pub use error::{Error, Result};
pub use frozen::FrozenModels;
pub use metrics::AnswerMetrics;
pub use rl::{Prompts, StatedRewards};
pub use settings::settings;

/// The file of a checkpoint with the trainable parameters of the value model.
pub const VALUE_FILE: &str = "value.safetensors";

/// Estimated KL divergence of an answer, in nats, below which a run stops. The true divergence is at least 0. A far lower
/// estimate means that the policy finds its own answers less likely than the reference does, which only a bug explains.
const LOWEST_KL: f64 = -5.0;

/// Trains from the newest checkpoint, or from the initial weights of the four models, to the last update.
pub fn run(context: Context<'_>, ppo: &PpoPlan) -> Result<Outcome> {
    let (plan, stage, device, replicas) =
        (context.plan, context.stage, context.device, context.replicas);
    let section = &ppo.section;
    let frozen::StageState { mut run, mut actors, mut learner, save_format, frozen } =
        frozen::start_or_resume(context, ppo)?;
    let mut settings = settings(section, stage);
    let reference_hash = weights_hash(&frozen.reference);
    let before = if replicas.is_leader() {
        answers::before(plan, stage, ppo, &frozen, &actors.value, &settings, device)?
    } else {
        Answers::default()
    };
    if run.first_eval_due()
        && let Some(metrics) = &before.metrics
    {
        run.log_first_eval(metrics.row(0))?;
        if metrics.score.is_nan() {
            run.warn_unrewarded_eval(&reward_names(ppo));
        }
    }
    evaluate::log_first_samples(&mut run, plan, stage, || learner.evaluated(&actors).policy)?;

    while run.has_next_step() {
        let step = run.step();
        settings.kl_coef = kl_coef(&mut run, section.kl.coef);

        // The sampled ids are the trained ids: they are never converted to text and back.
        let batch = stage.dataset.batch(step);
        let prompts = Prompts::of_batch(&batch, &stage.dataset);
        let n_episodes = prompts.ids.len();
        let seed = seed::derive(plan.seed, &stage.name, Purpose::Rollout, step, 0);
        let rollouts =
            answers::sample(&actors.policy, &prompts.ids, 1, section, stage, seed, replicas)?;

        // Rewards and advantages of each token, then several epochs of updates on them.
        let stated = answers::stated(&rollouts, &prompts, ppo, &frozen, stage, replicas)?;
        let (reference, terms) = (&frozen.reference, answers::terms(&frozen, stated.as_ref()));
        let scored =
            rl::score_together(rollouts, &actors, reference, terms, &settings, device, replicas)?;
        let orders = orders(plan.seed, &stage.name, step, n_episodes, section.n_ppo_epochs);
        let lr = train::lr(&stage.keys.schedule, stage.keys.optimizer.lr, step, stage.max_steps);
        let updated = rl::update(actors, &mut learner, lr, &scored, &orders, &settings)?;
        actors = updated.actors;

        let kl = updated.metrics.get("objective/kl").copied().unwrap_or_default();
        check_kl(step + 1, kl)?;
        if let Some(target) = section.kl.target {
            let (n, horizon) = (n_episodes, section.kl.horizon);
            let coef = adapted_kl_coef(settings.kl_coef, kl, target, n, horizon);
            run.extra_state().insert(KL_COEF.to_owned(), coef);
        }

        let tokens = scored.rollouts.episodes.iter().map(|episode| episode.episode().len() as u64);
        let (tokens, grad_norm) = (tokens.sum(), updated.grad_norm);
        let mut extra = metrics::of_update(updated.metrics, &scored, &settings);
        extra.extend(reward_metrics(stated.as_ref(), &scored));
        let loss = metrics::loss(&extra, &settings);
        run.log_step(StepReport { loss, grad_norm, lr, tokens, extra })?;
        let n_unrewarded = scored.episodes.iter().filter(|e| !e.has_reward()).count();
        run.count_unrewarded(n_unrewarded, n_episodes, &reward_names(ppo));
        if run.sample_table_due() {
            let actors = learner.evaluated(&actors);
            for row in answers::table(&actors, &frozen, &before, plan, stage, ppo, run.step())? {
                run.log_sample(row)?;
            }
        }
        evaluate::log_samples(&mut run, plan, stage, || learner.evaluated(&actors).policy)?;
        if run.eval_due() {
            let actors = learner.evaluated(&actors);
            let step = run.step();
            let mut is_rewarded = true;
            let validation = || {
                let metrics =
                    answers::validation(plan, stage, ppo, &actors, &frozen, &settings, device)?;
                is_rewarded = !metrics.score.is_nan();
                Ok::<_, Error>(metrics.row(step))
            };
            run.log_eval(evaluate::evaluation(plan, stage, &actors.policy, step, validation)?)?;
            if !is_rewarded {
                run.warn_unrewarded_eval(&reward_names(ppo));
            }
        }
        run.save_if_due(|dir| write_checkpoint(dir, &save_format, &actors, &learner))?;
    }

    if !run.is_done() {
        return Ok(Outcome::Stopped { step: run.step() });
    }
    if weights_hash(&frozen.reference) != reference_hash {
        return Err(Error::ReferenceChanged);
    }
    if !replicas.is_leader() {
        return Ok(Outcome::Finished(run.finish(serde_json::Value::Null)?));
    }
    let load = |dir: &Path, ActorCritic { policy, value }| {
        Ok(ActorCritic { policy: save_format.load_into(dir, policy)?, value })
    };
    let ActorCritic { policy, .. } = weights_to_export(&mut run, actors, &learner, load)?;
    run.warn_of_unrewarded(&reward_names(ppo));
    let result = answers::result(&before, run.exported_eval(), &policy, plan, stage, section)?;
    write_model(&run.dir().model(), &save_format, &policy, run.side_files())?;
    Ok(Outcome::Finished(run.finish(result)?))
}

/// Names of the rewards that need no reward model, for messages.
fn reward_names(ppo: &PpoPlan) -> Vec<String> {
    ppo.rewards.stated.names().map(str::to_owned).collect()
}

/// Scored episodes, with the rewards that were computed from their text.
#[derive(Clone, Debug)]
pub struct Episodes {
    /// The episodes.
    pub scored: Scored,
    /// Rewards that need no reward model, with reasons; `None` if reward models compute all.
    pub stated: Option<StatedRewards>,
}

/// The first episodes of a run, sampled and scored by the functions that training calls, without an update.
pub fn first_episodes(
    plan: &Plan,
    stage: &StagePlan,
    ppo: &PpoPlan,
    run_dir: &RunDir,
    n: usize,
    device: &Device,
) -> Result<Episodes> {
    let section = &ppo.section;
    let frozen::First { actors, frozen, .. } = frozen::first(plan, stage, ppo, run_dir, device)?;
    let batch = stage.dataset.batch(0);
    let prompts = Prompts::of_batch(&batch, &stage.dataset).first(n);
    let seed = seed::derive(plan.seed, &stage.name, Purpose::Rollout, 0, 0);
    let rollouts =
        answers::sample(&actors.policy, &prompts.ids, 1, section, stage, seed, &SingleReplica)?;
    let settings = settings(section, stage);
    let stated = answers::stated(&rollouts, &prompts, ppo, &frozen, stage, &SingleReplica)?;
    let terms = answers::terms(&frozen, stated.as_ref());
    let scored = rl::score(rollouts, &actors, &frozen.reference, terms, &settings, device)?;
    Ok(Episodes { scored, stated })
}

/// Name of the adaptive KL coefficient among the counters of a stage.
const KL_COEF: &str = "kl_coef";

/// The current KL coefficient: adapted by earlier updates, or the recipe's.
fn kl_coef(run: &mut StageRun<'_>, of_recipe: f64) -> f64 {
    run.extra_state().get(KL_COEF).copied().unwrap_or(of_recipe)
}

/// Refuses an update whose mean estimated KL divergence of an answer, in nats, is far below 0.
pub fn check_kl(step: u64, kl: f64) -> Result<()> {
    if kl < LOWEST_KL {
        return Err(Error::NegativeKl { step, kl });
    }
    Ok(())
}

/// The order of episodes in each epoch of an update: permutations that depend on the run's seed, the stage's name and the
/// update.
pub fn orders(
    seed: u64,
    stage: &str,
    step: u64,
    n_episodes: usize,
    n_epochs: usize,
) -> Vec<Vec<usize>> {
    let n = n_episodes as u64;
    (0..n_epochs as u64)
        .map(|epoch| {
            let key = seed::derive(seed, stage, Purpose::Shuffle, step, epoch);
            (0..n).map(|i| seed::shuffled_index(key, n, i) as usize).collect()
        })
        .collect()
}

/// Writes a checkpoint: the policy as a Hugging Face directory, the trainable parameters of the value model, the optimizer
/// state of both, and the average of the policy's weights.
fn write_checkpoint(
    dir: &mut DirWriter,
    save_format: &SaveFormat,
    actors: &ActorCritic,
    learner: &Learner<'_>,
) -> train::Result<()> {
    save_format.write(dir, &actors.policy)?;
    save_trained(dir, VALUE_FILE, &actors.value)?;
    learner.save(dir)
}
