//! Reads config.json and generation_config.json of a Hugging Face directory, or the metadata of a GGUF file, and checks
//! them.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::config_reader::{ConfigReader, KeyUse, Notes};
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::family::{Family, ModelConfig};
use crate::limits;
use crate::model_config::Architecture;
use crate::token_ids::TokenIds;

/// The contents of config.json.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// The model's configuration.
    pub config: ModelConfig,
    /// The output layer.
    pub architecture: Architecture,
    /// Ids of special tokens.
    pub token_ids: TokenIds,
    /// The number format of the weights, according to config.json.
    pub dtype: Option<Dtype>,
    /// Packing of the weights; `None` for dense weights.
    pub quantization: Option<Quantization>,
    /// Keys that were understood but have no effect, as sentences for the user.
    pub notes: Vec<String>,
    /// Unknown keys, which are ignored, as sentences for the user.
    pub warnings: Vec<String>,
}

/// Packed weights that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantization {
    /// bitsandbytes, 4 bits (NF4 or FP4).
    BitsAndBytes4,
    /// bitsandbytes, 8 bits (LLM.int8()).
    BitsAndBytes8,
}

impl ModelInfo {
    /// Reads a config.json of transformers 5 or older. `origin` is the file's path in messages.
    pub fn from_json(value: &Value, origin: &Path) -> Result<Self> {
        Ok(Self::with_key_uses(value, origin)?.0)
    }

    /// Reads a config.json, and returns with it the effect of every key that the family was asked for, whether or not the
    /// file has it. Keys of sections, such as `rope_scaling.factor`, are among them if the file has the section.
    pub fn with_key_uses(value: &Value, origin: &Path) -> Result<(Self, BTreeMap<String, KeyUse>)> {
        let mut reader = ConfigReader::new(value, origin)?;
        let family = read_family(&mut reader)?;
        let architecture = read_architecture(&mut reader, family)?;
        read_auto_map(&mut reader, family)?;
        let dtype = read_dtype(&mut reader)?;
        let quantization = read_quantization(&mut reader)?;
        let vocab_size = reader.size("vocab_size", 1..=limits::VOCABULARY)?;
        let token_ids = TokenIds::read(&mut reader, vocab_size)?;
        let config = (family.entry().read)(&mut reader, vocab_size)?;
        let Notes { notes, warnings, uses } = reader.finish()?;
        check_size(&config, origin)?;
        let info = Self { config, architecture, token_ids, dtype, quantization, notes, warnings };
        Ok((info, uses))
    }

    /// Reads config.json of a Hugging Face directory and, if present, the token ids of generation_config.json. `dir` may
    /// also be a GGUF file.
    pub fn read(dir: &Path) -> Result<Self> {
        if gguf::is_gguf(dir) {
            fsio::refuse_lfs_pointer(dir)?;
            return Self::from_json(gguf::ModelFile::open(dir)?.config(), dir);
        }
        let origin = dir.join("config.json");
        let mut info = Self::from_json(&read_json(&origin)?, &origin)?;
        let generation = dir.join("generation_config.json");
        if generation.exists() {
            let value = read_json(&generation)?;
            let vocab_size = info.config.vocab_size();
            info.token_ids.merge_generation_config(&value, vocab_size);
        }
        Ok(info)
    }
}

impl ModelConfig {
    /// The model's configuration alone. [`ModelInfo::from_json`] also returns warnings, which users should see for files
    /// that Temper did not write.
    pub fn from_json(value: &Value, origin: &Path) -> Result<Self> {
        Ok(ModelInfo::from_json(value, origin)?.config)
    }
}

fn read_json(path: &Path) -> Result<Value> {
    let text = fsio::read_text_capped(path, fsio::limits::CONFIG_BYTES)?;
    serde_json::from_str(&text)
        .map_err(|error| Error::Json { origin: path.to_owned(), message: error.to_string() })
}

fn read_family(reader: &mut ConfigReader) -> Result<Family> {
    let names: Vec<&str> = Family::ALL.iter().map(|family| family.name()).collect();
    let known = names.join(", ");
    let Some(name) = reader.text("model_type")? else {
        return Err(reader.missing("model_type", Some(&format!("supported families: {known}"))));
    };
    let family = Family::ALL.iter().find(|family| family.name() == name);
    family.copied().ok_or_else(|| Error::UnknownFamily {
        origin: reader.origin().to_owned(),
        found: name.chars().take(60).collect(),
        known,
    })
}

fn read_architecture(reader: &mut ConfigReader, family: Family) -> Result<Architecture> {
    let Some(value) = reader.value("architectures") else { return Ok(Architecture::CausalLm) };
    let given: Vec<&str> = value
        .as_array()
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let names = family.entry();
    match given.as_slice() {
        [name] if names.causal_lm.contains(name) => Ok(Architecture::CausalLm),
        [name] if names.sequence_classifier.contains(name) => Ok(Architecture::SequenceClassifier),
        _ => {
            let known = [names.causal_lm, names.sequence_classifier].concat().join(", ");
            let hint = format!("supported with model_type `{}`: {known}", names.model_type);
            Err(reader.unsupported("architectures", value, &hint))
        }
    }
}

/// Reads the code that a directory brings for its model. It is never run: classes of the family's own names are those that
/// transformers has meanwhile, others are refused.
fn read_auto_map(reader: &mut ConfigReader, family: Family) -> Result<()> {
    let entry = family.entry();
    let is_known = |class: &Value| {
        let name = class.as_str().and_then(|class| class.rsplit('.').next());
        name.is_some_and(|name| {
            entry.causal_lm.contains(&name) || entry.sequence_classifier.contains(&name)
        })
    };
    let are_known = |map: &Value| {
        let models = |(key, _): &(&String, &Value)| key.starts_with("AutoModel");
        map.as_object().is_some_and(|map| map.iter().filter(models).all(|(_, c)| is_known(c)))
    };
    reader.require("auto_map", are_known, "only models without it are supported")
}

/// Reads `dtype`, or `torch_dtype` in older files. For information only: weights have their own dtype.
fn read_dtype(reader: &mut ConfigReader) -> Result<Option<Dtype>> {
    let dtype = reader.text("dtype")?;
    let torch_dtype = reader.text("torch_dtype")?;
    Ok(dtype.or(torch_dtype).and_then(Dtype::from_name))
}

/// Reads `quantization_config`. The files say how each weight is packed; this says that they may be.
fn read_quantization(reader: &mut ConfigReader) -> Result<Option<Quantization>> {
    let Some(value) = reader.value("quantization_config").filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    let flag = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or(false);
    let method = value.get("quant_method").and_then(Value::as_str);
    match (method, flag("load_in_4bit"), flag("load_in_8bit")) {
        (Some("bitsandbytes"), true, false) => Ok(Some(Quantization::BitsAndBytes4)),
        (Some("bitsandbytes"), false, true) => Ok(Some(Quantization::BitsAndBytes8)),
        _ => {
            let hint =
                "supported: bitsandbytes in 4 or 8 bits; save the model without quantization";
            Err(reader.unsupported("quantization_config", value, hint))
        }
    }
}

/// Refuses models that are too large. Each single size has been checked already.
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
