//! The family `gemma3_text`, the language model of Gemma 3 (Gemma Team 2025, Gemma 3, section 2): Gemma 2 with norms on
//! queries and keys; five windowed blocks for each one with full attention; windowed blocks have a rotary base of their own,
//! and scaling is for the others alone.

use serde_json::{Map, Value, json};

use super::{Family, FamilyEntry, ModelConfig, gemma2};
use crate::config_reader::ConfigReader;
use crate::decoder::{DecoderConfig, LayerTypes, QkNorm, read_layer_types};
use crate::error::Result;
use crate::limits;
use crate::rope::RopeParameters;

pub(super) const FAMILY: FamilyEntry = FamilyEntry {
    model_type: "gemma3_text",
    causal_lm: &["Gemma3ForCausalLM"],
    sequence_classifier: &[
        "Gemma3TextForSequenceClassification",
        "Gemma3ForSequenceClassification",
    ],
    read,
    write,
    rereads_longrope: false,
    lora_targets: &["q_proj", "v_proj"],
};

/// Blocks from one with full attention to the next, in files that do not say.
const DEFAULT_PATTERN: usize = 6;
/// Base of the rotary embedding of windowed blocks, in files that do not say.
const DEFAULT_LOCAL_THETA: f64 = 10_000.0;

fn read(reader: &mut ConfigReader, vocab_size: usize) -> Result<ModelConfig> {
    let mut config = gemma2::read_common(reader, vocab_size, Family::Gemma3Text, [None; 2])?;
    config.qk_norm = QkNorm::Heads;
    let local_theta = reader.float_or_none("rope_local_base_freq", 1.000_001..=1e15)?;
    match (config.ropes.get(1), local_theta) {
        (None, theta) => {
            config.ropes.push(RopeParameters::plain(theta.unwrap_or(DEFAULT_LOCAL_THETA)));
        }
        (Some(sliding), Some(theta)) if sliding.rope_theta != theta => {
            let message = format!(
                "`rope_local_base_freq` is `{theta}` and `rope_parameters.sliding_attention.rope_theta` is `{}`",
                sliding.rope_theta
            );
            return Err(reader.inconsistent(message, Some("keep the one in `rope_parameters`")));
        }
        (Some(_), _) => {}
    }
    let pattern = reader.size_or_none("sliding_window_pattern", 1..=limits::LAYERS)?;
    let pattern = pattern.unwrap_or(DEFAULT_PATTERN);
    let types = LayerTypes {
        window: gemma2::read_window(reader)?,
        is_sliding: &|layer_idx| !(layer_idx + 1).is_multiple_of(pattern),
        hint: "set `sliding_window`",
    };
    let windows = read_layer_types(reader, config.layers.len(), &types)?;
    config.set_windows(windows);
    config.rotate_by_layer_type();
    Ok(ModelConfig::Decoder(config))
}

fn write(config: &DecoderConfig, keys: &mut Map<String, Value>) {
    gemma2::write_common(config, keys);
    keys.insert("use_bidirectional_attention".to_owned(), json!(false));
    config.write_ropes_by_layer_type(keys);
    // transformers 4 and mlx-lm.
    if let Some(sliding) = config.ropes.get(1) {
        keys.insert("rope_local_base_freq".to_owned(), json!(sliding.rope_theta));
    }
    if let Some(pattern) = config.window_pattern() {
        keys.insert("sliding_window_pattern".to_owned(), json!(pattern));
    }
}
