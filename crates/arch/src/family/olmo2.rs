//! The family `olmo2` (Team OLMo 2024, 2 OLMo 2 Furious, section 3): norms after each half of a block instead of before, and
//! norms over whole queries and keys.

use serde_json::{Map, Value, json};

use super::{Family, FamilyEntry, ModelConfig};
use crate::config_reader::ConfigReader;
use crate::decoder::{CommonKeys, DecoderConfig, NormPlacement, QkNorm};
use crate::error::Result;

pub(super) const FAMILY: FamilyEntry = FamilyEntry {
    model_type: "olmo2",
    causal_lm: &["Olmo2ForCausalLM"],
    sequence_classifier: &["Olmo2ForSequenceClassification"],
    read,
    write,
    rereads_longrope: false,
    lora_targets: &[],
};

/// Reads what OLMo 2 and 3 share, but for the windows.
pub(super) fn read_common(
    reader: &mut ConfigReader,
    vocab_size: usize,
    family: Family,
) -> Result<DecoderConfig> {
    let has_rope_by_layer_type = family == Family::Olmo3;
    let keys = CommonKeys { has_rope_by_layer_type, ..CommonKeys::of_llama(family) };
    let common = keys.read(reader, vocab_size)?;
    let bias = reader.flag("attention_bias", false)?;
    Ok(DecoderConfig {
        norm_placement: NormPlacement::After,
        qk_norm: QkNorm::Whole,
        qkv_bias: bias,
        o_bias: bias,
        ..common
    })
}

fn read(reader: &mut ConfigReader, vocab_size: usize) -> Result<ModelConfig> {
    read_common(reader, vocab_size, Family::Olmo2).map(ModelConfig::Decoder)
}

fn write(config: &DecoderConfig, keys: &mut Map<String, Value>) {
    keys.insert("attention_bias".to_owned(), json!(config.qkv_bias));
}
