//! Decoding for printing, id by id; it never gives out half a character and keeps few ids.

use crate::Tokenizer;

/// Ids that may wait for the rest of a character, which has four bytes at most. A model that writes
/// bytes of no character must not be kept waiting for ever.
const WAITING: usize = 64;

/// Turns ids into text as they come.
pub struct DecodeStream {
    tokenizer: Tokenizer,
    skip_special: bool,
    /// The last ids: some of them printed (for context), the rest not yet.
    window: Vec<u32>,
    n_printed: usize,
}

impl Tokenizer {
    /// A decoder that takes ids one by one and returns text without splitting characters.
    ///
    /// `skip_special` omits special tokens.
    pub fn decode_stream(&self, skip_special: bool) -> DecodeStream {
        let tokenizer = self.clone();
        DecodeStream { tokenizer, skip_special, window: Vec::new(), n_printed: 0 }
    }
}

impl DecodeStream {
    /// Takes one id and gives the text that is complete by now, often one piece, sometimes none.
    pub fn push(&mut self, id: u32) -> String {
        if self.skip_special && self.tokenizer.is_special(id) {
            return String::new();
        }
        self.window.push(id);
        let text = self.pending();
        // A character cut in two decodes to a replacement character at the end: wait for more. One
        // that stands in the text itself only waits for the next id, or for `finish`.
        let waits = text.is_empty() || text.ends_with('\u{fffd}');
        if waits && self.window.len() - self.n_printed < WAITING {
            return String::new();
        }
        // Sentencepiece decoders drop a space at the start of what they decode, so the ids just
        // printed stay as context for the next ones.
        self.window.drain(..self.n_printed);
        self.n_printed = self.window.len();
        text
    }

    /// What is left, complete or not.
    pub fn finish(&mut self) -> String {
        let text = self.pending();
        self.window.clear();
        self.n_printed = 0;
        text
    }

    /// The text of the ids that have not been printed.
    fn pending(&self) -> String {
        let context = self.window.get(..self.n_printed).unwrap_or_default();
        let before = self.tokenizer.decode(context, self.skip_special);
        let all = self.tokenizer.decode(&self.window, self.skip_special);
        all.strip_prefix(before.as_str()).unwrap_or_default().to_owned()
    }
}
