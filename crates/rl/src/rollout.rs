//! Episodes as they were sampled: ids in, ids out, with where the prompt stops, where the answer
//! stops and why.
//!
//! Text is only a view of these. Nothing here compares an id with a pad id, and no token is ever
//! added to what was sampled.

use std::ops::Range;

use crate::{Error, Result};

/// What decides a rollout's distribution: log-probabilities are computed under exactly this.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Logits were divided by this.
    pub temperature: f64,
    /// Each of these ends an answer.
    pub end_ids: Vec<u32>,
    /// Tokens of an answer at most.
    pub max_new_tokens: usize,
    /// Ids from this one on had no probability; `None` if all of the model's had.
    pub vocab_size: Option<usize>,
}

impl Sampling {
    /// The part of a generator's settings that scoring can follow.
    ///
    /// Errors: what changes the distribution in a way that the loss would not see, such as top-k.
    pub fn of(settings: &generate::Settings) -> Result<Self> {
        let sampling = &settings.sampling;
        let refused = [
            ("top_k", sampling.top_k.is_some()),
            ("top_p", sampling.top_p.is_some_and(|p| p < 1.0)),
            ("min_p", sampling.min_p.is_some_and(|p| p > 0.0)),
            ("repetition_penalty", sampling.repetition_penalty != 1.0),
            ("greedy", sampling.greedy),
            ("min_new_tokens", settings.min_new_tokens > 0),
            ("stop", settings.stop.is_some()),
        ];
        if let Some((name, _)) = refused.into_iter().find(|(_, is_set)| *is_set) {
            return Err(Error::NotScorable { name });
        }
        Ok(Self {
            temperature: sampling.temperature,
            end_ids: settings.eos_ids.clone(),
            max_new_tokens: settings.max_new_tokens,
            vocab_size: settings.vocab_size,
        })
    }
}

/// Why an answer stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// An end token was sampled; it is the answer's last token.
    EndToken,
    /// The limit was reached.
    Length,
}

/// The parts of an episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Tokens of the prompt; never 0.
    pub prompt: usize,
    /// Tokens of the answer, a sampled end token among them; never 0.
    pub response: usize,
    /// Why the answer stopped.
    pub end: EndReason,
}

/// One episode: the ids of a prompt and of what was sampled after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    ids: Vec<u32>,
    span: Span,
}

impl Rollout {
    /// An episode from a prompt and all tokens sampled after it.
    ///
    /// The answer stops with the first end token among the sampled ones; an end token in the prompt
    /// means nothing. What was sampled behind it is kept and never trained on: samplers that decode
    /// on have it, ours doesn't. Errors: an empty prompt, no sampled token or too many.
    pub fn new(prompt: &[u32], sampled: &[u32], sampling: &Sampling) -> Result<Self> {
        if prompt.is_empty() || sampled.is_empty() {
            return Err(Error::EmptyEpisode {
                what: if prompt.is_empty() { "prompt" } else { "answer" },
            });
        }
        if sampled.len() > sampling.max_new_tokens {
            return Err(Error::TooLong {
                n: sampled.len(),
                max_new_tokens: sampling.max_new_tokens,
            });
        }
        let end = sampled.iter().position(|id| sampling.end_ids.contains(id));
        let span = Span {
            prompt: prompt.len(),
            response: end.map_or(sampled.len(), |end| end + 1),
            end: if end.is_some() { EndReason::EndToken } else { EndReason::Length },
        };
        Ok(Self { ids: [prompt, sampled].concat(), span })
    }

    /// Where its parts are.
    pub fn span(&self) -> Span {
        self.span
    }

    /// The prompt's ids.
    pub fn prompt(&self) -> &[u32] {
        self.part(0..self.span.prompt)
    }

    /// The answer's ids, a sampled end token among them.
    pub fn response(&self) -> &[u32] {
        self.part(self.span.prompt..self.span.prompt + self.span.response)
    }

    /// Prompt and answer: what a reward model reads.
    pub fn episode(&self) -> &[u32] {
        self.part(0..self.span.prompt + self.span.response)
    }

    /// All sampled ids, also those behind the end token.
    pub fn sampled(&self) -> &[u32] {
        self.part(self.span.prompt..self.ids.len())
    }

    /// Every id that was fed or sampled.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    fn part(&self, range: Range<usize>) -> &[u32] {
        self.ids.get(range).unwrap_or_default()
    }
}

/// The episodes of one update, all sampled in one way.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollouts {
    /// How they were sampled.
    pub sampling: Sampling,
    /// The episodes.
    pub episodes: Vec<Rollout>,
}

impl Rollouts {
    /// No episodes yet.
    pub fn new(sampling: Sampling) -> Self {
        Self { sampling, episodes: Vec::new() }
    }

    /// Adds an episode; errors as [`Rollout::new`].
    pub fn push(&mut self, prompt: &[u32], sampled: &[u32]) -> Result<()> {
        self.episodes.push(Rollout::new(prompt, sampled, &self.sampling)?);
        Ok(())
    }
}
