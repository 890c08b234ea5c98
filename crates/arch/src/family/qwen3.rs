//! The family `qwen3`: Llama's blocks with an RMSNorm on each query head and each key head before the rotation, and
//! heads of a width of their own (Qwen3 technical report 2025, section 2).
//! Keys of config.json, parameter table and costs; the module is in the crate `model`.

use serde_json::{Map, Value, json};

use super::llama::{HeadSizes, LlamaConfig};
use crate::config_reader::ConfigReader;
use crate::cost::{ActivationCount, KernelPath};
use crate::error::Result;
use crate::family_config::{FamilyConfig, FamilyNames};
use crate::limits;
use crate::params::ParamSpec;
use crate::rope::RopeParameters;
use crate::sizes::Sizes;

/// Width of a head in files that do not state it.
const DEFAULT_HEAD_DIM: usize = 128;

/// Configuration of a model of the family `qwen3`.
#[derive(Debug, Clone, PartialEq)]
pub struct Qwen3Config {
    /// All that it shares with Llama. `mlp_bias` is false.
    pub decoder: LlamaConfig,
    /// Attention window of each block; `None`: all earlier positions.
    pub windows: Vec<Option<usize>>,
}

/// The attention window of each block. Files without `layer_types` count the blocks with full attention in
/// `max_window_layers`.
fn read_windows(reader: &mut ConfigReader, n_layers: usize) -> Result<Vec<Option<usize>>> {
    let is_windowed = reader.flag("use_sliding_window", false)?;
    let window = reader.size_or_none("sliding_window", 1..=limits::POSITIONS)?;
    let window = window.filter(|_| is_windowed);
    let n_full = reader.size_or_none("max_window_layers", 0..=limits::LAYERS)?.unwrap_or(28);
    let is_known = |v: &Value| {
        let name = |t: &Value| matches!(t.as_str(), Some("full_attention" | "sliding_attention"));
        v.as_array().is_some_and(|types| types.len() == n_layers && types.iter().all(name))
    };
    let hint = "supported: full_attention and sliding_attention, one entry for each layer";
    reader.require("layer_types", is_known, hint)?;
    let Some(types) = reader.value("layer_types").and_then(Value::as_array) else {
        return Ok((0..n_layers).map(|layer| window.filter(|_| layer >= n_full)).collect());
    };
    let is_full = |layer_type: &Value| layer_type.as_str() == Some("full_attention");
    if window.is_none() && !types.iter().all(is_full) {
        let message = "`layer_types` has sliding_attention, but there is no window".to_owned();
        let hint = "set `use_sliding_window` and `sliding_window`";
        return Err(reader.inconsistent(message, Some(hint)));
    }
    Ok(types.iter().map(|layer_type| window.filter(|_| !is_full(layer_type))).collect())
}

impl FamilyConfig for Qwen3Config {
    fn names() -> FamilyNames {
        FamilyNames {
            model_type: "qwen3",
            causal_lm: &["Qwen3ForCausalLM"],
            sequence_classifier: &["Qwen3ForSequenceClassification"],
        }
    }

    fn read(reader: &mut ConfigReader, vocab_size: usize) -> Result<Self> {
        let hidden_size = reader.size("hidden_size", 1..=limits::WIDTH)?;
        let heads = HeadSizes::read(reader, |_| DEFAULT_HEAD_DIM)?;
        let max_position_embeddings =
            reader.size("max_position_embeddings", 1..=limits::POSITIONS)?;
        let is_silu = |v: &Value| matches!(v.as_str(), Some("silu" | "swish"));
        reader.require("hidden_act", is_silu, "supported: silu")?;
        let num_hidden_layers = reader.size("num_hidden_layers", 1..=limits::LAYERS)?;
        let initializer_range = reader.float_or_none("initializer_range", 1e-6..=1.0)?;
        let decoder = LlamaConfig {
            vocab_size,
            hidden_size,
            intermediate_size: reader.size("intermediate_size", 1..=limits::WIDTH)?,
            num_hidden_layers,
            num_attention_heads: heads.n_heads,
            num_key_value_heads: heads.n_kv_heads,
            head_dim: heads.head_dim,
            max_position_embeddings,
            rms_norm_eps: reader.float("rms_norm_eps", 0.0..=1.0)?,
            rope_parameters: RopeParameters::read(reader, None, max_position_embeddings)?,
            tie_word_embeddings: reader.flag("tie_word_embeddings", false)?,
            attention_bias: reader.flag("attention_bias", false)?,
            mlp_bias: false,
            initializer_range: initializer_range.unwrap_or(0.02),
        };
        reader.training_dropout(&["attention_dropout"])?;
        let windows = read_windows(reader, num_hidden_layers)?;
        Ok(Self { decoder, windows })
    }

    fn sizes(&self) -> Sizes {
        self.decoder.sizes()
    }

    fn parameters(&self) -> Vec<ParamSpec> {
        self.decoder.language_model(true)
    }

    fn sequence_classifier_parameters(&self) -> Vec<ParamSpec> {
        self.decoder.sequence_classifier(true)
    }

    fn base_prefix(&self) -> &'static str {
        self.decoder.base_prefix()
    }

    fn is_derived_tensor(&self, name: &str) -> bool {
        self.decoder.is_derived_tensor(name)
    }

    fn attention_window(&self, layer_idx: usize) -> Option<usize> {
        self.windows.get(layer_idx).copied().flatten()
    }

    fn to_keys(&self) -> Map<String, Value> {
        let mut map = self.decoder.to_keys();
        map.retain(|key, _| key != "mlp_bias" && key != "pretraining_tp");
        let window = self.windows.iter().copied().flatten().next();
        let layer_type = |window: &Option<usize>| match window {
            Some(_) => "sliding_attention",
            None => "full_attention",
        };
        map.insert("layer_types".to_owned(), self.windows.iter().map(layer_type).collect());
        map.insert("max_window_layers".to_owned(), json!(self.windows.len()));
        map.insert("sliding_window".to_owned(), json!(window));
        map.insert("use_sliding_window".to_owned(), json!(window.is_some()));
        map
    }

    fn activations(&self, kernel_path: KernelPath) -> ActivationCount {
        let decoder = &self.decoder;
        let rotated = (decoder.query_width() + decoder.key_value_width()) as u64;
        let count = decoder.activations(kernel_path);
        // Queries and keys are kept as split from the projection, normalised, and rotated, in place of packed.
        ActivationCount { block: count.block + 3 * rotated, ..count }
    }
}
