//! Prompts of `temper generate`: arguments, the lines of a file, or a template over their columns.

use std::borrow::Cow;
use std::path::Path;

use recipe::Template;
use serde_json::{Map, Value};
use tokenizer::{Message, Role, Tokenizer};

use crate::commands::{TEXT_BYTES, check_json_memory};

use crate::args::GenerateArgs;
use crate::failure::{Failure, Result};

/// Maximum size of a file of prompts.
const PROMPTS_BYTES: u64 = 1 << 30;
/// Maximum size of a template.
const TEMPLATE_BYTES: u64 = 1 << 20;

/// A prompt.
pub(in crate::commands) struct Prompt {
    /// The text or messages, for the output.
    pub(super) shown: Value,
    /// Its ids.
    pub(in crate::commands) ids: Vec<u32>,
    /// Its messages; none for raw text.
    pub(super) messages: Vec<Message>,
    /// The row that a template was filled with.
    pub(super) row: Option<Map<String, Value>>,
    /// Its place, for errors.
    pub(super) place: String,
}

/// The template of the arguments.
pub(super) fn template(args: &GenerateArgs) -> Result<Option<Template>> {
    let (text, name) = match (&args.template, &args.template_file) {
        (Some(text), _) => (text.clone(), "--template".to_owned()),
        (None, Some(file)) => {
            let text = fsio::read_text_capped(file, TEMPLATE_BYTES)?;
            // Editors end files with a line feed, which is no part of the prompt.
            let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
            (text, file.display().to_string())
        }
        (None, None) => return Ok(None),
    };
    let template = Template::parse(&text).map_err(|reason| {
        Failure::input(format!("{name}: the template {reason}"), "as in 'Question: {question}'")
    })?;
    if template.columns().next().is_none() {
        return Err(Failure::input(
            format!("{name}: the template has no column, so every prompt would be the same"),
            "name a column in braces, as in 'Question: {question}'",
        ));
    }
    Ok(Some(template))
}

/// The prompts of the arguments.
pub(super) fn read(
    args: &GenerateArgs,
    template: Option<&Template>,
    tokenizer: &Tokenizer,
) -> Result<Vec<Prompt>> {
    let values: Vec<(Value, String)> = match &args.prompts {
        Some(path) => prompt_rows(path)?,
        None => args
            .prompt
            .iter()
            .enumerate()
            .map(|(idx, text)| (Value::from(text.clone()), format!("--prompt {}", idx + 1)))
            .collect(),
    };
    if values.is_empty() {
        return Err(Failure::input("no prompt", "give --prompt TEXT or --prompts FILE"));
    }
    let one = |(value, place): (Value, String)| match template {
        Some(template) => filled(template, value, &place, args, tokenizer),
        None => encode(value, &place, args.chat, tokenizer),
    };
    values.into_iter().map(one).collect()
}

/// The lines of a file: JSON objects, or plain text.
pub(in crate::commands) fn prompt_rows(path: &Path) -> Result<Vec<(Value, String)>> {
    let text = fsio::read_text_capped(path, PROMPTS_BYTES)?;
    let mut rows = Vec::new();
    for (idx, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("{}:{}", path.display(), idx + 1);
        if line.len() > TEXT_BYTES {
            return Err(Failure::input(
                format!("{place}: a line of more than {TEXT_BYTES} bytes"),
                "a prompt must fit into the model's context",
            ));
        }
        check_json_memory(line, &place)?;
        let value = if line.trim_start().starts_with('{') {
            data::exact_json(line.as_bytes()).map_err(|error| {
                Failure::input(
                    format!("{place}: not valid JSON: {error}"),
                    "a line is {\"prompt\": …}, {\"messages\": […]} or plain text",
                )
            })?
        } else {
            Value::from(line)
        };
        rows.push((value, place));
    }
    Ok(rows)
}

/// A row's prompt by a template. A line of plain text is a row with the column `prompt`.
fn filled(
    template: &Template,
    value: Value,
    place: &str,
    args: &GenerateArgs,
    tokenizer: &Tokenizer,
) -> Result<Prompt> {
    let row = match value {
        Value::Object(row) => row,
        text @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)) => Map::from_iter([("prompt".to_owned(), text)]),
    };
    let column = args.completion_column();
    if !args.pairs && row.contains_key(column) {
        return Err(Failure::input(
            format!("{place}: the row has a column `{column}` already"),
            "name another column for the completion with --as",
        ));
    }
    let text = template.render(|column| match row.get(column)? {
        Value::String(text) => Some(Cow::from(text.as_str())),
        Value::Null => None,
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Some(Cow::from(other.to_string()))
        }
    });
    let text = text.map_err(|column| {
        let columns: Vec<String> = row.keys().map(|key| format!("`{key}`")).collect();
        Failure::input(
            format!("{place}: the row has no value of `{column}`"),
            format!("its columns: {}", columns.join(", ")),
        )
    })?;
    let prompt = encode(Value::from(text), place, args.chat, tokenizer)?;
    Ok(Prompt { row: Some(row), ..prompt })
}

/// A prompt without a template: text, or a row with `prompt` or `messages`.
pub(in crate::commands) fn encode(
    value: Value,
    place: &str,
    chat: bool,
    tokenizer: &Tokenizer,
) -> Result<Prompt> {
    let raw = value.as_str().or_else(|| value.get("prompt").and_then(Value::as_str));
    let of = |shown: Value, ids: Vec<u32>, messages: Vec<Message>| {
        Ok(Prompt { shown, ids, messages, row: None, place: place.to_owned() })
    };
    let messages = match (raw, value.get("messages")) {
        (Some(text), _) if chat => vec![Message::new(Role::User, text)],
        (Some(text), _) => return of(Value::from(text), tokenizer.encode(text)?, Vec::new()),
        (None, Some(messages)) => messages_of(messages, place)?,
        (None, None) => {
            return Err(Failure::input(
                format!("{place}: neither `prompt` nor `messages`"),
                "a line is {\"prompt\": …}, {\"messages\": […]} or plain text; --template reads other columns",
            ));
        }
    };
    let template = tokenizer.chat_template().ok_or_else(|| {
        Failure::input(
            "the model has no chat template",
            "remove --chat, or use a model trained on chats",
        )
    })?;
    let ids = tokenizer.encode_prompt(&messages, template)?;
    let shown = match raw {
        Some(text) => Value::from(text),
        None => value.get("messages").cloned().unwrap_or(Value::Null),
    };
    of(shown, ids, messages)
}

fn messages_of(value: &Value, place: &str) -> Result<Vec<Message>> {
    let wrong = |what: &str| {
        Failure::input(
            format!("{place}: {what}"),
            "messages are [{\"role\": \"user\", \"content\": \"…\"}, …]; roles are system, user, \
             assistant and tool",
        )
    };
    let list = value.as_array().ok_or_else(|| wrong("`messages` is not a list"))?;
    list.iter()
        .map(|message| {
            let text = |key: &str| message.get(key).and_then(Value::as_str);
            let role = match text("role") {
                Some("system") => Role::System,
                Some("user") => Role::User,
                Some("assistant") => Role::Assistant,
                Some("tool") => Role::Tool,
                Some(other) => return Err(wrong(&format!("unknown role: `{other}`"))),
                None => return Err(wrong("a message without `role`")),
            };
            let content = text("content").ok_or_else(|| wrong("a message without `content`"))?;
            Ok(Message::new(role, content))
        })
        .collect()
}
