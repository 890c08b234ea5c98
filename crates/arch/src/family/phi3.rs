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
    lora_targets: &[],
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

/// The keys of transformers 4, whose class for this family accepts LongRoPE's `type` and lists alone and computes the factor
/// of cosines and sines from the context lengths. Where the factor is another one, the keys of other families are written:
/// that class then refuses the file, and does not compute with a wrong factor.
fn write_older_rope(config: &DecoderConfig, keys: &mut Map<String, Value>) {
    let rope = config.rope_parameters();
    keys.insert("partial_rotary_factor".to_owned(), json!(rope.partial_rotary_factor));
    let RopeScaling::LongRope {
        short_factor,
        long_factor,
        original_max_position_embeddings,
        max_position_embeddings,
        ..
    } = &rope.scaling
    else {
        keys.insert(
            "original_max_position_embeddings".to_owned(),
            json!(config.max_position_embeddings),
        );
        return;
    };
    let derived = RopeScaling::LongRope {
        short_factor: short_factor.clone(),
        long_factor: long_factor.clone(),
        original_max_position_embeddings: *original_max_position_embeddings,
        factor: None,
        max_position_embeddings: *max_position_embeddings,
        attention_factor: None,
    };
    if derived.agrees_with(&rope.scaling) {
        let lists =
            json!({ "type": "longrope", "short_factor": short_factor, "long_factor": long_factor });
        keys.insert("rope_scaling".to_owned(), lists);
    }
}

fn write(config: &DecoderConfig, keys: &mut Map<String, Value>) {
    let rope = config.rope_parameters();
    if let Some(Value::Object(rope_keys)) = keys.get_mut("rope_parameters") {
        rope_keys.insert("partial_rotary_factor".to_owned(), json!(rope.partial_rotary_factor));
    }
    write_older_rope(config, keys);
    if config.qkv_bias {
        keys.insert("attention_bias".to_owned(), json!(true));
    }
    keys.insert("embd_pdrop".to_owned(), json!(0.0));
    keys.insert("resid_pdrop".to_owned(), json!(0.0));
    keys.insert("sliding_window".to_owned(), json!(config.window()));
}
