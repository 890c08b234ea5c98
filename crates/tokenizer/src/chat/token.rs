//! Tokens of a rendering with their byte ranges.

use std::ops::Range;

use super::{Encoded, Role};

/// A token with its byte range in the rendering.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token {
    pub(crate) id: u32,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Indices of the tokens that overlap a range of bytes.
pub(crate) fn tokens_of(tokens: &[Token], bytes: &Range<usize>) -> Range<usize> {
    let at_end = |token: &Token| token.start == token.end && token.start >= bytes.start;
    let overlaps = |token: &Token| {
        token.start < bytes.end && (token.end > bytes.start || at_end(token)) && !bytes.is_empty()
    };
    let Some(first) = tokens.iter().position(overlaps) else { return 0..0 };
    first..tokens.iter().rposition(overlaps).map_or(first, |last| last + 1)
}

/// Makes the tokens of a range targets of the assistant.
pub(crate) fn mark(encoded: &mut Encoded, range: Range<usize>) {
    for idx in range {
        if let (Some(mask), Some(role)) =
            (encoded.loss_mask.get_mut(idx), encoded.roles.get_mut(idx))
        {
            *mask = true;
            *role = Some(Role::Assistant);
        }
    }
}
