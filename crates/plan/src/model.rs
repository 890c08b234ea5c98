//! Configuration of a new model from `[model]`, and checks that model, tokenizer and rows fit. Opens no weights.

use std::path::Path;

use arch::ModelConfig;
use recipe::{Loaded, ModelSection, StageKeys};
use tokenizer::Tokenizer;

use crate::{Error, Result};

/// Configuration of the model in `[model]`. The vocabulary size defaults to the tokenizer's, the context to the longest
/// row.
pub(crate) fn fresh(loaded: &Loaded, tokenizer: &Tokenizer) -> Result<ModelConfig> {
    let longest = loaded.recipe.longest_sequence().unwrap_or(1);
    let section = loaded.recipe.model.as_ref();
    let config = section.and_then(|model| model.config_json(tokenizer.vocab_size(), longest));
    // `recipe` refuses a stage that has neither `start` nor a new model.
    let config = config.ok_or_else(|| {
        Error::Recipe(loaded.spans.error(
            "model",
            "no model to start from",
            "no new model and no directory",
            Some("describe a new model in [model], or set `start`".to_owned()),
        ))
    })?;
    Ok(ModelConfig::from_json(&config, &loaded.path)?)
}

/// Refuses a model whose embedding has fewer rows than the tokenizer has tokens, or whose context is shorter than a row.
pub(crate) fn check_fit(
    loaded: &Loaded,
    config: &ModelConfig,
    tokenizer: &Tokenizer,
    name: &str,
    keys: &StageKeys<'_>,
) -> Result<()> {
    let sequence_length = keys.sequence_length;
    let (n_tokens, vocab_size) = (tokenizer.vocab_size(), config.vocab_size());
    if n_tokens > vocab_size {
        let is_new = loaded.recipe.model.as_ref().is_some_and(ModelSection::is_new);
        let key = if is_new { "model.vocab_size".to_owned() } else { format!("{name}.start") };
        return Err(Error::Recipe(loaded.spans.error(
            &key,
            format!("tokenizer and model do not match: {n_tokens} tokens, but `vocab_size` is {vocab_size}"),
            "too small for the tokenizer",
            Some("remove `vocab_size`, or use the model's own tokenizer".to_owned()),
        )));
    }
    if sequence_length > config.max_positions() {
        return Err(Error::Recipe(loaded.spans.error(
            &format!("{name}.{}", keys.length_key),
            format!(
                "the model's context is {} tokens, shorter than the longest text: `{sequence_length}`",
                config.max_positions()
            ),
            "exceeds the model's context",
            Some(format!("lower it to at most {}", config.max_positions())),
        )));
    }
    Ok(())
}

/// Refuses a directory without weights, or with pointers of Git LFS in their place; a GGUF file has weights. Their names and
/// shapes are checked when they are read.
pub(crate) fn check_files(dir: &Path) -> Result<()> {
    if gguf::is_gguf(dir) {
        return Ok(fsio::refuse_lfs_pointer(dir)?);
    }
    let has = |name: &str| fsio::is_present(dir.join(name));
    if !has("model.safetensors") && !has("model.safetensors.index.json") {
        return Err(Error::NoWeights { path: dir.to_path_buf() });
    }
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
    for path in names.map(|entry| entry.path()) {
        if path.extension().is_some_and(|ending| ending == "safetensors") {
            fsio::refuse_lfs_pointer(path)?;
        }
    }
    Ok(())
}
