//! Scoring of groups: log-probabilities before the update, where they are needed, and the advantage of each completion. No
//! autodiff graph is built.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use loss::{GroupRewards, group_advantages, known_mean, known_std};
use model::CausalLm;
use train::Collective;

use super::metrics::completion_metrics;
use super::settings::GroupSettings;
use crate::rollout::{EndReason, Rollout, Rollouts, Sampling};
use crate::settings::Conventions;
use crate::{Error, Result};

/// Rewards of completions in columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RewardTable {
    /// Name of each reward.
    pub names: Vec<String>,
    /// Weight of each reward in the sum.
    pub weights: Vec<f64>,
    /// Value of each reward for each completion; NaN where a completion has no such reward.
    pub values: Vec<Vec<f64>>,
}

/// The numbers of one completion; index 0 is its first token. Empty where the settings need none.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupEpisode {
    /// log π of each token under the policy that sampled it.
    pub logprobs: Vec<f32>,
    /// log π_ref of each token under the reference.
    pub ref_logprobs: Vec<f32>,
    /// Entropy of the policy that sampled it at each token.
    pub entropies: Vec<f32>,
    /// Weighted sum of its rewards; NaN without any.
    pub reward: f64,
    /// Its advantage, that of each of its tokens.
    pub advantage: f32,
    /// Whether its tokens are in the loss.
    pub is_trained: bool,
}

/// The scored completions of an update, those of a prompt adjacent.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredGroups {
    /// The rollouts.
    pub rollouts: Rollouts,
    /// One for each rollout.
    pub episodes: Vec<GroupEpisode>,
    /// The rewards.
    pub rewards: RewardTable,
    /// Metrics of completions and rewards under TRL's names.
    pub metrics: BTreeMap<String, f64>,
}

/// Scores completions, of which there are `num_generations` for each prompt: by the policy that sampled them and its frozen
/// reference, as far as the settings need their log-probabilities, and by their rewards.
///
/// Each replica evaluates its share of the completions, and all receive the numbers of every one.
///
/// Errors: settings out of range, no completions, an incomplete group, another number of rewards, a missing reference, a
/// non-finite log-probability.
pub fn score_groups(
    rollouts: Rollouts,
    rewards: RewardTable,
    policy: &CausalLm,
    reference: Option<&CausalLm>,
    settings: &GroupSettings,
    device: &Device,
    replicas: &dyn Collective,
) -> Result<ScoredGroups> {
    settings.check()?;
    let n_episodes = rollouts.episodes.len();
    if n_episodes == 0 {
        return Err(Error::NoEpisodes);
    }
    if !n_episodes.is_multiple_of(settings.num_generations) {
        return Err(Error::Groups { n_episodes, num_generations: settings.num_generations });
    }
    if rewards.values.len() != n_episodes {
        return Err(Error::Rewards { n: rewards.values.len(), n_episodes });
    }
    let reference = settings.has_reference().then(|| reference.ok_or(Error::NoReference));
    let reference = reference.transpose()?;
    let share = replicas.share().of(n_episodes);
    let mine = rollouts.episodes.get(share).unwrap_or_default();
    let outputs = model_outputs(mine, &rollouts.sampling, policy, reference, settings, device);
    let outputs = gathered(outputs, &rollouts, settings, replicas)?;
    with_advantages(rollouts, rewards, outputs, settings)
}

/// The outputs of the models for one completion.
#[derive(Default)]
struct ModelOutputs {
    logprobs: Vec<f32>,
    ref_logprobs: Vec<f32>,
    entropies: Vec<f32>,
}

fn model_outputs(
    episodes: &[Rollout],
    sampling: &Sampling,
    policy: &CausalLm,
    reference: Option<&CausalLm>,
    settings: &GroupSettings,
    device: &Device,
) -> Vec<ModelOutputs> {
    let policy = settings.has_old_logprobs().then(|| generate::without_autodiff(policy));
    let reference = reference.map(generate::without_autodiff);
    let mut outputs = Vec::with_capacity(episodes.len());
    for chunk in episodes.chunks(settings.micro_batch) {
        let chunk: Vec<&Rollout> = chunk.iter().collect();
        let conventions = Conventions::RealTokens;
        let batch = settings.batch(&chunk, sampling, device);
        // By the function that training uses, not the sampler's, so that the first ratio is 1.
        let logprobs = |model: &CausalLm| batch.logprobs(model, sampling, conventions).0;
        let old = policy.as_deref().map(logprobs);
        let of_reference = reference.as_deref().map(logprobs);
        let per_token = [
            old.as_ref().map(|old| host(&old.logprobs_n)),
            of_reference.map(|of| host(&of.logprobs_n)),
            old.filter(|_| settings.has_old_entropies()).map(|old| host(&old.entropy_n)),
        ];
        let mut start = 0;
        for rollout in &chunk {
            let n = rollout.span().response;
            let of = |values: &Option<Vec<f32>>| -> Vec<f32> {
                let values = values.as_deref().and_then(|values| values.get(start..start + n));
                values.map(<[f32]>::to_vec).unwrap_or_default()
            };
            let [logprobs, ref_logprobs, entropies] = per_token.each_ref().map(of);
            outputs.push(ModelOutputs { logprobs, ref_logprobs, entropies });
            start += n;
        }
    }
    outputs
}

/// The outputs of all replicas in the order of completions.
fn gathered(
    mine: Vec<ModelOutputs>,
    rollouts: &Rollouts,
    settings: &GroupSettings,
    replicas: &dyn Collective,
) -> Result<Vec<ModelOutputs>> {
    if replicas.world_size() == 1 {
        return Ok(mine);
    }
    let numbers = |outputs: &ModelOutputs| -> Vec<f64> {
        let parts = [&outputs.logprobs, &outputs.ref_logprobs, &outputs.entropies];
        parts.into_iter().flatten().map(|x| f64::from(*x)).collect()
    };
    let all = replicas.all_gather(mine.iter().flat_map(numbers).collect())?;
    let mut all = all.into_iter().flatten().map(|number| number as f32);
    let mut next = |is_there: bool, n: usize| -> Vec<f32> {
        all.by_ref().take(if is_there { n } else { 0 }).collect()
    };
    let of_episode = |rollout: &Rollout| {
        let n = rollout.span().response;
        ModelOutputs {
            logprobs: next(settings.has_old_logprobs(), n),
            ref_logprobs: next(settings.has_reference(), n),
            entropies: next(settings.has_old_entropies(), n),
        }
    };
    Ok(rollouts.episodes.iter().map(of_episode).collect())
}

fn with_advantages(
    rollouts: Rollouts,
    rewards: RewardTable,
    outputs: Vec<ModelOutputs>,
    settings: &GroupSettings,
) -> Result<ScoredGroups> {
    let is_trained = |rollout: &Rollout| {
        !settings.mask_truncated_completions || rollout.span().end == EndReason::EndToken
    };
    let mut metrics = completion_metrics(&rollouts.episodes);

    // Leave-one-out: the reward of a completion includes its KL divergence from the reference, estimated by k1.
    let mut penalties = Vec::new();
    if settings.reward_beta != 0.0 {
        let kl = |outputs: &ModelOutputs| -> f64 {
            let pairs = outputs.logprobs.iter().zip(&outputs.ref_logprobs);
            pairs.map(|(old, of_ref)| f64::from(*old) - f64::from(*of_ref)).sum()
        };
        let trained = outputs.iter().zip(&rollouts.episodes);
        let kls: Vec<f64> = trained
            .map(|(outputs, rollout)| if is_trained(rollout) { kl(outputs) } else { 0.0 })
            .collect();
        penalties = kls.iter().map(|kl| settings.reward_beta * kl).collect();
        let n_tokens: usize =
            rollouts.episodes.iter().filter(|e| is_trained(e)).map(|e| e.span().response).sum();
        metrics.insert("kl".to_owned(), kls.iter().sum::<f64>() / n_tokens.max(1) as f64);
    }

    let groups = GroupRewards {
        values: &rewards.values,
        weights: &rewards.weights,
        group_size: settings.num_generations,
        penalties: &penalties,
    };
    let advantages = group_advantages(&groups, settings.advantages);
    for (idx, name) in rewards.names.iter().enumerate() {
        let column: Vec<f64> = rewards.values.iter().map(|row| row[idx]).collect();
        insert_known(&mut metrics, format!("rewards/{name}/mean"), known_mean(&column));
        insert_known(&mut metrics, format!("rewards/{name}/std"), known_std(&column));
    }
    insert_known(&mut metrics, "reward".to_owned(), known_mean(&advantages.totals));
    insert_known(&mut metrics, "reward_std".to_owned(), known_std(&advantages.totals));
    metrics.insert("frac_reward_zero_std".to_owned(), advantages.frac_zero_std);

    let numbers = outputs.into_iter().zip(advantages.advantages).zip(advantages.totals);
    let mut episodes = Vec::with_capacity(rollouts.episodes.len());
    for (idx, (((outputs, advantage), reward), rollout)) in
        numbers.zip(&rollouts.episodes).enumerate()
    {
        let ModelOutputs { logprobs, ref_logprobs, entropies } = outputs;
        let is_finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
        if !is_finite(&logprobs) || !is_finite(&ref_logprobs) || !advantage.is_finite() {
            return Err(Error::NotFinite { episode: idx });
        }
        let is_trained = is_trained(rollout);
        episodes.push(GroupEpisode {
            logprobs,
            ref_logprobs,
            entropies,
            reward,
            advantage,
            is_trained,
        });
    }
    Ok(ScoredGroups { rollouts, episodes, rewards, metrics })
}

/// Inserts a metric unless it is not known.
fn insert_known(metrics: &mut BTreeMap<String, f64>, name: String, value: f64) {
    if !value.is_nan() {
        metrics.insert(name, value);
    }
}

fn host(x: &Tensor<1>) -> Vec<f32> {
    kernels::with_host_values(x, <[f32]>::to_vec)
}

/// Whether the rewards of a group differ, so that its advantages are not all 0. `rewards` are those of its completions.
pub fn has_signal(rewards: &[Vec<f64>], weights: &[f64], kind: loss::AdvantageKind) -> bool {
    use loss::{AdvantageKind, Aggregation};
    let n = rewards.len();
    let differs = |values: Vec<f64>| known_std(&values) > ZERO_STD;
    match kind {
        AdvantageKind::Group { aggregation: Aggregation::NormalizeThenSum, .. } => {
            (0..weights.len()).any(|idx| differs(rewards.iter().map(|row| row[idx]).collect()))
        }
        AdvantageKind::Group { aggregation: Aggregation::SumThenNormalize, .. }
        | AdvantageKind::LeaveOneOut { .. } => {
            let groups = GroupRewards { values: rewards, weights, group_size: n, penalties: &[] };
            differs(group_advantages(&groups, kind).totals)
        }
    }
}

/// Largest standard deviation of rewards that count as equal, as in `frac_reward_zero_std`.
const ZERO_STD: f64 = 1e-8;
