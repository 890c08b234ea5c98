//! The family `phi3` (Abdin et al. 2024, Phi-3 technical report): Llama's blocks with queries, keys and values in one
//! projection, gate and up in another; LongRoPE and partial rotation in the variants for long contexts.

use serde_json::{Map, Value, json};

use super::{Family, FamilyEntry, ModelConfig};
use crate::config_reader::ConfigReader;
use crate::decoder::{CommonKeys, DecoderConfig};
use crate::error::Result;
use crate::limits;
use crate::rope::{RopeKeys, RopeScaling};

pub(super) const FAMILY: FamilyEntry = FamilyEntry {
    model_type: "phi3",
    causal_lm: &["Phi3ForCausalLM"],
    sequence_classifier: &["Phi3ForSequenceClassification"],
    read,
    write,
    rereads_longrope: true,
};

fn read(reader: &mut ConfigReader, vocab_size: usize) -> Result<ModelConfig> {
    let rope = RopeKeys { has_partial: true, ..RopeKeys::default() };
    let common =
        CommonKeys { rope, ..CommonKeys::of_llama(Family::Phi3) }.read(reader, vocab_size)?;
    let bias = reader.flag("attention_bias", false)?;
    let mut config = DecoderConfig {
        is_qkv_packed: true,
        is_mlp_packed: true,
        qkv_bias: bias,
        o_bias: bias,
        ..common
    };
    let window = reader.size_or_none("sliding_window", 1..=limits::POSITIONS)?;
    config.set_windows(std::iter::repeat(window));
    reader.training_dropout(&["embd_pdrop", "resid_pdrop"])?;
    Ok(ModelConfig::Decoder(config))
}

fn write(config: &DecoderConfig, keys: &mut Map<String, Value>) {
    let rope = config.rope_parameters();
    let original = match rope.scaling {
        RopeScaling::LongRope { original_max_position_embeddings, .. } => {
            original_max_position_embeddings
        }
        RopeScaling::Default
        | RopeScaling::Linear { .. }
        | RopeScaling::Llama3 { .. }
        | RopeScaling::Yarn { .. }
        | RopeScaling::Dynamic { .. } => config.max_position_embeddings,
    };
    if let Some(Value::Object(rope_keys)) = keys.get_mut("rope_parameters") {
        rope_keys.insert("partial_rotary_factor".to_owned(), json!(rope.partial_rotary_factor));
    }
    if config.qkv_bias {
        keys.insert("attention_bias".to_owned(), json!(true));
    }
    keys.insert("embd_pdrop".to_owned(), json!(0.0));
    keys.insert("original_max_position_embeddings".to_owned(), json!(original));
    keys.insert("resid_pdrop".to_owned(), json!(0.0));
    keys.insert("sliding_window".to_owned(), json!(config.window()));
}
