//! Rewards that are computed from the text of answers.

use std::collections::BTreeMap;

use loss::{known_mean, known_std};
use rewards::{Completion, Rewards};
use tokenizer::Tokenizer;

use crate::prompts::{Prompts, completion};
use crate::rollout::{Rollout, Rollouts};

/// The rewards of a set of episodes that need no model.
#[derive(Clone, Debug)]
pub struct StatedRewards {
    /// Names of the rewards.
    pub names: Vec<String>,
    /// Values and reasons of each episode.
    pub episodes: Vec<rewards::Scored>,
    /// Weighted sum of each episode; 0 for one that only a reward model scores.
    pub totals: Vec<f32>,
}

impl StatedRewards {
    /// The rewards of answers, of which there are `n` to each prompt; `None` if a model computes the only reward.
    ///
    /// `has_model` says whether a reward model scores the answers too.
    pub fn of(
        rollouts: &Rollouts,
        prompts: &Prompts,
        n: usize,
        rewards: &Rewards,
        has_model: bool,
        tokenizer: &Tokenizer,
    ) -> Option<Self> {
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
        let none = if has_model { 0.0 } else { f64::NAN };
        let totals = episodes.iter().map(|scored| scored.total().unwrap_or(none) as f32).collect();
        Some(Self { names: rewards.names().map(str::to_owned).collect(), episodes, totals })
    }

    /// Mean and standard deviation of each reward over the episodes that have it, before its weight, under TRL's names.
    fn metrics(&self) -> BTreeMap<String, f64> {
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
    let std = if values.len() > 1 { known_std(values) } else { 0.0 };
    metrics.insert(format!("rewards/{name}/mean"), known_mean(values));
    metrics.insert(format!("rewards/{name}/std"), std);
}

/// Metrics of every reward of scored episodes, the model's included; none if the model's is the only one.
pub fn reward_metrics(
    stated: Option<&StatedRewards>,
    scored: &crate::Scored,
) -> BTreeMap<String, f64> {
    let Some(stated) = stated else { return BTreeMap::new() };
    let mut metrics = stated.metrics();
    let scores = scored.episodes.iter().filter_map(|episode| episode.model_score.map(f64::from));
    add_metrics("model", &scores.collect::<Vec<f64>>(), &mut metrics);
    metrics
}
