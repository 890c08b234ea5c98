//! Keys of stages that read chats: the template that renders them, and the handling of long ones.

use std::borrow::Cow;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Chat template of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ChatTemplate {
    /// `<|im_start|>role … <|im_end|>`, as in Qwen and many others.
    Chatml,
    /// The messages alone, without markers.
    Plain,
    /// The template of the initial model.
    Model,
    /// A Jinja file, relative to the recipe or under `data:`.
    File(String),
}

/// Handling of samples longer than `sequence_length`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Overlong {
    /// Its end is cut off. A sample without any target left is dropped. Both are counted.
    #[default]
    Cut,
    /// It is dropped and counted.
    Drop,
}

impl ChatTemplate {
    pub(crate) const NAMES: [&'static str; 3] = ["chatml", "plain", "model"];
}

impl TryFrom<String> for ChatTemplate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "chatml" => Ok(Self::Chatml),
            "plain" => Ok(Self::Plain),
            "model" => Ok(Self::Model),
            file if Path::new(file).extension().is_some_and(|extension| extension == "jinja") => {
                Ok(Self::File(text))
            }
            _ => {
                Err("must be `chatml`, `plain`, `model` or the path of a `.jinja` file".to_owned())
            }
        }
    }
}

impl From<ChatTemplate> for String {
    fn from(template: ChatTemplate) -> Self {
        match template {
            ChatTemplate::Chatml => "chatml".to_owned(),
            ChatTemplate::Plain => "plain".to_owned(),
            ChatTemplate::Model => "model".to_owned(),
            ChatTemplate::File(path) => path,
        }
    }
}

impl JsonSchema for ChatTemplate {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ChatTemplate".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "chat-template", "examples": Self::NAMES })
    }
}

/// Assistant messages of a chat that are targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Learn {
    /// Every assistant message.
    #[default]
    All,
    /// The last assistant message of the chat.
    Last,
}

/// The keys of a section that decide which messages of a chat are targets, and in which sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChatTargets {
    /// Assistant messages that are targets.
    pub learn: Learn,
    /// Whether each of them becomes a sample of its own.
    pub split_turns: bool,
}
