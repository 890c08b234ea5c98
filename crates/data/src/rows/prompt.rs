//! Conversations up to where an answer is due.
//!
//! It deliberately drops an answer that is already there: what a stage samples is its own.

use tokenizer::{Message, Role};

use crate::row_problem::RowProblem;

/// A conversation without the assistant's last message, where it ends with one.
pub(crate) fn unanswered(mut messages: Vec<Message>) -> Result<Vec<Message>, RowProblem> {
    while messages.last().is_some_and(|message| message.role == Role::Assistant) {
        messages.pop();
    }
    if messages.is_empty() { Err(RowProblem::NoMessages) } else { Ok(messages) }
}
