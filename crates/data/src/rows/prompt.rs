//! Prompts of conversations. An existing answer is dropped, because the stage samples its own.

use tokenizer::{Message, Role};

use crate::row_problem::RowProblem;

/// A conversation without the assistant messages at its end.
pub(crate) fn without_answer(mut messages: Vec<Message>) -> Result<Vec<Message>, RowProblem> {
    while messages.last().is_some_and(|message| message.role == Role::Assistant) {
        messages.pop();
    }
    if messages.is_empty() { Err(RowProblem::NoMessages) } else { Ok(messages) }
}
