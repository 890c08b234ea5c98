//! Supervised fine-tuning: next-token prediction on chats, where only the assistant's tokens and their end tokens are
//! targets. The batches of `data` carry these targets; the loop is [`next_token::run`].

use next_token::Result;
use train::{Context, Outcome};

/// Fine-tunes from the newest checkpoint, or from the stage's initial weights, to the last step.
pub fn run(context: Context<'_>) -> Result<Outcome> {
    next_token::run(context)
}
