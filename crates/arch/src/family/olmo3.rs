//! The family `olmo3` (Team OLMo 2025, OLMo 3): OLMo 2 with windows in three of four blocks, whose rotary embedding is never
//! scaled.

use serde_json::{Map, Value, json};

use super::{Family, FamilyEntry, ModelConfig, olmo2};
use crate::config_reader::ConfigReader;
use crate::decoder::{DecoderConfig, LayerTypes, layer_types, read_layer_types};
use crate::error::Result;
use crate::limits;
use crate::rope::RopeParameters;

pub(super) const FAMILY: FamilyEntry = FamilyEntry {
    model_type: "olmo3",
    causal_lm: &["Olmo3ForCausalLM"],
    sequence_classifier: &["Olmo3ForSequenceClassification"],
    read,
    write,
    rereads_longrope: false,
    lora_targets: &[],
};

/// The window in files that do not have the key.
const DEFAULT_WINDOW: usize = 4096;

fn read(reader: &mut ConfigReader, vocab_size: usize) -> Result<ModelConfig> {
    let mut config = olmo2::read_common(reader, vocab_size, Family::Olmo3)?;
    if let [full] = config.ropes.as_slice() {
        let sliding = RopeParameters::plain(full.rope_theta);
        config.ropes.push(sliding);
    }
    let types = LayerTypes {
        window: reader.size_or_null("sliding_window", 1..=limits::POSITIONS, DEFAULT_WINDOW)?,
        is_sliding: &|layer_idx| !(layer_idx + 1).is_multiple_of(4),
        hint: "set `sliding_window`",
    };
    let windows = read_layer_types(reader, config.layers.len(), &types)?;
    config.set_windows(windows);
    config.rotate_by_layer_type();
    Ok(ModelConfig::Decoder(config))
}

fn write(config: &DecoderConfig, keys: &mut Map<String, Value>) {
    keys.insert("attention_bias".to_owned(), json!(config.qkv_bias));
    keys.insert("layer_types".to_owned(), layer_types(config));
    keys.insert("sliding_window".to_owned(), json!(config.window()));
    config.write_ropes_by_layer_type(keys);
}
