//! One growing completion: its settings, the choice of its next token, and its end.

use std::sync::Arc;

use burn::tensor::Tensor;
use kernels::AllThreads as _;
use model::CausalLm;
use rayon::prelude::*;
use seed::{Purpose, Rng};

use crate::constraint::Constraint;
use crate::error::{Error, Result};
use crate::sampling::logprob;
use crate::settings::{Completion, FinishReason, Settings};
use crate::stop::{Stop, Watcher};

/// One unfinished sequence.
///
/// Its tokens are a function of the model, prompt, settings and (seed, prompt index, completion index).
pub struct Sequence {
    settings: Arc<Settings>,
    completion: Completion,
    /// The ids of prompt and completion, to which the repetition penalty applies.
    seen: Vec<u32>,
    max_new_tokens: usize,
    key: u64,
    /// Decodes the text and searches for stop texts, if the settings have any.
    watcher: Option<Watcher>,
    constraint: Option<Box<dyn Constraint>>,
}

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The id.
    pub id: u32,
    /// Its log-probability, as in [`Completion::logprobs`].
    pub logprob: f32,
    /// Log-probabilities of the model itself; only with [`Settings::top_logprobs`].
    pub of_model: Option<ModelLogprobs>,
}

/// Log-probabilities of a position without temperature, filters, penalties and biases.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelLogprobs {
    /// That of the chosen token.
    pub chosen: f32,
    /// The most likely tokens, the most likely one first.
    pub top: Vec<(u32, f32)>,
}

impl Sequence {
    /// The beginning of completion `completion_idx` of a prompt.
    ///
    /// # Panics
    /// If the prompt is longer than the model's context.
    pub fn new(
        model: &CausalLm,
        settings: &Arc<Settings>,
        prompt: &[u32],
        (prompt_idx, completion_idx): (usize, usize),
        seed: u64,
    ) -> Self {
        let room = model.config().max_positions() - prompt.len();
        let number = settings.first_prompt + prompt_idx;
        let (of_prompt, of_completion) = (number as u64, completion_idx as u64);
        Self {
            settings: Arc::clone(settings),
            completion: Completion {
                prompt_idx,
                completion_idx,
                tokens: Vec::new(),
                logprobs: Vec::new(),
                finish_reason: FinishReason::Length,
                stopped_text: None,
            },
            seen: prompt.to_vec(),
            max_new_tokens: settings.max_new_tokens.min(room),
            key: seed::derive(seed, "generate", Purpose::Sample, of_prompt, of_completion),
            watcher: settings.stop.as_ref().map(Stop::watch),
            constraint: None,
        }
    }

    /// The same sequence, which continues only with tokens that `constraint` allows.
    #[must_use]
    pub fn constrained(self, constraint: Box<dyn Constraint>) -> Self {
        Self { constraint: Some(constraint), ..self }
    }

    /// The completion so far.
    pub fn completion(&self) -> &Completion {
        &self.completion
    }

    /// The largest number of tokens of prompt and completion together.
    pub fn max_len(&self) -> usize {
        self.seen.len() - self.completion.tokens.len() + self.max_new_tokens
    }

    /// The newest id of prompt and completion.
    pub(crate) fn last_id(&self) -> Option<u32> {
        self.seen.last().copied()
    }

    /// The completion, for a sequence that ended.
    pub(crate) fn into_completion(self) -> Completion {
        self.completion
    }

    /// Chooses the next token, from the logits `[v]` after the newest one. [`Self::append`] appends it.
    ///
    /// Errors: the logits are not finite; the constraint allows no token.
    pub fn choose(&mut self, logits: &[f32]) -> Result<Choice> {
        let n_new = self.completion.tokens.len();
        let settings = Arc::clone(&self.settings);
        let mut filtered = logits.to_vec();
        let unknown = settings.vocab_size.and_then(|known| filtered.get_mut(known..));
        unknown.unwrap_or_default().fill(f32::NEG_INFINITY);
        if n_new < settings.min_new_tokens {
            for &id in &settings.eos_ids {
                if let Some(logit) = filtered.get_mut(id as usize) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        self.add_penalties(&mut filtered);
        if let Some(constraint) = &mut self.constraint {
            constraint.mask(&mut filtered).map_err(|reason| Error::Constraint { reason })?;
        }
        settings.sampling.filter(&mut filtered, &self.seen);
        let key = seed::derive(self.key, "generate", Purpose::Sample, n_new as u64, 0);
        let prompt_idx = self.completion.prompt_idx;
        let id = settings
            .sampling
            .choose(&filtered, &mut Rng::new(key))
            .ok_or(Error::NotFinite { prompt_idx, n_new })?;
        if let Some(constraint) = &mut self.constraint
            && !settings.eos_ids.contains(&id)
        {
            constraint.accept(id).map_err(|reason| Error::Constraint { reason })?;
        }
        Ok(Choice {
            id,
            logprob: logprob(logits, id, settings.sampling.temperature),
            of_model: settings.top_logprobs.map(|n| ModelLogprobs::of(logits, id, n)),
        })
    }

    /// Adds the biases, and the penalties of tokens of the completion: `logit -= frequency * count + presence`
    /// (OpenAI's API reference, "Frequency and presence penalties").
    fn add_penalties(&self, logits: &mut [f32]) {
        let Settings { presence_penalty, frequency_penalty, logit_bias, .. } = &*self.settings;
        for &(id, bias) in logit_bias {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit += bias;
            }
        }
        if *presence_penalty == 0.0 && *frequency_penalty == 0.0 {
            return;
        }
        let mut ids = self.completion.tokens.clone();
        ids.sort_unstable();
        for same in ids.chunk_by(|a, b| a == b) {
            let penalty = frequency_penalty * same.len() as f64 + presence_penalty;
            let logit = same.first().and_then(|&id| logits.get_mut(id as usize));
            if let Some(logit) = logit {
                *logit -= penalty as f32;
            }
        }
    }

    /// Appends a token; returns the reason if the completion ends with it.
    pub fn append(&mut self, id: u32, logprob: f32) -> Option<FinishReason> {
        let completion = &mut self.completion;
        completion.tokens.push(id);
        completion.logprobs.push(logprob);
        self.seen.push(id);
        let watched = self.watcher.as_mut().zip(self.settings.stop.as_ref());
        let finish_reason = if self.settings.eos_ids.contains(&id) {
            Some(FinishReason::Eos)
        } else if let Some(text) = watched.and_then(|(watcher, stop)| watcher.push(id, stop)) {
            completion.stopped_text = Some(text);
            Some(FinishReason::Stop)
        } else {
            let is_cut = completion.tokens.len() >= self.max_new_tokens;
            (is_cut || self.settings.is_interrupted()).then_some(FinishReason::Length)
        };
        if let Some(finish_reason) = finish_reason {
            completion.finish_reason = finish_reason;
            if let Some(watcher) = &mut self.watcher {
                watcher.end();
            }
        }
        finish_reason
    }

    /// The text since the last call that no stop text can remove any more; after the end, all that is left. Empty without
    /// [`Settings::stop`].
    pub fn take_text(&mut self) -> String {
        let watched = self.watcher.as_mut().zip(self.settings.stop.as_ref());
        watched.map(|(watcher, stop)| watcher.take_text(stop)).unwrap_or_default()
    }
}

impl ModelLogprobs {
    fn of(logits: &[f32], id: u32, n_top: usize) -> Self {
        let n_top = n_top.min(logits.len());
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        let at = |id: u32| logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
        let down = |a: &u32, b: &u32| at(*b).total_cmp(&at(*a)).then(a.cmp(b));
        if n_top > 0 && n_top < ids.len() {
            ids.select_nth_unstable_by(n_top - 1, down);
        }
        ids.truncate(n_top);
        ids.sort_unstable_by(down);
        let weights = kernels::exponentials(logits, 1.0);
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let of = |id: u32| (f64::from(at(id)) - f64::from(highest) - weights.sum.ln()) as f32;
        Self { chosen: of(id), top: ids.into_iter().map(|id| (id, of(id))).collect() }
    }
}

/// The next token of every sequence, given hidden states `[.., 1, d]`. `sources` has for each sequence the index of its hidden
/// state.
pub(crate) fn choose_all(
    model: &CausalLm,
    sequences: Vec<&mut Sequence>,
    sources: &[usize],
    hidden: Tensor<3>,
) -> Vec<Result<Choice>> {
    kernels::with_host_values(&model.logits(hidden), |logits| {
        let n_vocab = model.config().vocab_size();
        let choose = |(sequence, &source): (&mut Sequence, &usize)| {
            let of_sequence = logits.get(source * n_vocab..(source + 1) * n_vocab);
            sequence.choose(of_sequence.unwrap_or_default())
        };
        sequences.into_par_iter().zip(sources).map_on_all_threads(choose)
    })
}
