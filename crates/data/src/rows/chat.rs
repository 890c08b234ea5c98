//! Lists of messages: `role` and `content`, or ShareGPT's `from` and `value`.
//!
//! Images and tool calls are errors rather than silently dropped.

use serde_json::{Map, Value};
use tokenizer::{Message, Role};

use crate::limits;
use crate::row_problem::RowProblem;
use crate::rows::text;
use crate::source::json_kind;

type Checked<T> = std::result::Result<T, RowProblem>;

/// A chat of two messages: a prompt and its completion.
pub(crate) fn prompt_and_completion(prompt: String, completion: String) -> Vec<Message> {
    vec![
        Message { role: Role::User, content: prompt },
        Message { role: Role::Assistant, content: completion },
    ]
}

/// An instruction and its input as one text, separated by an empty line. The input may be missing or empty.
pub(crate) fn instruction(
    column: &str,
    input: Option<&str>,
    columns: &Map<String, Value>,
) -> Checked<String> {
    let instruction = text::text_column(column, columns)?;
    let Some(name) = input else { return Ok(instruction) };
    match columns.get(name).filter(|value| !value.is_null()) {
        Some(value) => match text::plain(name, value)? {
            value if value.is_empty() => Ok(instruction),
            value => Ok(format!("{instruction}\n\n{value}")),
        },
        None => Ok(instruction),
    }
}

/// Messages of a column.
pub(crate) fn messages(column: &str, value: &Value) -> Checked<Vec<Message>> {
    let Value::Array(items) = value else {
        return Err(RowProblem::WrongType {
            column: column.to_owned(),
            found: json_kind(value),
            expected: "a list of messages",
        });
    };
    if items.is_empty() {
        return Err(RowProblem::NoMessages);
    }
    if items.len() > limits::MESSAGES {
        return Err(RowProblem::TooMany { what: "messages", limit: limits::MESSAGES });
    }
    items.iter().enumerate().map(|(index, item)| message(index + 1, item)).collect()
}

fn message(index: usize, value: &Value) -> Checked<Message> {
    let bad = |problem: String| RowProblem::BadMessage { index, problem };
    let Value::Object(fields) = value else {
        return Err(bad(format!("is {}, not an object", json_kind(value))));
    };
    if fields
        .get("tool_calls")
        .is_some_and(|calls| !calls.is_null() && calls != &Value::Array(vec![]))
    {
        return Err(bad("has `tool_calls`, which are not supported".into()));
    }
    let (role, content_key, known) = match (fields.get("role"), fields.get("from")) {
        (Some(role), _) => (role, "content", KNOWN_ROLES),
        (None, Some(from)) => (from, "value", KNOWN_SPEAKERS),
        (None, None) => return Err(bad("has no `role`".into())),
    };
    let Value::String(role) = role else {
        return Err(bad(format!("has a role that is {}, not a text", json_kind(role))));
    };
    let role = role_of(role, content_key == "value").ok_or_else(|| RowProblem::UnknownRole {
        index,
        role: role.clone(),
        known,
    })?;
    let content = match fields.get(content_key) {
        Some(value) => content_text(value).ok_or_else(|| {
            bad(format!("has a `{content_key}` that is {}, not a text", json_kind(value)))
        })?,
        None => return Err(bad(format!("has no `{content_key}`"))),
    };
    Ok(Message { role, content })
}

const KNOWN_ROLES: &str = "system, user, assistant, tool";
const KNOWN_SPEAKERS: &str = "system, human, gpt, tool";

/// Role of a name. ShareGPT's speakers are known only in `from`.
fn role_of(name: &str, is_speaker: bool) -> Option<Role> {
    Some(match name {
        "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        "human" if is_speaker => Role::User,
        "gpt" if is_speaker => Role::Assistant,
        _ => return None,
    })
}

/// Text of a content: the text itself, or the concatenation of text parts.
fn content_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => parts.iter().map(part_text).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

fn part_text(part: &Value) -> Option<&str> {
    let fields: &Map<String, Value> = part.as_object()?;
    if fields.get("type")?.as_str()? != "text" {
        return None;
    }
    fields.get("text")?.as_str()
}
