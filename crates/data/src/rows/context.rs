//! Columns that add to a conversation, whatever its layout: a system prompt, earlier turns, tools.

use recipe::Columns;
use serde_json::{Map, Value};
use tokenizer::{Message, Role};

use super::text;
use crate::dialogue::Dialogue;
use crate::row_problem::RowProblem;
use crate::source::{exact_json, json_kind};

/// Usual names of the columns.
pub(super) const SYSTEM: &[&str] = &["system", "system_prompt"];
pub(super) const HISTORY: &[&str] = &["history"];
pub(super) const TOOLS: &[&str] = &["tools"];

type Checked<T> = std::result::Result<T, RowProblem>;

/// Columns that add to a conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ContextColumns {
    /// System prompt.
    system: Option<String>,
    /// Earlier turns: a list of pairs of a prompt and an answer.
    history: Option<String>,
    /// Tools: a list, or JSON text.
    tools: Option<String>,
}

impl ContextColumns {
    /// The columns that the recipe names, else those with the usual names unless it ignores them.
    ///
    /// A list of messages has its earlier turns in itself, so `history` is then read only if named.
    pub(crate) fn detect(
        named: &Columns,
        columns: &Map<String, Value>,
        ignored: &[String],
        with_history: bool,
    ) -> Self {
        let usual = |names: &[&str], fits: fn(&Value) -> bool| {
            let there = |name: &&&str| {
                columns.get(**name).is_some_and(|value| value.is_null() || fits(value))
                    && !ignored.iter().any(|ignored| ignored == **name)
            };
            names.iter().find(there).map(|name| (*name).to_owned())
        };
        let is_tools = |value: &Value| value.is_array() || value.is_string();
        let history = || usual(HISTORY, Value::is_array).filter(|_| with_history);
        Self {
            system: named.system.clone().or_else(|| usual(SYSTEM, Value::is_string)),
            history: named.history.clone().or_else(history),
            tools: named.tools.clone().or_else(|| usual(TOOLS, is_tools)),
        }
    }

    /// Names of the columns.
    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        [&self.system, &self.history, &self.tools].into_iter().flatten()
    }

    /// A row's conversation with what these columns add.
    pub(crate) fn add_to(
        &self,
        messages: Vec<Message>,
        columns: &Map<String, Value>,
    ) -> Checked<Dialogue> {
        let value = |column: &Option<String>| {
            let name = column.as_ref()?;
            let value = columns.get(name)?;
            (!value.is_null()).then(|| (name.clone(), value))
        };
        let mut messages = messages;
        let at = usize::from(messages.first().is_some_and(|first| first.role == Role::System));
        if let Some((name, value)) = value(&self.history) {
            let turns = history(&name, value)?;
            messages.splice(at..at, turns);
        }
        if let Some((name, value)) = value(&self.system) {
            let system = text::plain(&name, value)?;
            match messages.first().filter(|first| first.role == Role::System) {
                None if system.is_empty() => {}
                None => messages.insert(0, Message::new(Role::System, system)),
                Some(first) if system.is_empty() || first.content == system => {}
                Some(_) => return Err(RowProblem::TwoSystemPrompts { column: name }),
            }
        }
        let tools = value(&self.tools).map(|(name, value)| tools(&name, value)).transpose()?;
        Ok(Dialogue { messages, tools: tools.unwrap_or_default() })
    }
}

/// Earlier turns: pairs of a prompt and an answer.
fn history(column: &str, value: &Value) -> Checked<Vec<Message>> {
    let wrong = |found: &Value| RowProblem::WrongType {
        column: column.to_owned(),
        found: json_kind(found),
        expected: "a list of pairs of a prompt and an answer",
    };
    let turns = value.as_array().ok_or_else(|| wrong(value))?;
    let mut messages = Vec::with_capacity(2 * turns.len());
    for turn in turns {
        let Some([prompt, answer]) = turn.as_array().map(Vec::as_slice) else {
            return Err(wrong(turn));
        };
        messages.push(Message::new(Role::User, text::plain(column, prompt)?));
        messages.push(Message::new(Role::Assistant, text::plain(column, answer)?));
    }
    Ok(messages)
}

/// Tools: a list, or JSON text of one.
fn tools(column: &str, value: &Value) -> Checked<Vec<Value>> {
    let wrong = || RowProblem::WrongType {
        column: column.to_owned(),
        found: json_kind(value),
        expected: "a list of tools, or JSON text of one",
    };
    match value {
        Value::Array(tools) => Ok(tools.clone()),
        Value::String(text) if text.trim().is_empty() => Ok(Vec::new()),
        Value::String(text) => match exact_json(text.as_bytes()) {
            Ok(Value::Array(tools)) => Ok(tools),
            Ok(tool @ Value::Object(_)) => Ok(vec![tool]),
            Ok(Value::Null) => Ok(Vec::new()),
            Ok(_) | Err(_) => Err(wrong()),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Err(wrong()),
    }
}
