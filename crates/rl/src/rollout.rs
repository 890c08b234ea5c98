//! Rollouts: prompt and sampled token ids of an episode, with its span and the reason why it ended.
//!
//! Ids are never converted to text and back, never compared with a pad id, and none is added.

use std::ops::Range;

use crate::{Error, Result};

/// The sampling distribution of rollouts, under which their log-probabilities are computed.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divisor of the logits.
    pub temperature: f64,
    /// End tokens of an answer.
    pub end_ids: Vec<u32>,
    /// Maximum number of tokens of an answer.
    pub max_new_tokens: usize,
    /// Ids from this one on have probability 0; `None` if all of the model's ids can be sampled.
    pub vocab_size: Option<usize>,
}

impl Sampling {
    /// The distribution of a generator's settings.
    ///
    /// Errors: settings such as top-k that change the distribution in a way that the loss does not model.
    pub fn of(settings: &generate::Settings) -> Result<Self> {
        let sampling = &settings.sampling;
        let filters = [
            ("top_k", sampling.top_k.is_some()),
            ("top_p", sampling.top_p.is_some_and(|p| p < 1.0)),
            ("min_p", sampling.min_p.is_some_and(|p| p > 0.0)),
        ];
        if let Some((name, _)) = filters.into_iter().find(|(_, is_set)| *is_set) {
            return Err(Error::NotScorable { name });
        }
        Self::before_filters(settings)
    }

    /// The distribution before top-k, top-p and min-p, under which losses of GRPO compute log-probabilities.
    ///
    /// Errors: other settings that change the distribution.
    pub fn before_filters(settings: &generate::Settings) -> Result<Self> {
        let sampling = &settings.sampling;
        let refused = [
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

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// An end token was sampled; it is the last token of the answer.
    EndToken,
    /// The maximum length was reached.
    Length,
}

/// The parts of an episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Number of prompt tokens, at least 1.
    pub prompt: usize,
    /// Number of answer tokens including a sampled end token, at least 1.
    pub response: usize,
    /// Why the answer ended.
    pub end: EndReason,
}

/// One episode: the ids of a prompt and the ids sampled after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    ids: Vec<u32>,
    span: Span,
}

impl Rollout {
    /// An episode from a prompt and all tokens sampled after it.
    ///
    /// The answer ends with the first sampled end token; end tokens in the prompt are ignored. Tokens sampled after it are
    /// stored but not trained on; only samplers other than ours produce them.
    ///
    /// Errors: an empty prompt, no sampled token or too many.
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

    /// The lengths of prompt and answer.
    pub fn span(&self) -> Span {
        self.span
    }

    /// The prompt's ids.
    pub fn prompt(&self) -> &[u32] {
        self.part(0..self.span.prompt)
    }

    /// The answer's ids, including a sampled end token.
    pub fn response(&self) -> &[u32] {
        self.part(self.span.prompt..self.span.prompt + self.span.response)
    }

    /// Prompt and answer: the input of a reward model.
    pub fn episode(&self) -> &[u32] {
        self.part(0..self.span.prompt + self.span.response)
    }

    /// All sampled ids, including those after the end token.
    pub fn sampled(&self) -> &[u32] {
        self.part(self.span.prompt..self.ids.len())
    }

    /// All ids: the prompt's and the sampled ones.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    fn part(&self, range: Range<usize>) -> &[u32] {
        self.ids.get(range).unwrap_or_default()
    }
}

/// The episodes of one update, all from one sampling distribution.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollouts {
    /// The sampling distribution.
    pub sampling: Sampling,
    /// The episodes.
    pub episodes: Vec<Rollout>,
}

impl Rollouts {
    /// An empty set of episodes.
    pub fn new(sampling: Sampling) -> Self {
        Self { sampling, episodes: Vec::new() }
    }

    /// Adds an episode.
    ///
    /// Errors: those of [`Rollout::new`].
    pub fn push(&mut self, prompt: &[u32], sampled: &[u32]) -> Result<()> {
        self.episodes.push(Rollout::new(prompt, sampled, &self.sampling)?);
        Ok(())
    }
}
