//! The family `qwen3`: Llama's blocks with an RMSNorm on each query head and each key head before the rotation, and
//! heads of a width of their own (Qwen3 technical report 2025, section 2).

use serde_json::{Map, Value, json};

use super::{Family, FamilyEntry, ModelConfig, qwen2};
use crate::config_reader::ConfigReader;
use crate::decoder::{CommonKeys, DecoderConfig, HeadDim, QkNorm};
use crate::error::Result;

pub(super) const FAMILY: FamilyEntry = FamilyEntry {
    model_type: "qwen3",
    causal_lm: &["Qwen3ForCausalLM"],
    sequence_classifier: &["Qwen3ForSequenceClassification"],
    read,
    write,
    rereads_longrope: false,
    lora_targets: &["q_proj", "v_proj"],
};

/// Width of a head in files that do not state it.
const HEAD_DIM: HeadDim = HeadDim::Constant(128);

fn read(reader: &mut ConfigReader, vocab_size: usize) -> Result<ModelConfig> {
    let keys = CommonKeys { head_dim: HEAD_DIM, ..CommonKeys::of_llama(Family::Qwen3) };
    let common = keys.read(reader, vocab_size)?;
    let bias = reader.flag("attention_bias", false)?;
    let mut config =
        DecoderConfig { qk_norm: QkNorm::Heads, qkv_bias: bias, o_bias: bias, ..common };
    qwen2::read_windows(reader, &mut config)?;
    Ok(ModelConfig::Decoder(config))
}

fn write(config: &DecoderConfig, keys: &mut Map<String, Value>) {
    keys.insert("attention_bias".to_owned(), json!(config.qkv_bias));
    keys.insert("head_dim".to_owned(), json!(config.head_dim));
    qwen2::write_windows(config, keys);
}
