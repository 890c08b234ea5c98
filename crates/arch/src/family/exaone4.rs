//! The family `exaone4` (LG AI Research 2025, EXAONE 4.0, section 2): norms after each half of a block and on queries and keys,
//! windows in three of four blocks, and no positions in the others.

use serde_json::{Map, Value, json};

use super::{Family, FamilyEntry, ModelConfig};
use crate::config_reader::ConfigReader;
use crate::decoder::{
    CommonKeys, DecoderConfig, LayerTypes, NormPlacement, QkNorm, layer_types, read_layer_types,
};
use crate::error::Result;
use crate::limits;

pub(super) const FAMILY: FamilyEntry = FamilyEntry {
    model_type: "exaone4",
    causal_lm: &["Exaone4ForCausalLM"],
    sequence_classifier: &["Exaone4ForSequenceClassification"],
    read,
    write,
    rereads_longrope: false,
    lora_targets: &[],
};

/// The window in files that do not have the key.
const DEFAULT_WINDOW: usize = 4096;
/// Blocks from one with full attention to the next, in files that do not say.
const DEFAULT_PATTERN: usize = 4;

fn read(reader: &mut ConfigReader, vocab_size: usize) -> Result<ModelConfig> {
    let common = CommonKeys::of_llama(Family::Exaone4).read(reader, vocab_size)?;
    let mut config =
        DecoderConfig { norm_placement: NormPlacement::After, qk_norm: QkNorm::Heads, ..common };
    let window = reader.size_or_null("sliding_window", 1..=limits::POSITIONS, DEFAULT_WINDOW)?;
    let pattern = read_pattern(reader)?;
    let types = LayerTypes {
        window,
        is_sliding: &|layer_idx| !(layer_idx + 1).is_multiple_of(pattern),
        hint: "set `sliding_window`",
    };
    let windows = read_layer_types(reader, config.layers.len(), &types)?;
    config.set_windows(windows);
    if window.is_some() {
        if config.window().is_none() {
            let message = "`sliding_window` is set, but no layer has a window".to_owned();
            return Err(reader.inconsistent(message, Some("set `sliding_window` to null")));
        }
        for layer in &mut config.layers {
            layer.rope = layer.window.map(|_| 0);
        }
    }
    Ok(ModelConfig::Decoder(config))
}

/// Every block of this number has full attention. Published files have a text, `LLLG`, beside `layer_types`, which decide.
fn read_pattern(reader: &mut ConfigReader) -> Result<usize> {
    const KEY: &str = "sliding_window_pattern";
    if reader.value("layer_types").is_some() {
        reader.value(KEY);
        return Ok(DEFAULT_PATTERN);
    }
    let pattern = reader.size_or_none(KEY, 1..=limits::LAYERS)?;
    Ok(pattern.unwrap_or(DEFAULT_PATTERN))
}

fn write(config: &DecoderConfig, keys: &mut Map<String, Value>) {
    let pattern = config.window().and_then(|_| config.window_pattern());
    keys.insert("layer_types".to_owned(), layer_types(config));
    keys.insert("sliding_window".to_owned(), json!(config.window()));
    keys.insert("sliding_window_pattern".to_owned(), json!(pattern));
}
