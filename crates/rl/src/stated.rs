//! Rewards that are computed from the text of answers, by rules, judges and programs.

use std::collections::BTreeMap;

use loss::{known_mean, known_std};
use plan::RewardsPlan;
use rewards::{Completion, GradedText};
use tokenizer::Tokenizer;
use train::Collective;

use crate::Result;
use crate::prompts::{Prompts, completion, question};
use crate::reward_sources::RewardSources;
use crate::rollout::{Rollout, Rollouts};

/// The rewards of a set of episodes that need no reward model.
#[derive(Clone, Debug)]
pub struct StatedRewards {
    /// Names of the rewards.
    pub names: Vec<String>,
    /// Values and reasons of each episode.
    pub episodes: Vec<rewards::Scored>,
    /// Weighted sum of each episode; 0 for one that only a reward model scores.
    pub totals: Vec<f32>,
    /// Number of episodes at which each program failed, by the names of the rewards.
    failed: BTreeMap<String, usize>,
}

impl StatedRewards {
    /// The rewards of answers, of which there are `n` to each prompt; `None` if reward models compute all. Each replica asks
    /// judges and programs about its share of the answers, and all receive the values.
    ///
    /// Errors: a program that fails at every answer; those of generation and of the exchange.
    pub fn of(
        rollouts: &Rollouts,
        prompts: &Prompts,
        n: usize,
        plan: &RewardsPlan,
        sources: &RewardSources,
        tokenizer: &Tokenizer,
        replicas: &dyn Collective,
    ) -> Result<Option<Self>> {
        let rewards = &plan.stated;
        if rewards.is_empty() {
            return Ok(None);
        }
        let answers_of = |idx: usize| {
            let answers = prompts.answers.get(idx / n.max(1)).map(Vec::as_slice);
            answers.unwrap_or_default()
        };
        let score = |(idx, episode): (usize, &Rollout)| {
            let text = completion(episode, tokenizer);
            let completion = Completion { text: &text, n_tokens: episode.response().len() };
            rewards.score(answers_of(idx), &completion)
        };
        let mut episodes: Vec<rewards::Scored> =
            rollouts.episodes.iter().enumerate().map(score).collect();
        let names: Vec<String> = rewards.names().map(str::to_owned).collect();
        let mut failed = BTreeMap::new();
        for (place, kind) in rewards.graded() {
            // The texts of completions that have this reward; a prompt's row may lack its answer.
            let text = |(idx, episode): (usize, &Rollout)| {
                let answers = answers_of(idx);
                let applies = rewards.applies(answers).get(place) == Some(&true);
                applies.then(|| GradedText {
                    prompt: question(episode.prompt(), tokenizer),
                    completion: completion(episode, tokenizer),
                    answer: rewards.answer(place, answers).map(str::to_owned),
                })
            };
            let texts: Vec<Option<GradedText>> =
                rollouts.episodes.iter().enumerate().map(text).collect();
            let graded = sources.grade(rewards, place, kind, &texts, replicas)?;
            for (scored, part) in episodes.iter_mut().zip(graded.parts) {
                if let Some(part) = part {
                    scored.set(place, part);
                }
            }
            if let (Some(n_failed), Some(name)) = (graded.n_failed, names.get(place)) {
                failed.insert(name.clone(), n_failed);
            }
        }
        // A prompt without any of these rewards has the models' scores alone; the plan refuses it where there is no model.
        let none = if plan.models.is_empty() { f64::NAN } else { 0.0 };
        let totals = episodes.iter().map(|scored| scored.total().unwrap_or(none) as f32).collect();
        Ok(Some(Self { names, episodes, totals, failed }))
    }

    /// Mean and standard deviation of each reward over the episodes that have it, before its weight, under TRL's names.
    fn metrics(&self) -> BTreeMap<String, f64> {
        let mut metrics = self.failures();
        for (idx, name) in self.names.iter().enumerate() {
            let values = self.episodes.iter().filter_map(|scored| scored.parts.get(idx)?.value);
            add_metrics(name, &values.collect::<Vec<f64>>(), &mut metrics);
        }
        metrics
    }

    /// Number of episodes at which each program failed, under the names of the logs.
    pub fn failures(&self) -> BTreeMap<String, f64> {
        let named = |(name, n): (&String, &usize)| (format!("rewards/{name}/failed"), *n as f64);
        self.failed.iter().map(named).collect()
    }
}

/// Adds mean and unbiased standard deviation of a reward; nothing without values.
fn add_metrics(name: &str, values: &[f64], metrics: &mut BTreeMap<String, f64>) {
    if values.is_empty() {
        return;
    }
    let std = if values.len() > 1 { known_std(values) } else { 0.0 };
    metrics.insert(format!("rewards/{name}/mean"), known_mean(values));
    metrics.insert(format!("rewards/{name}/std"), std);
}

/// Metrics of every reward of scored episodes, the models' included; none if a single model computes the only reward.
pub fn reward_metrics(
    stated: Option<&StatedRewards>,
    scored: &crate::Scored,
) -> BTreeMap<String, f64> {
    let n_models = scored.episodes.first().map_or(0, |episode| episode.model_scores.len());
    if stated.is_none() && n_models < 2 {
        return BTreeMap::new();
    }
    let mut metrics = stated.map(StatedRewards::metrics).unwrap_or_default();
    for (idx, name) in model_names(n_models).iter().enumerate() {
        let scores = scored.episodes.iter().filter_map(|episode| episode.model_scores.get(idx));
        let scores: Vec<f64> = scores.map(|score| f64::from(*score)).collect();
        add_metrics(name, &scores, &mut metrics);
    }
    metrics
}

/// Names of reward models: `model`, with a number from the second one on.
pub fn model_names(n_models: usize) -> Vec<String> {
    let name =
        |idx: usize| if idx == 0 { "model".to_owned() } else { format!("model-{}", idx + 1) };
    (0..n_models).map(name).collect()
}
