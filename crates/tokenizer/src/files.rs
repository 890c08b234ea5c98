//! The files of a tokenizer as Hugging Face lays them out, read with limits; it interprets little.

use std::path::{Path, PathBuf};

use fsio::limits;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// The files that lie beside a tokenizer.json, each empty where it is missing.
pub(crate) struct Files {
    /// The tokenizer.json, for messages.
    pub(crate) path: PathBuf,
    pub(crate) tokenizer: String,
    /// tokenizer_config.json over special_tokens_map.json.
    pub(crate) config: Map<String, Value>,
    /// generation_config.json, or else config.json, for token ids only.
    pub(crate) ids: Map<String, Value>,
    /// The chat template's source.
    pub(crate) template: Option<String>,
}

/// Reads a folder, or a tokenizer.json and what lies beside it.
pub(crate) fn read(path: &Path) -> Result<Files> {
    let (folder, file) = if path.is_dir() {
        (path.to_owned(), path.join("tokenizer.json"))
    } else {
        (path.parent().map(Path::to_owned).unwrap_or_default(), path.to_owned())
    };
    if !file.is_file() {
        return Err(Error::Missing { path: path.to_owned() });
    }
    let tokenizer = fsio::read_text_capped(&file, limits::TOKENIZER_BYTES)?;
    let mut config = object(&folder.join("special_tokens_map.json"), limits::CONFIG_BYTES)?;
    // The configs of large vocabularies list thousands of added tokens, so the larger limit.
    config.extend(object(&folder.join("tokenizer_config.json"), limits::TOKENIZER_BYTES)?);
    let mut ids = object(&folder.join("generation_config.json"), limits::CONFIG_BYTES)?;
    if !ids.contains_key("eos_token_id") {
        for (key, value) in object(&folder.join("config.json"), limits::CONFIG_BYTES)? {
            ids.entry(key).or_insert(value);
        }
    }
    let template = template(&folder, &config)?;
    Ok(Files { path: file, tokenizer, config, ids, template })
}

/// A JSON object, or an empty one where there is no such file.
fn object(path: &Path, limit: u64) -> Result<Map<String, Value>> {
    if !path.is_file() {
        return Ok(Map::new());
    }
    let text = fsio::read_text_capped(path, limit)?;
    let json = |reason: String| Error::Json { path: path.to_owned(), reason };
    crate::scan::check(&text).map_err(json)?;
    serde_json::from_str(&text).map_err(|e| json(e.to_string()))
}

/// The chat template: its own file, or the config's field (a text, or a list of named ones).
fn template(folder: &Path, config: &Map<String, Value>) -> Result<Option<String>> {
    let file = folder.join("chat_template.jinja");
    if file.is_file() {
        return Ok(Some(fsio::read_text_capped(&file, limits::TEMPLATE_BYTES)?));
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Ok(match config.get("chat_template") {
        Some(Value::Array(named)) => named
            .iter()
            .find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|entry| entry.get("template").and_then(text)),
        Some(value) => text(value),
        None => None,
    })
}

/// The string of a special token, which configs write as a text or as an object.
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
