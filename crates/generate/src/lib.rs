//! Text generation: sampling with a KV cache, for many sequences at a time. Prompts and completions are token ids.
//!
//! The place of a finished sequence in the batch is given to the next prompt at once.
//!
//! A completion is a function of the model and (seed, prompt index, completion index, position), independent of the rest of
//! the batch. Logits of a sequence in different batches are equal to about 1e-5, not to the bit, so a token can differ if
//! its draw is that close to a border.

mod batch;
mod constraint;
mod decoder;
mod error;
mod live;
mod prompt;
mod sampling;
mod sequence;
mod settings;
mod stop;

use std::sync::Arc;

use model::CausalLm;

pub use constraint::Constraint;
pub use decoder::{Decoder, without_autodiff};
pub use error::{Error, Result};
pub use live::{LiveBatch, LiveToken};
pub use prompt::{Prefixes, Prompt, PromptReader};
pub use sampling::{LEAST_TEMPERATURE, Sampling, argmax, logprob};
pub use sequence::{Choice, ModelLogprobs, Sequence};
pub use settings::{Completion, FinishReason, NewToken, Settings};
pub use stop::Stop;

/// Samples `settings.n` completions of every prompt, sorted by prompt, then number.
///
/// `on_token` is called for every token as soon as it is chosen. No graph is built, even for a model with autodiff.
///
/// Errors: settings out of range; a prompt that is empty, too long or has unknown ids; logits that are not finite.
pub fn generate(
    model: &CausalLm,
    prompts: &[Vec<u32>],
    settings: &Settings,
    seed: u64,
    mut on_token: impl FnMut(&NewToken),
) -> Result<Vec<Completion>> {
    settings.check()?;
    for (prompt_idx, prompt) in prompts.iter().enumerate() {
        check_prompt(model, prompt_idx, prompt)?;
    }
    let model = without_autodiff(model);
    let job = batch::Job { model: &model, prompts, settings: Arc::new(settings.clone()), seed };
    let members: Vec<(usize, usize)> =
        (0..prompts.len()).flat_map(|p| (0..settings.n).map(move |c| (p, c))).collect();
    let mut completions = job.run(&members, &mut on_token)?;
    completions.sort_by_key(|completion| (completion.prompt_idx, completion.completion_idx));
    Ok(completions)
}

/// Checks that a model can continue a prompt.
///
/// Errors: it is empty, leaves no room for a token, or has unknown ids.
pub fn check_prompt(model: &CausalLm, prompt_idx: usize, prompt: &[u32]) -> Result<()> {
    let (vocab_size, n_positions) = (model.config().vocab_size(), model.config().max_positions());
    if prompt.is_empty() {
        return Err(Error::EmptyPrompt { prompt_idx });
    }
    if prompt.len() >= n_positions {
        return Err(Error::PromptTooLong { prompt_idx, len: prompt.len(), n_positions });
    }
    match prompt.iter().find(|&&id| id as usize >= vocab_size) {
        Some(&id) => Err(Error::UnknownToken { prompt_idx, id, vocab_size }),
        None => Ok(()),
    }
}
