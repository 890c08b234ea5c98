//! Pretraining: next-token prediction on documents, where every token is a target. The loop is [`next_token::run`].

use next_token::{Result, SamplePrompt};
use plan::StagePlan;
use train::{Context, Outcome};

/// Pretrains from the newest checkpoint, or from the stage's initial weights, to the last step.
pub fn run(context: Context<'_>) -> Result<Outcome> {
    let prompt = document_start(context.stage);
    next_token::run(context, &prompt)
}

/// The tokens before every document; a line break for a tokenizer without such tokens.
fn document_start(stage: &StagePlan) -> SamplePrompt {
    let mut ids = stage.tokenizer.prefix_ids();
    if ids.is_empty() {
        ids = stage.tokenizer.encode_plain("\n").unwrap_or_default();
    }
    if ids.is_empty() {
        ids.push(0);
    }
    SamplePrompt { ids, text: String::new() }
}
