//! The rewards of completions: those that are computed from the text, by judges and by programs, those of reward models, and the
//! penalty for a missing end token.

use burn::tensor::Device;
use plan::{GrpoPlan, StagePlan};
use rl::{
    EndReason, Prompts, RewardSources, RewardTable, Rollout, Rollouts, StatedRewards, model_names,
};
use train::Collective;

use crate::Result;

/// Name of the penalty for a missing end token among the rewards.
const MISSING_EOS: &str = "missing_eos";

/// The rewards of completions, of which there are `n` to each prompt, in the order of the recipe; and those that need no reward
/// model, with reasons.
#[expect(clippy::too_many_arguments, reason = "completions, the models and the replicas")]
pub(crate) fn of(
    rollouts: &Rollouts,
    prompts: &Prompts,
    n: usize,
    grpo: &GrpoPlan,
    sources: &RewardSources,
    stage: &StagePlan,
    device: &Device,
    replicas: &dyn Collective,
) -> Result<(RewardTable, Option<StatedRewards>)> {
    let (rewards, tokenizer) = (&grpo.rewards, &stage.tokenizer);
    let stated = StatedRewards::of(rollouts, prompts, n, rewards, sources, tokenizer, replicas)?;
    let mut table = RewardTable::default();
    table.values.resize(rollouts.episodes.len(), Vec::new());
    let mut names = stated.iter().flat_map(|stated| &stated.names).enumerate();
    let mut models = model_names(rewards.models.len()).into_iter().enumerate();
    for reward in &grpo.section.rewards {
        table.weights.push(reward.weight);
        if reward.kind.is_model() {
            let Some((idx, name)) = models.next() else { continue };
            table.names.push(name);
            let scores = sources.model_scores(idx, &rollouts.episodes, device, replicas)?;
            for (row, score) in table.values.iter_mut().zip(scores) {
                row.push(f64::from(score));
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
