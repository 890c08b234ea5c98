//! The decoding loop: logits are copied to the host, a token is sampled for each row, and finished rows give their places to
//! sequences that wait.
//! lib.rs checks the arguments.

use std::sync::Arc;

use model::CausalLm;

use crate::decoder::Decoder;
use crate::error::Result;
use crate::prompt::Prompt;
use crate::sequence::{Choice, Sequence, choose_all};
use crate::settings::{Completion, NewToken, Settings};

/// The arguments of a call.
pub(crate) struct Job<'a> {
    pub(crate) model: &'a CausalLm,
    pub(crate) prompts: &'a [Vec<u32>],
    pub(crate) settings: Arc<Settings>,
    pub(crate) seed: u64,
}

/// Sequences that wait for a place.
struct Waiting<'a> {
    members: std::slice::Iter<'a, (usize, usize)>,
    /// The prompt of the newest one that got a place, with its index.
    prompt: Option<(usize, Prompt<'a>)>,
}

impl Waiting<'_> {
    /// Copies the newest prompt into a place of the batch.
    fn move_into(&self, batch: &mut Decoder<'_>, place: usize) {
        if let Some((_, prompt)) = &self.prompt {
            batch.replace_row(place, &prompt.decoder);
        }
    }
}

/// A row after its newest token.
enum Appended {
    Unfinished(Sequence),
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
        let mut rows: Vec<Sequence> = first.iter().map(|&(p, c)| self.start(p, c)).collect();
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
            let choices = choose_all(self.model, rows.iter_mut().collect(), &sources, hidden);
            // The rows that go on, and their places in the cache.
            let (mut unfinished, mut places) = (Vec::new(), Vec::new());
            let n_places = rows.len();
            for (place, (row, choice)) in rows.into_iter().zip(choices).enumerate() {
                let row = match append(row, choice?, on_token) {
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
            let ids: Vec<u32> = rows.iter().filter_map(Sequence::last_id).collect();
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
    ) -> Result<Option<Sequence>> {
        for &(prompt_idx, completion_idx) in waiting.members.by_ref() {
            let prompt = match waiting.prompt.take() {
                Some((idx, prompt)) if idx == prompt_idx => prompt,
                _ => Prompt::read(self.model, self.prompts[prompt_idx].as_slice()),
            };
            let mut row = self.start(prompt_idx, completion_idx);
            let choice = row.choose(&prompt.logits)?;
            waiting.prompt = Some((prompt_idx, prompt));
            match append(row, choice, on_token) {
                Appended::Unfinished(row) => return Ok(Some(row)),
                Appended::Finished(completion) => finished.push(completion),
            }
        }
        Ok(None)
    }

    fn start(&self, prompt_idx: usize, completion_idx: usize) -> Sequence {
        let prompt = &self.prompts[prompt_idx];
        let place = (prompt_idx, completion_idx);
        Sequence::new(self.model, &self.settings, prompt, place, self.seed)
    }
}

/// Appends a token and reports it; the completion may end with it.
fn append(mut row: Sequence, choice: Choice, on_token: &mut impl FnMut(&NewToken)) -> Appended {
    let Choice { id, logprob, .. } = choice;
    let finish_reason = row.append(id, logprob);
    let Completion { prompt_idx, completion_idx, .. } = *row.completion();
    on_token(&NewToken { prompt_idx, completion_idx, id, logprob, finish_reason });
    match finish_reason {
        Some(_) => Appended::Finished(row.into_completion()),
        None => Appended::Unfinished(row),
    }
}
