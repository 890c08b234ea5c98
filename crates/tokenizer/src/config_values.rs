//! The JSON files of a tokenizer: objects, and special tokens as they write them.

use std::path::Path;

use serde_json::{Map, Value};

use crate::untrusted::json_limits;
use crate::{Error, Result};

/// Text of a special token, which is a string or an object in configs.
pub(crate) fn token_text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text.as_str()),
        Value::Object(map) => map.get("content").and_then(Value::as_str),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    }
    .filter(|text| !text.is_empty())
}

/// One id or a list of ids.
pub(crate) fn token_ids(value: Option<&Value>) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(items)) => items.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}

/// Reads a JSON object; empty if the file is missing.
pub(crate) fn object(path: &Path, limit: u64) -> Result<Map<String, Value>> {
    let Some(text) = fsio::read_optional_text(path, limit)? else { return Ok(Map::new()) };
    let json = |reason: String| Error::Json { path: path.to_owned(), reason };
    json_limits::check(&text).map_err(json)?;
    serde_json::from_str(&text).map_err(|e| json(e.to_string()))
}
