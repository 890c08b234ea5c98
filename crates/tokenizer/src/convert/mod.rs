//! Tokenizers without a tokenizer.json: the files of older releases, converted to its form at load.
//!
//! Like transformers, the conversion goes by the files and by `tokenizer_class` of
//! tokenizer_config.json.

mod byte_level;
mod protobuf;
mod sentencepiece;
mod tiktoken;
mod word_piece;

use std::path::{Path, PathBuf};

use fsio::limits;
use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// Files of sentencepiece or tiktoken in a directory, in the order in which they are tried.
const SENTENCEPIECE: [&str; 3] = ["tokenizer.model", "spiece.model", "tiktoken.model"];
/// Ending of tiktoken files.
pub(crate) const TIKTOKEN: &str = "tiktoken";

/// Files that a tokenizer is read from, in the order in which they are tried, and what they hold.
pub const READ_FILES: [(&[&str], &str); 6] = [
    (&["tokenizer.json"], "any model of the tokenizers library, within limits"),
    (&["vocab.json", "merges.txt"], "byte-level BPE of GPT-2 or Qwen2"),
    (&SENTENCEPIECE, "sentencepiece: BPE and unigram; or tiktoken"),
    (&["*.tiktoken"], "tiktoken, if the configuration tells its pattern"),
    (&["vocab.txt"], "WordPiece of BERT"),
    (&["*.gguf"], "the tokenizer of a GGUF file"),
];

/// A converted tokenizer: the file it was read from, and the text of a tokenizer.json.
pub(crate) struct Converted {
    pub(crate) path: PathBuf,
    pub(crate) json: String,
}

/// Converts the tokenizer of a directory; `None` if it has none of the known files. Settings that
/// the class has by default are added to `config`.
pub(crate) fn directory(dir: &Path, config: &mut Map<String, Value>) -> Result<Option<Converted>> {
    if dir.join("vocab.json").is_file() && dir.join("merges.txt").is_file() {
        return byte_level::convert(dir, config).map(Some);
    }
    let sentencepiece = SENTENCEPIECE.iter().map(|name| dir.join(name)).find(|path| path.is_file());
    if let Some(path) = sentencepiece {
        return model_file(&path, config).map(Some);
    }
    if let Some(path) = tiktoken_file(dir)? {
        return model_file(&path, config).map(Some);
    }
    let words = dir.join("vocab.txt");
    if words.is_file() {
        return word_piece::convert(&words, config).map(Some);
    }
    Ok(None)
}

/// The only file of a directory that ends in `.tiktoken`.
fn tiktoken_file(dir: &Path) -> Result<Option<PathBuf>> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == TIKTOKEN))
        .collect();
    paths.sort();
    match paths.as_slice() {
        [_, second, ..] => Err(Error::Refused {
            path: second.clone(),
            reason: "a second tiktoken file in the directory".to_owned(),
            hint: Some("name one of the files instead of the directory".to_owned()),
        }),
        _ => Ok(paths.pop()),
    }
}

/// Converts a file with the ending `.model` or `.tiktoken`.
pub(crate) fn model_file(path: &Path, config: &mut Map<String, Value>) -> Result<Converted> {
    let bytes = fsio::read_capped(path, limits::TOKENIZER_BYTES)?;
    let is_named = path.extension().is_some_and(|ending| ending == TIKTOKEN);
    if is_named || tiktoken::is_tiktoken(&bytes) {
        return tiktoken::convert(path, &bytes, config);
    }
    let json = sentencepiece::convert(path, &bytes, config)?;
    Ok(Converted { path: path.to_owned(), json })
}

/// Class of the tokenizer without the ending `Fast`, if the config names one.
fn class(config: &Map<String, Value>) -> Option<&str> {
    let name = config.get("tokenizer_class")?.as_str()?;
    Some(name.strip_suffix("Fast").unwrap_or(name))
}

/// Checks the number of a file's tokens or merges before a tokenizer is built of them.
fn check_count(path: &Path, count: usize) -> Result<()> {
    let limit = limits::TOKENIZER_ENTRIES;
    if count <= limit {
        return Ok(());
    }
    Err(refused(path, format!("{count} entries, more than the limit of {limit}")))
}

/// Error for a class whose files need other rules.
fn unknown_class(path: &Path, class: &str) -> Error {
    refused(path, format!("no conversion for the tokenizer class `{class}`"))
}

fn refused(path: &Path, reason: String) -> Error {
    Error::Refused {
        path: path.to_owned(),
        reason,
        hint: Some(
            "write a tokenizer.json with transformers: `AutoTokenizer.from_pretrained(DIR)\
             .save_pretrained(DIR)`"
                .to_owned(),
        ),
    }
}

/// Sets a key of the config unless it is there.
fn set_default(config: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if !config.contains_key(key) {
        config.insert(key.to_owned(), value.into());
    }
}

/// An entry of `added_tokens`.
fn added_token(id: usize, content: &str, special: bool) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": special,
    })
}
