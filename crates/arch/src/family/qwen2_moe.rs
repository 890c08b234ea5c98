//! The family `qwen2_moe` (Qwen2 technical report 2024, section 2.2): Qwen2 with experts in place of the MLP, one of which
//! every token is sent to.

use serde_json::{Map, Value, json};

use super::{Family, FamilyEntry, ModelConfig, qwen3_moe};
use crate::config_reader::ConfigReader;
use crate::decoder::{CommonKeys, DecoderConfig, LayerTypes, layer_types, read_layer_types};
use crate::error::Result;
use crate::limits;

pub(super) const FAMILY: FamilyEntry = FamilyEntry {
    model_type: "qwen2_moe",
    causal_lm: &["Qwen2MoeForCausalLM"],
    sequence_classifier: &["Qwen2MoeForSequenceClassification"],
    read,
    write,
    rereads_longrope: false,
    lora_targets: &[],
};

fn read(reader: &mut ConfigReader, vocab_size: usize) -> Result<ModelConfig> {
    let common = CommonKeys::of_llama(Family::Qwen2Moe).read(reader, vocab_size)?;
    let mut config = DecoderConfig { qkv_bias: reader.flag("qkv_bias", true)?, ..common };
    let is_windowed = reader.flag("use_sliding_window", false)?;
    let window = reader.size_or_none("sliding_window", 0..=limits::POSITIONS)?;
    let n_windowed = reader.size_or_none("max_window_layers", 0..=limits::LAYERS)?.unwrap_or(28);
    let types = LayerTypes {
        window: window.filter(|window| is_windowed && *window > 0),
        is_sliding: &|layer_idx| layer_idx.is_multiple_of(2) && layer_idx < n_windowed,
        hint: "set `use_sliding_window` and `sliding_window`",
    };
    let windows = read_layer_types(reader, config.layers.len(), &types)?;
    config.set_windows(windows);
    qwen3_moe::read_experts(reader, &mut config)?;
    let shared = reader.size("shared_expert_intermediate_size", 1..=limits::WIDTH)?;
    if let Some(experts) = &mut config.experts {
        experts.shared_expert_intermediate_size = Some(shared);
    }
    Ok(ModelConfig::Decoder(config))
}

fn write(config: &DecoderConfig, keys: &mut Map<String, Value>) {
    let shared = config.experts.and_then(|experts| experts.shared_expert_intermediate_size);
    keys.insert("layer_types".to_owned(), layer_types(config));
    keys.insert("max_window_layers".to_owned(), json!(config.layers.len()));
    keys.insert("qkv_bias".to_owned(), json!(config.qkv_bias));
    keys.insert("shared_expert_intermediate_size".to_owned(), json!(shared));
    keys.insert("sliding_window".to_owned(), json!(config.window().unwrap_or(0)));
    keys.insert("use_sliding_window".to_owned(), json!(config.window().is_some()));
    qwen3_moe::write_experts(config, "num_experts", keys);
}
