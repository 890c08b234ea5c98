//! Whether the rows of a step are enough for the recipe's replicas. Opens no device.

use recipe::{Loaded, SampleKind, StageKeys};

use crate::stage::{Stage, Work};
use crate::{Error, Result};

/// Refuses replicas without rows in an update: in a step, or in one of PPO's or GRPO's minibatches.
pub(crate) fn check(
    loaded: &Loaded,
    name: &str,
    stage: &Stage,
    keys: &StageKeys<'_>,
) -> Result<()> {
    let (replicas, n) = (loaded.recipe.replicas, keys.rows_per_step);
    let (rows, unit, remedy) = match (stage.work(), keys.samples.kind()) {
        (Work::Rows { .. }, SampleKind::Documents | SampleKind::Chats) => {
            (n, "rows in a step", "raise `tokens_per_step`")
        }
        (Work::Rows { .. }, SampleKind::Pairs) => (n, "pairs in a step", "raise `pairs_per_step`"),
        (Work::Rows { .. }, SampleKind::Prompts) => (n, "prompts in a step", "use more prompts"),
        (Work::Groups(grpo), _) => (
            grpo.section.episodes_per_step() / grpo.section.n_minibatches.max(1),
            "answers in a minibatch",
            "raise `prompts_per_step`, or lower `n_minibatches`",
        ),
        (Work::Rollouts(ppo), _) => (
            n / ppo.section.n_minibatches.max(1),
            "episodes in a minibatch",
            "raise `episodes_per_step`, or lower `n_minibatches`",
        ),
    };
    if replicas <= rows {
        return Ok(());
    }
    Err(Error::Recipe(loaded.spans.error(
        "replicas",
        format!("[{name}] has fewer {unit} than replicas: `{rows}`"),
        "each replica needs at least one",
        Some(format!("lower it, or {remedy}")),
    )))
}
