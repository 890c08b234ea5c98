//! Conversations: roles, messages, templates, and their ids with the assistant's words marked.
//!
//! Batches, cutting to a length and shifting of targets are not done here.

mod clock;
mod encode;
mod engine;
mod guards;
mod ids;
mod pyjson;
mod rewrite;
mod skeleton;
mod template;
mod turn;

use std::str::FromStr;

pub use clock::Clock;
pub use encode::{Encoded, Turn};
pub use template::ChatTemplate;

use crate::{Error, Result};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The person.
    User,
    /// The model; its words are what is learnt.
    Assistant,
    /// What a tool answered.
    Tool,
}

impl Role {
    /// The name that templates know.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::System, Self::User, Self::Assistant, Self::Tool]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| Error::UnknownRole { role: text.to_owned() })
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said, as plain text.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}
