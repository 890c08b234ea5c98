//! The family `mixtral` (Jiang et al. 2024, Mixtral of experts, section 2): Mistral with experts in place of the MLP, two of
//! which each token is sent to.

use serde_json::{Map, Value, json};

use super::{Family, FamilyEntry, ModelConfig};
use crate::config_reader::ConfigReader;
use crate::decoder::{CommonKeys, DecoderConfig, ExpertNaming, ExpertsConfig};
use crate::error::Result;
use crate::limits;

pub(super) const FAMILY: FamilyEntry = FamilyEntry {
    model_type: "mixtral",
    causal_lm: &["MixtralForCausalLM"],
    sequence_classifier: &["MixtralForSequenceClassification"],
    read,
    write,
    rereads_longrope: false,
    lora_targets: &["q_proj", "v_proj"],
};

fn read(reader: &mut ConfigReader, vocab_size: usize) -> Result<ModelConfig> {
    let mut config = CommonKeys::of_llama(Family::Mixtral).read(reader, vocab_size)?;
    let window = reader.size_or_none("sliding_window", 1..=limits::POSITIONS)?;
    config.set_windows(std::iter::repeat(window));
    let num_experts =
        reader.size_with_alias("num_local_experts", "num_experts", 1..=limits::EXPERTS)?;
    config.experts = Some(ExpertsConfig {
        num_experts,
        num_experts_per_tok: reader.size("num_experts_per_tok", 1..=num_experts)?,
        moe_intermediate_size: config.intermediate_size,
        norm_topk_prob: true,
        shared_expert_intermediate_size: None,
        router_aux_loss_coef: ExpertsConfig::read_aux_loss(reader)?,
        naming: ExpertNaming::BlockSparse,
    });
    config.layers.iter_mut().for_each(|layer| layer.is_sparse = true);
    // Noise of the router's input, in training only.
    reader.training_noise("router_jitter_noise")?;
    Ok(ModelConfig::Decoder(config))
}

fn write(config: &DecoderConfig, keys: &mut Map<String, Value>) {
    let Some(experts) = &config.experts else { return };
    keys.entry("head_dim").or_insert(Value::Null);
    keys.insert("num_experts_per_tok".to_owned(), json!(experts.num_experts_per_tok));
    keys.insert("num_local_experts".to_owned(), json!(experts.num_experts));
    keys.insert("output_router_logits".to_owned(), json!(false));
    keys.insert("router_aux_loss_coef".to_owned(), json!(experts.router_aux_loss_coef));
    keys.insert("router_jitter_noise".to_owned(), json!(0.0));
    keys.insert("sliding_window".to_owned(), json!(config.window()));
}
