//! The family `qwen3_moe` (Qwen3 technical report 2025, section 2): Qwen3 with experts in place of the MLP of some or all
//! blocks.

use serde_json::{Map, Value, json};

use super::{Family, FamilyEntry, ModelConfig};
use crate::config_reader::ConfigReader;
use crate::decoder::{CommonKeys, DecoderConfig, ExpertNaming, ExpertsConfig, QkNorm};
use crate::error::Result;
use crate::limits;

pub(super) const FAMILY: FamilyEntry = FamilyEntry {
    model_type: "qwen3_moe",
    causal_lm: &["Qwen3MoeForCausalLM"],
    sequence_classifier: &["Qwen3MoeForSequenceClassification"],
    read,
    write,
    rereads_longrope: false,
    lora_targets: &[],
};

/// Reads the experts of Qwen's mixtures and which blocks have them: every `decoder_sparse_step`-th block that is not in
/// `mlp_only_layers`.
pub(super) fn read_experts(reader: &mut ConfigReader, config: &mut DecoderConfig) -> Result<()> {
    let num_experts =
        reader.size_with_alias("num_experts", "num_local_experts", 1..=limits::EXPERTS)?;
    config.experts = Some(ExpertsConfig {
        num_experts,
        num_experts_per_tok: reader.size("num_experts_per_tok", 1..=num_experts)?,
        moe_intermediate_size: reader.size("moe_intermediate_size", 1..=limits::WIDTH)?,
        norm_topk_prob: reader.flag("norm_topk_prob", false)?,
        shared_expert_intermediate_size: None,
        router_aux_loss_coef: ExpertsConfig::read_aux_loss(reader)?,
        naming: ExpertNaming::Mlp,
    });
    let step = reader.size_or_none("decoder_sparse_step", 1..=limits::LAYERS)?.unwrap_or(1);
    let is_list = |v: &Value| v.as_array().is_some_and(|list| list.iter().all(Value::is_u64));
    reader.require("mlp_only_layers", is_list, "a list of layer numbers, from 0")?;
    let dense: Vec<u64> = match reader.value("mlp_only_layers").and_then(Value::as_array) {
        Some(list) => list.iter().filter_map(Value::as_u64).collect(),
        None => Vec::new(),
    };
    for (layer_idx, layer) in config.layers.iter_mut().enumerate() {
        let is_dense = dense.contains(&(layer_idx as u64));
        layer.is_sparse = !is_dense && (layer_idx + 1).is_multiple_of(step);
    }
    Ok(())
}

/// Writes the experts. Every dense block is in `mlp_only_layers`.
pub(super) fn write_experts(
    config: &DecoderConfig,
    n_experts_key: &str,
    keys: &mut Map<String, Value>,
) {
    let Some(experts) = &config.experts else { return };
    let layers = config.layers.iter().enumerate();
    let dense = layers.filter(|(_, layer)| !layer.is_sparse).map(|(layer_idx, _)| layer_idx);
    let mut put = |key: &str, value: Value| keys.insert(key.to_owned(), value);
    put("decoder_sparse_step", json!(1));
    put("mlp_only_layers", dense.collect());
    put("moe_intermediate_size", json!(experts.moe_intermediate_size));
    put("norm_topk_prob", json!(experts.norm_topk_prob));
    put(n_experts_key, json!(experts.num_experts));
    put("num_experts_per_tok", json!(experts.num_experts_per_tok));
    put("output_router_logits", json!(false));
    put("router_aux_loss_coef", json!(experts.router_aux_loss_coef));
}

fn read(reader: &mut ConfigReader, vocab_size: usize) -> Result<ModelConfig> {
    let common = CommonKeys::of_llama(Family::Qwen3Moe).read(reader, vocab_size)?;
    let bias = reader.flag("attention_bias", false)?;
    let mut config =
        DecoderConfig { qk_norm: QkNorm::Heads, qkv_bias: bias, o_bias: bias, ..common };
    let is_windowed = reader.flag("use_sliding_window", false)?;
    let window = reader.size_or_none("sliding_window", 1..=limits::POSITIONS)?;
    config.set_windows(std::iter::repeat(window.filter(|_| is_windowed)));
    reader.ignore(&["max_window_layers"]);
    read_experts(reader, &mut config)?;
    Ok(ModelConfig::Decoder(config))
}

fn write(config: &DecoderConfig, keys: &mut Map<String, Value>) {
    keys.insert("attention_bias".to_owned(), json!(config.qkv_bias));
    keys.insert("head_dim".to_owned(), json!(config.head_dim));
    keys.insert("sliding_window".to_owned(), json!(config.window()));
    keys.insert("use_sliding_window".to_owned(), json!(config.window().is_some()));
    write_experts(config, "num_local_experts", keys);
    // The name in transformers 4 and in mlx-lm.
    if let Some(experts) = &config.experts {
        keys.insert("num_experts".to_owned(), json!(experts.num_experts));
    }
}
