//! Proximal policy optimisation from a reward model (Schulman et al. 2017; Ouyang et al. 2022 for language). The whole
//! loop stands in [`run`]; what an update computes stands in `policy`, where `temper verify` replays it.
//!
//! It deliberately knows nothing of files, arguments or printing: a [`Context`] brings the plan, the folder and whoever
//! watches.

mod answers;
mod error;
mod frozen;
mod metrics;
mod settings;

use burn::tensor::Device;
use fsio::DirWriter;
use plan::{Plan, StagePlan};
use rl::{ActorCritic, Learner, Scored, adapted_kl_coef, weights_hash};
use seed::Purpose;
use train::{
    Context, Optimizer, Outcome, RunDir, SaveFormat, StageRun, StepPlace, StepReport,
    compare_replicas, save_trained, write_model,
};

pub use answers::{Answers, sampling};
pub use error::{Error, Result};
pub use frozen::FrozenModels;
pub use metrics::Figures;
pub use settings::settings;

/// The file of a checkpoint with what is trained of the value model.
pub const VALUE_FILE: &str = "value.safetensors";

/// The estimate of an answer's KL divergence, in nats, below which a run stops. It is 0 or more on average; far below, the
/// policy finds what it writes less likely than the reference does, which only a fault explains.
const LOWEST_KL: f64 = -5.0;

/// Trains from the newest checkpoint, or from the roles' starts, to the last update.
pub fn run(context: Context<'_>) -> Result<Outcome> {
    let (plan, stage, run_dir, device) =
        (context.plan, context.stage, context.run_dir, context.device);
    let replicas = context.replicas;
    let section = plan.recipe.ppo.as_ref().ok_or(Error::NoSection)?;
    let model_dir = run_dir.stage(&stage.name).model();
    let frozen::StageState { mut run, mut actors, mut optimizer, mut checks, save_format, frozen } =
        frozen::start_or_resume(context)?;
    let mut settings = settings(section, stage);
    let reference_hash = weights_hash(&frozen.reference);
    let before = if replicas.is_leader() {
        answers::before(plan, stage, section, &frozen, &settings, device)?
    } else {
        Answers::default()
    };

    while !run.is_done() {
        let step = run.step();
        settings.kl_coef = kl_coef(&mut run, section.kl.coef);
        let lr = train::lr(&stage.keys.schedule, stage.keys.optimizer.lr, step, stage.max_steps);

        // Token in, token out: the ids that were sampled are the ids that are learned from.
        let batch = stage.dataset.batch(step);
        let prompts: Vec<Vec<u32>> = batch.texts().into_iter().map(<[u32]>::to_vec).collect();
        let seed = seed::derive(plan.seed, &stage.name, Purpose::Rollout, step, 0);
        let rollouts =
            answers::sample_together(&actors.policy, &prompts, section, stage, seed, replicas)?;

        // What each token was worth, and what is learned from it.
        let FrozenModels { reference, reward } = &frozen;
        let scored =
            rl::score_together(rollouts, &actors, reference, reward, &settings, device, replicas)?;
        let learner = Learner {
            optimizer: &mut optimizer,
            lr,
            observe: &mut |gradients| checks.gradients(gradients),
            device,
            replicas,
        };
        let orders = orders(plan.seed, &stage.name, step, prompts.len(), section.n_ppo_epochs);
        let updated = rl::update(actors, learner, &scored, &orders, &settings)?;
        actors = updated.actors;

        let kl = updated.metrics.get("objective/kl").copied().unwrap_or_default();
        check_kl(step + 1, kl)?;
        let place = StepPlace { step: step + 1, samples: &batch.samples };
        checks.updated(&actors, lr, place)?;
        compare_replicas(replicas, &actors, step + 1)?;
        if let Some(target) = section.kl.target {
            let (n, horizon) = (prompts.len(), section.kl.horizon);
            let coef = adapted_kl_coef(settings.kl_coef, kl, target, n, horizon);
            run.extra_state().insert(KL_COEF.to_owned(), coef);
        }

        let tokens = scored.rollouts.episodes.iter().map(|episode| episode.episode().len() as u64);
        let grad_norm = updated.grad_norm;
        let extra = metrics::of_update(updated.metrics, &scored, &settings);
        let loss = metrics::loss(&extra, &settings);
        run.log_step(StepReport { loss, grad_norm, lr, tokens: tokens.sum(), extra })?;
        if replicas.is_leader() && run.step().is_multiple_of(section.sample_every_steps) {
            for row in answers::table(&actors, &frozen, &before, plan, stage, section, run.step())?
            {
                run.log_sample(row)?;
            }
        }
        if run.eval_due() && stage.dataset.n_eval_rows() > 0 {
            let validation =
                answers::validation(plan, stage, section, &actors, &frozen, &settings, device)?;
            run.log_eval(validation.row(run.step()))?;
        }
        run.save_if_due(|dir| write_checkpoint(dir, &save_format, &actors, &optimizer))?;
        if run.stop_requested() && !run.is_done() {
            return Ok(Outcome::Stopped { step: run.step() });
        }
    }

    // The reference was a frozen value from the start: it is what it was.
    if weights_hash(&frozen.reference) != reference_hash {
        return Err(Error::ReferenceMoved);
    }
    if !replicas.is_leader() {
        return Ok(Outcome::Finished(run.finish(serde_json::Value::Null)?));
    }
    let last_eval = run.state().last_eval.clone();
    let result = answers::result(&before, last_eval.as_ref(), &actors, plan, stage, section)?;
    write_model(&model_dir, &save_format, &actors.policy, stage)?;
    Ok(Outcome::Finished(run.finish(result)?))
}

/// The first episodes that a run would learn from, sampled and scored by the code that trains; nothing is learned.
pub fn first_episodes(
    plan: &Plan,
    stage: &StagePlan,
    run_dir: &RunDir,
    n: usize,
    device: &Device,
) -> Result<Scored> {
    let section = plan.recipe.ppo.as_ref().ok_or(Error::NoSection)?;
    let frozen::First { actors, frozen, .. } = frozen::first(plan, stage, run_dir, device)?;
    let batch = stage.dataset.batch(0);
    let prompts: Vec<Vec<u32>> = batch.texts().into_iter().take(n).map(<[u32]>::to_vec).collect();
    let seed = seed::derive(plan.seed, &stage.name, Purpose::Rollout, 0, 0);
    let rollouts = answers::sample(&actors.policy, &prompts, 1, section, stage, seed)?;
    let settings = settings(section, stage);
    Ok(rl::score(rollouts, &actors, &frozen.reference, &frozen.reward, &settings, device)?)
}

/// The name of the coefficient among a stage's counters, where it follows a target.
const KL_COEF: &str = "kl_coef";

/// What a nat costs now: what earlier updates made of it, or what the recipe says.
fn kl_coef(run: &mut StageRun<'_>, of_recipe: f64) -> f64 {
    run.extra_state().get(KL_COEF).copied().unwrap_or(of_recipe)
}

/// Refuses an update whose mean estimate of an answer's KL divergence, in nats, lies far below 0.
pub fn check_kl(step: u64, kl: f64) -> Result<()> {
    if kl < LOWEST_KL {
        return Err(Error::NegativeKl { step, kl });
    }
    Ok(())
}

/// The order in which each epoch of an update sees its episodes, a function of the run's seed, the stage's name and the
/// update: a permutation of the episodes for each epoch.
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

/// Writes a checkpoint: the policy as a folder of its own kind, the value model's trained weights, the moments of both.
fn write_checkpoint(
    dir: &mut DirWriter,
    save_format: &SaveFormat,
    actors: &ActorCritic,
    optimizer: &Optimizer,
) -> train::Result<()> {
    save_format.write(dir, &actors.policy)?;
    save_trained(dir, VALUE_FILE, &actors.value)?;
    optimizer.save(dir)
}
