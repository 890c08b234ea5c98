//! config.json as metadata keys, and what llama.cpp cannot compute.

use serde_json::Value as Json;

use super::super::architecture::Architecture;
use super::super::config::{
    EXAONE4_LAYERS_WITH_WINDOWS, NO_ROPE_INTERVAL, scales_by_width, window_period,
};
use super::rope::{self, Rope};
use super::settings::{Settings, not_exportable};
use crate::{Array, Result, Value};

/// A configuration in the form of a file.
#[derive(Debug)]
pub(super) struct Converted {
    /// Keys without their prefix.
    pub(super) keys: Vec<(&'static str, Value)>,
    /// Tensors that config.json has as lists of numbers.
    pub(super) tensors: Vec<(&'static str, Vec<f32>)>,
    pub(super) n_layers: usize,
    pub(super) n_heads: usize,
    pub(super) n_kv_heads: usize,
    pub(super) n_experts: usize,
    /// Factor for the queries' weights, because llama.cpp scales scores by the width of a head.
    pub(super) query_scale: f64,
}

/// Converts a config.json.
pub(super) fn convert(settings: Settings, arch: &'static Architecture) -> Result<Converted> {
    if arch.model_type == "gpt2" {
        return learned_positions(settings);
    }
    let width = settings.require_uint("hidden_size")?;
    let n_heads = settings.require_uint("num_attention_heads")?;
    let n_kv_heads = settings.uint("num_key_value_heads").unwrap_or(n_heads);
    let head_dim = settings.uint("head_dim").unwrap_or(width / n_heads.max(1));
    let n_layers = settings.require_uint("num_hidden_layers")?;
    let context = context(settings, arch)?;
    let reason =
        "llama.cpp has heads of `hidden_size` / `num_attention_heads` in this architecture";
    let fits = !arch.has_fixed_heads() || head_dim.checked_mul(n_heads) == Some(width);
    settings.require(fits, "head_dim", reason)?;
    check_biases(settings, arch)?;
    check_activation(settings, arch)?;
    let Rope { keys: rope_keys, tensors } = rope::write(settings, arch, head_dim, context)?;
    let epsilon = settings.require_float("rms_norm_eps")?;
    let mut keys = vec![
        ("context_length", u32_value(context)?),
        ("embedding_length", u32_value(width)?),
        ("block_count", u32_value(n_layers)?),
        ("feed_forward_length", u32_value(settings.require_uint("intermediate_size")?)?),
        ("attention.head_count", u32_value(n_heads)?),
        ("attention.head_count_kv", u32_value(n_kv_heads)?),
        ("attention.key_length", u32_value(head_dim)?),
        ("attention.value_length", u32_value(head_dim)?),
        ("attention.layer_norm_rms_epsilon", Value::F32(epsilon as f32)),
        ("vocab_size", u32_value(settings.require_uint("vocab_size")?)?),
    ];
    keys.extend(rope_keys);
    let mut converted = Converted {
        keys,
        tensors,
        n_layers: n_layers as usize,
        n_heads: n_heads as usize,
        n_kv_heads: n_kv_heads as usize,
        n_experts: 0,
        query_scale: 1.0,
    };
    match arch.model_type {
        "gemma2" | "gemma3_text" => {
            windows_and_caps(&mut converted, settings, arch, n_layers)?;
            let own =
                if scales_by_width(arch.model_type, n_layers) { width / n_heads } else { head_dim };
            let wanted = settings.float("query_pre_attn_scalar").unwrap_or(own as f64);
            converted.query_scale = (own as f64 / wanted).sqrt();
        }
        "mixtral" | "qwen2_moe" | "qwen3_moe" => experts(&mut converted, settings, arch)?,
        "granite" => multipliers(&mut converted, settings)?,
        "phi3" => {
            let window = settings.uint("sliding_window").unwrap_or(0);
            converted.keys.push(("attention.sliding_window", u32_value(window)?));
            let key = "rope.scaling.original_context_length";
            if !converted.keys.iter().any(|(other, _)| *other == key) {
                let original = settings.uint("original_max_position_embeddings");
                converted.keys.push((key, u32_value(original.unwrap_or(context))?));
            }
        }
        "smollm3" => check_layers_without_rope(settings, n_layers)?,
        "olmo3" => windows_by_layer(&mut converted, settings, arch, n_layers)?,
        "exaone4" => exaone4(&mut converted, settings, arch, n_layers)?,
        _ => {}
    }
    Ok(converted)
}

/// A size as the u32 that files store.
fn u32_value(n: u64) -> Result<Value> {
    let n = u32::try_from(n).map_err(|_| not_exportable(format!("a size is too large: `{n}`")))?;
    Ok(Value::U32(n))
}

/// The context length. llama.cpp has no sliding windows in most architectures; up to the width of the window there is no
/// difference.
fn context(settings: Settings, arch: &Architecture) -> Result<u64> {
    let context = settings.require_uint("max_position_embeddings")?;
    if arch.has_windows {
        return Ok(context);
    }
    let default = !matches!(arch.gguf, "qwen2" | "qwen2moe" | "qwen3" | "qwen3moe" | "smollm3");
    let is_used = settings.flag("use_sliding_window").unwrap_or(default);
    let layer_types = settings.get("layer_types").and_then(Json::as_array);
    let has_window = layer_types
        .is_none_or(|types| types.iter().any(|ty| ty.as_str() == Some("sliding_attention")));
    match settings.uint("sliding_window") {
        Some(window) if is_used && has_window => Ok(window.min(context)),
        _ => Ok(context),
    }
}

/// llama.cpp reads biases in some architectures only.
fn check_biases(settings: Settings, arch: &Architecture) -> Result<()> {
    let has_biases = matches!(arch.gguf, "llama" | "granite");
    for key in ["attention_bias", "mlp_bias"] {
        let reason = "llama.cpp has no such bias in this architecture";
        settings.require(has_biases || settings.flag(key) != Some(true), key, reason)?;
    }
    Ok(())
}

/// llama.cpp knows one activation function for each architecture.
fn check_activation(settings: Settings, arch: &Architecture) -> Result<()> {
    let (key, known): (_, &[&str]) = if arch.adds_one {
        ("hidden_activation", &["gelu_pytorch_tanh", "gelu_new", "gelu_fast"])
    } else {
        ("hidden_act", &["silu", "swish"])
    };
    let name = settings.get(key).and_then(Json::as_str);
    let reason = "llama.cpp has another activation function in this architecture";
    settings.require(name.is_none_or(|name| known.contains(&name)), key, reason)
}

fn learned_positions(settings: Settings) -> Result<Converted> {
    let width = settings.require_uint("n_embd")?;
    let n_heads = settings.require_uint("n_head")?;
    let n_layers = settings.require_uint("n_layer")?;
    let context = match settings.uint("n_positions") {
        Some(context) => context,
        None => settings.require_uint("n_ctx")?,
    };
    for (key, default) in [
        ("scale_attn_weights", true),
        ("scale_attn_by_inverse_layer_idx", false),
        ("add_cross_attention", false),
    ] {
        let holds = settings.flag(key).unwrap_or(default) == default;
        settings.require(holds, key, "llama.cpp does not compute this")?;
    }
    let epsilon = settings.require_float("layer_norm_epsilon")?;
    let keys = vec![
        ("context_length", u32_value(context)?),
        ("embedding_length", u32_value(width)?),
        ("block_count", u32_value(n_layers)?),
        ("feed_forward_length", u32_value(settings.uint("n_inner").unwrap_or(4 * width))?),
        ("attention.head_count", u32_value(n_heads)?),
        ("attention.layer_norm_epsilon", Value::F32(epsilon as f32)),
    ];
    Ok(Converted {
        keys,
        tensors: Vec::new(),
        n_layers: n_layers as usize,
        n_heads: n_heads as usize,
        n_kv_heads: n_heads as usize,
        n_experts: 0,
        query_scale: 1.0,
    })
}

fn windows_and_caps(
    converted: &mut Converted,
    settings: Settings,
    arch: &Architecture,
    n_layers: u64,
) -> Result<()> {
    let window = settings.require_uint("sliding_window")?;
    converted.keys.push(("attention.sliding_window", u32_value(window)?));
    let usual = window_period(arch.model_type);
    let period = period(settings, usual, n_layers)?;
    if period != usual {
        converted.keys.push(("attention.sliding_window_pattern", u32_value(period)?));
    }
    for (key, name) in [
        ("attn_logit_softcapping", "attn_logit_softcapping"),
        ("final_logit_softcapping", "final_logit_softcapping"),
    ] {
        match settings.float(name) {
            Some(cap) => converted.keys.push((key, Value::F32(cap as f32))),
            None => settings.require(
                arch.model_type != "gemma2",
                name,
                "llama.cpp always caps in this architecture",
            )?,
        }
    }
    if arch.model_type == "gemma3_text" {
        let is_uncapped = settings.float("attn_logit_softcapping").is_none();
        let reason = "llama.cpp has no such cap in this architecture";
        settings.require(is_uncapped, "attn_logit_softcapping", reason)?;
    }
    Ok(())
}

/// The window and the layers that have it, one by one.
fn windows_by_layer(
    converted: &mut Converted,
    settings: Settings,
    arch: &Architecture,
    n_layers: u64,
) -> Result<()> {
    let window = settings.require_uint("sliding_window")?;
    let is_sliding: Vec<bool> = match settings.get("layer_types").and_then(Json::as_array) {
        Some(types) => types.iter().map(|ty| ty.as_str() == Some("sliding_attention")).collect(),
        None => {
            let usual = window_period(arch.model_type);
            let period = settings.uint("sliding_window_pattern").unwrap_or(usual).max(1);
            (1..=n_layers).map(|layer| !layer.is_multiple_of(period)).collect()
        }
    };
    settings.require(
        is_sliding.len() as u64 == n_layers,
        "layer_types",
        "there must be one for each layer",
    )?;
    converted.keys.push(("attention.sliding_window", u32_value(window)?));
    let pattern = Value::Array(Array::Bool(is_sliding));
    converted.keys.push(("attention.sliding_window_pattern", pattern));
    Ok(())
}

/// llama.cpp knows by the number of layers whether there are windows, and layers without rotary positions between them.
fn exaone4(
    converted: &mut Converted,
    settings: Settings,
    arch: &Architecture,
    n_layers: u64,
) -> Result<()> {
    let has_windows = settings.get("sliding_window").is_some();
    settings.require(
        has_windows == (n_layers == EXAONE4_LAYERS_WITH_WINDOWS),
        "sliding_window",
        "in this architecture, llama.cpp computes windows in models of 64 layers, and in no others",
    )?;
    if has_windows { windows_by_layer(converted, settings, arch, n_layers) } else { Ok(()) }
}

/// The number n such that every n-th layer has full attention.
fn period(settings: Settings, usual: u64, n_layers: u64) -> Result<u64> {
    let Some(types) = settings.get("layer_types").and_then(Json::as_array) else {
        return Ok(settings.uint("sliding_window_pattern").unwrap_or(usual));
    };
    let is_full: Vec<bool> = types.iter().map(|ty| ty.as_str() == Some("full_attention")).collect();
    let fits = |period: u64| {
        (1..).zip(&is_full).all(|(layer, full)| u64::is_multiple_of(layer, period) == *full)
    };
    let mut candidates = [usual].into_iter().chain(1..=n_layers + 1);
    candidates.find(|period| fits(*period)).ok_or_else(|| {
        not_exportable("`layer_types`: layers with full attention are not evenly spaced".to_owned())
    })
}

fn experts(converted: &mut Converted, settings: Settings, arch: &Architecture) -> Result<()> {
    let n_experts = match settings.uint("num_local_experts") {
        Some(n) => n,
        None => settings.require_uint("num_experts")?,
    };
    converted.n_experts = n_experts as usize;
    let n_used = settings.require_uint("num_experts_per_tok")?;
    converted.keys.push(("expert_count", u32_value(n_experts)?));
    converted.keys.push(("expert_used_count", u32_value(n_used)?));
    if arch.model_type == "mixtral" {
        return Ok(());
    }
    let inner = settings.require_uint("moe_intermediate_size")?;
    converted.keys.push(("expert_feed_forward_length", u32_value(inner)?));
    if let Some(shared) = settings.uint("shared_expert_intermediate_size") {
        converted.keys.push(("expert_shared_feed_forward_length", u32_value(shared)?));
    }
    let norms = arch.model_type == "qwen3_moe";
    settings.require(
        settings.flag("norm_topk_prob").unwrap_or(false) == norms,
        "norm_topk_prob",
        "llama.cpp computes the other form in this architecture",
    )?;
    let dense = settings.get("mlp_only_layers").and_then(Json::as_array);
    let is_sparse = dense.is_none_or(Vec::is_empty)
        && settings.uint("decoder_sparse_step").is_none_or(|step| step == 1);
    settings.require(is_sparse, "mlp_only_layers", "llama.cpp has experts in every layer")
}

fn multipliers(converted: &mut Converted, settings: Settings) -> Result<()> {
    for (key, name) in [
        ("attention.scale", "attention_multiplier"),
        ("embedding_scale", "embedding_multiplier"),
        ("residual_scale", "residual_multiplier"),
        ("logit_scale", "logits_scaling"),
    ] {
        let value = settings.require_float(name)?;
        converted.keys.push((key, Value::F32(value as f32)));
    }
    Ok(())
}

fn check_layers_without_rope(settings: Settings, n_layers: u64) -> Result<()> {
    let Some(layers) = settings.get("no_rope_layers").and_then(Json::as_array) else {
        let interval = settings.uint("no_rope_layer_interval").unwrap_or(NO_ROPE_INTERVAL as u64);
        let reason = "llama.cpp leaves RoPE out of every fourth layer";
        return settings.require(
            interval == NO_ROPE_INTERVAL as u64,
            "no_rope_layer_interval",
            reason,
        );
    };
    let expected = |layer: u64| u64::from(!layer.is_multiple_of(NO_ROPE_INTERVAL as u64));
    let fits = layers.len() as u64 == n_layers
        && (1..).zip(layers).all(|(layer, rotates)| rotates.as_u64() == Some(expected(layer)));
    settings.require(fits, "no_rope_layers", "llama.cpp leaves RoPE out of every fourth layer")
}
