//! The number of bytes of text of each token, for any kind of tokenizer.

use tokenizer::Tokenizer;

/// A decoder's output for bytes that are not a whole character.
const INCOMPLETE: char = '\u{FFFD}';

/// Byte lengths of a tokenizer's tokens, each computed at its first use.
pub(crate) struct TokenBytes<'a> {
    tokenizer: &'a Tokenizer,
    /// Ordinary tokens that are decoded before the token, because some decoders drop a space at the start of a text.
    anchor: Vec<u32>,
    n_anchor_bytes: usize,
    known: Vec<Option<usize>>,
}

impl<'a> TokenBytes<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer) -> Self {
        let anchor = tokenizer.encode_plain("a").unwrap_or_default();
        let n_anchor_bytes = tokenizer.decode(&anchor, true).len();
        Self { tokenizer, anchor, n_anchor_bytes, known: vec![None; tokenizer.vocab_size()] }
    }

    /// Bytes that a token adds to a text; 0 for special tokens and ids without a token.
    pub(crate) fn of(&mut self, id: u32) -> usize {
        let Some(known) = self.known.get(id as usize) else { return 0 };
        known.unwrap_or_else(|| {
            let n_bytes = self.find(id);
            if let Some(known) = self.known.get_mut(id as usize) {
                *known = Some(n_bytes);
            }
            n_bytes
        })
    }

    fn find(&self, id: u32) -> usize {
        if self.tokenizer.is_special(id) {
            return 0;
        }
        let text = self.tokenizer.decode(&[self.anchor.as_slice(), &[id]].concat(), true);
        let piece = self.tokenizer.token_text(id).unwrap_or_default();
        if !text.contains(INCOMPLETE) || piece.contains(INCOMPLETE) {
            return text.len().saturating_sub(self.n_anchor_bytes);
        }
        // Part of a character: `<0xE2>` of a sentencepiece model is one byte, and a byte-level token has one letter per
        // byte.
        let is_byte = piece.len() == 6 && piece.starts_with("<0x") && piece.ends_with('>');
        if is_byte { 1 } else { piece.chars().count() }
    }
}

#[cfg(test)]
mod tests {
    use tokenizer::{Tokenizer, default_special_tokens};

    use super::TokenBytes;

    const TEXT: &str = "Ein Fluß — zwei Flüsse, drei Flüsse; 漢字 und 🙂 und noch ein Fluß.\n";

    #[test]
    fn tokens_add_up_to_the_bytes_of_the_text() {
        let specials = default_special_tokens();
        let texts = || std::iter::repeat_n(TEXT.to_owned(), 3);
        for tokenizer in [
            Tokenizer::train_byte_bpe(texts(), 300, &specials).unwrap(),
            Tokenizer::train_char(texts(), &specials).unwrap(),
        ] {
            let mut bytes = TokenBytes::new(&tokenizer);
            let ids = tokenizer.encode_plain(TEXT).unwrap();
            assert_eq!(ids.iter().map(|&id| bytes.of(id)).sum::<usize>(), TEXT.len());
            let with_specials = tokenizer.encode(TEXT).unwrap();
            assert!(with_specials.len() > ids.len());
            assert_eq!(with_specials.iter().map(|&id| bytes.of(id)).sum::<usize>(), TEXT.len());
        }
    }
}
