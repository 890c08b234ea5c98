//! Tables of PPO episodes: one line per token, with the numbers of policy, reference, value and reward model.

use ppo::StatedRewards;
use rewards::Part;
use rl::{EndReason, Rollout, ScoredEpisode};
use serde_json::{Value, json};
use tokenizer::Tokenizer;

use super::table;

/// Rewards of an episode that need no model, with their names.
pub(crate) fn rewards(stated: &StatedRewards, idx: usize) -> Vec<(&str, &Part)> {
    let parts = stated.episodes.get(idx).map(|scored| scored.parts.as_slice());
    stated.names.iter().map(String::as_str).zip(parts.unwrap_or_default()).collect()
}

/// An episode as a table. Prompt tokens have no numbers, because they are not targets.
pub(crate) fn text(
    rollout: &Rollout,
    episode: &ScoredEpisode,
    rewards: Option<&[(&str, &Part)]>,
    tokenizer: &Tokenizer,
) -> String {
    let ended = match rollout.span().end {
        EndReason::EndToken => "with end token",
        EndReason::Length => "cut at the limit",
    };
    let kl: f32 = episode.kl.iter().sum();
    let mut lines = vec![
        ["at", "id", "token", "log π", "log π ref", "KL", "value", "reward", "advantage", "return"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let prompt = rollout.prompt().iter().map(|id| (*id, None));
    let answer = rollout.response().iter().enumerate().map(|(at, id)| (*id, Some(at)));
    for (position, (id, at)) in prompt.chain(answer).enumerate() {
        let piece = format!("{:?}", tokenizer.decode(&[id], false));
        let mut line = vec![position.to_string(), id.to_string(), piece];
        let Some(at) = at else {
            line.push("prompt".to_owned());
            lines.push(line);
            continue;
        };
        let metric = |values: &[f32]| values.get(at).map_or("-".to_owned(), |x| format!("{x:.4}"));
        line.extend(columns(episode).map(metric));
        lines.push(line);
    }
    let score = if episode.has_reward() {
        format!("score {:.4}", episode.score)
    } else {
        "no reward, not learned from".to_owned()
    };
    let head = format!(
        "── {} prompt tokens, {} answer tokens, {ended}; {score}, KL {kl:.4} nats\n",
        rollout.prompt().len(),
        rollout.response().len(),
    );
    let mut head = head;
    for (name, part) in rewards.into_iter().flatten() {
        let value = part.value.map_or_else(|| "skipped".to_owned(), |value| format!("{value:.4}"));
        head += &format!("   reward {name}: {value}, {}\n", part.why);
    }
    let names = rl::model_names(episode.model_scores.len());
    if rewards.is_some() || names.len() > 1 {
        for (name, score) in names.iter().zip(&episode.model_scores) {
            head += &format!("   reward {name}: {score:.4}\n");
        }
    }
    head + &table::columns(&lines, &[0, 1, 3, 4, 5, 6, 7, 8, 9])
}

/// An episode as JSON.
pub(crate) fn json(
    rollout: &Rollout,
    episode: &ScoredEpisode,
    parts: Option<&[(&str, &Part)]>,
    tokenizer: &Tokenizer,
) -> Value {
    let [logprobs, ref_logprobs, kl, values, rewards, advantages, returns] = columns(episode);
    let mut json = json!({
        "prompt": rollout.prompt(),
        "response": rollout.response(),
        "text": tokenizer.decode(rollout.response(), true),
        "ended": rollout.span().end == EndReason::EndToken,
        "score": episode.score,
        "logprobs": logprobs,
        "ref_logprobs": ref_logprobs,
        "kl": kl,
        "values": values,
        "rewards": rewards,
        "advantages": advantages,
        "returns": returns,
    });
    if let Some(parts) = parts {
        let part = |(name, part): &(&str, &Part)| json!({ "name": name, "value": part.value, "why": part.why });
        json["reward_parts"] = parts.iter().map(part).collect();
        json["model_scores"] = json!(episode.model_scores);
    }
    json
}

/// Numbers of an answer's tokens, by column.
fn columns(episode: &ScoredEpisode) -> [&[f32]; 7] {
    [
        &episode.logprobs,
        &episode.ref_logprobs,
        &episode.kl,
        &episode.values,
        &episode.rewards,
        &episode.advantages,
        &episode.returns,
    ]
}
