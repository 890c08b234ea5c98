//! A prompt that was read: its cache and the logits of the next token. A long one is read in pieces.

use burn::tensor::Tensor;
use model::CausalLm;

use crate::decoder::{Decoder, MAX_SCORES};

/// Positions of the largest piece, and of the smallest one.
const PIECES: [usize; 2] = [512, 16];

/// A prompt that was read.
#[derive(Debug)]
pub struct Prompt<'a> {
    pub(crate) decoder: Decoder<'a>,
    /// Logits of the next token, `[v]`.
    pub(crate) logits: Vec<f32>,
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
        let logits = kernels::with_host_values(&decoder.model().logits(hidden), <[f32]>::to_vec);
        Self { decoder, logits }
    }

    /// Logits of the next token, `[v]`.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }
}

/// Reads a prompt in pieces, so that other sequences can be decoded in between.
///
/// The borders of pieces depend on the model alone. Prompts with the same beginning thus compute the same numbers for it.
#[derive(Debug)]
pub struct PromptReader<'a> {
    model: &'a CausalLm,
    ids: Vec<u32>,
    n_read: usize,
    decoder: Option<Decoder<'a>>,
}

impl<'a> PromptReader<'a> {
    /// A reader at the start of a prompt.
    ///
    /// # Panics
    /// If it is empty or longer than the model's context.
    pub fn new(model: &'a CausalLm, ids: Vec<u32>) -> Self {
        assert!(!ids.is_empty(), "an empty prompt");
        assert!(ids.len() <= model.config().max_positions(), "a prompt of {} tokens", ids.len());
        Self { model, ids, n_read: 0, decoder: None }
    }

    /// Number of tokens read so far.
    pub fn n_read(&self) -> usize {
        self.n_read
    }

    /// Reads the next piece; returns the prompt after the last one.
    ///
    /// # Panics
    /// If it is called again after the last piece.
    pub fn read_piece(&mut self) -> Option<Prompt<'a>> {
        let end = (self.n_read + self.piece()).min(self.ids.len());
        let piece = &self.ids[self.n_read..end];
        let (decoder, hidden) = match self.decoder.take() {
            None => Decoder::prefill(self.model, &[piece], self.ids.len()),
            Some(mut decoder) => {
                let hidden = decoder.feed(piece);
                (decoder, hidden)
            }
        };
        self.n_read = end;
        if end < self.ids.len() {
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
