//! Replays an update of TRL's GRPO or RLOO with the functions that train: log-probabilities and advantages of the completions,
//! metrics of each optimizer step, and weights after all of them. Completions, rewards and the order of the completions are the
//! reference's; policy and reference model are beside its directory.

use std::collections::BTreeMap;
use std::path::Path;

use arch::ModelConfig;
use burn::tensor::Device;
use loss::{AdvantageKind, Aggregation, GroupLoss, GroupObjective, RatioLevel, RewardScale};
use model::load_causal_lm;
use recipe::{AdamwKeys, OptimizerKind};
use rl::{
    Conventions, GroupEpisode, GroupSettings, RewardTable, Rollouts, Sampling, ScoredGroups,
    score_groups, update_groups, weights_hash,
};
use serde::Deserialize;
use train::{Learner, Optimizer, ParameterNames, SingleReplica};

use super::report::{Quantity, Tolerance};
use super::trained_weights::compare_weights;
use super::vectors::Vectors;
use crate::error::{Error, Result};

const LOGPROBS: Tolerance = Tolerance { absolute: 2e-5, relative: 3e-6 };
/// Advantages.
const ADVANTAGES: f64 = 3e-6;
/// Leave-one-out: rewards and ratios have the log-probabilities of whole completions.
const SUMMED_LOGPROBS: f64 = 5e-5;
/// Tolerance of metrics, relative above 1.
const METRICS: f64 = 1e-5;
/// Tolerance of gradient norms, relative above 1: whole completions have ratios whose gradients reach 20.
const NORMS: f64 = 3e-5;
const END_ID: u32 = 2;
const PAD_ID: u32 = 0;
const EXPECTED_BYTES: u64 = 1 << 20;

/// expected.json.
#[derive(Debug, Deserialize)]
struct Expected {
    trainer: Trainer,
    settings: ExpectedSettings,
    optimizer: ExpectedOptimizer,
    order_after_generation: Vec<Vec<usize>>,
    metrics: Vec<BTreeMap<String, f64>>,
}

/// The trainer of a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Trainer {
    Grpo,
    Rloo,
}

/// TRL's settings, with its defaults for those that one of the trainers lacks.
#[derive(Debug, Deserialize)]
pub(super) struct ExpectedSettings {
    #[serde(default)]
    loss_type: Option<String>,
    beta: f64,
    epsilon: f64,
    epsilon_high: Option<f64>,
    #[serde(default)]
    delta: Option<f64>,
    #[serde(default)]
    importance_sampling_level: Option<String>,
    #[serde(default)]
    scale_rewards: Option<String>,
    #[serde(default)]
    multi_objective_aggregation: Option<String>,
    mask_truncated_completions: bool,
    #[serde(default)]
    use_bias_correction_kl: Option<bool>,
    num_iterations: usize,
    steps_per_generation: usize,
    gradient_accumulation_steps: usize,
    per_device_train_batch_size: usize,
    num_generations: usize,
    max_completion_length: usize,
    temperature: f64,
    reward_weights: Vec<f64>,
    learning_rate: f64,
    max_grad_norm: f64,
    #[serde(default)]
    normalize_advantages: bool,
    #[serde(default)]
    reward_clip_range: Option<(f64, f64)>,
    max_steps: usize,
}

#[derive(Debug, Deserialize)]
struct ExpectedOptimizer {
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
}

/// The trainer that expected.json names, for references that have one.
pub(super) fn trainer(dir: &Path) -> Option<Trainer> {
    #[derive(Deserialize)]
    struct Named {
        trainer: Trainer,
    }
    let text = fsio::read_text_capped(dir.join("expected.json"), EXPECTED_BYTES).ok()?;
    Some(serde_json::from_str::<Named>(&text).ok()?.trainer)
}

pub(super) fn replay(dir: &Path, device: &Device) -> Result<Vec<Quantity>> {
    let path = dir.join("expected.json");
    let bad = |reason: String| Error::BadVectors { path: path.clone(), reason };
    let text = fsio::read_text_capped(&path, EXPECTED_BYTES)?;
    let expected: Expected = serde_json::from_str(&text)
        .map_err(|error| bad(format!("not the settings and metrics of an update: {error}")))?;
    let settings = settings(expected.trainer, &expected.settings).map_err(&bad)?;
    let n_steps = settings.num_iterations * settings.n_minibatches;
    if expected.settings.max_steps != n_steps || expected.metrics.len() != n_steps {
        return Err(bad(format!("an update has `{n_steps}` optimizer steps by its settings")));
    }
    let vectors = Vectors::open(&dir.join("rollout.safetensors"))?;
    let beside = |name: &str| dir.join("..").join(name);
    let policy = load_causal_lm(&beside("policy"), &device.clone().autodiff())?;
    let reference = load_causal_lm(&beside("reference"), device)?;
    let hash = weights_hash(&reference);

    let configs = [policy.config(), reference.config()];
    let rollouts = read_rollouts(&vectors, &configs, &expected.settings)?;
    let rewards = read_rewards(&vectors, &expected, rollouts.episodes.len())?;
    let scored = score_groups(
        rollouts,
        rewards,
        &policy,
        Some(&reference),
        &settings,
        device,
        &SingleReplica,
    )?;
    let mut quantities = compare_scored(&scored, &vectors, &settings)?;

    let (betas, eps) = (expected.optimizer.betas, expected.optimizer.eps);
    let optimizer = recipe::Optimizer {
        kind: OptimizerKind::AdamW(AdamwKeys { betas, eps }),
        weight_decay: expected.optimizer.weight_decay,
        max_grad_norm: expected.settings.max_grad_norm,
        ..recipe::Optimizer::adamw(expected.settings.learning_rate)
    };
    let order = expected.order_after_generation.first().cloned().unwrap_or_default();
    let orders = vec![order; settings.num_iterations];
    let names = ParameterNames::of(&policy);
    let adamw = Optimizer::new(optimizer.clone(), &policy)?;
    let mut learner = Learner::unchecked(adamw, names, device);
    let updated = update_groups(policy, &mut learner, optimizer.lr, &scored, &orders, &settings)?;
    let metrics = if settings.reward_beta == 0.0 { METRICS } else { SUMMED_LOGPROBS };
    quantities.push(compare_metrics(&scored.metrics, &updated.steps, &expected.metrics, metrics));
    let weights = compare_weights("policy_after", &updated.policy, dir)?;
    quantities.push(weights.most());
    quantities.push(compare_weights("policy_after", &updated.policy, dir)?.worst());
    let is_unchanged = weights_hash(&reference) == hash;
    quantities.push(Quantity::mistakes("reference_unchanged", usize::from(!is_unchanged), 1));
    Ok(quantities)
}

/// The settings of an update by TRL's names; the error names an unknown value.
fn settings(
    trainer: Trainer,
    expected: &ExpectedSettings,
) -> std::result::Result<GroupSettings, String> {
    let n_minibatches = expected.steps_per_generation / expected.gradient_accumulation_steps.max(1);
    let is_rloo = trainer == Trainer::Rloo;
    let advantages = match trainer {
        Trainer::Rloo => AdvantageKind::LeaveOneOut {
            normalize: expected.normalize_advantages,
            reward_clip_range: expected.reward_clip_range,
        },
        Trainer::Grpo => AdvantageKind::Group {
            scale: match expected.scale_rewards.as_deref() {
                None | Some("group") => RewardScale::Group,
                Some("batch") => RewardScale::Batch,
                Some("none") => RewardScale::None,
                Some(other) => return Err(format!("unknown scale_rewards: `{other}`")),
            },
            aggregation: match expected.multi_objective_aggregation.as_deref() {
                None | Some("sum_then_normalize") => Aggregation::SumThenNormalize,
                Some("normalize_then_sum") => Aggregation::NormalizeThenSum,
                Some(other) => return Err(format!("unknown aggregation: `{other}`")),
            },
        },
    };
    let objective = GroupObjective {
        loss: if is_rloo { GroupLoss::Rloo } else { named_loss(expected.loss_type.as_deref())? },
        level: named_level(expected.importance_sampling_level.as_deref())?,
        epsilon: expected.epsilon,
        epsilon_high: expected.epsilon_high.unwrap_or(expected.epsilon),
        delta: expected.delta,
        beta: if is_rloo { 0.0 } else { expected.beta },
        corrects_kl: expected.use_bias_correction_kl.unwrap_or(true),
        off_policy_threshold: None,
        entropy_coef: 0.0,
    };
    Ok(GroupSettings {
        conventions: Conventions::Trl,
        objective,
        advantages,
        reward_beta: if is_rloo { expected.beta } else { 0.0 },
        num_generations: expected.num_generations,
        num_iterations: expected.num_iterations,
        n_minibatches,
        mask_truncated_completions: expected.mask_truncated_completions,
        top_entropy_quantile: 1.0,
        micro_batch: expected.per_device_train_batch_size,
        shares_prompts: false,
    })
}

/// A loss by TRL's name, with its default constants.
pub(super) fn named_loss(name: Option<&str>) -> std::result::Result<GroupLoss, String> {
    Ok(match name {
        Some("grpo") => GroupLoss::Grpo,
        Some("bnpo") => GroupLoss::Bnpo,
        Some("dr_grpo") => GroupLoss::DrGrpo,
        None | Some("dapo") => GroupLoss::Dapo,
        Some("cispo") => GroupLoss::Cispo,
        Some("sapo") => GroupLoss::Sapo { temperature_pos: 1.0, temperature_neg: 1.05 },
        Some("vespo") => GroupLoss::Vespo { pos: (2.0, 3.0), neg: (3.0, 2.0) },
        Some("luspo") => GroupLoss::Luspo,
        Some(other) => return Err(format!("unknown loss_type: `{other}`")),
    })
}

/// A level of ratios by TRL's name.
pub(super) fn named_level(name: Option<&str>) -> std::result::Result<RatioLevel, String> {
    match name {
        None | Some("token") => Ok(RatioLevel::Token),
        Some("sequence") => Ok(RatioLevel::Sequence),
        Some(other) => Err(format!("unknown importance_sampling_level: `{other}`")),
    }
}

/// The reference's completions, without the padding before prompts and after completions.
fn read_rollouts(
    vectors: &Vectors,
    configs: &[&ModelConfig],
    expected: &ExpectedSettings,
) -> Result<Rollouts> {
    let [prompts, completions] = vectors.episodes_for(configs, ["prompt_ids", "completion_ids"])?;
    let (prompt_width, width) = (prompts.width(), completions.width());
    let mut rollouts = Rollouts::new(Sampling {
        temperature: expected.temperature,
        end_ids: vec![END_ID],
        max_new_tokens: expected.max_completion_length,
        vocab_size: None,
    });
    let rows = prompts.values.chunks(prompt_width).zip(completions.values.chunks(width));
    for (prompt, completion) in rows {
        let n_padding = prompt.iter().take_while(|id| **id == PAD_ID).count();
        let n_after = completion.iter().rev().take_while(|id| **id == PAD_ID).count();
        let completion = completion.get(..width - n_after).unwrap_or_default();
        rollouts.push(prompt.get(n_padding..).unwrap_or_default(), completion)?;
    }
    Ok(rollouts)
}

/// The rewards of the completions. Their names are those of the metrics, whose alphabetical order is that of the columns.
fn read_rewards(vectors: &Vectors, expected: &Expected, n: usize) -> Result<RewardTable> {
    let weights = expected.settings.reward_weights.clone();
    let values = vectors.floats_of("rewards_per_func", &[n, weights.len()])?;
    let first = expected.metrics.iter().take(1).flat_map(BTreeMap::keys);
    let name = |key: &String| Some(key.strip_prefix("rewards/")?.strip_suffix("/mean")?.to_owned());
    let names: Vec<String> = first.filter_map(name).collect();
    if names.len() != weights.len() {
        return Err(vectors.bad("metrics and weights name different rewards".to_owned()));
    }
    let row = |row: &[f32]| row.iter().map(|value| f64::from(*value)).collect();
    Ok(RewardTable {
        names,
        values: values.chunks(weights.len().max(1)).map(row).collect(),
        weights,
    })
}

/// Compares log-probabilities at the tokens of the loss, and advantages.
fn compare_scored(
    scored: &ScoredGroups,
    vectors: &Vectors,
    settings: &GroupSettings,
) -> Result<Vec<Quantity>> {
    type Field = fn(&GroupEpisode) -> &Vec<f32>;
    let fields: [(&str, Field); 2] = [
        ("old_per_token_logps", |episode| &episode.logprobs),
        ("ref_per_token_logps", |episode| &episode.ref_logprobs),
    ];
    let n = scored.episodes.len();
    let mut quantities = Vec::new();
    for (name, field) in fields.into_iter().filter(|(name, _)| vectors.has(name)) {
        let all = vectors.floats(name)?;
        let width = all.values.len() / n.max(1);
        let (mut got, mut expected) = (Vec::new(), Vec::new());
        for (row, episode) in all.values.chunks(width.max(1)).zip(&scored.episodes) {
            if episode.is_trained {
                let values = field(episode);
                got.extend_from_slice(values);
                expected.extend(row.iter().take(values.len()));
            }
        }
        let mut quantity = Quantity::new(name);
        quantity.add("", &got, &expected, LOGPROBS);
        quantities.push(quantity);
    }
    let got: Vec<f32> = scored.episodes.iter().map(|episode| episode.advantage).collect();
    let expected = vectors.floats_of("advantages", &[n])?;
    let tolerance = if settings.reward_beta == 0.0 { ADVANTAGES } else { SUMMED_LOGPROBS };
    let mut quantity = Quantity::new("advantages");
    quantity.add("", &got, &expected, Tolerance { absolute: tolerance, relative: tolerance });
    quantities.push(quantity);
    Ok(quantities)
}

/// Compares the metrics of every optimizer step; those of completions and rewards are in the first.
fn compare_metrics(
    of_update: &BTreeMap<String, f64>,
    steps: &[BTreeMap<String, f64>],
    expected: &[BTreeMap<String, f64>],
    tolerance: f64,
) -> Quantity {
    let mut quantity = Quantity::new("metrics");
    for (idx, expected) in expected.iter().enumerate() {
        // The loop around the update has these two.
        let metrics =
            expected.iter().filter(|(name, _)| !["learning_rate", "step"].contains(&name.as_str()));
        for (name, expected) in metrics {
            let of_step = steps.get(idx).and_then(|step| step.get(name));
            let got = of_step.or_else(|| of_update.get(name).filter(|_| idx == 0));
            let got = got.copied().unwrap_or(f64::NAN);
            let relative = if name == "grad_norm" { tolerance.max(NORMS) } else { tolerance };
            let at = format!("step {} {name}", idx + 1);
            let tolerance = relative * expected.abs().max(1.0);
            quantity.add_difference(Some(&at), (got - expected).abs(), tolerance, 1);
        }
    }
    quantity
}
