//! A conversation as token ids, with the role and the loss mask of each token.

use std::ops::Range;

use super::Role;

/// A conversation, or a prompt with its completion, as token ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Role of the message that each token belongs to; None for the template's own text.
    pub roles: Vec<Option<Role>>,
    /// Whether each token counts in the loss: the assistant's words and the tokens that end its
    /// turns.
    pub loss_mask: Vec<bool>,
    /// The assistant's turns, in order.
    pub turns: Vec<AssistantTurn>,
}

/// One turn of the assistant, in token indices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssistantTurn {
    /// Index of the message in the conversation.
    pub message: usize,
    /// Number of tokens of the prompt for this turn, which are the first ones of the conversation.
    pub prompt_len: usize,
    /// The assistant's words and the end token after them.
    pub targets: Range<usize>,
}
