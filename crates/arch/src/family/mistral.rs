//! The family `mistral`: Llama's blocks with one attention window in all of them (Jiang et al. 2023, Mistral 7B, section 2).

use serde_json::{Map, Value, json};

use super::{Family, FamilyEntry, ModelConfig};
use crate::config_reader::ConfigReader;
use crate::decoder::{CommonKeys, DecoderConfig, require_uniform_layer_types};
use crate::error::Result;
use crate::limits;

pub(super) const FAMILY: FamilyEntry = FamilyEntry {
    model_type: "mistral",
    causal_lm: &["MistralForCausalLM"],
    sequence_classifier: &["MistralForSequenceClassification"],
    read,
    write,
    rereads_longrope: false,
    lora_targets: &["q_proj", "v_proj"],
};

/// The window in files that do not have the key.
const DEFAULT_WINDOW: usize = 4096;

fn read(reader: &mut ConfigReader, vocab_size: usize) -> Result<ModelConfig> {
    let mut config = CommonKeys::of_llama(Family::Mistral).read(reader, vocab_size)?;
    let range = 1..=limits::POSITIONS;
    let window = reader.size_or_null("sliding_window", range, DEFAULT_WINDOW)?;
    require_uniform_layer_types(reader, window)?;
    config.set_windows(std::iter::repeat(window));
    Ok(ModelConfig::Decoder(config))
}

fn write(config: &DecoderConfig, keys: &mut Map<String, Value>) {
    keys.insert("head_dim".to_owned(), json!(config.head_dim));
    keys.insert("sliding_window".to_owned(), json!(config.window()));
}
