//! The shape of a new model from `[model]`, and whether a model and a tokenizer fit. Opens no weights.

use std::path::Path;

use arch::ModelConfig;
use recipe::{Loaded, ModelSection, StageKeys};
use tokenizer::Tokenizer;

use crate::{Error, Result};

/// The shape that `[model]` describes; what it leaves out follows from the tokenizer and the longest row.
pub(crate) fn fresh(loaded: &Loaded, tokenizer: &Tokenizer) -> Result<ModelConfig> {
    let longest = loaded.recipe.longest_sequence().unwrap_or(1);
    let section = loaded.recipe.model.as_ref();
    let config = section.and_then(|model| model.config_json(tokenizer.vocab_size(), longest));
    // The recipe's own check refuses a stage that has neither `start` nor a new model.
    let config = config.ok_or_else(|| {
        Error::Recipe(loaded.spans.error(
            "model",
            "no model to start from",
            "neither a new model nor a folder",
            Some("describe a model in [model], or name one with `start`".to_owned()),
        ))
    })?;
    Ok(ModelConfig::from_json(&config, &loaded.path)?)
}

/// Every token needs a row in the embedding, and every row of a batch positions enough.
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
            Some("leave `vocab_size` out, or use the tokenizer that belongs to the model".to_owned()),
        )));
    }
    if sequence_length > config.max_positions() {
        return Err(Error::Recipe(loaded.spans.error(
            &format!("{name}.{}", keys.length_key),
            format!(
                "the model takes at most {} tokens: a text may have {sequence_length}",
                config.max_positions()
            ),
            "longer than the model's context",
            Some(format!("at most {}", config.max_positions())),
        )));
    }
    Ok(())
}

/// A directory must hold weights, as a GGUF file does; which ones is checked when they are read.
pub(crate) fn check_files(dir: &Path) -> Result<()> {
    let has = |name: &str| dir.join(name).is_file();
    if gguf::is_gguf(dir) || has("model.safetensors") || has("model.safetensors.index.json") {
        return Ok(());
    }
    Err(Error::NoWeights { path: dir.to_path_buf() })
}
