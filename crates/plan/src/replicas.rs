//! Whether the steps of a stage can be shared among as many replicas as the recipe wants. Looks for no device.

use recipe::Loaded;

use crate::stage::Stage;
use crate::{Error, Result};

/// Every replica has rows to work on in each update: those of a step, or of PPO's minibatch.
pub(crate) fn check(
    loaded: &Loaded,
    name: &str,
    stage: &Stage,
    rows_per_step: usize,
) -> Result<()> {
    let (replicas, n) = (loaded.recipe.replicas, rows_per_step);
    let (rows, what, keys) = match stage {
        Stage::Pretrain(_) | Stage::Sft(_) => (n, "rows in a step", "raise `tokens_per_step`"),
        Stage::Reward(_) | Stage::Dpo(_) => (n, "pairs in a step", "raise `pairs_per_step`"),
        Stage::Ppo(ppo) => (
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
        format!("[{name}] has fewer {what} than replicas: `{rows}`"),
        "each replica needs at least one",
        Some(format!("lower it, or {keys}")),
    )))
}
