//! Messages of a chat: OpenAI's form to that of chat templates.

use serde_json::{Map, Value};
use tokenizer::{Message, REASONING_FIELDS, Role};

use super::ApiError;

/// Fields that templates may read, besides role and content.
const FIELDS: [&str; 3] = ["name", "tool_call_id", "tool_calls"];
/// Fields of answers that clients send back, and that say nothing when they are empty.
const EMPTY: [&str; 5] = ["refusal", "audio", "function_call", "annotations", "reasoning_details"];

/// A message for the chat template.
pub(super) fn read(idx: usize, value: Value) -> Result<Message, ApiError> {
    let wrong = |message: &str| ApiError::field("messages", format!("message {idx}: {message}"));
    let Value::Object(mut fields) = value else {
        return Err(wrong("not an object with `role` and `content`"));
    };
    let Some(Value::String(role)) = fields.shift_remove("role") else {
        return Err(wrong("without `role`"));
    };
    let role = match role.as_str() {
        // The name that newer models of OpenAI have for system messages.
        "developer" => Role::System,
        role => role.parse().map_err(|_| {
            wrong(&format!("unknown role: `{role}`; roles are system, user, assistant and tool"))
        })?,
    };
    let content = match fields.shift_remove("content") {
        Some(content) => text(content).map_err(|message| wrong(&message))?,
        None => None,
    };
    let has_calls = fields.get("tool_calls").is_some_and(|calls| !calls.is_null());
    if content.is_none() && !(role == Role::Assistant && has_calls) {
        return Err(wrong("without `content`"));
    }
    let mut message = Message::new(role, content.unwrap_or_default());
    for (name, value) in fields {
        let name = name.as_str();
        if value.is_null() || (EMPTY.contains(&name) && is_empty(&value)) {
            continue;
        }
        if !FIELDS.contains(&name) && !REASONING_FIELDS.contains(&name) {
            return Err(wrong(&format!("the field `{name}` is not known")));
        }
        let value = if name == "tool_calls" {
            tool_calls(value).ok_or_else(|| wrong("`tool_calls` is not a list of calls"))?
        } else {
            value
        };
        message.fields.insert(name.to_owned(), value);
    }
    Ok(message)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    }
}

/// The text of a content: a text, or a list of parts that are texts.
fn text(content: Value) -> Result<Option<String>, String> {
    let parts = match content {
        Value::Null => return Ok(None),
        Value::String(text) => return Ok(Some(text)),
        Value::Array(parts) => parts,
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            return Err("`content` is neither a text nor a list of parts".to_owned());
        }
    };
    let mut text = String::new();
    for part in parts {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or("none");
        match (kind, part.get("text").and_then(Value::as_str)) {
            ("text", Some(part)) => text.push_str(part),
            _ => return Err(format!("a part of `content` is no text: type `{kind}`")),
        }
    }
    Ok(Some(text))
}

/// Calls with their arguments as objects, which templates expect, where OpenAI writes them as a text of JSON.
fn tool_calls(calls: Value) -> Option<Value> {
    let Value::Array(calls) = calls else { return None };
    let call = |call: Value| {
        let Value::Object(mut call) = call else { return None };
        let Some(Value::Object(mut function)) = call.shift_remove("function") else { return None };
        let arguments = match function.shift_remove("arguments") {
            Some(Value::String(text)) if text.trim().is_empty() => Value::Object(Map::new()),
            Some(Value::String(text)) => fsio::strict_json(text.as_bytes()).ok()?.0,
            Some(arguments) => arguments,
            None => Value::Object(Map::new()),
        };
        function.insert("arguments".to_owned(), arguments);
        call.insert("function".to_owned(), Value::Object(function));
        Some(Value::Object(call))
    };
    calls.into_iter().map(call).collect::<Option<Vec<_>>>().map(Value::Array)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokenizer::Role;

    use super::read;

    #[test]
    fn contents_and_calls_become_those_of_templates() {
        let parts = json!({"role": "developer", "content": [{"type": "text", "text": "a"},
            {"type": "text", "text": "b"}]});
        let message = read(0, parts).unwrap();
        assert_eq!((message.role, message.content.as_str()), (Role::System, "ab"));
        let call = json!({"role": "assistant", "content": null, "refusal": null, "annotations": [],
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]});
        let message = read(0, call).unwrap();
        assert_eq!(message.fields["tool_calls"][0]["function"]["arguments"], json!({"x": 1}));
    }

    #[test]
    fn wrong_messages_are_named() {
        for (value, part) in [
            (json!("hi"), "message 3: not an object"),
            (json!({"content": "hi"}), "without `role`"),
            (json!({"role": "user"}), "without `content`"),
            (json!({"role": "robot", "content": "hi"}), "unknown role: `robot`"),
            (
                json!({"role": "user", "content": [{"type": "image_url"}]}),
                "no text: type `image_url`",
            ),
            (json!({"role": "user", "content": "a", "mood": "good"}), "`mood` is not known"),
            (json!({"role": "assistant", "tool_calls": ["f"]}), "not a list of calls"),
        ] {
            let error = read(3, value).unwrap_err().json().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
