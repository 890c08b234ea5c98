//! Reads config.json, and generation_config.json beside it, into a checked description of a model. Reads no weights
//! and no tokenizer.

use std::path::Path;

use serde_json::Value;

use crate::config_reader::Keys;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::token_ids::TokenIds;
use crate::{Architecture, FAMILIES, Family, FamilyEntry, ModelConfig, limits};

/// Everything that config.json says.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// The model's shape.
    pub config: ModelConfig,
    /// What stands on top.
    pub architecture: Architecture,
    /// Ids that begin, end and pad a text.
    pub token_ids: TokenIds,
    /// The format in which the weights are said to be stored.
    pub dtype: Option<Dtype>,
    /// What was read but is not acted on, as sentences for the user.
    pub notes: Vec<String>,
}

impl ModelInfo {
    /// Reads a config.json in today's or the older spelling. `origin` stands in messages.
    pub fn from_json(value: &Value, origin: &Path) -> Result<Self> {
        let mut keys = Keys::new(value, origin)?;
        let entry = read_family(&mut keys)?;
        let architecture = read_architecture(&mut keys, entry)?;
        let dtype = read_dtype(&mut keys)?;
        let vocab_size = keys.size("vocab_size", 1..=limits::VOCABULARY)?;
        let token_ids = TokenIds::read(&mut keys, vocab_size)?;
        let config = (entry.read)(&mut keys, vocab_size)?;
        let notes = keys.finish()?;
        check_size(&config, origin)?;
        Ok(Self { config, architecture, token_ids, dtype, notes })
    }

    /// Reads config.json of a Hugging Face directory, and generation_config.json, where there is one, for its ids.
    pub fn read(dir: &Path) -> Result<Self> {
        let origin = dir.join("config.json");
        let mut description = Self::from_json(&read_json(&origin)?, &origin)?;
        let generation = dir.join("generation_config.json");
        if generation.exists() {
            let value = read_json(&generation)?;
            let vocab_size = description.config.vocab_size();
            description.token_ids.merge_generation_config(&value, vocab_size);
        }
        Ok(description)
    }
}

fn read_json(path: &Path) -> Result<Value> {
    let text = fsio::read_text_capped(path, fsio::limits::CONFIG_BYTES)?;
    serde_json::from_str(&text)
        .map_err(|error| Error::Json { origin: path.to_owned(), message: error.to_string() })
}

fn read_family(keys: &mut Keys) -> Result<&'static FamilyEntry> {
    let known = Family::names().join(", ");
    let Some(name) = keys.text("model_type")? else {
        return Err(keys.missing("model_type", Some(&format!("known families: {known}"))));
    };
    FAMILIES.iter().find(|entry| entry.name == name).ok_or_else(|| Error::UnknownFamily {
        origin: keys.origin().to_owned(),
        found: name.chars().take(60).collect(),
        known,
    })
}

fn read_architecture(keys: &mut Keys, entry: &FamilyEntry) -> Result<Architecture> {
    let Some(value) = keys.value("architectures") else { return Ok(Architecture::CausalLm) };
    let names: Vec<&str> = value
        .as_array()
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    match names.as_slice() {
        [name] if entry.causal_lm.contains(name) => Ok(Architecture::CausalLm),
        [name] if entry.sequence_classifier.contains(name) => Ok(Architecture::SequenceClassifier),
        _ => {
            let known = [entry.causal_lm, entry.sequence_classifier].concat().join(", ");
            let hint = format!("supported with model_type `{}`: {known}", entry.name);
            Err(keys.unsupported("architectures", value, &hint))
        }
    }
}

/// Today's key is `dtype`, the older `torch_dtype`. Weights say themselves what they are; this is only reported.
fn read_dtype(keys: &mut Keys) -> Result<Option<Dtype>> {
    let today = keys.text("dtype")?;
    let older = keys.text("torch_dtype")?;
    Ok(today.or(older).and_then(Dtype::from_name))
}

/// Refuses models whose tables of parameters could not be held; every single size is in range already.
fn check_size(config: &ModelConfig, origin: &Path) -> Result<()> {
    let too_large = |message: String| Err(Error::TooLarge { origin: origin.to_owned(), message });
    let mut total: u64 = 0;
    for spec in config.parameters() {
        let n = spec.n_elements();
        if n > limits::TENSOR_PARAMETERS {
            let limit = limits::TENSOR_PARAMETERS;
            return too_large(format!("`{}` has {n} elements, the limit is {limit}", spec.name));
        }
        total = total.saturating_add(n);
    }
    if total > limits::PARAMETERS {
        return too_large(format!("{total} parameters, the limit is {}", limits::PARAMETERS));
    }
    Ok(())
}
