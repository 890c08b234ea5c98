//! Decodes ids one by one into text that never splits a character.

use crate::Tokenizer;

/// Maximum number of ids that wait for the rest of a character. A character has at most four bytes,
/// but a model may write bytes that never form one.
const WAITING: usize = 64;

/// Decodes ids incrementally, like transformers' `TextStreamer`.
pub struct DecodeStream {
    tokenizer: Tokenizer,
    skip_special: bool,
    /// The last ids: `n_printed` printed ones as context, then pending ones.
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
    /// Adds one id and returns the text that is now complete, which may be empty.
    pub fn push(&mut self, id: u32) -> String {
        if self.skip_special && self.tokenizer.is_special(id) {
            return String::new();
        }
        self.window.push(id);
        let text = self.pending();
        // A partial character decodes to a replacement character at the end: wait for more. A
        // replacement character of the text itself waits until the next id or `finish`.
        let waits = text.is_empty() || text.ends_with('\u{fffd}');
        if waits && self.window.len() - self.n_printed < WAITING {
            return String::new();
        }
        // Sentencepiece decoders drop a space at the start of a text, so the ids just printed stay as
        // context for the next ones.
        self.window.drain(..self.n_printed);
        self.n_printed = self.window.len();
        text
    }

    /// Returns the remaining text, complete or not.
    pub fn finish(&mut self) -> String {
        let text = self.pending();
        self.window.clear();
        self.n_printed = 0;
        text
    }

    /// Text of the ids that have not been printed.
    fn pending(&self) -> String {
        let context = self.window.get(..self.n_printed).unwrap_or_default();
        let before = self.tokenizer.decode(context, self.skip_special);
        let all = self.tokenizer.decode(&self.window, self.skip_special);
        all.strip_prefix(before.as_str()).unwrap_or_default().to_owned()
    }
}
