//! Scoring of rollouts: rewards and advantages of each sampled token, steps 1 to 6 of an update. No autodiff graph is built.

use burn::tensor::{Device, Tensor};
use loss::{Whitening, gae, kl_k1, kl_k3, whiten};
use model::{CausalLm, ScalarModel};
use train::{Collective, SingleReplica};

use crate::batch::{EpisodeBatch, n_predicted, scores, valid};
use crate::checks::check_reward_sum;
use crate::reward_terms::RewardTerms;
use crate::rollout::{EndReason, Rollout, Rollouts, Sampling};
use crate::scored::{Scored, ScoredEpisode};
use crate::settings::{KlEstimator, Settings};
use crate::{ActorCritic, Error, Result};

/// Scores rollouts by the policy that sampled them, its frozen reference, the rewards and the value model.
///
/// Errors: settings out of range, no episodes, another number of rewards than of episodes, a non-finite score or log-probability.
pub fn score<'r>(
    rollouts: Rollouts,
    actors: &ActorCritic,
    reference: &CausalLm,
    reward: impl Into<RewardTerms<'r>>,
    settings: &Settings,
    device: &Device,
) -> Result<Scored> {
    score_together(rollouts, actors, reference, reward, settings, device, &SingleReplica)
}

/// Like [`score`], on several replicas with the same models: each evaluates its share of the episodes, and all receive the
/// numbers of every episode.
pub fn score_together<'r>(
    rollouts: Rollouts,
    actors: &ActorCritic,
    reference: &CausalLm,
    reward: impl Into<RewardTerms<'r>>,
    settings: &Settings,
    device: &Device,
    replicas: &dyn Collective,
) -> Result<Scored> {
    settings.check()?;
    if rollouts.episodes.is_empty() {
        return Err(Error::NoEpisodes);
    }
    let terms = reward.into();
    if terms.stated.is_some_and(|stated| stated.len() != rollouts.episodes.len()) {
        return Err(Error::Rewards {
            n: terms.stated.map_or(0, <[f32]>::len),
            n_episodes: rollouts.episodes.len(),
        });
    }
    let share = replicas.share().of(rollouts.episodes.len());
    let mine = rollouts.episodes.get(share).unwrap_or_default();
    let sampling = &rollouts.sampling;
    let outputs = model_outputs(mine, sampling, actors, reference, terms.models, settings, device);
    let outputs = gathered(outputs, &rollouts, terms.models.len(), settings, replicas)?;
    with_advantages(rollouts, outputs, terms, settings)
}

/// The outputs of all models for one episode.
struct ModelOutputs {
    logprobs: Vec<f32>,
    ref_logprobs: Vec<f32>,
    kl: Vec<f32>,
    values: Vec<f32>,
    /// The score of each reward model.
    model_scores: Vec<f32>,
}

/// Steps 1 to 3 on some of the episodes.
fn model_outputs(
    episodes: &[Rollout],
    sampling: &Sampling,
    actors: &ActorCritic,
    reference: &CausalLm,
    rewards: &[ScalarModel],
    settings: &Settings,
    device: &Device,
) -> Vec<ModelOutputs> {
    let policy = generate::without_autodiff(&actors.policy);
    let reference = generate::without_autodiff(reference);
    let value = valid(&actors.value);
    let rewards: Vec<ScalarModel> = rewards.iter().map(valid).collect();

    let mut outputs = Vec::with_capacity(episodes.len());
    for chunk in episodes.chunks(settings.micro_batch) {
        let chunk: Vec<&Rollout> = chunk.iter().collect();
        let max_new_tokens = sampling.max_new_tokens;
        let batch = EpisodeBatch::new(&chunk, settings.conventions, max_new_tokens, device);

        // 1. Old and reference log-probabilities by the function that training uses, not those of
        //    the sampler: so the first ratio is 1. (Ouyang et al. 2022, section 3.5.)
        let (logprobs, _) = batch.logprobs(&policy, sampling, settings.conventions);
        let (ref_logprobs, _) = batch.logprobs(&reference, sampling, settings.conventions);
        let (logprobs_n, ref_logprobs_n) = (logprobs.logprobs_n, ref_logprobs.logprobs_n);

        // 2. The KL of each token from the reference.
        let kl_n = match settings.kl_estimator {
            KlEstimator::K1 => kl_k1(logprobs_n.clone(), ref_logprobs_n.clone()),
            KlEstimator::K3 => kl_k3(logprobs_n.clone(), ref_logprobs_n.clone()),
        };

        // 3. Values of each position, and the reward models' scores of the episode.
        let (values_n, _) = batch.values(&value);
        let scores: Vec<Vec<f32>> =
            rewards.iter().map(|reward| scores(&chunk, reward, device)).collect();

        let per_token = [host(&logprobs_n), host(&ref_logprobs_n), host(&kl_n)];
        let values = host(&values_n);
        let (mut token, mut valued) = (0, 0);
        for (idx, rollout) in chunk.iter().enumerate() {
            let span = rollout.span();
            let n_values = settings.conventions.n_values(span.response, max_new_tokens);
            let [logprobs, ref_logprobs, kl] = [0, 1, 2].map(|which: usize| {
                per_token[which].iter().copied().skip(token).take(span.response).collect()
            });
            let values = values.iter().copied().skip(valued).take(n_values).collect();
            // Positions after the end have log-probabilities by TRL's conventions only.
            token += n_predicted(rollout, settings.conventions);
            valued += n_values;
            let model_scores =
                scores.iter().filter_map(|scores| scores.get(idx).copied()).collect();
            outputs.push(ModelOutputs { logprobs, ref_logprobs, kl, values, model_scores });
        }
    }
    outputs
}

/// The outputs of all replicas in the order of episodes.
fn gathered(
    mine: Vec<ModelOutputs>,
    rollouts: &Rollouts,
    n_models: usize,
    settings: &Settings,
    replicas: &dyn Collective,
) -> Result<Vec<ModelOutputs>> {
    if replicas.world_size() == 1 {
        return Ok(mine);
    }
    let numbers = |outputs: &ModelOutputs| -> Vec<f64> {
        let parts = [&outputs.logprobs, &outputs.ref_logprobs, &outputs.kl, &outputs.values];
        parts.into_iter().flatten().chain(&outputs.model_scores).map(|x| f64::from(*x)).collect()
    };
    let all = replicas.all_gather(mine.iter().flat_map(numbers).collect())?;
    let mut all = all.into_iter().flatten().map(|number| number as f32);
    let mut next = |n: usize| -> Vec<f32> { all.by_ref().take(n).collect() };
    let max_new_tokens = rollouts.sampling.max_new_tokens;
    let of_episode = |rollout: &Rollout| {
        let n = rollout.span().response;
        let n_values = settings.conventions.n_values(n, max_new_tokens);
        let (logprobs, ref_logprobs, kl) = (next(n), next(n), next(n));
        let (values, model_scores) = (next(n_values), next(n_models));
        ModelOutputs { logprobs, ref_logprobs, kl, values, model_scores }
    };
    Ok(rollouts.episodes.iter().map(of_episode).collect())
}

/// Steps 4 to 6 on all episodes of an update.
fn with_advantages(
    rollouts: Rollouts,
    outputs: Vec<ModelOutputs>,
    terms: RewardTerms<'_>,
    settings: &Settings,
) -> Result<Scored> {
    let ends = rollouts.episodes.iter().map(|rollout| rollout.span().end);
    let mut episodes: Vec<ScoredEpisode> = outputs
        .into_iter()
        .zip(ends)
        .enumerate()
        .map(|(idx, (outputs, end))| rewarded(outputs, terms, idx, end, settings))
        .collect();
    // An episode without any reward is no sample of the objective. A NaN of a model is an error.
    for (number, episode) in episodes.iter().enumerate().filter(|(idx, _)| !terms.is_missing(*idx))
    {
        check_reward_sum(number, episode, settings.kl_coef)?;
    }

    // 5. Whitened rewards keep their mean, whose sign is meaningful.
    if settings.whiten_rewards {
        whiten_all(&mut episodes, Whitening::KeepMean, |episode| &mut episode.rewards);
    }

    // 6. Advantages and returns of each episode, then whitening of the advantages over all tokens.
    //    (Schulman et al. 2016, equation 16.)
    for episode in episodes.iter_mut().filter(|episode| episode.has_reward()) {
        let estimated = gae(&episode.rewards, &episode.values, settings.gamma, settings.lambda);
        episode.returns = estimated.returns;
        episode.advantages = estimated.advantages;
        episode.advantages.truncate(episode.logprobs.len());
    }
    whiten_all(&mut episodes, Whitening::Shift, |episode| &mut episode.advantages);
    Ok(Scored { rollouts, episodes })
}

/// 4. The reward of each token is −β times its KL; the last position adds the score minus the penalty for a missing end
///    token.
fn rewarded(
    outputs: ModelOutputs,
    terms: RewardTerms<'_>,
    idx: usize,
    end: EndReason,
    settings: &Settings,
) -> ScoredEpisode {
    let ModelOutputs { logprobs, ref_logprobs, kl, values, model_scores } = outputs;
    let score = terms.sum(&model_scores, idx);
    let penalty = match end {
        EndReason::EndToken => 0.0,
        EndReason::Length => settings.missing_eos_penalty.unwrap_or(0.0),
    };
    let score = score - penalty as f32;
    let mut rewards: Vec<f32> = kl.iter().map(|kl| -(settings.kl_coef as f32) * kl).collect();
    rewards.resize(values.len(), 0.0);
    let (mut advantages, mut returns) = (Vec::new(), Vec::new());
    if terms.is_missing(idx) {
        // Masked out of every loss.
        advantages.resize(logprobs.len(), 0.0);
        returns.clone_from(&values);
    } else if let Some(last) = rewards.last_mut() {
        *last += score;
    }
    ScoredEpisode {
        logprobs,
        ref_logprobs,
        kl,
        score,
        model_scores,
        values,
        rewards,
        advantages,
        returns,
    }
}

/// Whitens one field over all episodes with a reward together.
fn whiten_all(
    episodes: &mut [ScoredEpisode],
    whitening: Whitening,
    field: impl Fn(&mut ScoredEpisode) -> &mut Vec<f32>,
) {
    let mut episodes: Vec<&mut ScoredEpisode> =
        episodes.iter_mut().filter(|episode| episode.has_reward()).collect();
    let mut all: Vec<f32> =
        episodes.iter_mut().flat_map(|episode| field(episode).iter().copied()).collect();
    whiten(&mut all, whitening);
    let mut whitened = all.into_iter();
    for episode in episodes {
        for (value, whitened) in field(episode).iter_mut().zip(&mut whitened) {
            *value = whitened;
        }
    }
}

fn host(x: &Tensor<1>) -> Vec<f32> {
    kernels::with_host_values(x, <[f32]>::to_vec)
}
