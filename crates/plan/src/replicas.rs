//! Whether the steps of a stage can be shared among as many replicas as the recipe wants. Looks for no device.

use recipe::{Loaded, Stage};

use crate::{Algorithm, Error, Result};

/// Every replica has rows to work on in each update: those of a step, or of PPO's mini-batch.
pub(crate) fn check(loaded: &Loaded, stage: &Stage<'_>, algorithm: Algorithm) -> Result<()> {
    let (replicas, n) = (loaded.recipe.replicas, stage.rows_per_step);
    let n_minibatches = loaded.recipe.ppo.as_ref().map_or(1, |ppo| ppo.n_minibatches.max(1));
    let (rows, what, keys) = match algorithm {
        Algorithm::Pretrain | Algorithm::Sft => (n, "rows in a step", "raise `tokens_per_step`"),
        Algorithm::Reward | Algorithm::Dpo => (n, "pairs in a step", "raise `pairs_per_step`"),
        Algorithm::Ppo => (
            n / n_minibatches,
            "episodes in a mini-batch",
            "raise `episodes_per_step`, or lower `n_minibatches`",
        ),
    };
    if replicas <= rows {
        return Ok(());
    }
    Err(Error::Recipe(loaded.spans.error(
        "replicas",
        format!("[{}] has fewer {what} than replicas: `{rows}`", stage.name),
        "each replica needs at least one",
        Some(format!("lower it, or {keys}")),
    )))
}
