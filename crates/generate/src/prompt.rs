//! A prompt that was read: its cache and the logits of the next token. A long one is read in pieces, and the beginnings of
//! earlier ones are not read again.

use std::collections::VecDeque;

use burn::tensor::Tensor;
use model::CausalLm;

use crate::decoder::{Decoder, MAX_SCORES};

/// Positions of the largest piece, and of the smallest one.
const PIECES: [usize; 2] = [128, 16];

/// A prompt that was read.
#[derive(Debug)]
pub struct Prompt<'a> {
    pub(crate) decoder: Decoder<'a>,
    /// Logits of the next token, `[v]`.
    pub(crate) logits: Vec<f32>,
    /// State of the last token, `[d]`.
    hidden: Vec<f32>,
}

impl<'a> Prompt<'a> {
    /// Reads a prompt at once.
    ///
    /// # Panics
    /// If it is empty or longer than the model's context.
    pub(crate) fn read(model: &'a CausalLm, ids: &[u32]) -> Self {
        let (decoder, hidden) = Decoder::prefill(model, &[ids], ids.len());
        Self::new(decoder, hidden)
    }

    fn new(decoder: Decoder<'a>, hidden: Tensor<3>) -> Self {
        let state = kernels::with_host_values(&hidden, <[f32]>::to_vec);
        let logits = kernels::with_host_values(&decoder.model().logits(hidden), <[f32]>::to_vec);
        Self { decoder, logits, hidden: state }
    }

    /// Logits of the next token, `[v]`.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// The state of the last token after the model's last norm, `[d]`.
    pub fn last_hidden(&self) -> &[f32] {
        &self.hidden
    }
}

/// Reads a prompt in pieces, so that other sequences can be decoded in between.
///
/// The borders of pieces depend on the model alone. Prompts with the same beginning thus compute the same numbers for it.
#[derive(Debug)]
pub struct PromptReader<'a> {
    model: &'a CausalLm,
    adapter: Option<usize>,
    ids: Vec<u32>,
    n_read: usize,
    n_shared: usize,
    decoder: Option<Decoder<'a>>,
}

impl<'a> PromptReader<'a> {
    /// A reader at the end of the longest known beginning of a prompt. `adapter` is the number of one of the model's adapters,
    /// if it has several.
    ///
    /// # Panics
    /// If the prompt is empty or longer than the model's context.
    pub fn new(
        model: &'a CausalLm,
        adapter: Option<usize>,
        ids: Vec<u32>,
        known: &mut Prefixes<'a>,
    ) -> Self {
        assert!(!ids.is_empty(), "an empty prompt");
        assert!(ids.len() <= model.config().max_positions(), "a prompt of {} tokens", ids.len());
        let decoder = known.decoder(adapter, &ids);
        let n_shared = decoder.as_ref().map_or(0, Decoder::longest);
        Self { model, adapter, ids, n_read: n_shared, n_shared, decoder }
    }

    /// Number of tokens that another prompt shares.
    pub fn n_shared(&self) -> usize {
        self.n_shared
    }

    /// Number of tokens that were read so far, shared ones included.
    pub fn n_read(&self) -> usize {
        self.n_read
    }

    /// Reads the next piece; returns the prompt after the last one. Whole pieces of the prompt are stored in `known`.
    ///
    /// # Panics
    /// If it is called again after the last piece.
    pub fn read_piece(&mut self, known: &mut Prefixes<'a>) -> Option<Prompt<'a>> {
        let end = (self.n_read + self.piece()).min(self.ids.len());
        let piece = &self.ids[self.n_read..end];
        let (decoder, hidden) = match self.decoder.take() {
            None => Decoder::prefill_with(self.model, self.adapter, &[piece], self.ids.len()),
            Some(mut decoder) => {
                let hidden = decoder.feed(piece);
                (decoder, hidden)
            }
        };
        self.n_read = end;
        if end < self.ids.len() {
            // The last whole piece for texts that continue this one, others for texts that leave it earlier.
            if end + self.piece() >= self.ids.len() || end.is_power_of_two() {
                known.store(&self.ids[..end], &decoder);
            }
            self.decoder = Some(decoder);
            return None;
        }
        let [b, t, d] = hidden.dims();
        Some(Prompt::new(decoder, hidden.slice([0..b, t - 1..t, 0..d])))
    }

    /// Positions of the next piece. Where the angles of a token depend on the length of its text, all of it is read at once.
    fn piece(&self) -> usize {
        let config = self.model.config();
        if config.rope_depends_on_length() {
            return self.ids.len();
        }
        let [mut n, smallest] = PIECES;
        while n > smallest && config.n_heads() * (self.n_read + n) * n > MAX_SCORES {
            n /= 2;
        }
        n
    }
}

/// Beginnings of prompts that were read, up to a number of elements of their caches.
///
/// A beginning ends between two pieces, so that the rest of a prompt is read as without it: no result changes by a bit.
#[derive(Debug)]
pub struct Prefixes<'a> {
    /// The one that was used last is at the end.
    stored: VecDeque<(Vec<u32>, Decoder<'a>)>,
    max_elements: u64,
}

impl<'a> Prefixes<'a> {
    /// No beginnings; `max_elements` limits the keys and values that are stored.
    pub fn new(max_elements: u64) -> Self {
        Self { stored: VecDeque::new(), max_elements }
    }

    /// A decoder that has read the longest known beginning of a prompt, with room for all of it.
    fn decoder(&mut self, adapter: Option<usize>, ids: &[u32]) -> Option<Decoder<'a>> {
        let begins = |(prefix, decoder): &(Vec<u32>, Decoder<'_>)| {
            prefix.len() < ids.len() && decoder.adapter() == adapter && ids.starts_with(prefix)
        };
        let known = self.stored.iter().enumerate().filter(|(_, entry)| begins(entry));
        let (idx, _) = known.max_by_key(|(_, (prefix, _))| prefix.len())?;
        let entry = self.stored.remove(idx)?;
        let decoder = entry.1.copy_with_capacity(ids.len());
        self.stored.push_back(entry);
        Some(decoder)
    }

    fn store(&mut self, ids: &[u32], decoder: &Decoder<'a>) {
        let n_elements = |n: usize| decoder.model().config().kv_cache_elements(n);
        if n_elements(ids.len()) > self.max_elements
            || self
                .stored
                .iter()
                .any(|(known, of)| known == ids && of.adapter() == decoder.adapter())
        {
            return;
        }
        self.stored.push_back((ids.to_vec(), decoder.copy_with_capacity(ids.len())));
        let total = |stored: &VecDeque<(Vec<u32>, _)>| -> u64 {
            stored.iter().map(|(ids, _)| n_elements(ids.len())).sum()
        };
        while total(&self.stored) > self.max_elements {
            self.stored.pop_front();
        }
    }
}
