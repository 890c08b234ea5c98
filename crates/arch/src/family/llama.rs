//! The family `llama`: RMSNorm, RoPE, grouped key–value heads, SwiGLU (Touvron et al. 2023; Llama 3 herd of models 2024).

use serde_json::{Map, Value, json};

use super::{Family, FamilyEntry, ModelConfig};
use crate::config_reader::ConfigReader;
use crate::decoder::{CommonKeys, DecoderConfig};
use crate::error::Result;
use crate::rope::RopeKeys;

/// Files of transformers before this release have no key `rope_theta`: it was a constant.
const FIRST_RELEASE_WITH_THETA: (u64, u64) = (4, 33);

pub(super) const FAMILY: FamilyEntry = FamilyEntry {
    model_type: "llama",
    causal_lm: &["LlamaForCausalLM", "LLaMAForCausalLM"],
    sequence_classifier: &["LlamaForSequenceClassification", "LLaMAForSequenceClassification"],
    read,
    write,
    rereads_longrope: false,
    lora_targets: &["q_proj", "v_proj"],
};

/// The base of RoPE in files that are older than the key `rope_theta`.
fn theta_of_old_file(reader: &mut ConfigReader) -> Option<f64> {
    let version = reader.value("transformers_version")?.as_str()?;
    let mut numbers = version.split('.').map(|part| part.parse::<u64>().ok());
    let release = (numbers.next()??, numbers.next()??);
    (release < FIRST_RELEASE_WITH_THETA).then_some(10_000.0)
}

fn refuse_windows(reader: &mut ConfigReader) -> Result<()> {
    let is_windowed = reader.flag("use_sliding_window", true)?;
    let hint = "only full attention (null) is supported";
    reader.require("sliding_window", |_| !is_windowed, hint)?;
    let is_full = |v: &Value| {
        v.as_array().is_some_and(|types| types.iter().all(|t| t.as_str() == Some("full_attention")))
    };
    reader.require("layer_types", is_full, "supported: full_attention in all layers")
}

fn read(reader: &mut ConfigReader, vocab_size: usize) -> Result<ModelConfig> {
    let default_theta = theta_of_old_file(reader);
    let keys = CommonKeys {
        // The name in the first Llama files.
        positions_alias: Some("max_sequence_length"),
        rope: RopeKeys { default_theta, ..RopeKeys::default() },
        ..CommonKeys::of_llama(Family::Llama)
    };
    let common = keys.read(reader, vocab_size)?;
    refuse_windows(reader)?;
    // InternLM's name for the biases of all projections, in files that are otherwise those of Llama.
    let is_off = |v: &Value| v.as_bool() == Some(false);
    reader.require("bias", is_off, "use `attention_bias` and `mlp_bias`")?;
    // Falcon 3's name for what `hidden_act` says.
    let is_swiglu = |v: &Value| v.as_str() == Some("swiglu");
    reader.require("activation", is_swiglu, "use `hidden_act`")?;
    let attention_bias = reader.flag("attention_bias", false)?;
    let config = DecoderConfig {
        qkv_bias: attention_bias,
        o_bias: attention_bias,
        mlp_bias: reader.flag("mlp_bias", false)?,
        ..common
    };
    reader.training_dropout(&["hidden_dropout", "resid_pdrop", "embd_pdrop"])?;
    // Splits matrix products into slices, with the same result up to rounding; no longer read by transformers.
    reader.ignore(&["pretraining_tp"]);
    Ok(ModelConfig::Decoder(config))
}

fn write(config: &DecoderConfig, keys: &mut Map<String, Value>) {
    keys.insert("attention_bias".to_owned(), json!(config.qkv_bias));
    keys.insert("head_dim".to_owned(), json!(config.head_dim));
    keys.insert("mlp_bias".to_owned(), json!(config.mlp_bias));
    keys.insert("pretraining_tp".to_owned(), json!(1));
}
