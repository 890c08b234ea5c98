//! The family `granite` (IBM 2024, Granite 3.0 language models): Llama's blocks with multipliers of embeddings, attention
//! scores and the residual stream, and a divisor of logits.

use serde_json::{Map, Value, json};

use super::{Family, FamilyEntry, ModelConfig};
use crate::config_reader::ConfigReader;
use crate::decoder::{AttentionScale, CommonKeys, DecoderConfig};
use crate::error::Result;

pub(super) const FAMILY: FamilyEntry = FamilyEntry {
    model_type: "granite",
    causal_lm: &["GraniteForCausalLM"],
    sequence_classifier: &["GraniteForSequenceClassification"],
    read,
    write,
    rereads_longrope: false,
    lora_targets: &[],
};

const RANGE: std::ops::RangeInclusive<f64> = 1e-6..=1e6;

fn read(reader: &mut ConfigReader, vocab_size: usize) -> Result<ModelConfig> {
    let common = CommonKeys::of_llama(Family::Granite).read(reader, vocab_size)?;
    let bias = reader.flag("attention_bias", false)?;
    let mut multiplier =
        |key: &str| reader.float_or_none(key, RANGE).map(|found| found.unwrap_or(1.0));
    let config = DecoderConfig {
        qkv_bias: bias,
        o_bias: bias,
        attention_scale: AttentionScale::Factor(multiplier("attention_multiplier")?),
        embedding_multiplier: multiplier("embedding_multiplier")?,
        residual_multiplier: multiplier("residual_multiplier")?,
        logits_scaling: multiplier("logits_scaling")?,
        mlp_bias: reader.flag("mlp_bias", false)?,
        ..common
    };
    Ok(ModelConfig::Decoder(config))
}

fn write(config: &DecoderConfig, keys: &mut Map<String, Value>) {
    let mut put = |key: &str, value: Value| keys.insert(key.to_owned(), value);
    put("attention_bias", json!(config.qkv_bias));
    put("attention_multiplier", json!(config.score_scale()));
    put("embedding_multiplier", json!(config.embedding_multiplier));
    put("logits_scaling", json!(config.logits_scaling));
    put("mlp_bias", json!(config.mlp_bias));
    put("residual_multiplier", json!(config.residual_multiplier));
}
