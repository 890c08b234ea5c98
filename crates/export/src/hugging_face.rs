//! The files of a Hugging Face directory. Equal weights give equal files.

use std::path::Path;

use arch::{Architecture, Dtype, ModelConfig, TRANSFORMERS_VERSION, TokenIds};
use fsio::{DirWriter, Manifest};
use model::SavedModel;
use serde_json::{Map, Value, json};
use tokenizer::Tokenizer;

use crate::shards;
use crate::{Error, Options, Result};

/// Writes the directory `out_dir`, which must not exist, with a MANIFEST of its files.
pub fn hugging_face<M: SavedModel>(
    model: &M,
    tokenizer: &Tokenizer,
    dtype: Dtype,
    out_dir: &Path,
) -> Result<Manifest> {
    hugging_face_with(model, tokenizer, Options::new(dtype), out_dir)
}

/// As [`hugging_face`], with options.
pub fn hugging_face_with<M: SavedModel>(
    model: &M,
    tokenizer: &Tokenizer,
    options: Options,
    out_dir: &Path,
) -> Result<Manifest> {
    let mut dir = DirWriter::begin(out_dir)?;
    write_files(&mut dir, model, tokenizer, &options)?;
    Ok(dir.commit(Value::Null)?)
}

/// Writes the same files into a directory that the caller commits.
pub fn write_files<M: SavedModel>(
    dir: &mut DirWriter,
    model: &M,
    tokenizer: &Tokenizer,
    options: &Options,
) -> Result<()> {
    for (name, bytes) in description_files(model.config(), M::ARCHITECTURE, tokenizer, options)? {
        dir.write(&name, bytes)?;
    }
    write_weights(dir, model, options)
}

/// Writes the weight files alone.
pub fn write_weights<M: SavedModel>(
    dir: &mut DirWriter,
    model: &M,
    options: &Options,
) -> Result<()> {
    shards::write(dir, model, options)
}

/// The sampling defaults of a model's directory: the keys of its generation_config.json besides token ids. Empty for a
/// directory without the file, and for a GGUF file.
pub fn sampling_defaults(dir: &Path) -> Result<Map<String, Value>> {
    let path = dir.join("generation_config.json");
    if !path.is_file() {
        return Ok(Map::new());
    }
    let text = fsio::read_text_capped(&path, fsio::limits::CONFIG_BYTES)?;
    let mut keys: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|error| Error::Json { path, message: error.to_string() })?;
    // The ids follow from the tokenizer; the others describe the file.
    keys.retain(|key, value| {
        let is_id = ["bos_token_id", "eos_token_id", "pad_token_id"].contains(&key.as_str());
        !(is_id || key == "transformers_version" || key.starts_with('_') || value.is_null())
    });
    Ok(keys)
}

/// Every file of the directory except the weights: config.json, generation_config.json for a language model, and the
/// tokenizer's files. They make a checkpoint a Hugging Face directory.
pub fn description_files(
    config: &ModelConfig,
    architecture: Architecture,
    tokenizer: &Tokenizer,
    options: &Options,
) -> Result<Vec<(String, Vec<u8>)>> {
    let tokenizer = &fitting(tokenizer, config)?;
    let tokenizer = match architecture {
        Architecture::CausalLm => tokenizer.clone(),
        Architecture::SequenceClassifier => tokenizer.for_classifier(),
    };
    let token_ids = token_ids(&tokenizer);
    let described = config.to_json_as(architecture, options.dtype, &token_ids);
    let mut files = vec![("config.json".to_owned(), pretty(&described).into_bytes())];
    if architecture == Architecture::CausalLm {
        let generation = pretty(&generation_config(&token_ids, &options.generation)).into_bytes();
        files.push(("generation_config.json".to_owned(), generation));
    }
    files.extend(tokenizer.files()?);
    Ok(files)
}

/// The tokenizer, without special tokens that have no row in the model's embedding.
///
/// Errors: other ids have no row.
pub(crate) fn fitting(tokenizer: &Tokenizer, config: &ModelConfig) -> Result<Tokenizer> {
    let (n_tokens, vocab_size) = (tokenizer.vocab_size(), config.vocab_size());
    if n_tokens <= vocab_size {
        return Ok(tokenizer.clone());
    }
    let fitting = tokenizer.without_surplus(vocab_size).map(|(fitting, _)| fitting);
    fitting.ok_or_else(|| {
        let largest = u32::try_from(n_tokens.saturating_sub(1)).unwrap_or(u32::MAX);
        let path = tokenizer.file_of_id(largest).map(Path::to_owned);
        Error::Vocabulary { path, n_tokens, vocab_size }
    })
}

pub(crate) fn token_ids(tokenizer: &Tokenizer) -> TokenIds {
    TokenIds { bos: tokenizer.bos(), eos: tokenizer.eos_ids(), pad: tokenizer.pad() }
}

/// generation_config.json: the special token ids, every end id included, and sampling defaults.
fn generation_config(token_ids: &TokenIds, defaults: &Map<String, Value>) -> Value {
    let mut map = defaults.clone();
    map.extend(token_ids.to_json());
    map.retain(|_, value| !value.is_null());
    map.insert("transformers_version".to_owned(), json!(TRANSFORMERS_VERSION));
    map.sort_keys();
    Value::Object(map)
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
