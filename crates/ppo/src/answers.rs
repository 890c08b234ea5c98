//! Answers sampled from the policy, for training, validation and the samples of the log. Ids are decoded to text for display
//! only.

use burn::tensor::Device;
use generate::Settings as Generation;
use model::{CausalLm, ScalarModel};
use plan::{Plan, PpoPlan, StagePlan};
use recipe::PpoSection;
use rl::{
    ActorCritic, EndReason, Prompts, RewardTerms, Rollouts, Sampling, Settings, StatedRewards,
    question, reward_metrics, shown_text,
};
use seed::Purpose;
use serde_json::{Value, json};
use train::{Collective, EvalRow, SampleRow, SingleReplica};

use crate::metrics::AnswerMetrics;
use crate::{FrozenModels, Result};

/// Number of prompts whose answers are logged.
const SHOWN: usize = 3;

/// Answers before the first update.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Metrics of the validation prompts; `None` without validation.
    pub metrics: Option<AnswerMetrics>,
    /// The logged prompts.
    pub prompts: Prompts,
    /// The answers to the logged prompts.
    pub texts: Vec<String>,
}

/// The sampling settings: the full distribution at the recipe's temperature.
pub fn sampling(section: &PpoSection, stage: &StagePlan) -> Generation {
    Generation {
        sampling: generate::Sampling {
            temperature: section.temperature,
            ..generate::Sampling::default()
        },
        max_new_tokens: section.max_new_tokens,
        eos_ids: stage.tokenizer.eos_ids(),
        vocab_size: Some(stage.tokenizer.vocab_size()),
        batch_rows: stage.micro_batch.max(plan::MIN_SAMPLED_TOGETHER),
        ..Generation::default()
    }
}

/// Samples `n` answers to each prompt, in the order of prompts, on all replicas together.
pub(crate) fn sample(
    policy: &CausalLm,
    prompts: &[Vec<u32>],
    n: usize,
    section: &PpoSection,
    stage: &StagePlan,
    seed: u64,
    replicas: &dyn Collective,
) -> Result<Rollouts> {
    let settings = Generation { n, ..sampling(section, stage) };
    let distribution = Sampling::of(&settings)?;
    Ok(rl::sample_together(policy, prompts, &settings, &distribution, seed, replicas)?)
}

/// The rewards of answers that need no reward model; `None` if reward models compute all.
pub(crate) fn stated(
    rollouts: &Rollouts,
    prompts: &Prompts,
    ppo: &PpoPlan,
    frozen: &FrozenModels,
    stage: &StagePlan,
    replicas: &dyn Collective,
) -> Result<Option<StatedRewards>> {
    let (rewards, sources, tokenizer) = (&ppo.rewards, &frozen.sources, &stage.tokenizer);
    // Prompts have equal numbers of answers.
    let n = rollouts.episodes.len() / prompts.ids.len().max(1);
    Ok(StatedRewards::of(rollouts, prompts, n, rewards, sources, tokenizer, replicas)?)
}

/// The terms of the episodes' scores.
pub(crate) fn terms<'r>(
    frozen: &'r FrozenModels,
    stated: Option<&'r StatedRewards>,
) -> RewardTerms<'r> {
    RewardTerms {
        models: frozen.sources.models(),
        weights: frozen.sources.weights(),
        stated: stated.map(|stated| stated.totals.as_slice()),
    }
}

/// The reference's answers, which are the policy's before the first update; a resumed run samples the same ones.
///
/// Scoring needs a value model, whose output is not used here.
pub(crate) fn before(
    plan: &Plan,
    stage: &StagePlan,
    ppo: &PpoPlan,
    frozen: &FrozenModels,
    value: &ScalarModel,
    settings: &Settings,
    device: &Device,
) -> Result<Answers> {
    let prompts = Prompts::shown(&stage.dataset, SHOWN);
    let texts = shown(&frozen.reference, &prompts.ids, plan, stage, &ppo.section)?;
    let mut metrics = None;
    if stage.dataset.n_eval_rows() > 0 {
        let actors = ActorCritic { policy: frozen.reference.clone(), value: value.clone() };
        metrics = Some(validation(plan, stage, ppo, &actors, frozen, settings, device)?);
    }
    Ok(Answers { metrics, prompts, texts })
}

/// The metrics of answers to the validation prompts; the random draws are the same at every step.
pub(crate) fn validation(
    plan: &Plan,
    stage: &StagePlan,
    ppo: &PpoPlan,
    actors: &ActorCritic,
    frozen: &FrozenModels,
    settings: &Settings,
    device: &Device,
) -> Result<AnswerMetrics> {
    let max_rows = stage.keys.eval.as_ref().and_then(|eval| eval.max_rows);
    let prompts = Prompts::of_validation(&stage.dataset, stage.micro_batch, max_rows);
    let n = rl::VALIDATION_ANSWERS.div_ceil(prompts.ids.len().max(1));
    let seed = seed::derive(plan.seed, &stage.name, Purpose::Eval, 0, 0);
    let rollouts =
        sample(&actors.policy, &prompts.ids, n, &ppo.section, stage, seed, &SingleReplica)?;
    let device = device.clone().inner();
    let stated = stated(&rollouts, &prompts, ppo, frozen, stage, &SingleReplica)?;
    let terms = terms(frozen, stated.as_ref());
    let scored = rl::score(rollouts, actors, &frozen.reference, terms, settings, &device)?;
    let episodes = &scored.rollouts.episodes;
    let texts: Vec<String> =
        episodes.iter().map(|episode| shown_text(episode, &stage.tokenizer)).collect();
    let sum = |values: &[f32]| values.iter().map(|value| f64::from(*value)).sum::<f64>();
    let scores: Vec<f64> = scored.episodes.iter().map(|e| f64::from(e.score)).collect();
    let kls: Vec<f64> = scored.episodes.iter().map(|episode| sum(&episode.kl)).collect();
    let n_ended = episodes.iter().filter(|e| e.span().end == EndReason::EndToken).count();
    let rewards = reward_metrics(stated.as_ref(), &scored);
    Ok(AnswerMetrics { rewards, ..AnswerMetrics::of(&texts, &scores, &kls, n_ended) })
}

/// The current policy's answers to the logged prompts.
pub(crate) fn table(
    actors: &ActorCritic,
    frozen: &FrozenModels,
    before: &Answers,
    plan: &Plan,
    stage: &StagePlan,
    ppo: &PpoPlan,
    step: u64,
) -> Result<Vec<SampleRow>> {
    let seed = seed::derive(plan.seed, &stage.name, Purpose::Sample, step, 0);
    let prompts = &before.prompts;
    let rollouts =
        sample(&actors.policy, &prompts.ids, 1, &ppo.section, stage, seed, &SingleReplica)?;
    let stated = stated(&rollouts, prompts, ppo, frozen, stage, &SingleReplica)?;
    let terms = terms(frozen, stated.as_ref());
    let scores = rl::scores_of(&rollouts.episodes, &terms, &reference_device(frozen));
    let rows = rollouts.episodes.iter().zip(&before.texts).zip(scores);
    Ok(rows
        .map(|((episode, before), score)| SampleRow {
            step,
            prompt: stage.tokenizer.decode(episode.prompt(), false),
            text: shown_text(episode, &stage.tokenizer),
            before: Some(before.clone()),
            score: Some(f64::from(score)).filter(|score| !score.is_nan()),
        })
        .collect())
}

/// The result of the stage: the evaluation of the exported policy, that before the first update, and a prompt with its
/// answers before and after.
pub(crate) fn result(
    before: &Answers,
    exported: Option<&EvalRow>,
    policy: &CausalLm,
    plan: &Plan,
    stage: &StagePlan,
    section: &PpoSection,
) -> Result<Value> {
    let after = shown(policy, &before.prompts.ids, plan, stage, section)?;
    let mut result = json!(exported);
    if result.is_null() {
        result = json!({});
    }
    if let Some(metrics) = &before.metrics {
        result["before"] = json!(metrics.named());
    }
    if let (Some(prompt), Some(was), Some(is)) =
        (before.prompts.ids.first(), before.texts.first(), after.first())
    {
        let prompt = question(prompt, &stage.tokenizer);
        result["example"] = json!({ "prompt": prompt, "before": was, "after": is });
    }
    Ok(result)
}

/// A model's answers to the logged prompts, with a random stream of their own.
fn shown(
    policy: &CausalLm,
    prompts: &[Vec<u32>],
    plan: &Plan,
    stage: &StagePlan,
    section: &PpoSection,
) -> Result<Vec<String>> {
    let seed = seed::derive(plan.seed, &stage.name, Purpose::Sample, 0, 0);
    let rollouts = sample(policy, prompts, 1, section, stage, seed, &SingleReplica)?;
    Ok(rollouts.episodes.iter().map(|episode| shown_text(episode, &stage.tokenizer)).collect())
}

/// The device of the frozen models.
fn reference_device(frozen: &FrozenModels) -> Device {
    frozen.reference.backbone.device()
}
