//! RoPE of a config.json as keys and factor tensors.

use serde_json::{Map, Value as Json};

use super::super::architecture::Architecture;
use super::super::rope::{Llama3, RopeShape, YARN_BETAS, long_rope_attention_factor};
use super::settings::{Settings, not_exportable};
use crate::{Result, Value};

/// Keys without their prefix, and tensors of factors.
#[derive(Debug, Default)]
pub(super) struct Rope {
    pub(super) keys: Vec<(&'static str, Value)>,
    pub(super) tensors: Vec<(&'static str, Vec<f32>)>,
}

/// The parts of a config.json that describe RoPE, in both spellings.
struct Sections<'a> {
    theta: f64,
    local_theta: Option<f64>,
    /// The type of scaling in layers with a window, if they have their own section.
    local_kind: Option<&'a str>,
    scaling: Option<&'a Map<String, Json>>,
}

impl<'a> Sections<'a> {
    fn find(settings: Settings<'a>) -> Self {
        let section = |value: Option<&'a Json>| value.and_then(Json::as_object);
        let theta = |map: Option<&'a Map<String, Json>>| map?.get("rope_theta")?.as_f64();
        let all = section(settings.get("rope_parameters"));
        let full = section(all.and_then(|all| all.get("full_attention"))).or(all);
        let sliding = section(all.and_then(|all| all.get("sliding_attention")));
        Self {
            theta: theta(full).or(settings.float("rope_theta")).unwrap_or(10_000.0),
            local_kind: sliding.and_then(|map| map.get("rope_type")?.as_str()),
            local_theta: theta(sliding).or(settings.float("rope_local_base_freq")),
            scaling: full.or(section(settings.get("rope_scaling"))),
        }
    }
}

/// Converts RoPE; `head_dim` is the width of a head.
pub(super) fn write(
    settings: Settings,
    arch: &Architecture,
    head_dim: u64,
    context: u64,
) -> Result<Rope> {
    let sections = Sections::find(settings);
    let scaling = sections.scaling.map(Settings);
    let inner = scaling.and_then(|s| s.float("partial_rotary_factor"));
    let partial = settings.float("partial_rotary_factor").or(inner).unwrap_or(1.0);
    let n_rotated = (head_dim as f64 * partial) as u64;
    if n_rotated != head_dim && arch.gguf != "phi3" {
        return Err(not_exportable(format!(
            "`partial_rotary_factor` = {partial}: `{}` rotates whole heads",
            arch.gguf
        )));
    }
    if let Some(kind) = sections.local_kind.filter(|kind| *kind != "default") {
        return Err(not_exportable(format!(
            "RoPE scaling `{kind}` of layers with a window has no counterpart in llama.cpp"
        )));
    }
    if arch.model_type == "olmo3" && sections.local_theta.is_some_and(|own| own != sections.theta) {
        let reason = "`rope_theta` of layers with a window: llama.cpp has the same in all layers";
        return Err(not_exportable(reason.to_owned()));
    }
    let mut rope = Rope::default();
    rope.keys.push(("rope.dimension_count", Value::U32(n_rotated as u32)));
    rope.keys.push(("rope.freq_base", Value::F32(sections.theta as f32)));
    if let Some(theta) = sections.local_theta {
        rope.keys.push(("rope.freq_base_swa", Value::F32(theta as f32)));
    }
    let Some(scaling) = scaling else { return Ok(rope) };
    let kind = scaling.get("rope_type").or(scaling.get("type")).and_then(Json::as_str);
    let shape = RopeShape { n_rotated: n_rotated as usize, theta: sections.theta, context };
    match kind {
        None | Some("default") => {}
        Some("linear") => {
            rope.keys.push(("rope.scaling.type", Value::string("linear")));
            let factor = scaling.require_float("factor")?;
            rope.keys.push(("rope.scaling.factor", Value::F32(factor as f32)));
        }
        Some("llama3") if matches!(arch.gguf, "llama" | "granite" | "exaone4") => {
            let scaling = llama3(scaling, settings, shape)?;
            let original = Value::U32(scaling.original as u32);
            rope.keys.push(("rope.scaling.original_context_length", original));
            let factors = scaling.factors(shape);
            let factors = factors.into_iter().map(|factor| factor as f32).collect();
            rope.tensors.push(("rope_freqs.weight", factors));
        }
        Some("yarn") => yarn(&mut rope, scaling, settings, context)?,
        Some("longrope" | "su") if matches!(arch.gguf, "llama" | "phi3") => {
            long_rope(&mut rope, scaling, settings, shape)?;
        }
        Some(other) => {
            return Err(not_exportable(format!(
                "RoPE scaling `{other}` with `{}` has no counterpart in llama.cpp",
                arch.gguf
            )));
        }
    }
    Ok(rope)
}

const ORIGINAL: &str = "original_max_position_embeddings";

/// The context length before scaling, inside or outside of the section.
fn original(scaling: Settings, settings: Settings, context: u64) -> u64 {
    scaling.uint(ORIGINAL).or(settings.uint(ORIGINAL)).unwrap_or(context)
}

fn llama3(scaling: Settings, settings: Settings, shape: RopeShape) -> Result<Llama3> {
    Ok(Llama3 {
        factor: scaling.require_float("factor")?,
        low: scaling.require_float("low_freq_factor")?,
        high: scaling.require_float("high_freq_factor")?,
        original: original(scaling, settings, shape.context) as f64,
    })
}

fn yarn(rope: &mut Rope, scaling: Settings, settings: Settings, context: u64) -> Result<()> {
    let factor = scaling.require_float("factor")?;
    let own = 0.1 * factor.ln() + 1.0;
    let attention = match (scaling.float("mscale"), scaling.float("mscale_all_dim")) {
        (Some(a), Some(b)) => (0.1 * a * factor.ln() + 1.0) / (0.1 * b * factor.ln() + 1.0),
        _ => own,
    };
    let attention = scaling.float("attention_factor").unwrap_or(attention);
    if (attention / own - 1.0).abs() > 1e-6 || scaling.flag("truncate") == Some(false) {
        return Err(not_exportable(
            "YaRN with its own `attention_factor`, `mscale` or `truncate` has no counterpart"
                .to_owned(),
        ));
    }
    let original = original(scaling, settings, context);
    rope.keys.push(("rope.scaling.type", Value::string("yarn")));
    rope.keys.push(("rope.scaling.factor", Value::F32(factor as f32)));
    rope.keys.push(("rope.scaling.original_context_length", Value::U32(original as u32)));
    for ((key, name), default) in
        [("rope.scaling.yarn_beta_fast", "beta_fast"), ("rope.scaling.yarn_beta_slow", "beta_slow")]
            .into_iter()
            .zip(YARN_BETAS)
    {
        let beta = scaling.float(name).unwrap_or(default);
        rope.keys.push((key, Value::F32(beta as f32)));
    }
    Ok(())
}

fn long_rope(
    rope: &mut Rope,
    scaling: Settings,
    settings: Settings,
    shape: RopeShape,
) -> Result<()> {
    let original = original(scaling, settings, shape.context);
    let factors = |key: &str| -> Result<Vec<f32>> {
        let list = scaling.get(key).and_then(Json::as_array);
        let values: Option<Vec<f32>> =
            list.map(|list| list.iter().filter_map(|v| Some(v.as_f64()? as f32)).collect());
        values.filter(|values| values.len() == shape.n_rotated / 2).ok_or_else(|| {
            not_exportable(format!("`{key}` does not have {} numbers", shape.n_rotated / 2))
        })
    };
    rope.tensors.push(("rope_factors_long.weight", factors("long_factor")?));
    rope.tensors.push(("rope_factors_short.weight", factors("short_factor")?));
    let stretch = scaling.float("factor").map(|factor| (factor * original as f64) as u64);
    let derived = long_rope_attention_factor(stretch.unwrap_or(shape.context), original);
    let attention = scaling.float("attention_factor").unwrap_or(derived);
    rope.keys.push(("rope.scaling.type", Value::string("longrope")));
    rope.keys.push(("rope.scaling.original_context_length", Value::U32(original as u32)));
    rope.keys.push(("rope.scaling.attn_factor", Value::F32(attention as f32)));
    Ok(())
}
