//! Tables of GRPO's completions: rewards with their reasons, the advantage, and one line per token.

use grpo::Groups;
use plan::GrpoPlan;
use rl::{EndReason, GroupEpisode, Rollout};
use serde_json::{Value, json};
use tokenizer::Tokenizer;

use super::episodes::rewards;
use super::table;

/// A completion as a table; the prompt is printed before the first of its group.
pub(crate) fn text(shown: &Groups, idx: usize, grpo: &GrpoPlan, tokenizer: &Tokenizer) -> String {
    let Some((rollout, episode)) = member(shown, idx) else { return String::new() };
    let n = grpo.section.num_generations.max(1);
    let mut text = String::new();
    if idx.is_multiple_of(n) {
        let prompt = tokenizer.decode(rollout.prompt(), false);
        let n_tokens = rollout.prompt().len();
        text += &format!("── prompt {}, {n_tokens} tokens: {prompt:?}\n", idx / n + 1);
    }
    let ended = match rollout.span().end {
        EndReason::EndToken => "with end token",
        EndReason::Length => "cut at the limit",
    };
    let in_loss = if episode.is_trained { "" } else { ", left out of the loss" };
    text += &format!(
        "   answer {} of {n}: {} tokens, {ended}{in_loss}; reward {:.4}, advantage {:+.4}\n      {:?}\n",
        idx % n + 1,
        rollout.response().len(),
        episode.reward,
        episode.advantage,
        tokenizer.decode(rollout.response(), true),
    );
    let stated = shown.stated.as_ref().map(|stated| rewards(stated, idx)).unwrap_or_default();
    for (name, part) in &stated {
        let value = part.value.map_or_else(|| "skipped".to_owned(), |value| format!("{value:.4}"));
        text += &format!("      reward {name}: {value}, {}\n", part.why);
    }
    for (name, value) in others(shown, idx) {
        text += &format!("      reward {name}: {value:.4}\n");
    }
    text + &token_table(rollout, episode, tokenizer)
}

/// A line per token of a completion.
fn token_table(rollout: &Rollout, episode: &GroupEpisode, tokenizer: &Tokenizer) -> String {
    let head = ["at", "id", "token", "log π", "log π ref", "advantage", "in loss"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for (at, id) in rollout.response().iter().enumerate() {
        let metric = |values: &[f32]| values.get(at).map_or("-".to_owned(), |x| format!("{x:.4}"));
        lines.push(vec![
            at.to_string(),
            id.to_string(),
            format!("{:?}", tokenizer.decode(&[*id], false)),
            metric(&episode.logprobs),
            metric(&episode.ref_logprobs),
            format!("{:.4}", episode.advantage),
            if episode.is_trained { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table::columns(&lines, &[0, 1, 3, 4, 5])
}

/// A completion as JSON.
pub(crate) fn json(shown: &Groups, idx: usize, grpo: &GrpoPlan, tokenizer: &Tokenizer) -> Value {
    let Some((rollout, episode)) = member(shown, idx) else { return Value::Null };
    let stated = shown.stated.as_ref().map(|stated| rewards(stated, idx)).unwrap_or_default();
    let mut parts: Vec<Value> = stated
        .iter()
        .map(|(name, part)| json!({ "name": name, "value": part.value, "why": part.why }))
        .collect();
    parts.extend(others(shown, idx).map(|(name, value)| json!({ "name": name, "value": value })));
    json!({
        "group": idx / grpo.section.num_generations.max(1),
        "prompt": rollout.prompt(),
        "response": rollout.response(),
        "text": tokenizer.decode(rollout.response(), true),
        "ended": rollout.span().end == EndReason::EndToken,
        "reward": Some(episode.reward).filter(|reward| !reward.is_nan()),
        "reward_parts": parts,
        "advantage": episode.advantage,
        "in_loss": episode.is_trained,
        "logprobs": episode.logprobs,
        "ref_logprobs": episode.ref_logprobs,
    })
}

fn member(shown: &Groups, idx: usize) -> Option<(&Rollout, &GroupEpisode)> {
    Some((shown.scored.rollouts.episodes.get(idx)?, shown.scored.episodes.get(idx)?))
}

/// The rewards of a completion that are not computed from its text.
fn others(shown: &Groups, idx: usize) -> impl Iterator<Item = (&str, f64)> {
    let stated = shown.stated.as_ref().map(|stated| stated.names.as_slice()).unwrap_or_default();
    let table = &shown.scored.rewards;
    let row = table.values.get(idx).map(Vec::as_slice).unwrap_or_default();
    let all = table.names.iter().map(String::as_str).zip(row.iter().copied());
    all.filter(move |(name, _)| !stated.iter().any(|stated| stated == name))
}
