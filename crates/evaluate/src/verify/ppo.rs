//! Replays a whole PPO update of TRL with the functions that train: advantages and returns of the rollouts, metrics, and
//! weights after all minibatches. The completions and the order of the episodes are the reference's.

use std::collections::BTreeMap;
use std::path::Path;

use arch::ModelConfig;
use burn::tensor::Device;
use model::{load_causal_lm, load_scalar_model};
use recipe::{AdamwKeys, OptimizerKind};
use rl::{
    ActorCritic, Conventions, KlEstimator, Rollouts, Sampling, Scored, ScoredEpisode, Settings,
    weights_hash,
};
use serde::Deserialize;
use train::{Learner, Optimizer, ParameterNames};

use super::report::{Quantity, Tolerance};
use super::trained_weights::compare_weights;
use super::vectors::Vectors;
use crate::error::{Error, Result};

const ROLLOUT: Tolerance = Tolerance { absolute: 2e-5, relative: 3e-6 };
/// Tolerance of metrics, relative above 1: their sums reach 70, where f32 has a resolution of 8e-6.
const METRICS: f64 = 1e-5;
/// The reference's end token and padding.
const END_ID: u32 = 2;
const PAD_ID: u32 = 0;
/// TRL's log-probability of positions without a token.
const NO_LOGPROB: f32 = 1.0;
const EXPECTED_BYTES: u64 = 1 << 20;

/// expected.json.
#[derive(Debug, Deserialize)]
struct Expected {
    settings: ExpectedSettings,
    optimizer: ExpectedOptimizer,
    episode_order_of_each_epoch: Vec<Vec<usize>>,
    metrics: Vec<BTreeMap<String, f64>>,
}

#[derive(Debug, Deserialize)]
struct ExpectedSettings {
    temperature: f64,
    kl_coef: f64,
    kl_estimator: ExpectedEstimator,
    cliprange: f64,
    vf_coef: f64,
    cliprange_value: f64,
    gamma: f64,
    lam: f64,
    whiten_rewards: bool,
    missing_eos_penalty: Option<f64>,
    num_mini_batches: usize,
    learning_rate: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ExpectedEstimator {
    K1,
    K3,
}

#[derive(Debug, Deserialize)]
struct ExpectedOptimizer {
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
}

pub(super) fn replay(dir: &Path, device: &Device) -> Result<Vec<Quantity>> {
    let expected = read_expected(&dir.join("expected.json"))?;
    let settings = settings(&expected.settings);
    let vectors = Vectors::open(&dir.join("rollout.safetensors"))?;
    let training = device.clone().autodiff();
    let actors = ActorCritic {
        policy: load_causal_lm(&dir.join("policy"), &training)?,
        value: load_scalar_model(&dir.join("value"), &training)?,
    };
    let reference = load_causal_lm(&dir.join("reference"), device)?;
    let reward = load_scalar_model(&dir.join("reward"), device)?;
    let hash = weights_hash(&reference);

    let configs =
        [actors.policy.config(), actors.value.config(), reference.config(), reward.config()];
    let rollouts = read_rollouts(&vectors, &configs, expected.settings.temperature)?;
    let width = rollouts.sampling.max_new_tokens;
    let scored = rl::score(rollouts, &actors, &reference, &reward, &settings, device)?;
    let mut quantities = compare_scored(&scored, &vectors, width)?;

    let (betas, eps) = (expected.optimizer.betas, expected.optimizer.eps);
    let optimizer = recipe::Optimizer {
        kind: OptimizerKind::AdamW(AdamwKeys { betas, eps }),
        weight_decay: expected.optimizer.weight_decay,
        max_grad_norm: 0.0,
        ..recipe::Optimizer::adamw(expected.settings.learning_rate)
    };
    let orders = &expected.episode_order_of_each_epoch;
    let update = |scored: &Scored| {
        let actors = actors.clone();
        let names = ParameterNames::of(&actors);
        let adamw = Optimizer::new(optimizer.clone(), &actors)?;
        let mut learner = Learner::unchecked(adamw, names, device);
        rl::update(actors, &mut learner, optimizer.lr, scored, orders, &settings)
    };
    let updated = update(&scored)?;
    quantities.push(compare_metrics(&updated.metrics, expected.metrics.first()));
    quantities.push(compare_weights("policy_after", &updated.actors.policy, dir)?.most());
    quantities.push(compare_weights("value_after", &updated.actors.value, dir)?.most());

    // The update again from the reference's rollout values, so that differences of the two halves do not add up.
    let updated = update(&as_reference(scored, &vectors, width)?)?;
    quantities.push(compare_weights("policy_after", &updated.actors.policy, dir)?.worst());
    quantities.push(compare_weights("value_after", &updated.actors.value, dir)?.worst());
    let is_unchanged = weights_hash(&reference) == hash;
    quantities.push(Quantity::mistakes("reference_unchanged", usize::from(!is_unchanged), 1));
    Ok(quantities)
}

fn settings(expected: &ExpectedSettings) -> Settings {
    Settings {
        conventions: Conventions::Trl,
        kl_estimator: match expected.kl_estimator {
            ExpectedEstimator::K1 => KlEstimator::K1,
            ExpectedEstimator::K3 => KlEstimator::K3,
        },
        kl_coef: expected.kl_coef,
        missing_eos_penalty: expected.missing_eos_penalty,
        whiten_rewards: expected.whiten_rewards,
        gamma: expected.gamma,
        lambda: expected.lam,
        clip_range: expected.cliprange,
        clip_range_value: expected.cliprange_value,
        vf_coef: expected.vf_coef,
        n_minibatches: expected.num_mini_batches,
        target_kl: None,
        // Not a divisor of the minibatch: splitting must not change results.
        micro_batch: 3,
    }
}

/// The reference's episodes, without the padding before prompts.
fn read_rollouts(
    vectors: &Vectors,
    configs: &[&ModelConfig],
    temperature: f64,
) -> Result<Rollouts> {
    let [prompts, responses] = vectors.episodes_for(configs, ["queries", "responses"])?;
    let (prompt_width, width) = (prompts.width(), responses.width());
    let mut rollouts = Rollouts::new(Sampling {
        temperature,
        end_ids: vec![END_ID],
        max_new_tokens: width,
        vocab_size: None,
    });
    let rows = prompts.values.chunks(prompt_width).zip(responses.values.chunks(width));
    for (prompt, response) in rows {
        let n_padding = prompt.iter().take_while(|id| **id == PAD_ID).count();
        rollouts.push(prompt.get(n_padding..).unwrap_or_default(), response)?;
    }
    Ok(rollouts)
}

/// Compares all values of the rollouts in TRL's layout: one row of `width` positions per episode.
fn compare_scored(scored: &Scored, vectors: &Vectors, width: usize) -> Result<Vec<Quantity>> {
    type Field = fn(&ScoredEpisode) -> Vec<f32>;
    let n = scored.episodes.len();
    let fields: [(&str, Field, f32); 8] = [
        ("logprobs", |episode| episode.logprobs.clone(), NO_LOGPROB),
        ("ref_logprobs", |episode| episode.ref_logprobs.clone(), NO_LOGPROB),
        ("kl", |episode| episode.kl.clone(), 0.0),
        ("values", |episode| episode.values.clone(), 0.0),
        ("rewards", |episode| episode.rewards.clone(), 0.0),
        ("advantages_before_whitening", unwhitened, 0.0),
        ("advantages", |episode| episode.advantages.clone(), 0.0),
        ("returns", |episode| episode.returns.clone(), 0.0),
    ];
    let mut quantities = Vec::new();
    for (name, field, padding) in fields {
        let mut got = Vec::with_capacity(n * width);
        for episode in &scored.episodes {
            let mut row = field(episode);
            row.resize(width, padding);
            got.extend(row);
        }
        let mut quantity = Quantity::new(name);
        quantity.add("", &got, &vectors.floats_of(name, &[n, width])?, ROLLOUT);
        quantities.push(quantity);
    }
    let scores: Vec<f32> = scored.episodes.iter().map(|episode| episode.score).collect();
    let mut quantity = Quantity::new("scores");
    quantity.add("", &scores, &vectors.floats_of("scores", &[n])?, ROLLOUT);
    quantities.push(quantity);

    // TRL's lengths are indices of last tokens.
    let lengths = vectors.integers("sequence_lengths")?.values;
    let spans = scored.rollouts.episodes.iter().map(|rollout| rollout.span().response as i64 - 1);
    let n_wrong = spans.zip(&lengths).filter(|(got, expected)| got != *expected).count();
    let n_wrong = n_wrong + lengths.len().abs_diff(n);
    quantities.push(Quantity::mistakes("sequence_lengths", n_wrong, n));
    Ok(quantities)
}

/// Advantages before whitening.
fn unwhitened(episode: &ScoredEpisode) -> Vec<f32> {
    episode.returns.iter().zip(&episode.values).map(|(returned, value)| returned - value).collect()
}

fn compare_metrics(
    got: &BTreeMap<String, f64>,
    expected: Option<&BTreeMap<String, f64>>,
) -> Quantity {
    let mut quantity = Quantity::new("metrics");
    let metrics = expected.into_iter().flatten();
    // The loop around the update computes these two.
    for (name, expected) in metrics.filter(|(name, _)| !["lr", "episode"].contains(&name.as_str()))
    {
        let got = got.get(name).copied().unwrap_or(f64::NAN);
        let tolerance = METRICS * expected.abs().max(1.0);
        quantity.add_difference(Some(name), (got - expected).abs(), tolerance, 1);
    }
    quantity
}

/// The rollouts with the reference's values.
fn as_reference(mut scored: Scored, vectors: &Vectors, width: usize) -> Result<Scored> {
    type Field = fn(&mut ScoredEpisode) -> &mut Vec<f32>;
    let fields: [(&str, Field); 4] = [
        ("logprobs", |episode| &mut episode.logprobs),
        ("values", |episode| &mut episode.values),
        ("advantages", |episode| &mut episode.advantages),
        ("returns", |episode| &mut episode.returns),
    ];
    for (name, field) in fields {
        let all = vectors.floats_of(name, &[scored.episodes.len(), width])?;
        for (row, episode) in all.chunks(width).zip(&mut scored.episodes) {
            let values = field(episode);
            values.iter_mut().zip(row).for_each(|(value, expected)| *value = *expected);
        }
    }
    Ok(scored)
}

fn read_expected(path: &Path) -> Result<Expected> {
    let text = fsio::read_text_capped(path, EXPECTED_BYTES)?;
    serde_json::from_str(&text).map_err(|error| Error::BadVectors {
        path: path.to_owned(),
        reason: format!("not the settings and metrics of an update: {error}"),
    })
}
