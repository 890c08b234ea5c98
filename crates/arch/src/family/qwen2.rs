//! The family `qwen2` (Qwen2 and Qwen2.5 technical reports 2024): Llama's blocks with biases of queries, keys and values;
//! the upper blocks may have an attention window.

use serde_json::{Map, Value, json};

use super::{Family, FamilyEntry, ModelConfig};
use crate::config_reader::ConfigReader;
use crate::decoder::{CommonKeys, DecoderConfig, LayerTypes, layer_types, read_layer_types};
use crate::error::Result;
use crate::limits;

pub(super) const FAMILY: FamilyEntry = FamilyEntry {
    model_type: "qwen2",
    causal_lm: &["Qwen2ForCausalLM"],
    sequence_classifier: &["Qwen2ForSequenceClassification"],
    read,
    write,
    rereads_longrope: false,
    lora_targets: &["q_proj", "v_proj"],
};

/// The attention window of each block. Files without `layer_types` count the blocks with full attention in
/// `max_window_layers`.
pub(super) fn read_windows(reader: &mut ConfigReader, config: &mut DecoderConfig) -> Result<()> {
    let is_windowed = reader.flag("use_sliding_window", false)?;
    let window = reader.size_or_none("sliding_window", 1..=limits::POSITIONS)?;
    let n_full = reader.size_or_none("max_window_layers", 0..=limits::LAYERS)?.unwrap_or(28);
    let types = LayerTypes {
        window: window.filter(|_| is_windowed),
        is_sliding: &|layer_idx| layer_idx >= n_full,
        hint: "set `use_sliding_window` and `sliding_window`",
    };
    let windows = read_layer_types(reader, config.layers.len(), &types)?;
    config.set_windows(windows);
    Ok(())
}

/// Writes the windows as the files of Qwen have them.
pub(super) fn write_windows(config: &DecoderConfig, keys: &mut Map<String, Value>) {
    keys.insert("layer_types".to_owned(), layer_types(config));
    keys.insert("max_window_layers".to_owned(), json!(config.n_full_below_windows()));
    keys.insert("sliding_window".to_owned(), json!(config.window()));
    keys.insert("use_sliding_window".to_owned(), json!(config.window().is_some()));
}

fn read(reader: &mut ConfigReader, vocab_size: usize) -> Result<ModelConfig> {
    let common = CommonKeys::of_llama(Family::Qwen2).read(reader, vocab_size)?;
    let mut config = DecoderConfig { qkv_bias: true, ..common };
    read_windows(reader, &mut config)?;
    Ok(ModelConfig::Decoder(config))
}

fn write(config: &DecoderConfig, keys: &mut Map<String, Value>) {
    write_windows(config, keys);
}
