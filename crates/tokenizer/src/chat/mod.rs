//! Conversations: roles, messages, chat templates, and their token ids with a loss mask.
//!
//! Batches, truncation and shifted targets belong to the crate `data`.

mod assistant_turn;
mod chat_encoder;
mod encode;
mod encoded;
mod generation_blocks;
mod jinja;
mod locate;
mod message_fields;
mod python_json;
mod strftime;
mod template;
mod template_layout;
mod template_names;
mod token;
mod turn_end;

use std::str::FromStr;

use serde_json::{Map, Value};

pub use encoded::{AssistantTurn, Encoded};
pub use message_fields::REASONING_FIELDS;
pub use strftime::Clock;
pub use template::ChatTemplate;
pub use turn_end::TurnEnd;

use crate::{Error, Result};

/// Author of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The person.
    User,
    /// The model; its messages are the training targets.
    Assistant,
    /// The output of a tool.
    Tool,
}

impl Role {
    /// The role's name in templates.
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
    /// Author of the message.
    pub role: Role,
    /// Plain text.
    pub content: String,
    /// Further fields for the template, by their names there: `reasoning_content`, `tool_calls`,
    /// `tool_call_id`, `name` and so on. A null `content` stands for an empty one.
    pub fields: Map<String, Value>,
    /// Whether an assistant message is a training target; others never are.
    pub is_target: bool,
}

impl Message {
    /// A message from its role and text.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), fields: Map::new(), is_target: true }
    }
}

/// Messages with the tools that the assistant may call.
#[derive(Debug, Clone, Copy)]
pub struct Conversation<'a> {
    /// Messages, oldest first.
    pub messages: &'a [Message],
    /// Descriptions of tools, as templates expect them in `tools`: JSON schemas of functions.
    pub tools: &'a [Value],
}

impl Conversation<'_> {
    /// The first `n` messages with the same tools.
    #[must_use]
    pub fn first(self, n: usize) -> Self {
        Self { messages: self.messages.get(..n).unwrap_or(self.messages), tools: self.tools }
    }
}

impl<'a> From<&'a [Message]> for Conversation<'a> {
    fn from(messages: &'a [Message]) -> Self {
        Self { messages, tools: &[] }
    }
}

impl<'a> From<&'a Vec<Message>> for Conversation<'a> {
    fn from(messages: &'a Vec<Message>) -> Self {
        Self::from(messages.as_slice())
    }
}

impl<'a, const N: usize> From<&'a [Message; N]> for Conversation<'a> {
    fn from(messages: &'a [Message; N]) -> Self {
        Self::from(messages.as_slice())
    }
}

/// Special tokens that a template can write.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TemplateTokens {
    /// Names and texts, such as `bos_token`.
    pub(crate) named: Vec<(String, String)>,
    /// Texts of `additional_special_tokens`.
    pub(crate) additional: Vec<String>,
}
