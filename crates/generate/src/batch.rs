//! The decoding loop of one batch: logits are copied to the host, a token is sampled for each row, finished rows leave.
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

/// The arguments that all batches of a call share.
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

/// A row after its newest token.
enum Appended {
    Unfinished(Row),
    Finished(Completion),
}

impl Job<'_> {
    /// Continues the sequences `(prompt, completion)` together and returns them in any order.
    pub(crate) fn run(
        &self,
        members: &[(usize, usize)],
        on_token: &mut impl FnMut(&NewToken),
    ) -> Result<Vec<Completion>> {
        let mut rows: Vec<Row> = members.iter().map(|&(p, c)| self.start(p, c)).collect();
        let n_prompt_tokens = rows.iter().map(|row| row.seen.len()).max().unwrap_or(0);
        let n_new_tokens = rows.iter().map(|row| row.max_new_tokens).max().unwrap_or(0);

        // Members are sorted by prompt; each prompt is read once for all of its completions.
        let mut prompts: Vec<usize> = members.iter().map(|&(prompt_idx, _)| prompt_idx).collect();
        prompts.dedup();
        let source = |(prompt_idx, _)| prompts.partition_point(|&earlier| earlier < prompt_idx);
        // For each row, the index of its logits; from the second token on, the row's own index.
        let mut sources: Vec<usize> = members.iter().copied().map(source).collect();
        let prompts: Vec<&[u32]> = prompts.iter().map(|&p| self.prompts[p].as_slice()).collect();

        let capacity = n_prompt_tokens + n_new_tokens;
        let (mut decoder, mut hidden) = Decoder::prefill(self.model, &prompts, capacity);
        let mut n_cached = prompts.len();
        let mut finished = Vec::new();
        loop {
            let choices = self.choose_all(&rows, &sources, hidden)?;
            let mut unfinished = Vec::new();
            for ((row, source), choice) in rows.into_iter().zip(sources).zip(choices) {
                match self.append(row, choice, on_token) {
                    Appended::Finished(completion) => finished.push(completion),
                    Appended::Unfinished(row) => unfinished.push((row, source)),
                }
            }
            if unfinished.is_empty() {
                return Ok(finished);
            }
            (rows, sources) = unfinished.into_iter().unzip();
            if !sources.iter().copied().eq(0..n_cached) {
                decoder.select_rows(&sources);
                n_cached = sources.len();
            }
            sources = (0..n_cached).collect();
            let ids: Vec<u32> = rows.iter().filter_map(|row| row.seen.last().copied()).collect();
            hidden = decoder.feed(&ids);
        }
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
            let not_finite = |row: &Row| Error::NotFinite {
                prompt_idx: row.completion.prompt_idx,
                n_new: row.completion.tokens.len(),
            };
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
            (completion.tokens.len() >= row.max_new_tokens).then_some(FinishReason::Length)
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
