//! RoPE in config.json: `rope_parameters` of transformers 5, and `rope_theta` with `rope_scaling` of older versions.

use serde_json::{Map, Value, json};

use super::{RopeParameters, RopeScaling};
use crate::config_reader::ConfigReader;
use crate::error::Result;
use crate::limits;

impl RopeParameters {
    /// Reads `rope_parameters`, or `rope_theta` and `rope_scaling`. If both are present they must agree.
    /// `default_theta` is the base in files without either.
    pub(crate) fn read(
        reader: &mut ConfigReader,
        default_theta: Option<f64>,
        max_position_embeddings: usize,
    ) -> Result<Self> {
        let outer_original = reader.size_or_none(ORIGINAL, 1..=limits::POSITIONS)?;
        let outer_theta = reader.float_or_none("rope_theta", THETA)?;
        reader.require("partial_rotary_factor", |v| v.as_f64() == Some(1.0), WHOLE_HEAD)?;
        reader.require("rope_interleaved", |v| v.as_bool() == Some(false), HALF_SPLIT)?;
        let original =
            OriginalContext { top_level: outer_original, model: max_position_embeddings };
        let today = read_section(reader, "rope_parameters", "rope_parameters.", original)?;
        let older = read_section(reader, "rope_scaling", "rope_scaling.", original)?;
        if let (Some(a), Some(b)) = (&today, &older)
            && a.scaling != b.scaling
        {
            let message = "`rope_parameters` and `rope_scaling` contradict each other".to_owned();
            return Err(reader.inconsistent(message, Some("keep `rope_parameters` only")));
        }
        let found = today.or(older);
        let inner_theta = found.as_ref().and_then(|section| section.theta);
        if let (Some(inner), Some(outer)) = (inner_theta, outer_theta)
            && inner != outer
        {
            let message = format!("`rope_theta` is given twice: `{outer}` and `{inner}`");
            return Err(reader.inconsistent(message, Some("keep the one in `rope_parameters`")));
        }
        let rope_theta = match (inner_theta.or(outer_theta), default_theta) {
            (Some(theta), _) => theta,
            (None, Some(theta)) => {
                reader.note(format!("rope_theta is absent and set to {theta}, the constant of transformers before 4.33"));
                theta
            }
            (None, None) => return Err(reader.missing("rope_theta", Some(NO_THETA))),
        };
        let scaling = found.map_or(RopeScaling::Default, |section| section.scaling);
        Ok(Self { rope_theta, scaling })
    }

    /// The value of `rope_parameters`.
    pub(crate) fn to_json(self) -> Value {
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
        put("rope_theta", json!(self.rope_theta));
        match self.scaling {
            RopeScaling::Default => _ = put("rope_type", json!("default")),
            RopeScaling::Linear { factor } => {
                put("rope_type", json!("linear"));
                put("factor", json!(factor));
            }
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                put("rope_type", json!("llama3"));
                put("factor", json!(factor));
                put("low_freq_factor", json!(low_freq_factor));
                put("high_freq_factor", json!(high_freq_factor));
                put("original_max_position_embeddings", json!(original_max_position_embeddings));
            }
            RopeScaling::Yarn {
                factor,
                original_max_position_embeddings,
                attention_factor,
                beta_fast,
                beta_slow,
                mscale,
                mscale_all_dim,
                truncate,
            } => {
                put("rope_type", json!("yarn"));
                put("factor", json!(factor));
                put("original_max_position_embeddings", json!(original_max_position_embeddings));
                put("beta_fast", json!(beta_fast));
                put("beta_slow", json!(beta_slow));
                put("truncate", json!(truncate));
                let optional = [
                    ("attention_factor", attention_factor),
                    ("mscale", mscale),
                    ("mscale_all_dim", mscale_all_dim),
                ];
                for (key, value) in optional {
                    if let Some(value) = value {
                        put(key, json!(value));
                    }
                }
            }
        }
        Value::Object(map)
    }
}

const THETA: std::ops::RangeInclusive<f64> = 1.000_001..=1e15;
const FACTOR: std::ops::RangeInclusive<f64> = 1.0..=1e6;
const WHOLE_HEAD: &str = "only rotation of the whole head is supported (1.0)";
const HALF_SPLIT: &str = "only the half-split layout is supported (false)";
const NO_THETA: &str =
    "the base of RoPE has no default; the first Llama models use `\"rope_theta\": 10000.0`";
const TYPES: &str = "supported rope types: default, linear, llama3, yarn";

const ORIGINAL: &str = "original_max_position_embeddings";

/// Candidates for the context length before scaling, if the scaling itself does not state it.
#[derive(Debug, Clone, Copy)]
struct OriginalContext {
    /// The key of that name at the top level of some files.
    top_level: Option<usize>,
    /// The context length of the model.
    model: usize,
}

struct Section {
    theta: Option<f64>,
    scaling: RopeScaling,
}

fn read_section(
    outer: &mut ConfigReader,
    key: &str,
    scope: &'static str,
    original: OriginalContext,
) -> Result<Option<Section>> {
    let Some(mut reader) = outer.section(key, scope)? else { return Ok(None) };
    let theta = reader.float_or_none("rope_theta", THETA)?;
    reader.require("partial_rotary_factor", |v| v.as_f64() == Some(1.0), WHOLE_HEAD)?;
    let today = reader.text("rope_type")?;
    let older = reader.text("type")?;
    if let (Some(a), Some(b)) = (today, older)
        && a != b
    {
        let message = format!("`{scope}rope_type` is `{a}` and `{scope}type` is `{b}`");
        return Err(reader.inconsistent(message, Some("keep `rope_type` only")));
    }
    let scaling = match today.or(older) {
        Some("default") => {
            reader.value(ORIGINAL);
            RopeScaling::Default
        }
        Some("linear") => {
            reader.value(ORIGINAL);
            RopeScaling::Linear { factor: reader.float("factor", FACTOR)? }
        }
        Some("llama3") => read_llama3(&mut reader, original)?,
        Some("yarn") => read_yarn(&mut reader, original)?,
        Some(other) => {
            return Err(reader.unsupported("rope_type", &json!(other), TYPES));
        }
        // transformers 5 may omit the type if there is only a base.
        None if theta.is_some() => RopeScaling::Default,
        None => return Err(reader.missing("rope_type", Some(TYPES))),
    };
    reader.finish_section(outer);
    Ok(Some(Section { theta, scaling }))
}

fn read_llama3(reader: &mut ConfigReader, original: OriginalContext) -> Result<RopeScaling> {
    let low_freq_factor = reader.float("low_freq_factor", 1e-6..=1e6)?;
    let high_freq_factor = reader.float("high_freq_factor", 1e-6..=1e6)?;
    if high_freq_factor <= low_freq_factor {
        let message = format!(
            "`high_freq_factor` must be above `low_freq_factor`: `{high_freq_factor}` and `{low_freq_factor}`"
        );
        return Err(reader.inconsistent(message, Some("Llama 3.1 uses 4.0 and 1.0")));
    }
    Ok(RopeScaling::Llama3 {
        factor: reader.float("factor", FACTOR)?,
        low_freq_factor,
        high_freq_factor,
        original_max_position_embeddings: read_original(reader, original)?,
    })
}

fn read_yarn(reader: &mut ConfigReader, original: OriginalContext) -> Result<RopeScaling> {
    let beta_fast = reader.float_or_none("beta_fast", 1e-6..=1e6)?.unwrap_or(32.0);
    let beta_slow = reader.float_or_none("beta_slow", 1e-6..=1e6)?.unwrap_or(1.0);
    if beta_fast < beta_slow {
        let message =
            format!("`beta_fast` must be at least `beta_slow`: `{beta_fast}` and `{beta_slow}`");
        return Err(reader.inconsistent(message, Some("the YaRN paper uses 32 and 1")));
    }
    Ok(RopeScaling::Yarn {
        factor: reader.float("factor", FACTOR)?,
        original_max_position_embeddings: read_original(reader, original)?,
        attention_factor: reader.float_or_none("attention_factor", 1e-6..=1e6)?,
        beta_fast,
        beta_slow,
        mscale: reader.float_or_none("mscale", 0.0..=1e6)?,
        mscale_all_dim: reader.float_or_none("mscale_all_dim", 0.0..=1e6)?,
        truncate: reader.flag("truncate", true)?,
    })
}

fn read_original(reader: &mut ConfigReader, original: OriginalContext) -> Result<usize> {
    let inner = reader.size_or_none(ORIGINAL, 1..=limits::POSITIONS)?;
    match (inner, original.top_level) {
        (Some(inner), Some(outer)) if inner != outer => {
            let message = format!("`{ORIGINAL}` is given twice: `{outer}` and `{inner}`");
            Err(reader.inconsistent(message, Some("keep the one next to `rope_type`")))
        }
        (inner, outer) => Ok(inner.or(outer).unwrap_or(original.model)),
    }
}
