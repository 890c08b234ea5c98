//! Place of an answer in a text: `extract` of several rewards.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Place of an answer in a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Extract {
    /// The whole text.
    All,
    /// The last number, letter or line.
    Last,
    /// The rest of the line after `####`.
    Hashes,
    /// The argument of `\boxed`.
    Boxed,
    /// The content of a tag.
    Tag(String),
}

impl Extract {
    /// The valid words; a tag has a name after its colon.
    pub(crate) const WORDS: [&str; 5] = ["all", "last", "####", "boxed", "tag:"];
}

impl TryFrom<String> for Extract {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_name = |name: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
        };
        match text.as_str() {
            "all" => Ok(Self::All),
            "last" => Ok(Self::Last),
            "####" => Ok(Self::Hashes),
            "boxed" => Ok(Self::Boxed),
            _ => match text.strip_prefix("tag:").filter(|name| is_name(name)) {
                Some(name) => Ok(Self::Tag(name.to_owned())),
                None => {
                    Err("must be `all`, `last`, `####`, `boxed` or `tag:` with a name".to_owned())
                }
            },
        }
    }
}

impl From<Extract> for String {
    fn from(extract: Extract) -> Self {
        match extract {
            Extract::All => "all".to_owned(),
            Extract::Last => "last".to_owned(),
            Extract::Hashes => "####".to_owned(),
            Extract::Boxed => "boxed".to_owned(),
            Extract::Tag(name) => format!("tag:{name}"),
        }
    }
}

impl JsonSchema for Extract {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Extract".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "answer-place" })
    }
}
