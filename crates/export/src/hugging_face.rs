//! The files of a Hugging Face directory. Equal weights give equal files.

use std::path::Path;

use arch::{Architecture, Dtype, ModelConfig, TokenIds};
use fsio::{DirWriter, Manifest};
use model::SavedModel;
use serde_json::{Value, json};
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
    write_files(&mut dir, model, tokenizer, options)?;
    Ok(dir.commit(Value::Null)?)
}

/// Writes the same files into a directory that the caller commits.
pub fn write_files<M: SavedModel>(
    dir: &mut DirWriter,
    model: &M,
    tokenizer: &Tokenizer,
    options: Options,
) -> Result<()> {
    for (name, bytes) in
        description_files(model.config(), M::ARCHITECTURE, tokenizer, options.dtype)?
    {
        dir.write(&name, bytes)?;
    }
    shards::write(dir, model, options)
}

/// Every file of the directory except the weights: config.json, generation_config.json for a language model, and the
/// tokenizer's files. They make a checkpoint a Hugging Face directory.
pub fn description_files(
    config: &ModelConfig,
    architecture: Architecture,
    tokenizer: &Tokenizer,
    dtype: Dtype,
) -> Result<Vec<(String, Vec<u8>)>> {
    let (n_tokens, vocab_size) = (tokenizer.vocab_size(), config.vocab_size());
    if n_tokens > vocab_size {
        return Err(Error::Vocabulary { n_tokens, vocab_size });
    }
    let token_ids = token_ids(tokenizer);
    let described = config.to_json_as(architecture, dtype, &token_ids);
    let mut files = vec![("config.json".to_owned(), pretty(&described).into_bytes())];
    if architecture == Architecture::CausalLm {
        let generation = pretty(&generation_config(&token_ids)).into_bytes();
        files.push(("generation_config.json".to_owned(), generation));
    }
    files.extend(tokenizer.files()?);
    Ok(files)
}

pub(crate) fn token_ids(tokenizer: &Tokenizer) -> TokenIds {
    TokenIds { bos: tokenizer.bos(), eos: tokenizer.eos_ids(), pad: tokenizer.pad() }
}

/// generation_config.json with the special token ids; it sets no sampling parameters.
fn generation_config(token_ids: &TokenIds) -> Value {
    let mut map = token_ids.to_json();
    map.retain(|_, value| !value.is_null());
    json!(map)
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
