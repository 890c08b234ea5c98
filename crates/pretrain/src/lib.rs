//! Pretraining: next-token prediction on documents, where every token is a target. The loop is [`next_token::run`].

use next_token::Result;
use train::{Context, Outcome};

/// Pretrains from the newest checkpoint, or from the stage's initial weights, to the last step.
pub fn run(context: Context<'_>) -> Result<Outcome> {
    next_token::run(context)
}
