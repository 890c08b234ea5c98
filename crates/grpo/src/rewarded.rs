//! The rewards of completions: those that are computed from the text, that of a reward model, and the penalty for a missing end
//! token.

use burn::tensor::Device;
use model::ScalarModel;
use plan::{GrpoPlan, StagePlan};
use rl::{
    EndReason, Prompts, RewardTable, RewardTerms, Rollout, Rollouts, StatedRewards, scores_of,
};
use train::Collective;

use crate::Result;

/// Name of the penalty for a missing end token among the rewards.
const MISSING_EOS: &str = "missing_eos";

/// The rewards of completions, of which there are `n` to each prompt, in the order of the recipe; and those that need no model,
/// with reasons.
#[expect(clippy::too_many_arguments, reason = "completions, the models and the replicas")]
pub(crate) fn of(
    rollouts: &Rollouts,
    prompts: &Prompts,
    n: usize,
    grpo: &GrpoPlan,
    model: Option<&ScalarModel>,
    stage: &StagePlan,
    device: &Device,
    replicas: &dyn Collective,
) -> Result<(RewardTable, Option<StatedRewards>)> {
    let (rewards, has_model) = (&grpo.rewards, model.is_some());
    let stated = StatedRewards::of(rollouts, prompts, n, rewards, has_model, &stage.tokenizer);
    let model_scores = match model {
        None => Vec::new(),
        Some(model) => model_scores(&rollouts.episodes, model, device, replicas)?,
    };
    let mut table = RewardTable::default();
    table.values.resize(rollouts.episodes.len(), Vec::new());
    let mut names = stated.iter().flat_map(|stated| &stated.names).enumerate();
    for reward in &grpo.section.rewards {
        table.weights.push(reward.weight);
        if reward.kind.is_model() {
            table.names.push(reward.kind.name().to_owned());
            for (row, score) in table.values.iter_mut().zip(&model_scores) {
                row.push(f64::from(*score));
            }
        } else if let Some((column, name)) = names.next() {
            table.names.push(name.clone());
            let episodes = stated.iter().flat_map(|stated| &stated.episodes);
            for (row, scored) in table.values.iter_mut().zip(episodes) {
                let value = scored.parts.get(column).and_then(|part| part.value);
                row.push(value.unwrap_or(f64::NAN));
            }
        }
    }
    if grpo.section.missing_eos_penalty > 0.0 {
        add_penalty(&mut table, &rollouts.episodes, grpo.section.missing_eos_penalty);
    }
    Ok((table, stated))
}

/// Adds the penalty as a reward of its own. A completion without any reward stays without.
fn add_penalty(table: &mut RewardTable, episodes: &[Rollout], penalty: f64) {
    table.names.push(MISSING_EOS.to_owned());
    table.weights.push(1.0);
    for (row, episode) in table.values.iter_mut().zip(episodes) {
        let is_known = row.iter().any(|value| !value.is_nan());
        row.push(match episode.span().end {
            _ if !is_known => f64::NAN,
            EndReason::EndToken => 0.0,
            EndReason::Length => -penalty,
        });
    }
}

/// The reward model's scores: each replica computes its share and receives all.
fn model_scores(
    episodes: &[Rollout],
    model: &ScalarModel,
    device: &Device,
    replicas: &dyn Collective,
) -> Result<Vec<f32>> {
    let mine = episodes.get(replicas.share().of(episodes.len())).unwrap_or_default();
    let terms = RewardTerms { model: Some(model), weight: 1.0, stated: None };
    let scores = scores_of(mine, &terms, &device.clone().inner());
    let all = replicas.all_gather(scores.into_iter().map(f64::from).collect())?;
    Ok(all.into_iter().flatten().map(|score| score as f32).collect())
}
