//! Messages as data files write them: OpenAI's `role` and `content`, ShareGPT's `from` and `value`.
//!
//! Fields beside them go to the chat template, as in transformers. Flags that take a message out of the loss are read
//! here. Parts that are no text, such as images, are errors.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tokenizer::{Message, Role};

use crate::limits;
use crate::row_problem::RowProblem;
use crate::source::{json_kind, parse_exactly};

type Checked<T> = std::result::Result<T, RowProblem>;

/// Fields that say whether a message is a training target, and the value that says yes.
const TARGET_FLAGS: [(&str, bool); 5] =
    [("weight", true), ("train", true), ("loss", true), ("loss_weight", true), ("masking", false)];

/// Calls of tools in OpenAI's form, and the field and ShareGPT speaker of older data.
const TOOL_CALLS: &str = "tool_calls";
const FUNCTION_CALL: &str = "function_call";

/// Fields of a message that decide whether it is a training target.
pub fn target_flags() -> impl Iterator<Item = &'static str> {
    TARGET_FLAGS.into_iter().map(|(flag, _)| flag)
}

/// Names of roles that are read without the recipe's `roles`: in OpenAI's form, and in ShareGPT's.
pub fn known_roles() -> [&'static str; 2] {
    [KNOWN_ROLES, KNOWN_SPEAKERS]
}

const KNOWN_ROLES: &str = "system, user, assistant, tool";
const KNOWN_SPEAKERS: &str = "system, human, gpt, tool, function_call, observation";

/// Reads lists of messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct MessageReader {
    /// Roles by the names of the data, from the recipe.
    pub(crate) roles: BTreeMap<String, Role>,
    /// Fields that the recipe ignores.
    pub(crate) ignored: Vec<String>,
}

impl MessageReader {
    /// Messages of a column: a list, or a single message.
    pub(crate) fn messages(&self, column: &str, value: &Value) -> Checked<Vec<Message>> {
        let items = match value {
            Value::Array(items) => items.as_slice(),
            Value::Object(_) => std::slice::from_ref(value),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                return Err(RowProblem::WrongType {
                    column: column.to_owned(),
                    found: json_kind(value),
                    expected: "a list of messages",
                });
            }
        };
        if items.is_empty() {
            return Err(RowProblem::NoMessages);
        }
        if items.len() > limits::MESSAGES {
            return Err(RowProblem::TooMany { what: "messages", limit: limits::MESSAGES });
        }
        items.iter().enumerate().map(|(index, item)| self.message(index + 1, item)).collect()
    }

    fn message(&self, index: usize, value: &Value) -> Checked<Message> {
        let bad = |problem: String| RowProblem::BadMessage { index, problem };
        let Value::Object(object) = value else {
            return Err(bad(format!("is {}, not an object", json_kind(value))));
        };
        let (role_key, content_key) = match (object.get("role"), object.get("from")) {
            (Some(_), _) => ("role", "content"),
            (None, Some(_)) => ("from", "value"),
            (None, None) => return Err(bad("has no `role`".into())),
        };
        let name = match object.get(role_key) {
            Some(Value::String(name)) => name,
            other => {
                let found = other.map_or("missing", json_kind);
                return Err(bad(format!("has a role that is {found}, not a text")));
            }
        };
        let is_speaker = role_key == "from";
        let known = if is_speaker { KNOWN_SPEAKERS } else { KNOWN_ROLES };
        let role = self.roles.get(name).copied().or_else(|| role_of(name, is_speaker));
        let role =
            role.ok_or_else(|| RowProblem::UnknownRole { index, role: name.clone(), known })?;
        let mut message = Message::new(role, String::new());
        message.is_target = is_target(object, |key| self.ignores(key)).map_err(bad)?;
        let other = |key: &str| {
            key != role_key
                && key != content_key
                && !TARGET_FLAGS.iter().any(|(flag, _)| *flag == key)
                && !self.ignores(key)
        };
        for (key, value) in object.iter().filter(|(key, value)| other(key) && !is_empty(value)) {
            message.fields.insert(key.clone(), value.clone());
        }
        let is_call = is_speaker && name == FUNCTION_CALL;
        let call_key = call_key(object, is_call);
        if let Some(key) = call_key.filter(|key| !self.ignores(TOOL_CALLS) && !self.ignores(key)) {
            message.fields.remove(key);
            let calls = tool_calls(object, key).map_err(bad)?;
            message.fields.insert(TOOL_CALLS.to_owned(), calls);
        }
        match object.get(content_key) {
            _ if is_call => {}
            Some(Value::Null) | None if message.fields.contains_key(TOOL_CALLS) => {
                message.fields.insert("content".to_owned(), Value::Null);
            }
            // A call that is left out leaves an empty answer.
            Some(Value::Null) | None if call_key.is_some() => {}
            Some(value) => {
                message.content = content_text(value)
                    .map_err(|found| bad(format!("has a `{content_key}` that is {found}")))?;
            }
            None => return Err(bad(format!("has no `{content_key}`"))),
        }
        Ok(message)
    }

    /// Whether the recipe leaves a field out.
    pub(super) fn ignores(&self, field: &str) -> bool {
        self.ignored.iter().any(|ignored| ignored == field)
    }
}

/// Whether the message's flags leave it in the loss.
fn is_target(
    object: &Map<String, Value>,
    is_ignored: impl Fn(&str) -> bool,
) -> Result<bool, String> {
    let mut target = true;
    for (key, yes) in TARGET_FLAGS.into_iter().filter(|(key, _)| !is_ignored(key)) {
        let flag = match object.get(key) {
            None | Some(Value::Null) => continue,
            Some(Value::Bool(flag)) => *flag,
            Some(value) => match value.as_f64() {
                Some(0.0) => false,
                Some(1.0) => true,
                _ => {
                    return Err(format!(
                        "has `{key}` = {value}: only 0, 1, true and false are supported"
                    ));
                }
            },
        };
        target &= flag == yes;
    }
    Ok(target)
}

/// The field that has a message's calls of tools; `is_call`: the message is by ShareGPT's speaker of that name.
fn call_key(object: &Map<String, Value>, is_call: bool) -> Option<&'static str> {
    if object.get(TOOL_CALLS).is_some_and(|calls| !is_empty(calls)) {
        return Some(TOOL_CALLS);
    }
    let has_call = is_call || object.get(FUNCTION_CALL).is_some_and(Value::is_object);
    has_call.then_some(FUNCTION_CALL)
}

/// Calls of tools in OpenAI's form, with their arguments as an object.
///
/// Older data has one `function_call`; ShareGPT's has a speaker of that name. Arguments are often JSON text: templates
/// write them with `tojson`, so text would be quoted twice.
fn tool_calls(object: &Map<String, Value>, key: &str) -> Result<Value, String> {
    let wrap = |call| json!({"type": "function", "function": call});
    let mut calls = match object.get(key) {
        Some(Value::Array(calls)) if key == TOOL_CALLS => calls.clone(),
        Some(call @ Value::Object(_)) if key == FUNCTION_CALL => vec![wrap(call.clone())],
        Some(other) if key == TOOL_CALLS => {
            return Err(format!("has `tool_calls` that are {}, not a list", json_kind(other)));
        }
        Some(_) | None => {
            let text = object.get("value").and_then(Value::as_str).unwrap_or_default();
            let call =
                json_text(text).map_err(|error| format!("is a function call, but {error}"))?;
            let calls = if let Value::Array(calls) = call { calls } else { vec![call] };
            calls.into_iter().map(wrap).collect()
        }
    };
    for call in &mut calls {
        let function =
            if call.get("function").is_some() { call.get_mut("function") } else { Some(call) };
        let Some(arguments) = function.and_then(|function| function.get_mut("arguments")) else {
            continue;
        };
        if let Value::String(text) = arguments
            && serde_json::from_str::<Value>(text).is_ok_and(|parsed| parsed.is_object())
        {
            *arguments = json_text(text).map_err(|error| {
                format!("has a function call whose `arguments` are text, but {error}")
            })?;
        }
    }
    Ok(Value::Array(calls))
}

/// A text of JSON as a value. Nothing is changed without a word: of a key that occurs twice one value would be lost, and an
/// integer of more than 64 bits would be rounded.
fn json_text(text: &str) -> Result<Value, String> {
    let (value, long_integer) =
        parse_exactly(text.as_bytes()).map_err(|error| format!("not JSON: {error}"))?;
    match long_integer {
        Some(key) => {
            Err(format!("`{key}` has an integer of more than 64 bits; write it as a text"))
        }
        None => Ok(value),
    }
}

/// Whether a value says nothing: null, or a text, list or object without content.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Role of a name. ShareGPT's speakers are known only in `from`.
fn role_of(name: &str, is_speaker: bool) -> Option<Role> {
    Some(match name {
        "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        "human" if is_speaker => Role::User,
        "gpt" | "function_call" if is_speaker => Role::Assistant,
        "observation" if is_speaker => Role::Tool,
        _ => return None,
    })
}

/// Text of a content: the text itself, or the concatenation of text parts. The error describes a
/// content without text.
fn content_text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => parts.iter().map(part_text).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            Err(format!("{}, not a text", json_kind(value)))
        }
    }
}

fn part_text(part: &Value) -> Result<&str, String> {
    let kind = part.get("type").and_then(Value::as_str);
    match (kind, part.get("text").and_then(Value::as_str)) {
        (Some("text"), Some(text)) => Ok(text),
        (Some("text"), None) => Err("a list with a part of type `text` that has no `text`".into()),
        (Some(other), _) => {
            Err(format!("a list with a part of type `{other}`; only parts of type `text` are read"))
        }
        (None, _) => Err("a list, not a text or a list of parts with a `type`".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Checked<Vec<Message>> {
        MessageReader::default().messages("messages", &value)
    }

    #[test]
    fn flags_decide_targets() {
        for (flag, target) in [
            (json!({"weight": 0}), false),
            (json!({"weight": 1.0}), true),
            (json!({"train": false}), false),
            (json!({"loss": false}), false),
            (json!({"loss_weight": 0.0}), false),
            (json!({"masking": true}), false),
            (json!({"masking": false, "weight": 1}), true),
            (json!({"train": true, "weight": 0}), false),
        ] {
            let mut message = json!({"role": "assistant", "content": "a"});
            let object = message.as_object_mut().expect("an object");
            object.extend(flag.as_object().expect("an object").clone());
            let messages = read(json!([message])).expect("reads");
            assert_eq!(messages[0].is_target, target, "{flag}");
            assert!(messages[0].fields.is_empty(), "{flag}");
        }
        let error = read(json!([{"role": "assistant", "content": "a", "weight": 0.5}]));
        assert_eq!(
            error.expect_err("refused").to_string(),
            "message 1 has `weight` = 0.5: only 0, 1, true and false are supported"
        );
    }

    #[test]
    fn parts_of_other_types_than_text_are_named() {
        let said = |content: Value| match read(json!([{"role": "user", "content": content}])) {
            Ok(messages) => messages[0].content.clone(),
            Err(problem) => problem.to_string(),
        };
        let part = |kind: &str| json!({"type": kind, "text": "a"});
        assert_eq!(said(json!([part("text"), part("text")])), "aa");
        let image = said(json!([part("text"), part("image_url")]));
        assert!(image.contains("a part of type `image_url`; only parts of type `text`"), "{image}");
        assert!(said(json!([{"type": "text"}])).contains("has no `text`"));
        assert!(said(json!(["a"])).contains("a list, not a text or a list of parts"));
        assert!(said(json!(5)).contains("a number, not a text"));
    }

    #[test]
    fn tool_calls_of_all_forms_become_one() {
        let wanted =
            json!([{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]);
        let openai = json!([{"role": "assistant", "content": null, "tool_calls":
            [{"type": "function", "function": {"name": "add", "arguments": "{\"a\": 1}"}}]}]);
        let legacy = json!([{"role": "assistant", "content": null,
            "function_call": {"name": "add", "arguments": "{\"a\": 1}"}}]);
        let sharegpt = json!([{"from": "function_call",
            "value": "{\"name\": \"add\", \"arguments\": {\"a\": 1}}"}]);
        for value in [openai, legacy, sharegpt] {
            let messages = read(value.clone()).expect("reads");
            assert_eq!(messages[0].role, Role::Assistant);
            assert_eq!(messages[0].content, "");
            assert_eq!(messages[0].fields.get("tool_calls"), Some(&wanted), "{value}");
            assert!(!messages[0].fields.contains_key("function_call"));
        }
        assert!(read(json!([{"role": "assistant", "content": null}])).is_err());
    }

    #[test]
    fn ignored_calls_and_flags_have_no_effect() {
        let reader = |ignored: &str| MessageReader {
            ignored: vec![ignored.to_owned()],
            ..MessageReader::default()
        };
        let calls = json!([{"type": "function", "function": {"name": "add", "arguments": {}}}]);
        let openai = json!([{"role": "assistant", "content": null, "tool_calls": calls}]);
        let legacy =
            json!([{"role": "assistant", "content": null, "function_call": {"name": "f"}}]);
        let sharegpt = json!([{"from": "function_call", "value": "no JSON"}]);
        let broken = json!([{"role": "assistant", "content": "a", "tool_calls": "add(1)"}]);
        for (value, ignored, content) in [
            (openai, "tool_calls", ""),
            (legacy.clone(), "tool_calls", ""),
            (legacy, "function_call", ""),
            (sharegpt, "function_call", ""),
            (broken, "tool_calls", "a"),
        ] {
            let messages = reader(ignored).messages("messages", &value).expect("reads");
            assert!(!messages[0].fields.contains_key("tool_calls"), "{value}");
            assert_eq!(messages[0].content, content, "{value}");
        }
        let weighted = json!([{"role": "assistant", "content": "a", "weight": 0.5}]);
        let messages = reader("weight").messages("messages", &weighted).expect("reads");
        assert!(messages[0].is_target && messages[0].fields.is_empty());
    }

    #[test]
    fn of_two_kinds_of_calls_none_vanishes() {
        let call = json!({"name": "add", "arguments": {}});
        let both = json!([{"role": "assistant", "content": "a", "function_call": call,
            "tool_calls": [{"type": "function", "function": call}]}]);
        let messages = read(both).expect("reads");
        let names: Vec<&String> = messages[0].fields.keys().collect();
        assert_eq!(names, ["function_call", "tool_calls"]);
    }

    #[test]
    fn fields_reach_the_template_and_roles_can_be_mapped() {
        let value = json!([
            {"role": "developer", "content": "Be brief."},
            {"role": "assistant", "content": "5", "reasoning_content": "2 + 3", "name": null},
        ]);
        let reader = MessageReader {
            roles: BTreeMap::from([("developer".to_owned(), Role::System)]),
            ignored: Vec::new(),
        };
        let messages = reader.messages("messages", &value).expect("reads");
        assert_eq!(messages[0], Message::new(Role::System, "Be brief."));
        assert_eq!(messages[1].fields, *json!({"reasoning_content": "2 + 3"}).as_object().unwrap());
        let without = MessageReader { ignored: vec!["reasoning_content".to_owned()], ..reader };
        let messages = without.messages("messages", &value).expect("reads");
        assert!(messages[1].fields.is_empty());
        assert!(matches!(read(value), Err(RowProblem::UnknownRole { index: 1, .. })));
    }
}
