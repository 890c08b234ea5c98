//! The family `gemma2` (Gemma Team 2024, Gemma 2, section 2): norms before and after each half of a block, which multiply
//! by 1 + weight; soft caps of scores and logits; windows in every other block, the first included; GeGLU; embeddings
//! multiplied by the square root of their width.

use serde_json::{Map, Value, json};

use super::{Activation, Family, FamilyEntry, ModelConfig};
use crate::config_reader::ConfigReader;
use crate::decoder::{
    AttentionScale, CommonKeys, DecoderConfig, HeadDim, LayerTypes, NormPlacement, layer_types,
    read_layer_types,
};
use crate::error::Result;
use crate::limits;

pub(super) const FAMILY: FamilyEntry = FamilyEntry {
    model_type: "gemma2",
    causal_lm: &["Gemma2ForCausalLM"],
    sequence_classifier: &["Gemma2ForSequenceClassification"],
    read,
    write,
    rereads_longrope: false,
    lora_targets: &["q_proj", "v_proj"],
};

/// Width of a head in files that do not state it.
const HEAD_DIM: HeadDim = HeadDim::Constant(256);

/// The window in files that do not have the key.
const DEFAULT_WINDOW: usize = 4096;
const CAP: std::ops::RangeInclusive<f64> = 1e-3..=1e6;

/// The window of blocks that have one.
pub(super) fn read_window(reader: &mut ConfigReader) -> Result<Option<usize>> {
    reader.size_or_null("sliding_window", 1..=limits::POSITIONS, DEFAULT_WINDOW)
}

/// Reads what Gemma 2 and 3 share, but for the windows. `caps` are the soft caps of scores and logits in files that do not
/// have the keys.
pub(super) fn read_common(
    reader: &mut ConfigReader,
    vocab_size: usize,
    family: Family,
    caps: [Option<f64>; 2],
) -> Result<DecoderConfig> {
    let keys = CommonKeys {
        head_dim: HEAD_DIM,
        activation_key: "hidden_activation",
        activation: Activation::GeluTanh,
        has_rope_by_layer_type: family == Family::Gemma3Text,
        is_tied: true,
        ..CommonKeys::of_llama(family)
    };
    let common = keys.read(reader, vocab_size)?;
    let bias = reader.flag("attention_bias", false)?;
    let scalar = reader.float_or_none("query_pre_attn_scalar", 1e-3..=1e6)?.unwrap_or(256.0);
    let is_causal = |v: &Value| v.as_bool() == Some(false);
    reader.require(
        "use_bidirectional_attention",
        is_causal,
        "only causal attention is supported",
    )?;
    // The files of the first release name the activation twice, and the class that holds the cache.
    reader.ignore(&["hidden_act", "cache_implementation", "sliding_window_size"]);
    Ok(DecoderConfig {
        norm_adds_one: true,
        norm_placement: NormPlacement::Both,
        qkv_bias: bias,
        o_bias: bias,
        attention_scale: AttentionScale::InverseRoot(scalar),
        attn_logit_softcapping: reader.float_or_null("attn_logit_softcapping", CAP, caps[0])?,
        final_logit_softcapping: reader.float_or_null("final_logit_softcapping", CAP, caps[1])?,
        embedding_multiplier: (common.hidden_size as f64).sqrt(),
        ..common
    })
}

/// Writes what Gemma 2 and 3 share.
pub(super) fn write_common(config: &DecoderConfig, keys: &mut Map<String, Value>) {
    if let Some(activation) = keys.remove("hidden_act") {
        keys.insert("hidden_activation".to_owned(), activation);
    }
    let scalar = match config.attention_scale {
        AttentionScale::InverseRoot(scalar) => scalar,
        AttentionScale::HeadDim | AttentionScale::Factor(_) => config.head_dim as f64,
    };
    // A whole number in published files.
    let scalar = if scalar.fract() == 0.0 { json!(scalar as u64) } else { json!(scalar) };
    keys.insert("attention_bias".to_owned(), json!(config.qkv_bias));
    keys.insert("attn_logit_softcapping".to_owned(), json!(config.attn_logit_softcapping));
    keys.insert("final_logit_softcapping".to_owned(), json!(config.final_logit_softcapping));
    keys.insert("head_dim".to_owned(), json!(config.head_dim));
    keys.insert("layer_types".to_owned(), layer_types(config));
    keys.insert("query_pre_attn_scalar".to_owned(), scalar);
    keys.insert("sliding_window".to_owned(), json!(config.window()));
}

fn read(reader: &mut ConfigReader, vocab_size: usize) -> Result<ModelConfig> {
    let caps = [Some(50.0), Some(30.0)];
    let mut config = read_common(reader, vocab_size, Family::Gemma2, caps)?;
    let types = LayerTypes {
        window: read_window(reader)?,
        is_sliding: &|layer_idx| layer_idx.is_multiple_of(2),
        hint: "set `sliding_window`",
    };
    let windows = read_layer_types(reader, config.layers.len(), &types)?;
    config.set_windows(windows);
    Ok(ModelConfig::Decoder(config))
}

fn write(config: &DecoderConfig, keys: &mut Map<String, Value>) {
    write_common(config, keys);
    keys.insert("use_bidirectional_attention".to_owned(), Value::Null);
}
