//! Whole updates of GRPO: sampling of groups, advantages, and one optimizer step on all completions, with the functions that the
//! stage calls.
//!
//! Without a tokenizer no completion ends early: each has its full length. Rewards are random.

use std::time::Instant;

use burn::tensor::Device;
use loss::{AdvantageKind, Aggregation, GroupLoss, GroupObjective, RatioLevel, RewardScale};
use model::CausalLm;
use rl::{
    Conventions, GroupSettings, RewardTable, Rollouts, Sampling, score_groups, update_groups,
};
use seed::Rng;
use train::{Learner, Optimizer, ParameterNames, SingleReplica};

use crate::training::optimizer_settings;
use crate::workload::N_GENERATIONS;
use crate::{Clock, Report, Result, Workload};

const N_UPDATES: usize = 5;
const MICRO_BATCH: usize = 16;
const LR: f64 = 1e-6;

pub(crate) fn run(
    workload: Workload,
    n_updates: Option<usize>,
    clock: Clock,
    device: &Device,
) -> Result<Report> {
    let device = device.clone().autodiff();
    let config = workload.config()?;
    let mut policy = CausalLm::init(&config, 0, &device);
    let names = ParameterNames::of(&policy);
    let optimizer = Optimizer::new(optimizer_settings(LR, 0.0), &policy)?;
    let mut learner = Learner::unchecked(optimizer, names, &device);

    let generation = generate::Settings {
        n: N_GENERATIONS,
        max_new_tokens: workload.n_new,
        batch_rows: workload.rows * N_GENERATIONS,
        ..generate::Settings::default()
    };
    let sampling = Sampling::of(&generation)?;
    let settings = settings(&device);
    let mut rng = Rng::new(0);
    let mut report = Report::new(workload);
    for update in 0..n_updates.unwrap_or(N_UPDATES) {
        let start = Instant::now();
        let mut id = || (rng.f64() * config.vocab_size() as f64) as u32;
        let prompts: Vec<Vec<u32>> =
            (0..workload.rows).map(|_| (0..workload.length).map(|_| id()).collect()).collect();
        let mut rollouts = Rollouts::new(sampling.clone());
        for completion in generate::generate(&policy, &prompts, &generation, update as u64, |_| ())?
        {
            if let Some(prompt) = prompts.get(completion.prompt_idx) {
                rollouts.push(prompt, &completion.tokens)?;
            }
        }
        let n_episodes = rollouts.episodes.len();
        let rewards = RewardTable {
            names: vec!["random".to_owned()],
            weights: vec![1.0],
            values: (0..n_episodes).map(|_| vec![rng.f64()]).collect(),
        };
        let replicas = &SingleReplica;
        let scored = score_groups(rollouts, rewards, &policy, None, &settings, &device, replicas)?;
        let orders = [(0..n_episodes).collect()];
        policy = update_groups(policy, &mut learner, LR, &scored, &orders, &settings)?.policy;
        report.add(update, 0, start.elapsed().as_secs_f64(), clock);
    }
    report.note_memory(&device);
    Ok(report)
}

/// The defaults of TRL's `GRPOConfig`, with all completions in one optimizer step. Prompts are shared where runs share them.
fn settings(device: &Device) -> GroupSettings {
    GroupSettings {
        conventions: Conventions::default(),
        objective: GroupObjective {
            loss: GroupLoss::Dapo,
            level: RatioLevel::Token,
            epsilon: 0.2,
            epsilon_high: 0.2,
            delta: None,
            beta: 0.0,
            corrects_kl: false,
            off_policy_threshold: None,
            entropy_coef: 0.0,
        },
        advantages: AdvantageKind::Group {
            scale: RewardScale::Group,
            aggregation: Aggregation::SumThenNormalize,
        },
        reward_beta: 0.0,
        num_generations: N_GENERATIONS,
        num_iterations: 1,
        n_minibatches: 1,
        mask_truncated_completions: false,
        top_entropy_quantile: 1.0,
        micro_batch: MICRO_BATCH,
        shares_prompts: kernels::kernel_set(device) == kernels::KernelSet::Cpu,
    }
}
