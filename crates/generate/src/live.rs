//! A batch that sequences join and leave between tokens. Each has its own settings and its own companion value, such as
//! the person who waits for its text.

use std::sync::Arc;

use model::CausalLm;

use crate::decoder::Decoder;
use crate::error::Result;
use crate::prompt::Prompt;
use crate::sequence::{Choice, Sequence, choose_all};
use crate::settings::FinishReason;

/// Sequences that are decoded together.
pub struct LiveBatch<'a, T> {
    model: &'a CausalLm,
    decoder: Option<Decoder<'a>>,
    /// The sequence of each row of the decoder; `None` where it ended.
    places: Vec<Option<Member<T>>>,
    joining: Vec<(Member<T>, Arc<Prompt<'a>>)>,
}

/// A sequence with its companion.
struct Member<T> {
    sequence: Sequence,
    companion: T,
}

/// A token of a sequence in a batch.
#[derive(Clone, Debug)]
pub struct LiveToken {
    /// The token.
    pub choice: Choice,
    /// The text that is now complete, as of [`Sequence::take_text`].
    pub text: String,
    /// The reason, if the completion ends with this token.
    pub finish_reason: Option<FinishReason>,
}

impl<T> Member<T> {
    /// Appends the next token and reports it; false if the sequence leaves the batch.
    fn append(
        &mut self,
        choice: Result<Choice>,
        on_token: &mut impl FnMut(&mut T, Result<LiveToken>) -> bool,
    ) -> bool {
        let choice = match choice {
            Ok(choice) => choice,
            Err(error) => {
                on_token(&mut self.companion, Err(error));
                return false;
            }
        };
        let finish_reason = self.sequence.append(choice.id, choice.logprob);
        let text = self.sequence.take_text();
        let goes_on = on_token(&mut self.companion, Ok(LiveToken { choice, text, finish_reason }));
        goes_on && finish_reason.is_none()
    }
}

impl<'a, T> LiveBatch<'a, T> {
    /// An empty batch.
    pub fn new(model: &'a CausalLm) -> Self {
        Self { model, decoder: None, places: Vec::new(), joining: Vec::new() }
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.places.iter().flatten().count() + self.joining.len()
    }

    /// Whether it has no sequences.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The largest number of positions that a sequence of the batch can reach.
    pub fn max_len(&self) -> usize {
        let joining = self.joining.iter().map(|(member, _)| member);
        let members = self.places.iter().flatten().chain(joining);
        members.map(|member| member.sequence.max_len()).max().unwrap_or(0)
    }

    /// The companions of all sequences.
    pub fn companions(&self) -> impl Iterator<Item = &T> {
        let joining = self.joining.iter().map(|(member, _)| member);
        self.places.iter().flatten().chain(joining).map(|member| &member.companion)
    }

    /// Adds a sequence whose prompt was read, and chooses its first token. `on_token` is called as by [`Self::step`].
    pub fn add(
        &mut self,
        sequence: Sequence,
        companion: T,
        prompt: &Arc<Prompt<'a>>,
        on_token: &mut impl FnMut(&mut T, Result<LiveToken>) -> bool,
    ) {
        let mut member = Member { sequence, companion };
        let choice = member.sequence.choose(prompt.logits());
        if member.append(choice, on_token) {
            self.joining.push((member, Arc::clone(prompt)));
        }
    }

    /// Removes the sequences whose companion does not satisfy `stays`.
    pub fn retain(&mut self, mut stays: impl FnMut(&T) -> bool) {
        for place in &mut self.places {
            if place.as_ref().is_some_and(|member| !stays(&member.companion)) {
                *place = None;
            }
        }
        self.joining.retain(|(member, _)| stays(&member.companion));
    }

    /// Decodes one token of each sequence. `on_token` gets each token as soon as it is chosen, or the reason why there is
    /// none; a sequence leaves the batch if it ended or if `on_token` returns false.
    pub fn step(&mut self, on_token: &mut impl FnMut(&mut T, Result<LiveToken>) -> bool) {
        self.settle();
        let Some(decoder) = &mut self.decoder else { return };
        let sequences: Vec<&mut Sequence> =
            self.places.iter_mut().flatten().map(|member| &mut member.sequence).collect();
        let ids: Vec<u32> = sequences.iter().filter_map(|sequence| sequence.last_id()).collect();
        let sources: Vec<usize> = (0..ids.len()).collect();
        decoder.make_room(1);
        let choices = choose_all(self.model, sequences, &sources, decoder.feed(&ids));
        for (place, choice) in self.places.iter_mut().zip(choices) {
            if let Some(member) = place
                && !member.append(choice, on_token)
            {
                *place = None;
            }
        }
    }

    /// Gives the places of sequences that left to those that join, adds the places that are missing and drops those left
    /// over: afterwards each row of the decoder has a sequence.
    fn settle(&mut self) {
        let mut joining = std::mem::take(&mut self.joining).into_iter();
        if self.places.iter().all(Option::is_none) {
            // Nothing of the old texts remains, their padding neither.
            (self.decoder, self.places) = (None, Vec::new());
        }
        let mut decoder = match self.decoder.take() {
            Some(decoder) => decoder,
            None => {
                let Some((member, prompt)) = joining.next() else { return };
                self.places.push(Some(member));
                prompt.decoder.copy_with_capacity(prompt.decoder.longest() + 1)
            }
        };
        for (row, place) in self.places.iter_mut().enumerate().filter(|(_, place)| place.is_none())
        {
            let Some((member, prompt)) = joining.next() else { break };
            decoder.give_row(row, &prompt.decoder);
            *place = Some(member);
        }
        let mut rows: Vec<usize> =
            (0..self.places.len()).filter(|&row| self.places[row].is_some()).collect();
        let (n_kept, n_before) = (rows.len(), self.places.len());
        let rest: Vec<_> = joining.collect();
        // A new row is a copy of the first one until it is given to its text.
        rows.resize(n_kept + rest.len(), 0);
        if n_kept < n_before || !rest.is_empty() {
            decoder.select_rows(&rows);
            self.places.retain(Option::is_some);
        }
        for (row, (member, prompt)) in (n_kept..).zip(rest) {
            decoder.give_row(row, &prompt.decoder);
            self.places.push(Some(member));
        }
        self.decoder = Some(decoder);
    }
}
