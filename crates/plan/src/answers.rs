//! Checks the answers in the data against the rewards that compare with them.

use data::{Dataset, SourceReport};
use recipe::{Loaded, Reward};
use rewards::Rewards;

use crate::{Error, Result};

/// Checks that every prompt has a reward and every reward has prompts. Returns notes on prompts that some reward skips.
///
/// `keys` are the rewards of the recipe, `rewards` those of them that need no reward model.
pub(crate) fn check(
    loaded: &Loaded,
    stage: &str,
    keys: &[Reward],
    rewards: &Rewards,
    dataset: &Dataset,
    sources: &[SourceReport],
) -> Result<Vec<String>> {
    if rewards.templates().is_empty() {
        return Ok(Vec::new());
    }
    let n_prompts = dataset.n_source_samples();
    let stated = keys.iter().enumerate().filter(|(_, reward)| !reward.kind.is_model());
    let stated: Vec<(usize, &Reward)> = stated.collect();
    let has_model = stated.len() < keys.len();
    let mut skipped = vec![Skipped::default(); stated.len()];
    for sample in 0..n_prompts {
        let answers = dataset.answers(sample);
        let applies = rewards.applies(&answers);
        if !has_model && !applies.contains(&true) {
            return Err(no_reward(loaded, stage, dataset, sample));
        }
        for (skipped, applies) in skipped.iter_mut().zip(applies) {
            if !applies {
                skipped.n += 1;
                skipped.first.get_or_insert(sample);
            }
        }
    }
    let mut notes = Vec::new();
    for ((idx, reward), skipped) in stated.into_iter().zip(skipped) {
        let (Some(first), Some(template)) = (skipped.first, reward.kind.answer()) else { continue };
        let answer = template.as_str();
        let name = reward.kind.name();
        let place = dataset.location(first).map_or_else(String::new, |place| place.to_string());
        if skipped.n == n_prompts {
            let columns: Vec<&str> =
                sources.iter().flat_map(|source| &source.unread).map(String::as_str).collect();
            let hint = if columns.is_empty() {
                "choose columns that have a right answer".to_owned()
            } else {
                format!("columns that are not read: {}", columns.join(", "))
            };
            let message =
                format!("no prompt has an answer that `{name}` can compare with: `{answer}`");
            let key = format!("{stage}.rewards[{idx}].answer");
            let label = "fits no row of the data";
            return Err(Error::Recipe(loaded.spans.error(&key, message, label, Some(hint))));
        }
        notes.push(format!(
            "reward `{name}`: {} of {n_prompts} prompts have no answer to compare with (`{answer}`), the first one at \
             {place}; they have no such reward",
            skipped.n
        ));
    }
    Ok(notes)
}

/// Prompts that a reward skips.
#[derive(Clone, Debug, Default)]
struct Skipped {
    n: u64,
    first: Option<u64>,
}

/// A prompt without any reward.
fn no_reward(loaded: &Loaded, stage: &str, dataset: &Dataset, sample: u64) -> Error {
    let place = dataset.location(sample).map_or_else(String::new, |place| place.to_string());
    let key = format!("{stage}.rewards");
    Error::Recipe(loaded.spans.error(
        &key,
        format!("a prompt has no reward: {place}"),
        "its row has no answer to compare with",
        Some("leave such rows out with `where`, or add a reward that needs no answer".to_owned()),
    ))
}
