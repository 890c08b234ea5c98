//! Long documents cut into pieces that tokenise to the same ids as the whole.
//!
//! A cut is taken only where it provably changes nothing nearby: the text around it is tokenised
//! whole and in two parts, and both must agree. It deliberately knows no tokenizer's rules.

use tokenizer::Tokenizer;

use crate::limits;

/// Documents longer than this are cut.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;
/// Text on either side of a cut that is tokenised to judge it.
const CONTEXT_BYTES: usize = 192;
/// Places that are tried before the piece is made longer.
const TRIES: usize = 24;

/// Cuts one document's text, which arrives bit by bit.
pub(crate) struct Chunker<'t> {
    tokenizer: &'t Tokenizer,
    text: String,
    /// Length at which the next cut is looked for.
    target: usize,
}

/// A document cannot be cut anywhere and is longer than the limit.
#[derive(Debug)]
pub(crate) struct Indivisible;

impl<'t> Chunker<'t> {
    pub(crate) fn new(tokenizer: &'t Tokenizer) -> Self {
        Self { tokenizer, text: String::new(), target: CHUNK_BYTES }
    }

    /// Adds text; gives the pieces that are ready.
    pub(crate) fn push(&mut self, text: &str) -> Result<Vec<String>, Indivisible> {
        self.text.push_str(text);
        let mut chunks = Vec::new();
        while self.text.len() >= self.target + CONTEXT_BYTES {
            match self.find_cut() {
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

    /// The last piece; the cutter is then ready for another document.
    pub(crate) fn finish(&mut self) -> String {
        self.target = CHUNK_BYTES;
        std::mem::take(&mut self.text)
    }

    fn find_cut(&self) -> Option<usize> {
        let end = floor_char(&self.text, self.target);
        let start = floor_char(&self.text, self.target / 2);
        let window = self.text.get(start..end)?;
        // A letter or digit before white space is where words end in every tokenizer that has words.
        let mut words = window
            .char_indices()
            .rev()
            .zip(window.char_indices().rev().skip(1))
            .filter(|((_, c), (_, before))| c.is_whitespace() && before.is_alphanumeric())
            .map(|((at, _), _)| start + at);
        if let Some(cut) = words.by_ref().take(TRIES).find(|cut| self.is_safe(*cut)) {
            return Some(cut);
        }
        // Scripts without spaces, and tokenizers by character: between any two letters.
        let mut chars = window.char_indices().rev().map(|(at, _)| start + at);
        chars.by_ref().take(TRIES).find(|cut| self.is_safe(*cut))
    }

    /// Whether a cut here leaves the ids of the text around it as they are.
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
