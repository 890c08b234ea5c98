//! A conversation of a row: its messages, and the tools that the assistant may call.

use serde_json::Value;
use tokenizer::{Conversation, Message};

/// A conversation of a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dialogue {
    /// Messages, oldest first.
    pub messages: Vec<Message>,
    /// Descriptions of tools, as chat templates expect them.
    pub tools: Vec<Value>,
}

impl From<Vec<Message>> for Dialogue {
    fn from(messages: Vec<Message>) -> Self {
        Self { messages, tools: Vec::new() }
    }
}

impl<'a> From<&'a Dialogue> for Conversation<'a> {
    fn from(dialogue: &'a Dialogue) -> Self {
        Self { messages: &dialogue.messages, tools: &dialogue.tools }
    }
}
