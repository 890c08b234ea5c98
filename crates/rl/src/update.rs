//! The PPO update of policy and value model from scored episodes: steps 7 to 11.
//!
//! The caller gives the order of the episodes, so nothing here is random.

use std::collections::BTreeMap;

use burn::tensor::{Bool, Device, Tensor, TensorData};
use loss::{ppo_policy, ppo_value};
use model::ExpertLoad;
use train::{Learner, StepPlace, StepSums, apply_update};

use crate::batch::{EpisodeBatch, n_predicted};
use crate::checks::{check_first_ratio, check_orders};
use crate::metrics::{MinibatchMetrics, metrics};
use crate::rollout::Rollout;
use crate::scored::{Scored, ScoredEpisode};
use crate::settings::{Conventions, Settings};
use crate::{ActorCritic, Error, Result};

/// The result of an update.
#[derive(Debug)]
pub struct Updated {
    /// The models after the update.
    pub actors: ActorCritic,
    /// Metrics under TRL's names, and the load of the policy's experts.
    pub metrics: BTreeMap<String, f64>,
    /// Number of optimizer steps: fewer than epochs × minibatches if `target_kl` stopped the update.
    pub n_steps: usize,
    /// Mean global gradient norm of the steps, before clipping.
    pub grad_norm: f64,
}

/// One PPO update with learning rate `lr`: one epoch for each of `orders`, each a permutation of the episodes, split into
/// `n_minibatches` equal parts with one optimizer step each. All replicas have scored the same episodes.
///
/// Errors: orders that are not permutations, a first ratio other than 1, a non-finite loss or gradient.
pub fn update(
    mut actors: ActorCritic,
    learner: &mut Learner<'_>,
    lr: f64,
    scored: &Scored,
    orders: &[Vec<usize>],
    settings: &Settings,
) -> Result<Updated> {
    settings.check()?;
    let n_episodes = scored.episodes.len();
    check_orders(orders, n_episodes)?;
    if n_episodes == 0 || !n_episodes.is_multiple_of(settings.n_minibatches) {
        return Err(Error::Minibatches { n_episodes, n_minibatches: settings.n_minibatches });
    }
    let max_new_tokens = scored.rollouts.sampling.max_new_tokens;
    let (mut all_metrics, mut n_steps, mut norms) = (Vec::new(), 0, 0.0);
    let mut expert_load = ExpertLoad::default();

    // 7. Several epochs over the same episodes, each in minibatches. (Schulman et al. 2017, algorithm 1.)
    let minibatches =
        orders.iter().flat_map(|order| order.chunks(n_episodes / settings.n_minibatches));
    for minibatch in minibatches {
        let samples: Vec<u64> = minibatch.iter().map(|episode| *episode as u64).collect();
        let place = StepPlace { step: learner.optimizer.n_updates() + 1, samples: &samples };
        let rollouts = rollouts_of(scored, minibatch);
        let has_reward: Vec<bool> = minibatch
            .iter()
            .map(|idx| scored.episodes.get(*idx).is_some_and(ScoredEpisode::has_reward))
            .collect();
        let mut metrics = MinibatchMetrics::count(&rollouts, &has_reward, settings, max_new_tokens);
        // The loss is a mean over the whole minibatch already, so it is divided by 1.
        let mut sums = learner.begin_step(1, place)?;
        let is_first = all_metrics.is_empty();
        let share = minibatch.get(learner.replicas.share().of(minibatch.len()));
        let share = share.unwrap_or_default();
        let device = learner.device;
        add_losses(&actors, &mut sums, &mut metrics, scored, share, settings, device, is_first)?;
        metrics.sum_over_replicas(learner.replicas)?;
        let is_too_far = settings.target_kl.is_some_and(|limit| metrics.mean_approx_kl() > limit);
        all_metrics.push(metrics);
        if is_too_far {
            break;
        }

        // 11. One optimizer step for both models.
        expert_load.add(&sums.expert_load);
        if !has_signal(scored, minibatch) {
            learner.checks.expect_no_gradient();
        }
        let report;
        (actors, report) = apply_update(actors, learner, sums, lr)?;
        norms += report.grad_norm;
        n_steps += 1;
    }
    let mut metrics = metrics(scored, &all_metrics, settings);
    metrics.extend(expert_load.metrics());
    let grad_norm = norms / n_steps.max(1) as f64;
    Ok(Updated { actors, metrics, n_steps, grad_norm })
}

/// Whether some token of a minibatch is better or worse than expected. Otherwise the policy has no gradient: no episode has a
/// reward, or whitening has made a single advantage 0.
fn has_signal(scored: &Scored, minibatch: &[usize]) -> bool {
    let mut episodes = minibatch.iter().filter_map(|idx| scored.episodes.get(*idx));
    episodes.any(|episode| {
        episode.has_reward() && episode.advantages.iter().any(|advantage| *advantage != 0.0)
    })
}

fn rollouts_of<'a>(scored: &'a Scored, episodes: &[usize]) -> Vec<&'a Rollout> {
    episodes.iter().filter_map(|episode| scored.rollouts.episodes.get(*episode)).collect()
}

/// Adds losses, gradients and metrics of one replica's share of a minibatch; counts are those of the whole minibatch.
#[expect(clippy::too_many_arguments, reason = "the share, its models and its sums")]
fn add_losses(
    actors: &ActorCritic,
    sums: &mut StepSums<'_>,
    metrics: &mut MinibatchMetrics,
    scored: &Scored,
    share: &[usize],
    settings: &Settings,
    device: &Device,
    is_first: bool,
) -> Result<()> {
    let sampling = &scored.rollouts.sampling;
    let conventions = settings.conventions;
    // Without any episode that has a reward, the sums are 0 whatever divides them.
    let or_all = |n: usize| if n == 0 { metrics.n_positions.max(1) as u64 } else { n as u64 };
    let (n_tokens, n_values) = (or_all(metrics.n_tokens), or_all(metrics.n_values));
    for micro in share.chunks(settings.micro_batch) {
        let episodes = rollouts_of(scored, micro);
        let batch = EpisodeBatch::new(&episodes, conventions, sampling.max_new_tokens, device);
        let old = Old::new(scored, micro, conventions, device);

        // 8. The clipped policy loss, equation 7.
        let (new, auxiliary) = batch.logprobs(&actors.policy, sampling, conventions);
        sums.expert_load.add(&auxiliary.expert_load);
        let policy = ppo_policy(
            new.logprobs_n,
            old.logprobs_n,
            old.advantages_n,
            old.is_token_n,
            n_tokens,
            settings.clip_range,
        );
        if is_first {
            kernels::with_host_values(&policy.ratio_n, check_first_ratio)?;
        }

        let policy_loss = policy.loss.value();
        metrics.policy_loss += policy_loss;
        metrics.n_clipped += sum(policy.n_clipped);
        metrics.approx_kl += sum(policy.approx_kl_n);
        metrics.entropy += sum(new.entropy_n);
        let n_predicted = policy.ratio_n.dims()[0];
        metrics.n_predicted += n_predicted;
        metrics.ratio += sum(policy.ratio_n);
        // The two models share no trainable weight, so each graph is freed before the next one is built.
        sums.loss += policy_loss / n_tokens as f64;
        let loss =
            policy.loss.with_aux_loss(auxiliary.loss, n_predicted as u64).mean_over(n_tokens);
        sums.gradients.accumulate(actors, || loss.backward());

        // 9. The clipped value loss.
        let (values_n, aux_loss) = batch.values(&actors.value);
        let n_micro = values_n.dims()[0] as u64;
        let value = ppo_value(
            values_n,
            old.values_n,
            old.returns_n,
            old.is_value_n,
            n_values,
            settings.clip_range_value,
        );
        let value_loss = value.loss.value();
        metrics.value_loss += value_loss;
        metrics.n_values_clipped += sum(value.n_clipped);

        // 10. Both losses are means over the whole minibatch; that of the values is weighted by `vf_coef`.
        let loss = value.loss.with_aux_loss(aux_loss, n_micro).mean_over(n_values);
        let loss = loss.mul_scalar(settings.vf_coef);
        sums.loss += settings.vf_coef * value_loss / n_values as f64;
        sums.gradients.accumulate(actors, || loss.backward());
    }
    Ok(())
}

/// Numbers of the episodes from before the update, flat as in a batch.
struct Old {
    logprobs_n: Tensor<1>,
    advantages_n: Tensor<1>,
    is_token_n: Tensor<1, Bool>,
    values_n: Tensor<1>,
    returns_n: Tensor<1>,
    is_value_n: Tensor<1, Bool>,
}

impl Old {
    fn new(scored: &Scored, episodes: &[usize], conventions: Conventions, device: &Device) -> Self {
        let device = device.clone().inner();
        let (mut logprobs, mut advantages, mut is_token) = (Vec::new(), Vec::new(), Vec::new());
        let (mut values, mut returns, mut is_value) = (Vec::new(), Vec::new(), Vec::new());
        let both = |episode: &usize| -> Option<(&Rollout, &ScoredEpisode)> {
            Some((scored.rollouts.episodes.get(*episode)?, scored.episodes.get(*episode)?))
        };
        for (rollout, episode) in episodes.iter().filter_map(both) {
            let n_tokens = episode.logprobs.len();
            logprobs.extend_from_slice(&episode.logprobs);
            advantages.extend_from_slice(&episode.advantages);
            is_token.resize(is_token.len() + n_tokens, episode.has_reward());
            // Positions after the end token are not trained on.
            let n_all = logprobs.len() - n_tokens + n_predicted(rollout, conventions);
            logprobs.resize(n_all, 0.0);
            advantages.resize(n_all, 0.0);
            is_token.resize(n_all, false);
            values.extend_from_slice(&episode.values);
            returns.extend_from_slice(&episode.returns);
            is_value.resize(values.len(), episode.has_reward());
        }
        let floats = |values: Vec<f32>| {
            let n = values.len();
            Tensor::<1>::from_data(TensorData::new(values, [n]), &device)
        };
        let bools = |values: Vec<bool>| {
            let n = values.len();
            Tensor::<1, Bool>::from_data(TensorData::new(values, [n]), &device)
        };
        Self {
            logprobs_n: floats(logprobs),
            advantages_n: floats(advantages),
            is_token_n: bools(is_token),
            values_n: floats(values),
            returns_n: floats(returns),
            is_value_n: bools(is_value),
        }
    }
}

/// The sum on the host, in f64.
fn sum(x: Tensor<1>) -> f64 {
    kernels::with_host_values(&x, |values| values.iter().map(|value| f64::from(*value)).sum())
}
