//! Rewards from the text of a recipe's keys.

use recipe::{Reward, RewardKind};
use rewards::{Completion, Rewards};

/// One reward with the keys of a JSON object.
pub(crate) fn one(keys: &str) -> Rewards {
    let kind: RewardKind = serde_json::from_str(keys).expect("keys of a reward");
    Rewards::new(&[Reward { kind, weight: 1.0 }], 100).expect("valid settings")
}

/// Value of the only reward, and the reason.
pub(crate) fn value(rewards: &Rewards, gold: &str, text: &str) -> (Option<f64>, String) {
    let completion = Completion { text, n_tokens: text.len() };
    let scored = rewards.score(&[Some(gold.to_owned())], &completion);
    let part = &scored.parts[0];
    (part.value, part.why.clone())
}
