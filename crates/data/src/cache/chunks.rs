//! Splits long documents into chunks that tokenize to the same ids as the whole document.
//!
//! A boundary is used only if tokenizing the text around it whole and in two parts gives the same ids, so no rules of a
//! tokenizer are needed here.

use tokenizer::Tokenizer;

use crate::limits;

/// Size of a chunk, in bytes.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;
/// Bytes on each side of a boundary that are tokenized to check it.
const CONTEXT_BYTES: usize = 192;
/// Boundaries that are tried before the chunk is extended.
const TRIES: usize = 24;

/// Splits the text of one document, which arrives in parts.
pub(crate) struct Chunker<'t> {
    tokenizer: &'t Tokenizer,
    text: String,
    /// Length at which the next boundary is searched.
    target: usize,
}

/// A document has no safe boundary and is longer than the limit.
#[derive(Debug)]
pub(crate) struct Indivisible;

impl<'t> Chunker<'t> {
    pub(crate) fn new(tokenizer: &'t Tokenizer) -> Self {
        Self { tokenizer, text: String::new(), target: CHUNK_BYTES }
    }

    /// Adds text and returns the finished chunks.
    pub(crate) fn push(&mut self, text: &str) -> Result<Vec<String>, Indivisible> {
        self.text.push_str(text);
        let mut chunks = Vec::new();
        while self.text.len() >= self.target + CONTEXT_BYTES {
            match self.find_boundary() {
                Some(cut) => {
                    let rest = self.text.split_off(cut);
                    chunks.push(std::mem::replace(&mut self.text, rest));
                    self.target = CHUNK_BYTES;
                }
                None if self.target > limits::CHUNK_BYTES => return Err(Indivisible),
                None => self.target += self.target / 2,
            }
        }
        Ok(chunks)
    }

    /// Returns the last chunk. The chunker can then be used for another document.
    pub(crate) fn finish(&mut self) -> String {
        self.target = CHUNK_BYTES;
        std::mem::take(&mut self.text)
    }

    fn find_boundary(&self) -> Option<usize> {
        let end = floor_char(&self.text, self.target);
        let start = floor_char(&self.text, self.target / 2);
        let window = self.text.get(start..end)?;
        // A letter or digit before white space ends a word in every tokenizer that has words.
        let mut words = window
            .char_indices()
            .rev()
            .zip(window.char_indices().rev().skip(1))
            .filter(|((_, c), (_, before))| c.is_whitespace() && before.is_alphanumeric())
            .map(|((at, _), _)| start + at);
        if let Some(cut) = words.by_ref().take(TRIES).find(|cut| self.is_safe(*cut)) {
            return Some(cut);
        }
        // For scripts without spaces and tokenizers of characters: between any two characters.
        let mut chars = window.char_indices().rev().map(|(at, _)| start + at);
        chars.by_ref().take(TRIES).find(|cut| self.is_safe(*cut))
    }

    /// Whether a boundary here keeps the ids of the text around it.
    fn is_safe(&self, cut: usize) -> bool {
        let from = floor_char(&self.text, cut.saturating_sub(CONTEXT_BYTES));
        let to = floor_char(&self.text, cut + CONTEXT_BYTES);
        let (Some(before), Some(after), Some(whole)) =
            (self.text.get(from..cut), self.text.get(cut..to), self.text.get(from..to))
        else {
            return false;
        };
        let encode = |text: &str| self.tokenizer.encode_plain(text).ok();
        let (Some(mut parts), Some(rest), Some(whole)) =
            (encode(before), encode(after), encode(whole))
        else {
            return false;
        };
        parts.extend(rest);
        parts == whole
    }
}

fn floor_char(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
