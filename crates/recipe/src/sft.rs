//! `[sft]`: learn to answer as the data answers (supervised fine-tuning).

use std::borrow::Cow;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Stage;
use crate::input_keys::InputKeys;
use crate::problems::Problems;
use crate::source::Use;
use crate::train_keys::TrainKeys;

/// Learn to answer as the data answers: the targets are the assistant's tokens and its end token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SftSection {
    /// Where the stage starts and what it reads.
    #[serde(flatten)]
    pub input: InputKeys,
    /// How a chat is written out: `chatml`, `plain`, `model` (the starting model's own) or a
    /// `.jinja` file. Left out, `model` where it has one, else `chatml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<ChatTemplate>,
    /// Whether several chats share a row; attention and positions start anew at each.
    #[serde(default = "default_packing")]
    pub packing: bool,
    /// What happens to a chat longer than `sequence_length`.
    #[serde(default)]
    pub overlong: Overlong,
    /// How it trains.
    #[serde(flatten)]
    pub train: TrainKeys,
}

/// How a chat is written out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ChatTemplate {
    /// `<|im_start|>role … <|im_end|>`, as Qwen and many others do.
    Chatml,
    /// The words alone, without marks.
    Plain,
    /// The template that the starting model brings.
    Model,
    /// A Jinja file, beside the recipe or under `data:`.
    File(String),
}

/// What happens to a chat longer than `sequence_length`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Overlong {
    /// Its end is cut off; without any target left it is dropped. Both are counted.
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

impl SftSection {
    pub(crate) const PATH: &'static str = "sft";

    pub(crate) fn stage(&self) -> Stage<'_> {
        Stage::of_rows(Self::PATH, &self.input, &self.train)
    }

    pub(crate) fn check(&self, problems: &mut Problems) {
        self.input.check(Self::PATH, Use::Chats, problems);
        self.train.check(Self::PATH, problems);
    }
}

fn default_packing() -> bool {
    true
}
