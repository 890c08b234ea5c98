//! Requests of `/v1/chat/completions`.

use serde::Deserialize;
use serde_json::{Value, json};
use tokenizer::{Conversation, Message};

use super::sampling::{self, Limits, Request, Rule};
use super::tools::{self, Tools};
use super::{ApiError, Fields, message};

/// Log-probabilities of most likely tokens at a position.
const MAX_TOP_LOGPROBS: usize = 20;

/// Reads a request; its model has been read.
pub(crate) fn read(mut fields: Fields, limits: &Limits<'_>) -> Result<Request, ApiError> {
    let mut request = sampling::read(&mut fields, limits)?;
    request.logprobs = fields.take("logprobs")?.unwrap_or(false);
    let n_top = fields.count("top_logprobs", 0..=MAX_TOP_LOGPROBS)?;
    if n_top.is_some_and(|n| n > 0) && !request.logprobs {
        return Err(ApiError::field("top_logprobs", "`top_logprobs` needs `logprobs`: true"));
    }
    request.settings.top_logprobs = request.logprobs.then_some(n_top.unwrap_or(0));
    let schema = schema(&mut fields)?.map(Rule::Schema);
    let Tools { shown: tools, required, is_single } =
        tools::read(&mut fields, limits.tokenizer.chat_template())?;
    request.max_calls = (!tools.is_empty()).then_some(if is_single { 1 } else { usize::MAX });
    // The format is that of answers which call nothing.
    request.rule = required.map(Rule::Calls).or(schema);
    let messages = messages(&mut fields)?;
    fields.refuse(&[
        ("functions", json!([])),
        ("function_call", json!("none")),
        ("modalities", json!(["text"])),
        ("audio", Value::Null),
        ("reasoning_effort", Value::Null),
        ("verbosity", Value::Null),
        ("web_search_options", Value::Null),
    ])?;
    fields.finish()?;
    let n_bytes = messages.iter().map(|message| message.content.len()).sum();
    sampling::check_bytes(n_bytes, "messages", limits)?;
    let conversation = Conversation { messages: &messages, tools: &tools };
    request.prompts = vec![encode(conversation, limits)?];
    sampling::check_prompts(&request, "messages", limits)?;
    Ok(request)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Format {
    r#type: String,
    json_schema: Option<NamedSchema>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedSchema {
    schema: Option<Value>,
    // Every schema is followed strictly.
    #[serde(rename = "strict")]
    _strict: Option<bool>,
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "description")]
    _description: Option<String>,
}

/// The JSON schema of `response_format`.
fn schema(fields: &mut Fields) -> Result<Option<Value>, ApiError> {
    let Some(format) = fields.take::<Format>("response_format")? else { return Ok(None) };
    let wrong = |message: &str| ApiError::field("response_format", message);
    let schema = match (format.r#type.as_str(), format.json_schema) {
        ("text", None) => return Ok(None),
        ("json_object", None) => json!({"type": "object"}),
        ("json_schema", Some(named)) => {
            named.schema.ok_or_else(|| wrong("`json_schema` has no `schema`"))?
        }
        ("json_schema", None) => return Err(wrong("`json_schema` is missing")),
        (other, _) => {
            let message = format!("`type` must be text, json_object or json_schema: `{other}`");
            return Err(wrong(&message));
        }
    };
    if schema.is_object() { Ok(Some(schema)) } else { Err(wrong("`schema` is not an object")) }
}

/// The prompt that the chat template makes of a conversation.
fn encode(conversation: Conversation<'_>, limits: &Limits<'_>) -> Result<Vec<u32>, ApiError> {
    let template = limits.tokenizer.chat_template().ok_or_else(|| {
        let message = "the model has no chat template; use /v1/completions";
        ApiError::field("model", message)
    })?;
    // A template may refuse a conversation with a message of its own, such as one that does not begin with the user.
    let wrong = |error: tokenizer::Error| ApiError::field("messages", error.to_string());
    limits.tokenizer.encode_prompt(conversation, template).map_err(wrong)
}

fn messages(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
    let messages: Vec<Value> = fields.require("messages")?;
    if messages.is_empty() {
        return Err(ApiError::field("messages", "`messages` is empty"));
    }
    messages.into_iter().enumerate().map(|(idx, value)| message::read(idx, value)).collect()
}
