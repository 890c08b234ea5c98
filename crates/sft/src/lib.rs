//! Supervised fine-tuning: next-token prediction on chats, where only the assistant's tokens and their end tokens are
//! targets. The batches of `data` carry these targets; the loop is [`next_token::run`].

use next_token::{Result, SamplePrompt};
use plan::StagePlan;
use train::{Context, Outcome};

/// Fine-tunes from the newest checkpoint, or from the stage's initial weights, to the last step.
pub fn run(context: Context<'_>) -> Result<Outcome> {
    let prompt = first_prompt(context.stage);
    next_token::run(context, &prompt)
}

/// The first prompt of the validation set: the ids before its first target.
fn first_prompt(stage: &StagePlan) -> SamplePrompt {
    let validation = stage.dataset.eval_batches(1, Some(1)).next();
    let ids = validation.map(|batch| {
        let first_target = batch.targets.iter().position(|target| *target >= 0).unwrap_or(0);
        // The position that predicts the first target is the last one of the prompt.
        batch.ids.into_iter().take(first_target + 1).collect()
    });
    let ids: Vec<u32> = ids.unwrap_or_default();
    SamplePrompt { text: stage.tokenizer.decode(&ids, false), ids }
}
