//! Rewards that are computed from the text of answers, and the texts of the data that they compare with.

use std::collections::BTreeMap;

use plan::{PpoPlan, StagePlan};
use rewards::{Completion, Rewards};
use rl::{EndReason, RewardTerms, Rollout, Rollouts};
use tokenizer::Tokenizer;

use crate::FrozenModels;

/// Prompts with the texts of their rows that rewards compare answers with.
#[derive(Clone, Debug, Default)]
pub struct Prompts {
    /// Token ids of each prompt.
    pub ids: Vec<Vec<u32>>,
    /// Texts of each prompt, in the order of the rewards' templates.
    pub answers: Vec<Vec<Option<String>>>,
}

impl Prompts {
    /// Adds the prompts of a batch: the ids of its rows and their samples.
    pub(crate) fn add(&mut self, ids: &[&[u32]], samples: &[u64], stage: &StagePlan) {
        self.ids.extend(ids.iter().map(|ids| ids.to_vec()));
        self.answers.extend(samples.iter().map(|sample| stage.dataset.answers(*sample)));
    }

    /// The first prompts.
    pub(crate) fn truncate(&mut self, n: usize) {
        self.ids.truncate(n);
        self.answers.truncate(n);
    }
}

/// The rewards of a set of episodes that need no model.
#[derive(Clone, Debug)]
pub struct StatedRewards {
    /// Names of the rewards.
    pub names: Vec<String>,
    /// Values and reasons of each episode.
    pub episodes: Vec<rewards::Scored>,
    /// Weighted sum of each episode.
    pub totals: Vec<f32>,
}

impl StatedRewards {
    /// The rewards of answers, of which there are `n` to each prompt; `None` if a model computes the only reward.
    pub(crate) fn of(
        rollouts: &Rollouts,
        prompts: &Prompts,
        n: usize,
        ppo: &PpoPlan,
        tokenizer: &Tokenizer,
    ) -> Option<Self> {
        let rewards: &Rewards = &ppo.rewards;
        if rewards.is_empty() {
            return None;
        }
        let score = |(idx, episode): (usize, &Rollout)| {
            let answers = prompts.answers.get(idx / n.max(1)).map(Vec::as_slice);
            let text = completion(episode, tokenizer);
            let completion = Completion { text: &text, n_tokens: episode.response().len() };
            rewards.score(answers.unwrap_or_default(), &completion)
        };
        let episodes: Vec<rewards::Scored> =
            rollouts.episodes.iter().enumerate().map(score).collect();
        // A prompt without any of these rewards has the model's score alone; the plan refuses it where there is no model.
        let none = if ppo.reward.is_some() { 0.0 } else { f64::NAN };
        let totals = episodes.iter().map(|scored| scored.total().unwrap_or(none) as f32).collect();
        Some(Self { names: rewards.names().map(str::to_owned).collect(), episodes, totals })
    }

    /// Mean and standard deviation of each reward over the episodes that have it, before its weight, under TRL's names.
    pub(crate) fn metrics(&self) -> BTreeMap<String, f64> {
        let mut metrics = BTreeMap::new();
        for (idx, name) in self.names.iter().enumerate() {
            let values = self.episodes.iter().filter_map(|scored| scored.parts.get(idx)?.value);
            add_metrics(name, &values.collect::<Vec<f64>>(), &mut metrics);
        }
        metrics
    }
}

/// Adds mean and unbiased standard deviation of a reward; nothing without values.
fn add_metrics(name: &str, values: &[f64], metrics: &mut BTreeMap<String, f64>) {
    if values.is_empty() {
        return;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    let std = if values.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 };
    metrics.insert(format!("rewards/{name}/mean"), mean);
    metrics.insert(format!("rewards/{name}/std"), std);
}

/// Metrics of every reward of scored episodes, the model's included; none if the model's is the only one.
pub(crate) fn reward_metrics(
    stated: Option<&StatedRewards>,
    scored: &rl::Scored,
) -> BTreeMap<String, f64> {
    let Some(stated) = stated else { return BTreeMap::new() };
    let mut metrics = stated.metrics();
    let scores = scored.episodes.iter().filter_map(|episode| episode.model_score.map(f64::from));
    add_metrics("model", &scores.collect::<Vec<f64>>(), &mut metrics);
    metrics
}

/// The terms of the episodes' scores.
pub(crate) fn terms<'r>(
    frozen: &'r FrozenModels,
    stated: Option<&'r StatedRewards>,
    ppo: &PpoPlan,
) -> RewardTerms<'r> {
    RewardTerms {
        model: frozen.reward.as_ref(),
        weight: ppo.reward.as_ref().map_or(1.0, |model| model.weight as f32),
        stated: stated.map(|stated| stated.totals.as_slice()),
    }
}

/// An answer as text without its end token. Other special tokens stay: a reward may look for `<think>`.
fn completion(episode: &Rollout, tokenizer: &Tokenizer) -> String {
    let ids = episode.response();
    let n = match episode.span().end {
        EndReason::EndToken => ids.len().saturating_sub(1),
        EndReason::Length => ids.len(),
    };
    tokenizer.decode(ids.get(..n).unwrap_or_default(), false)
}
