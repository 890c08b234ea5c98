//! Reads the files of a Hugging Face tokenizer directory, within size limits, or the tokenizer of a
//! GGUF file. A directory without a tokenizer.json is converted.

use std::path::{Path, PathBuf};

use fsio::limits;
use serde_json::{Map, Value};

use crate::config_values::object;
use crate::convert::{self, Converted};
use crate::origin::Origin;
use crate::{Error, Result};

/// Files that are no tokenizer.json, but part of a tokenizer in their directory.
const OTHER_FILES: [&str; 3] = ["vocab.json", "merges.txt", "vocab.txt"];

/// A tokenizer.json and the files in its directory, each empty if it is missing.
pub(crate) struct Files {
    /// Path of the tokenizer.json, for errors.
    pub(crate) path: PathBuf,
    pub(crate) tokenizer: String,
    pub(crate) origin: Origin,
    /// tokenizer_config.json, which overrides special_tokens_map.json.
    pub(crate) config: Map<String, Value>,
    /// generation_config.json, or else config.json; used for token ids only.
    pub(crate) ids: Map<String, Value>,
    /// Whether the end tokens in `ids` are those of generation_config.json.
    pub(crate) has_generation_ids: bool,
    /// The file that names added tokens besides the tokenizer.json, for errors.
    pub(crate) config_path: PathBuf,
    /// Source of the chat template.
    pub(crate) template: Option<TemplateSource>,
}

/// A chat template with the file that contains it.
pub(crate) struct TemplateSource {
    pub(crate) path: PathBuf,
    pub(crate) source: String,
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
    let mut config = object(&dir.join("special_tokens_map.json"), limits::CONFIG_BYTES)?;
    // Configs of large vocabularies list thousands of added tokens and need the larger limit.
    config.extend(object(&dir.join("tokenizer_config.json"), limits::TOKENIZER_BYTES)?);
    let mut ids = object(&dir.join("generation_config.json"), limits::CONFIG_BYTES)?;
    let has_generation_ids = ids.contains_key("eos_token_id");
    if !has_generation_ids {
        for (key, value) in object(&dir.join("config.json"), limits::CONFIG_BYTES)? {
            ids.entry(key).or_insert(value);
        }
    }
    let template = template(&dir, &config)?;
    let Converted { path, json } = tokenizer(path, &dir, file, &mut config)?;
    let is_json = path.extension().is_some_and(|ending| ending == "json");
    let is_vocabulary = path.file_name().is_some_and(|name| name == OTHER_FILES[0]);
    let origin = if is_json && !is_vocabulary { Origin::TokenizerJson } else { Origin::Converted };
    let configs = ["tokenizer_config.json", "special_tokens_map.json"].map(|name| dir.join(name));
    let config_path = configs.into_iter().find(|path| path.is_file());
    Ok(Files {
        config_path: config_path.unwrap_or_else(|| path.clone()),
        path,
        tokenizer: json,
        origin,
        config,
        ids,
        has_generation_ids,
        template,
    })
}

/// The tokenizer.json, or one that is converted from other files.
fn tokenizer(
    path: &Path,
    dir: &Path,
    file: PathBuf,
    config: &mut Map<String, Value>,
) -> Result<Converted> {
    let missing = || Error::Missing { path: path.to_owned() };
    if std::fs::symlink_metadata(path).is_err() {
        return Err(Error::NoSuchFile { path: path.to_owned() });
    }
    // A pipe or a link that leads nowhere is an error below.
    let is_missing = std::fs::symlink_metadata(&file).is_err();
    if is_missing || file.is_dir() {
        return if path.is_dir() { convert::directory(dir, config)? } else { None }
            .ok_or_else(missing);
    }
    let ending = file.extension();
    if ending.is_some_and(|ending| ending == "model" || ending == convert::TIKTOKEN) {
        return convert::model_file(&file, config);
    }
    if file.file_name().is_some_and(|name| OTHER_FILES.iter().any(|other| name == *other)) {
        return convert::directory(dir, config)?.ok_or_else(missing);
    }
    let json = fsio::read_text_capped(&file, limits::TOKENIZER_BYTES)?;
    Ok(Converted { path: file, json })
}

/// The files that a GGUF file stands for.
fn from_gguf(path: &Path) -> Result<Files> {
    fsio::refuse_lfs_pointer(path)?;
    let file = gguf::TokenizerFile::open(path)?;
    let Some(tokenizer) = file.tokenizer_json()? else {
        return Err(Error::Missing { path: path.to_owned() });
    };
    Ok(Files {
        path: path.to_owned(),
        config_path: path.to_owned(),
        tokenizer,
        origin: Origin::Gguf,
        has_generation_ids: true,
        config: file.config()?,
        ids: file.token_ids()?,
        template: file
            .chat_template()?
            .map(|source| TemplateSource { path: path.to_owned(), source }),
    })
}

/// Chat template from its own file, or else from the config: a text or a list of named ones.
fn template(dir: &Path, config: &Map<String, Value>) -> Result<Option<TemplateSource>> {
    let file = dir.join("chat_template.jinja");
    if let Some(source) = fsio::read_optional_text(&file, limits::TEMPLATE_BYTES)? {
        return Ok(Some(TemplateSource { path: file, source }));
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let source = match config.get("chat_template") {
        Some(Value::Array(named)) => named
            .iter()
            .find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|entry| entry.get("template").and_then(text)),
        Some(value) => text(value),
        None => None,
    };
    let path = dir.join("tokenizer_config.json");
    Ok(source.map(|source| TemplateSource { path, source }))
}
