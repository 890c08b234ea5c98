//! The decoding loop: logits are copied to the host, a token is sampled for each row, and finished rows give their places to
//! sequences that wait.
//! lib.rs checks the arguments.

use burn::tensor::Tensor;
use model::CausalLm;
use rayon::prelude::*;
use seed::{Purpose, Rng};

use crate::decoder::Decoder;
use crate::error::{Error, Result};
use crate::sampling::logprob;
use crate::settings::{Completion, FinishReason, NewToken, Settings};
use crate::stop::{Stop, Watcher};

/// The arguments of a call.
pub(crate) struct Job<'a> {
    pub(crate) model: &'a CausalLm,
    pub(crate) prompts: &'a [Vec<u32>],
    pub(crate) settings: &'a Settings,
    pub(crate) seed: u64,
}

/// One unfinished sequence.
struct Row {
    completion: Completion,
    /// The ids of prompt and completion, to which the repetition penalty applies.
    seen: Vec<u32>,
    max_new_tokens: usize,
    key: u64,
    /// Searches for stop texts, if there are any.
    watcher: Option<Watcher>,
}

/// A token with its log-probability.
type Choice = (u32, f32);

/// Sequences that wait for a place.
struct Waiting<'a> {
    members: std::slice::Iter<'a, (usize, usize)>,
    /// The prompt of the newest one that got a place.
    prompt: Option<Prompt<'a>>,
}

/// A prompt that was read.
struct Prompt<'a> {
    prompt_idx: usize,
    decoder: Decoder<'a>,
    /// Logits of the next token, `[v]`.
    logits: Vec<f32>,
}

impl Waiting<'_> {
    /// Copies the newest prompt into a place of the batch.
    fn move_into(&self, batch: &mut Decoder<'_>, place: usize) {
        if let Some(prompt) = &self.prompt {
            batch.replace_row(place, &prompt.decoder);
        }
    }
}

fn not_finite(row: &Row) -> Error {
    let Completion { prompt_idx, tokens, .. } = &row.completion;
    Error::NotFinite { prompt_idx: *prompt_idx, n_new: tokens.len() }
}

/// A row after its newest token.
enum Appended {
    Unfinished(Row),
    Finished(Completion),
}

impl<'a> Job<'a> {
    /// Continues the sequences `(prompt, completion)`, sorted by prompt, `batch_rows` of them at a time, and returns them in
    /// any order. The place of a finished sequence is given to the next one at once.
    pub(crate) fn run(
        &self,
        members: &[(usize, usize)],
        on_token: &mut impl FnMut(&NewToken),
    ) -> Result<Vec<Completion>> {
        if members.is_empty() {
            return Ok(Vec::new());
        }
        let (first, rest) = members.split_at(self.settings.batch_rows.min(members.len()));
        let mut rows: Vec<Row> = first.iter().map(|&(p, c)| self.start(p, c)).collect();
        let mut waiting = Waiting { members: rest.iter(), prompt: None };

        // Each prompt is read once for all of its completions.
        let mut prompts: Vec<usize> = first.iter().map(|&(prompt_idx, _)| prompt_idx).collect();
        prompts.dedup();
        let source = |(prompt_idx, _)| prompts.partition_point(|&earlier| earlier < prompt_idx);
        // For each row, the index of its logits; from the second token on, the row's own index.
        let mut sources: Vec<usize> = first.iter().copied().map(source).collect();
        let texts: Vec<&[u32]> = prompts.iter().map(|&p| self.prompts[p].as_slice()).collect();
        let capacity = self.capacity(members, !rest.is_empty());
        let (mut decoder, mut hidden) = Decoder::prefill(self.model, &texts, capacity);
        if !sources.iter().copied().eq(0..prompts.len()) {
            decoder.select_rows(&sources);
        }
        let mut finished = Vec::new();
        loop {
            let choices = self.choose_all(&rows, &sources, hidden)?;
            // The rows that go on, and their places in the cache.
            let (mut unfinished, mut places) = (Vec::new(), Vec::new());
            let n_places = rows.len();
            for (place, (row, choice)) in rows.into_iter().zip(choices).enumerate() {
                let row = match self.append(row, choice, on_token) {
                    Appended::Unfinished(row) => Some(row),
                    Appended::Finished(completion) => {
                        finished.push(completion);
                        self.next_row(&mut waiting, &mut finished, on_token)?
                            .inspect(|_| waiting.move_into(&mut decoder, place))
                    }
                };
                if let Some(row) = row {
                    unfinished.push(row);
                    places.push(place);
                }
            }
            rows = unfinished;
            if rows.is_empty() {
                return Ok(finished);
            }
            if places.len() < n_places {
                decoder.select_rows(&places);
            }
            sources = (0..rows.len()).collect();
            let ids: Vec<u32> = rows.iter().filter_map(|row| row.seen.last().copied()).collect();
            hidden = decoder.feed(&ids);
        }
    }

    /// Positions of the cache: those of the longest prompt with its completion. Where places are given to other prompts, there
    /// is room for padding on their left, so that it is dropped once in many tokens.
    fn capacity(&self, members: &[(usize, usize)], has_waiting: bool) -> usize {
        let length = |&(prompt_idx, _): &(usize, usize)| {
            let n_prompt = self.prompts[prompt_idx].len();
            let room = self.model.config().max_positions() - n_prompt;
            n_prompt + self.settings.max_new_tokens.min(room)
        };
        let longest = members.iter().map(length).max().unwrap_or(0);
        if has_waiting { longest + (longest / 4).max(16) } else { longest }
    }

    /// The next waiting sequence that continues after its first token; sequences that end with it are finished. A prompt is read
    /// once for its completions that wait.
    fn next_row(
        &self,
        waiting: &mut Waiting<'a>,
        finished: &mut Vec<Completion>,
        on_token: &mut impl FnMut(&NewToken),
    ) -> Result<Option<Row>> {
        for &(prompt_idx, completion_idx) in waiting.members.by_ref() {
            let prompt = match waiting.prompt.take() {
                Some(prompt) if prompt.prompt_idx == prompt_idx => prompt,
                _ => self.read_prompt(prompt_idx),
            };
            let row = self.start(prompt_idx, completion_idx);
            let choice = self.choose(&row, &prompt.logits).ok_or_else(|| not_finite(&row))?;
            waiting.prompt = Some(prompt);
            match self.append(row, choice, on_token) {
                Appended::Unfinished(row) => return Ok(Some(row)),
                Appended::Finished(completion) => finished.push(completion),
            }
        }
        Ok(None)
    }

    fn read_prompt(&self, prompt_idx: usize) -> Prompt<'a> {
        let text = self.prompts[prompt_idx].as_slice();
        let (decoder, hidden) = Decoder::prefill(self.model, &[text], text.len());
        let logits = kernels::with_host_values(&self.model.logits(hidden), <[f32]>::to_vec);
        Prompt { prompt_idx, decoder, logits }
    }

    fn start(&self, prompt_idx: usize, completion_idx: usize) -> Row {
        let seen = self.prompts[prompt_idx].clone();
        let room = self.model.config().max_positions() - seen.len();
        let number = self.settings.first_prompt + prompt_idx;
        let (prompt, completion) = (number as u64, completion_idx as u64);
        Row {
            completion: Completion {
                prompt_idx,
                completion_idx,
                tokens: Vec::new(),
                logprobs: Vec::new(),
                finish_reason: FinishReason::Length,
                stopped_text: None,
            },
            seen,
            max_new_tokens: self.settings.max_new_tokens.min(room),
            key: seed::derive(self.seed, "generate", Purpose::Sample, prompt, completion),
            watcher: self.settings.stop.as_ref().map(Stop::watch),
        }
    }

    /// The next token of every row, given hidden states `[.., 1, d]`.
    fn choose_all(
        &self,
        rows: &[Row],
        sources: &[usize],
        hidden: Tensor<3>,
    ) -> Result<Vec<Choice>> {
        kernels::with_host_values(&self.model.logits(hidden), |logits| {
            let n_vocab = self.model.config().vocab_size();
            let choose = |(row, &source): (&Row, &usize)| {
                self.choose(row, logits.get(source * n_vocab..(source + 1) * n_vocab)?)
            };
            let choices = rows.par_iter().zip(sources).map(choose);
            choices.zip(rows).map(|(choice, row)| choice.ok_or_else(|| not_finite(row))).collect()
        })
    }

    /// The next token of one row from its logits `[v]`; `None` if they are not finite.
    fn choose(&self, row: &Row, logits: &[f32]) -> Option<Choice> {
        let n_new = row.completion.tokens.len();
        let mut filtered = logits.to_vec();
        let unknown = self.settings.vocab_size.and_then(|known| filtered.get_mut(known..));
        unknown.unwrap_or_default().fill(f32::NEG_INFINITY);
        if n_new < self.settings.min_new_tokens {
            for &id in &self.settings.eos_ids {
                if let Some(logit) = filtered.get_mut(id as usize) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        let sampling = &self.settings.sampling;
        sampling.filter(&mut filtered, &row.seen);
        let key = seed::derive(row.key, "generate", Purpose::Sample, n_new as u64, 0);
        let id = sampling.choose(&filtered, &mut Rng::new(key))?;
        Some((id, logprob(logits, id, sampling.temperature)))
    }

    /// Appends a token and reports it; the completion may end with it.
    fn append(
        &self,
        mut row: Row,
        (id, logprob): Choice,
        on_token: &mut impl FnMut(&NewToken),
    ) -> Appended {
        let completion = &mut row.completion;
        completion.tokens.push(id);
        completion.logprobs.push(logprob);
        row.seen.push(id);
        let watched = row.watcher.as_mut().zip(self.settings.stop.as_ref());
        let finish_reason = if self.settings.eos_ids.contains(&id) {
            Some(FinishReason::Eos)
        } else if let Some(text) = watched.and_then(|(watcher, stop)| watcher.push(id, stop)) {
            completion.stopped_text = Some(text);
            Some(FinishReason::Stop)
        } else {
            let is_cut = completion.tokens.len() >= row.max_new_tokens;
            (is_cut || self.settings.is_interrupted()).then_some(FinishReason::Length)
        };
        let Completion { prompt_idx, completion_idx, .. } = *completion;
        on_token(&NewToken { prompt_idx, completion_idx, id, logprob, finish_reason });
        match finish_reason {
            Some(finish_reason) => {
                Appended::Finished(Completion { finish_reason, ..row.completion })
            }
            None => Appended::Unfinished(row),
        }
    }
}
