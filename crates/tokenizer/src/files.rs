//! Reads the files of a Hugging Face tokenizer directory, within size limits, or the tokenizer of a GGUF file.

use std::path::{Path, PathBuf};

use fsio::limits;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// A tokenizer.json and the files in its directory, each empty if it is missing.
pub(crate) struct Files {
    /// Path of the tokenizer.json, for errors.
    pub(crate) path: PathBuf,
    pub(crate) tokenizer: String,
    /// tokenizer_config.json, which overrides special_tokens_map.json.
    pub(crate) config: Map<String, Value>,
    /// generation_config.json, or else config.json; used for token ids only.
    pub(crate) ids: Map<String, Value>,
    /// Source of the chat template.
    pub(crate) template: Option<String>,
}

/// Reads a directory, a tokenizer.json and the files next to it, or a GGUF file.
pub(crate) fn read(path: &Path) -> Result<Files> {
    if gguf::is_gguf(path) {
        return from_gguf(path);
    }
    let (dir, file) = if path.is_dir() {
        (path.to_owned(), path.join("tokenizer.json"))
    } else {
        (path.parent().map(Path::to_owned).unwrap_or_default(), path.to_owned())
    };
    if !file.is_file() {
        return Err(Error::Missing { path: path.to_owned() });
    }
    let tokenizer = fsio::read_text_capped(&file, limits::TOKENIZER_BYTES)?;
    let mut config = object(&dir.join("special_tokens_map.json"), limits::CONFIG_BYTES)?;
    // Configs of large vocabularies list thousands of added tokens and need the larger limit.
    config.extend(object(&dir.join("tokenizer_config.json"), limits::TOKENIZER_BYTES)?);
    let mut ids = object(&dir.join("generation_config.json"), limits::CONFIG_BYTES)?;
    if !ids.contains_key("eos_token_id") {
        for (key, value) in object(&dir.join("config.json"), limits::CONFIG_BYTES)? {
            ids.entry(key).or_insert(value);
        }
    }
    let template = template(&dir, &config)?;
    Ok(Files { path: file, tokenizer, config, ids, template })
}

/// The files that a GGUF file stands for.
fn from_gguf(path: &Path) -> Result<Files> {
    let file = gguf::TokenizerFile::open(path)?;
    let Some(tokenizer) = file.tokenizer_json()? else {
        return Err(Error::Missing { path: path.to_owned() });
    };
    Ok(Files {
        path: path.to_owned(),
        tokenizer,
        config: file.config()?,
        ids: file.token_ids()?,
        template: file.chat_template()?,
    })
}

/// Reads a JSON object; empty if the file is missing.
fn object(path: &Path, limit: u64) -> Result<Map<String, Value>> {
    if !path.is_file() {
        return Ok(Map::new());
    }
    let text = fsio::read_text_capped(path, limit)?;
    let json = |reason: String| Error::Json { path: path.to_owned(), reason };
    crate::untrusted::json_limits::check(&text).map_err(json)?;
    serde_json::from_str(&text).map_err(|e| json(e.to_string()))
}

/// Chat template from its own file, or else from the config: a text or a list of named ones.
fn template(dir: &Path, config: &Map<String, Value>) -> Result<Option<String>> {
    let file = dir.join("chat_template.jinja");
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
