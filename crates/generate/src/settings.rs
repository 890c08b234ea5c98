//! Arguments and results of generation: settings, tokens, completions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokenizer::Tokenizer;

use crate::error::{Error, Result};
use crate::sampling::Sampling;
use crate::stop::Stop;

/// All arguments of generation except model, prompts and seed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The choice of each token.
    pub sampling: Sampling,
    /// Number of completions per prompt.
    pub n: usize,
    /// The number of the first prompt among all prompts with the same seed, in this call and others. Random draws depend on
    /// a prompt's number.
    pub first_prompt: usize,
    /// The largest number of tokens of a completion; the model's context may end it earlier.
    pub max_new_tokens: usize,
    /// End ids are not chosen before this many tokens.
    pub min_new_tokens: usize,
    /// Subtracted from the logit of each token that is in the completion.
    pub presence_penalty: f64,
    /// Subtracted from the logit of a token once for each time that it is in the completion.
    pub frequency_penalty: f64,
    /// Added to the logits of these ids.
    pub logit_bias: Vec<(u32, f32)>,
    /// Reports the model's log-probabilities with each token: that of the token, and those of this many most likely ones.
    pub top_logprobs: Option<usize>,
    /// Ids that end a completion (`finish_reason` eos).
    pub eos_ids: Vec<u32>,
    /// Texts that end a completion.
    pub stop: Option<Stop>,
    /// Ids from this one on are never chosen: the tokenizer's size, for a model whose embedding is padded to a larger one.
    pub vocab_size: Option<usize>,
    /// Once it is set, every completion ends with its next token (`finish_reason` length).
    pub interrupt: Option<Arc<AtomicBool>>,
    /// Number of sequences decoded together; limits the memory of the KV cache and changes no result.
    pub batch_rows: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sampling: Sampling::default(),
            n: 1,
            first_prompt: 0,
            max_new_tokens: 256,
            min_new_tokens: 0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            top_logprobs: None,
            eos_ids: Vec::new(),
            stop: None,
            vocab_size: None,
            interrupt: None,
            batch_rows: 16,
        }
    }
}

impl Settings {
    /// Whether completions are to end.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupt.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// Checks the ranges of all values.
    pub fn check(&self) -> Result<()> {
        self.sampling.check()?;
        for (name, value) in [
            ("n", self.n),
            ("max-new-tokens", self.max_new_tokens),
            ("batch rows", self.batch_rows),
        ] {
            if value == 0 {
                return Err(Error::Range { name, range: "at least 1", value: value.to_string() });
            }
        }
        Ok(())
    }
}

/// The reason for the end of a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end id was chosen.
    Eos,
    /// A stop text appeared.
    Stop,
    /// `max_new_tokens` or the model's context was reached, or `interrupt` was set.
    Length,
}

impl FinishReason {
    /// The name in output: `eos`, `stop` or `length`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eos => "eos",
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// One token, reported as soon as it is chosen.
#[derive(Clone, Copy, Debug)]
pub struct NewToken {
    /// Index of the prompt.
    pub prompt_idx: usize,
    /// Index among the prompt's completions.
    pub completion_idx: usize,
    /// The id.
    pub id: u32,
    /// Its log-probability, as in [`Completion::logprobs`].
    pub logprob: f32,
    /// Set for a completion's last token.
    pub finish_reason: Option<FinishReason>,
}

/// One continuation of one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Index of the prompt.
    pub prompt_idx: usize,
    /// Index among the prompt's completions.
    pub completion_idx: usize,
    /// Every chosen id, including the end id.
    pub tokens: Vec<u32>,
    /// ln of each token's probability under `logits / temperature` of the whole vocabulary, without filters or penalty.
    pub logprobs: Vec<f32>,
    /// The reason for its end.
    pub finish_reason: FinishReason,
    /// The text before the stop text; only if `finish_reason` is [`FinishReason::Stop`].
    pub stopped_text: Option<String>,
}

impl Completion {
    /// The ids of the text: all but an end id.
    pub fn text_tokens(&self) -> &[u32] {
        match (self.finish_reason, self.tokens.split_last()) {
            (FinishReason::Eos, Some((_, before))) => before,
            (FinishReason::Eos | FinishReason::Stop | FinishReason::Length, _) => &self.tokens,
        }
    }

    /// The completion's text without special tokens, up to the stop text if there was one.
    pub fn text(&self, tokenizer: &Tokenizer) -> String {
        match &self.stopped_text {
            Some(text) => text.clone(),
            None => tokenizer.decode(self.text_tokens(), true),
        }
    }
}
