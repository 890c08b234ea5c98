//! config.json from the metadata and the table of tensors.

use serde_json::{Map, Value as Json, json};

use super::architecture::Architecture;
use super::keys::Keys;
use super::rope::{self, RopeShape};
use super::transform::Heads;
use crate::{Array, Error, GgufFile, Result, Value};

/// The configuration of a file.
#[derive(Debug)]
pub(super) struct Config {
    /// config.json without the ids of special tokens.
    pub(super) json: Map<String, Json>,
    pub(super) heads: Heads,
}

/// Layers between those without RoPE, which llama.cpp does not store.
pub(super) const NO_ROPE_INTERVAL: usize = 4;
/// Layers between those with full attention, which files store only if they differ.
pub(super) fn window_period(model_type: &str) -> u64 {
    match model_type {
        "gemma2" => 2,
        "olmo3" | "exaone4" => 4,
        _ => 6,
    }
}
/// The number of layers of the only EXAONE 4 with windows, as llama.cpp sees it, and their width in files without the key.
pub(super) const EXAONE4_LAYERS_WITH_WINDOWS: u64 = 64;
const EXAONE4_WINDOW: u64 = 4096;
/// Numbers of layers whose queries llama.cpp scales by the width of the model instead of the head's.
pub(super) fn scales_by_width(model_type: &str, n_layers: u64) -> bool {
    matches!((model_type, n_layers), ("gemma2", 46) | ("gemma3_text", 62))
}

/// Reads the configuration of a file; `is_tied`: the head is the embedding.
pub(super) fn read(file: &GgufFile, arch: &'static Architecture, is_tied: bool) -> Result<Config> {
    let keys = Keys::new(file.metadata(), arch.gguf);
    let sizes = Sizes::read(file, keys)?;
    let mut map = Map::new();
    map.insert("architectures".to_owned(), json!([arch.class]));
    map.insert("model_type".to_owned(), json!(arch.model_type));
    map.insert("vocab_size".to_owned(), json!(sizes.vocab_size));
    map.insert("tie_word_embeddings".to_owned(), json!(is_tied));
    let rest = if arch.model_type == "gpt2" {
        learned_positions(keys, &sizes)?
    } else {
        decoder(file, arch, keys, &sizes)?
    };
    map.extend(rest);
    let heads = Heads { queries: sizes.n_heads as usize, keys: sizes.n_kv_heads as usize };
    Ok(Config { json: map, heads })
}

/// Sizes that every architecture has.
struct Sizes {
    vocab_size: usize,
    width: u64,
    n_layers: u64,
    n_heads: u64,
    n_kv_heads: u64,
    head_dim: u64,
    context: u64,
    inner: u64,
}

impl Sizes {
    fn read(file: &GgufFile, keys: Keys) -> Result<Self> {
        let embedding = file.tensor("token_embd.weight").ok_or_else(|| Error::MissingTensor {
            path: file.path().to_owned(),
            name: "token_embd.weight".to_owned(),
        })?;
        let width = keys.require_uint("embedding_length")?;
        let n_heads = keys.require_uint("attention.head_count")?;
        if n_heads == 0 || width == 0 {
            return Err(keys.unsupported("attention.head_count", "sizes must be positive"));
        }
        let n_layers = keys.require_uint("block_count")?;
        if n_layers > file.tensors().len() as u64 {
            return Err(keys.unsupported("block_count", "every layer has tensors"));
        }
        let head_dim = keys.uint("attention.key_length")?.unwrap_or(width / n_heads);
        if keys.uint("attention.value_length")?.is_some_and(|value| value != head_dim) {
            return Err(keys.unsupported(
                "attention.value_length",
                "keys and values must have the same width",
            ));
        }
        Ok(Self {
            vocab_size: embedding.shape.first().copied().unwrap_or(0),
            width,
            n_layers,
            n_heads,
            n_kv_heads: keys.uint("attention.head_count_kv")?.unwrap_or(n_heads),
            head_dim,
            context: keys.require_uint("context_length")?,
            inner: keys.require_uint("feed_forward_length")?,
        })
    }
}

fn object(value: Json) -> Map<String, Json> {
    if let Json::Object(map) = value { map } else { Map::new() }
}

fn learned_positions(keys: Keys, sizes: &Sizes) -> Result<Map<String, Json>> {
    Ok(object(json!({
        "n_embd": sizes.width,
        "n_layer": sizes.n_layers,
        "n_head": sizes.n_heads,
        "n_positions": sizes.context,
        "n_ctx": sizes.context,
        "n_inner": sizes.inner,
        "layer_norm_epsilon": keys.require_float("attention.layer_norm_epsilon")?,
        "activation_function": "gelu_new",
    })))
}

fn decoder(
    file: &GgufFile,
    arch: &Architecture,
    keys: Keys,
    sizes: &Sizes,
) -> Result<Map<String, Json>> {
    let theta = keys.float("rope.freq_base")?.unwrap_or(10_000.0);
    let n_rotated = keys.uint("rope.dimension_count")?.unwrap_or(sizes.head_dim);
    let shape = RopeShape { n_rotated: n_rotated as usize, theta, context: sizes.context };
    let mut map = object(json!({
        "hidden_size": sizes.width,
        "intermediate_size": sizes.inner,
        "num_hidden_layers": sizes.n_layers,
        "num_attention_heads": sizes.n_heads,
        "num_key_value_heads": sizes.n_kv_heads,
        "max_position_embeddings": sizes.context,
        "rms_norm_eps": keys.require_float("attention.layer_norm_rms_epsilon")?,
        "rope_theta": theta,
        "rope_scaling": rope::read(file, keys, shape)?,
    }));
    let has_bias = |name: &str| file.tensor(&format!("blk.0.{name}.bias")).is_some();
    let model_type = arch.model_type;
    let mut put = |key: &str, value: Json| map.insert(key.to_owned(), value);
    let activation = if arch.adds_one { "hidden_activation" } else { "hidden_act" };
    put(activation, json!(if arch.adds_one { "gelu_pytorch_tanh" } else { "silu" }));
    let is_even = sizes.head_dim.checked_mul(sizes.n_heads) == Some(sizes.width);
    if matches!(model_type, "llama" | "qwen3" | "qwen3_moe" | "gemma2" | "gemma3_text") || !is_even
    {
        put("head_dim", json!(sizes.head_dim));
    }
    if !matches!(model_type, "mistral" | "mixtral" | "qwen2" | "qwen2_moe" | "phi3" | "exaone4") {
        put("attention_bias", json!(has_bias("attn_q")));
    }
    if matches!(model_type, "llama" | "granite" | "smollm3") {
        put("mlp_bias", json!(has_bias("ffn_up")));
    }
    if n_rotated != sizes.head_dim {
        put("partial_rotary_factor", json!(n_rotated as f64 / sizes.head_dim as f64));
    }
    map.extend(match model_type {
        "gemma2" | "gemma3_text" => windows_and_caps(keys, sizes, model_type)?,
        "mixtral" | "qwen2_moe" | "qwen3_moe" => experts(keys, model_type)?,
        "granite" => multipliers(keys)?,
        "phi3" => phi3(keys, sizes)?,
        "smollm3" => {
            let rotates =
                |layer: u64| u8::from(!(layer + 1).is_multiple_of(NO_ROPE_INTERVAL as u64));
            let layers: Vec<u8> = (0..sizes.n_layers).map(rotates).collect();
            object(json!({ "no_rope_layers": layers, "no_rope_layer_interval": NO_ROPE_INTERVAL }))
        }
        "olmo3" => {
            windows(keys, sizes, model_type, keys.require_uint("attention.sliding_window")?)?
        }
        "exaone4" => exaone4(keys, sizes)?,
        _ => Map::new(),
    });
    Ok(map)
}

/// The width of the windows and the layers that have them.
fn windows(keys: Keys, sizes: &Sizes, model_type: &str, window: u64) -> Result<Map<String, Json>> {
    const PATTERN: &str = "attention.sliding_window_pattern";
    let name = |is_sliding: bool| if is_sliding { "sliding_attention" } else { "full_attention" };
    let layer_types: Vec<&str> = if let Some(Value::Array(Array::Bool(list))) = keys.get(PATTERN) {
        if list.len() as u64 != sizes.n_layers {
            return Err(keys.unsupported(PATTERN, "the list must have a value for each layer"));
        }
        list.iter().copied().map(name).collect()
    } else {
        let period = keys.uint(PATTERN)?.unwrap_or_else(|| window_period(model_type)).max(1);
        (1..=sizes.n_layers).map(|layer| name(!layer.is_multiple_of(period))).collect()
    };
    Ok(object(json!({ "sliding_window": window, "layer_types": layer_types })))
}

/// Without windows, every layer has rotary positions.
fn exaone4(keys: Keys, sizes: &Sizes) -> Result<Map<String, Json>> {
    let default = (sizes.n_layers == EXAONE4_LAYERS_WITH_WINDOWS).then_some(EXAONE4_WINDOW);
    let window = keys.uint("attention.sliding_window")?.or(default).filter(|window| *window > 0);
    if let Some(window) = window {
        return windows(keys, sizes, "exaone4", window);
    }
    let layer_types = vec!["full_attention"; sizes.n_layers as usize];
    Ok(object(json!({ "sliding_window": null, "layer_types": layer_types })))
}

fn windows_and_caps(keys: Keys, sizes: &Sizes, model_type: &str) -> Result<Map<String, Json>> {
    let window = keys.require_uint("attention.sliding_window")?;
    let mut map = windows(keys, sizes, model_type, window)?;
    let scalar = if scales_by_width(model_type, sizes.n_layers) {
        sizes.width / sizes.n_heads
    } else {
        sizes.head_dim
    };
    map.extend(object(json!({
        "query_pre_attn_scalar": scalar,
        "attn_logit_softcapping": keys.float("attn_logit_softcapping")?,
        "final_logit_softcapping": keys.float("final_logit_softcapping")?,
    })));
    if model_type == "gemma3_text" {
        let local = keys.float("rope.freq_base_swa")?.unwrap_or(10_000.0);
        map.insert("rope_local_base_freq".to_owned(), json!(local));
    }
    Ok(map)
}

fn experts(keys: Keys, model_type: &str) -> Result<Map<String, Json>> {
    let n_experts = keys.require_uint("expert_count")?;
    let n_used = keys.require_uint("expert_used_count")?;
    if model_type == "mixtral" {
        return Ok(object(json!({
            "num_local_experts": n_experts,
            "num_experts_per_tok": n_used,
        })));
    }
    let mut map = object(json!({
        "num_experts": n_experts,
        "num_experts_per_tok": n_used,
        "moe_intermediate_size": keys.require_uint("expert_feed_forward_length")?,
        "norm_topk_prob": model_type == "qwen3_moe",
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }));
    if model_type == "qwen2_moe" {
        let shared = keys.require_uint("expert_shared_feed_forward_length")?;
        map.insert("shared_expert_intermediate_size".to_owned(), json!(shared));
    }
    Ok(map)
}

fn multipliers(keys: Keys) -> Result<Map<String, Json>> {
    Ok(object(json!({
        "attention_multiplier": keys.require_float("attention.scale")?,
        "embedding_multiplier": keys.float("embedding_scale")?.unwrap_or(1.0),
        "residual_multiplier": keys.float("residual_scale")?.unwrap_or(1.0),
        "logits_scaling": keys.float("logit_scale")?.unwrap_or(1.0),
    })))
}

fn phi3(keys: Keys, sizes: &Sizes) -> Result<Map<String, Json>> {
    let original = keys.uint("rope.scaling.original_context_length")?.unwrap_or(sizes.context);
    let window = keys.uint("attention.sliding_window")?.filter(|window| *window > 0);
    Ok(object(json!({
        "original_max_position_embeddings": original,
        "sliding_window": window,
    })))
}
