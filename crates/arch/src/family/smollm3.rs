//! The family `smollm3` (Bakouch et al. 2025, SmolLM3): Llama's blocks, every fourth of them without positions (Yang et al.
//! 2025, RoPE to NoPE and back again).

use serde_json::{Map, Value, json};

use super::{Family, FamilyEntry, ModelConfig};
use crate::config_reader::ConfigReader;
use crate::decoder::{CommonKeys, DecoderConfig, LayerTypes, layer_types, read_layer_types};
use crate::error::Result;
use crate::limits;

pub(super) const FAMILY: FamilyEntry = FamilyEntry {
    model_type: "smollm3",
    causal_lm: &["SmolLM3ForCausalLM"],
    sequence_classifier: &["SmolLM3ForSequenceClassification"],
    read,
    write,
    rereads_longrope: false,
    lora_targets: &[],
};

/// Blocks from one without positions to the next, in files that do not say.
const DEFAULT_INTERVAL: usize = 4;

/// Whether each block has positions; 1 in `no_rope_layers` means that it has.
fn read_positions(reader: &mut ConfigReader, n_layers: usize) -> Result<Vec<bool>> {
    let interval = reader.size_or_none("no_rope_layer_interval", 1..=limits::LAYERS)?;
    let interval = interval.unwrap_or(DEFAULT_INTERVAL);
    let Some(value) = reader.value("no_rope_layers") else {
        return Ok((1..=n_layers).map(|number| !number.is_multiple_of(interval)).collect());
    };
    let flags = value.as_array().and_then(|flags| {
        let flag = |flag: &Value| match flag.as_u64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        };
        flags.iter().map(flag).collect::<Option<Vec<bool>>>()
    });
    let flags = flags.filter(|flags| flags.len() == n_layers);
    let hint = "one 0 or 1 for each layer; 1 means that the layer has positions";
    flags.ok_or_else(|| reader.unsupported("no_rope_layers", value, hint))
}

fn read(reader: &mut ConfigReader, vocab_size: usize) -> Result<ModelConfig> {
    let keys = CommonKeys { is_tied: true, ..CommonKeys::of_llama(Family::SmolLm3) };
    let common = keys.read(reader, vocab_size)?;
    let bias = reader.flag("attention_bias", false)?;
    let mlp_bias = reader.flag("mlp_bias", false)?;
    let mut config = DecoderConfig { qkv_bias: bias, o_bias: bias, mlp_bias, ..common };
    let positions = read_positions(reader, config.layers.len())?;
    let is_windowed = reader.flag("use_sliding_window", false)?;
    let window = reader.size_or_none("sliding_window", 1..=limits::POSITIONS)?;
    let types = LayerTypes {
        window: window.filter(|_| is_windowed),
        is_sliding: &|layer_idx| !positions[layer_idx],
        hint: "set `use_sliding_window` and `sliding_window`",
    };
    let windows = read_layer_types(reader, config.layers.len(), &types)?;
    config.set_windows(windows);
    for (layer, has_positions) in config.layers.iter_mut().zip(positions) {
        layer.rope = has_positions.then_some(0);
    }
    Ok(ModelConfig::Decoder(config))
}

fn write(config: &DecoderConfig, keys: &mut Map<String, Value>) {
    let flags: Value = config.layers.iter().map(|layer| u8::from(layer.rope.is_some())).collect();
    keys.insert("attention_bias".to_owned(), json!(config.qkv_bias));
    keys.insert("layer_types".to_owned(), layer_types(config));
    keys.insert("mlp_bias".to_owned(), json!(config.mlp_bias));
    keys.insert("no_rope_layer_interval".to_owned(), json!(DEFAULT_INTERVAL));
    keys.insert("no_rope_layers".to_owned(), flags);
    keys.insert("sliding_window".to_owned(), json!(config.window()));
    keys.insert("use_sliding_window".to_owned(), json!(config.window().is_some()));
}
