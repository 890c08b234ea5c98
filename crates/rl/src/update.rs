//! Learning from scored episodes: steps 7 to 11 of an update.
//!
//! Which episodes are seen in which order is given, so nothing here is random.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Bool, Device, Tensor, TensorData};
use loss::{ppo_policy, ppo_value};
use model::{CausalLm, ScalarModel};
use train::{Collective, Gradients, Optimizer, ParameterNames, StepPlace};

use crate::batch::{EpisodeBatch, n_predicted};
use crate::checks::{check_first_ratio, check_orders};
use crate::metrics::{Minibatch, metrics};
use crate::rollout::Rollout;
use crate::score::{Scored, ScoredEpisode};
use crate::settings::{Conventions, Settings};
use crate::{Error, Result};

/// The two models that learn, under one optimizer: names are `policy.` and `value.` and then as ever.
#[derive(Module, Debug)]
pub struct ActorCritic {
    /// What samples.
    pub policy: CausalLm,
    /// What expects rewards.
    pub value: ScalarModel,
}

/// What an update gives.
#[derive(Debug)]
pub struct Updated {
    /// The models after it.
    pub actors: ActorCritic,
    /// Its figures, under TRL's names.
    pub metrics: BTreeMap<String, f64>,
    /// How many steps were made: fewer than epochs × mini-batches where `target_kl` stopped it.
    pub n_steps: usize,
    /// The mean over its steps of the gradient's global norm, before clipping.
    pub grad_norm: f64,
}

/// What turns gradients into steps.
pub struct Learner<'a> {
    /// Over [`ActorCritic`].
    pub optimizer: &'a mut Optimizer,
    /// The learning rate of every step of the update.
    pub lr: f64,
    /// Sees the gradients of each step before they are used.
    pub observe: &'a mut dyn FnMut(&Gradients),
    /// Where the models stand, with autodiff.
    pub device: &'a Device,
    /// The replicas that share each mini-batch; all have scored the same episodes.
    pub replicas: &'a dyn Collective,
}

/// One PPO update: an epoch for each of `orders`, each a permutation of the episodes, cut into
/// `n_minibatches` equal parts; one optimizer step for each part.
///
/// Errors: orders that are no permutations, a first ratio that is not 1, a gradient that is not finite.
pub fn update(
    mut actors: ActorCritic,
    learner: Learner<'_>,
    scored: &Scored,
    orders: &[Vec<usize>],
    settings: &Settings,
) -> Result<Updated> {
    let Learner { optimizer, lr, observe, device, replicas } = learner;
    settings.check()?;
    let n_episodes = scored.episodes.len();
    check_orders(orders, n_episodes)?;
    if n_episodes == 0 || !n_episodes.is_multiple_of(settings.n_minibatches) {
        return Err(Error::Minibatches { n_episodes, n_minibatches: settings.n_minibatches });
    }
    let names = ParameterNames::of(&actors);
    let max_new_tokens = scored.rollouts.sampling.max_new_tokens;
    let (mut minibatches, mut n_steps, mut norms) = (Vec::new(), 0, 0.0);

    // 7. Several epochs over the same episodes, each in mini-batches. (Schulman et al. 2017,
    //    algorithm 1.)
    let steps = orders.iter().flat_map(|order| order.chunks(n_episodes / settings.n_minibatches));
    for chosen in steps {
        let samples: Vec<u64> = chosen.iter().map(|episode| *episode as u64).collect();
        let place = StepPlace { step: optimizer.n_updates() + 1, samples: &samples };
        let rollouts = rollouts_of(scored, chosen);
        let mut sums = Sums {
            gradients: Gradients::new(&names),
            figures: Minibatch::count(&rollouts, settings, max_new_tokens),
        };
        let is_first = minibatches.is_empty();
        let share = chosen.get(replicas.share().of(chosen.len())).unwrap_or_default();
        learn(&actors, &mut sums, scored, share, settings, device, is_first)?;
        let Sums { mut gradients, mut figures } = sums;
        // Replicas add up what each found in its share; from here on all do the same.
        figures.add_up(replicas)?;
        let is_too_far = settings.target_kl.is_some_and(|most| figures.mean_approx_kl() > most);
        minibatches.push(figures);
        if is_too_far {
            break;
        }

        // 11. One optimizer over both models. The loss was a mean already, so it is divided by 1.
        gradients.all_reduce(replicas, device)?;
        let norm = gradients.norm(1, place)?;
        norms += norm.value();
        observe(&gradients);
        actors = optimizer.step(actors, gradients, norm, lr);
        n_steps += 1;
    }
    let metrics = metrics(scored, &minibatches, settings);
    let grad_norm = norms / n_steps.max(1) as f64;
    Ok(Updated { actors, metrics, n_steps, grad_norm })
}

fn rollouts_of<'a>(scored: &'a Scored, chosen: &[usize]) -> Vec<&'a Rollout> {
    chosen.iter().filter_map(|episode| scored.rollouts.episodes.get(*episode)).collect()
}

/// What is added up over a mini-batch; the counts are those of all of it.
struct Sums {
    gradients: Gradients,
    figures: Minibatch,
}

/// Adds the gradients and figures of a share of one mini-batch.
fn learn(
    actors: &ActorCritic,
    sums: &mut Sums,
    scored: &Scored,
    share: &[usize],
    settings: &Settings,
    device: &Device,
    is_first: bool,
) -> Result<()> {
    let sampling = &scored.rollouts.sampling;
    let conventions = settings.conventions;
    let Sums { gradients, figures } = sums;
    let (n_tokens, n_values) = (figures.n_tokens as u64, figures.n_values as u64);
    for micro in share.chunks(settings.micro_batch) {
        let episodes = rollouts_of(scored, micro);
        let batch = EpisodeBatch::new(&episodes, conventions, sampling.max_new_tokens, device);
        let old = Old::new(scored, micro, conventions, device);

        // 8. The clipped policy loss, equation 7.
        let new = batch.logprobs(&actors.policy, sampling, conventions);
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

        figures.policy_loss += policy.loss.value();
        figures.n_clipped += sum(policy.n_clipped);
        figures.approx_kl += sum(policy.approx_kl_n);
        figures.entropy += sum(new.entropy_n);
        figures.n_predicted += policy.ratio_n.dims()[0];
        figures.ratio += sum(policy.ratio_n);
        // The two models share no trained weight: one after the other, each graph is gone before the next is built.
        gradients.accumulate(actors, || policy.loss.mean_over(n_tokens).backward());

        // 9. The clipped value loss.
        let value = ppo_value(
            batch.values(&actors.value),
            old.values_n,
            old.returns_n,
            old.is_value_n,
            n_values,
            settings.clip_range_value,
        );
        figures.value_loss += value.loss.value();
        figures.n_values_clipped += sum(value.n_clipped);

        // 10. Both are means over the whole mini-batch, the value's by its weight.
        let loss = value.loss.mean_over(n_values).mul_scalar(settings.vf_coef);
        gradients.accumulate(actors, || loss.backward());
    }
    Ok(())
}

/// What was known before learning, side by side as a batch has it.
struct Old {
    logprobs_n: Tensor<1>,
    advantages_n: Tensor<1>,
    is_token_n: Tensor<1, Bool>,
    values_n: Tensor<1>,
    returns_n: Tensor<1>,
    is_value_n: Tensor<1, Bool>,
}

impl Old {
    fn new(scored: &Scored, chosen: &[usize], conventions: Conventions, device: &Device) -> Self {
        let device = device.clone().inner();
        let (mut logprobs, mut advantages, mut is_token) = (Vec::new(), Vec::new(), Vec::new());
        let (mut values, mut returns) = (Vec::new(), Vec::new());
        let both = |episode: &usize| -> Option<(&Rollout, &ScoredEpisode)> {
            Some((scored.rollouts.episodes.get(*episode)?, scored.episodes.get(*episode)?))
        };
        for (rollout, episode) in chosen.iter().filter_map(both) {
            let n_tokens = episode.logprobs.len();
            logprobs.extend_from_slice(&episode.logprobs);
            advantages.extend_from_slice(&episode.advantages);
            is_token.resize(is_token.len() + n_tokens, true);
            // Behind the end nothing is learned.
            let n_all = logprobs.len() - n_tokens + n_predicted(rollout, conventions);
            logprobs.resize(n_all, 0.0);
            advantages.resize(n_all, 0.0);
            is_token.resize(n_all, false);
            values.extend_from_slice(&episode.values);
            returns.extend_from_slice(&episode.returns);
        }
        let is_value = vec![true; values.len()];
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
