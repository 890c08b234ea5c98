//! Whole updates of PPO: sampling, scores of four models, and several epochs of training on the rollouts, with the functions
//! that the stage calls.
//!
//! Without a tokenizer no completion ends early: each has its full length.

use std::time::Instant;

use burn::tensor::Device;
use model::{CausalLm, ScalarModel};
use rl::{ActorCritic, Conventions, KlEstimator, Rollouts, Sampling, Settings};
use seed::{Purpose, Rng};
use train::{Learner, Optimizer, ParameterNames};

use crate::training::optimizer_settings;
use crate::{Clock, Report, Result, Workload};

const N_UPDATES: usize = 5;
const N_EPOCHS: u64 = 4;
const LR: f64 = 3e-6;

pub(crate) fn run(
    workload: Workload,
    n_updates: Option<usize>,
    clock: Clock,
    device: &Device,
) -> Result<Report> {
    let (plain, device) = (device, device.clone().autodiff());
    let config = workload.config()?;
    let model = |seed, device: &Device| CausalLm::init(&config, seed, device);
    let scorer = |seed, device: &Device| {
        ScalarModel::from_backbone(model(seed, device).backbone, &config, seed)
    };
    let mut actors = ActorCritic { policy: model(0, &device), value: scorer(1, &device) };
    let (reference, reward) = (model(2, plain), scorer(3, plain));
    let names = ParameterNames::of(&actors);
    let optimizer = Optimizer::new(optimizer_settings(LR, 0.0), &actors)?;
    let mut learner = Learner::unchecked(optimizer, names, &device);

    let generation = generation(workload);
    let sampling = Sampling::of(&generation)?;
    let settings = settings(workload.rows);
    let mut rng = Rng::new(0);
    let mut report = Report::new(workload);
    for update in 0..n_updates.unwrap_or(N_UPDATES) {
        let start = Instant::now();
        let mut id = || (rng.f64() * config.vocab_size() as f64) as u32;
        let prompts: Vec<Vec<u32>> =
            (0..workload.rows).map(|_| (0..workload.length).map(|_| id()).collect()).collect();
        let mut rollouts = Rollouts::new(sampling.clone());
        let completions =
            generate::generate(&actors.policy, &prompts, &generation, update as u64, |_| ())?;
        for (prompt, completion) in prompts.iter().zip(completions) {
            rollouts.push(prompt, &completion.tokens)?;
        }

        let scored = rl::score(rollouts, &actors, &reference, &reward, &settings, &device)?;
        let orders = orders(update as u64, workload.rows as u64);
        actors = rl::update(actors, &mut learner, LR, &scored, &orders, &settings)?.actors;
        report.add(update, 0, start.elapsed().as_secs_f64(), clock);
    }
    Ok(report)
}

fn generation(workload: Workload) -> generate::Settings {
    generate::Settings {
        sampling: generate::Sampling { temperature: 0.7, ..generate::Sampling::default() },
        max_new_tokens: workload.n_new,
        batch_rows: workload.rows,
        ..generate::Settings::default()
    }
}

/// The defaults of TRL's `PPOConfig`, with all episodes in one minibatch.
fn settings(n_episodes: usize) -> Settings {
    Settings {
        conventions: Conventions::default(),
        kl_estimator: KlEstimator::K1,
        kl_coef: 0.05,
        missing_eos_penalty: Some(1.0),
        whiten_rewards: false,
        gamma: 1.0,
        lambda: 0.95,
        clip_range: 0.2,
        clip_range_value: 0.2,
        vf_coef: 0.1,
        n_minibatches: 1,
        target_kl: None,
        micro_batch: n_episodes,
    }
}

/// The order of the episodes in each epoch.
fn orders(update: u64, n: u64) -> Vec<Vec<usize>> {
    let order = |epoch| {
        let key = seed::derive(0, "ppo7m", Purpose::Shuffle, update, epoch);
        (0..n).map(|i| seed::shuffled_index(key, n, i) as usize).collect()
    };
    (0..N_EPOCHS).map(order).collect()
}
