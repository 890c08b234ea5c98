//! How config.json spells RoPE: today's `rope_parameters`, and `rope_theta` with `rope_scaling` before it. Computes
//! nothing.

use serde_json::{Map, Value, json};

use super::{RopeParameters, RopeScaling};
use crate::config_reader::Keys;
use crate::error::Result;
use crate::limits;

impl RopeParameters {
    /// Reads `rope_parameters` (today), or `rope_theta` and `rope_scaling` (older); where both are present they must
    /// agree. `default_theta` is what a file without either means.
    pub(crate) fn read(
        keys: &mut Keys,
        default_theta: Option<f64>,
        max_position_embeddings: usize,
    ) -> Result<Self> {
        let outer_original = keys.size_or_none(ORIGINAL, 1..=limits::POSITIONS)?;
        let outer_theta = keys.float_or_none("rope_theta", THETA)?;
        keys.only("partial_rotary_factor", |v| v.as_f64() == Some(1.0), WHOLE_HEAD)?;
        keys.only(
            "rope_interleaved",
            |v| v.as_bool() == Some(false),
            "only the half-split layout",
        )?;
        let original = Original { outer: outer_original, context: max_position_embeddings };
        let today = read_section(keys, "rope_parameters", "rope_parameters.", original)?;
        let older = read_section(keys, "rope_scaling", "rope_scaling.", original)?;
        if let (Some(a), Some(b)) = (&today, &older)
            && a.scaling != b.scaling
        {
            let message = "`rope_parameters` and `rope_scaling` say different things".to_owned();
            return Err(keys.inconsistent(message, Some("keep `rope_parameters` alone")));
        }
        let found = today.or(older);
        let inner_theta = found.as_ref().and_then(|section| section.theta);
        if let (Some(inner), Some(outer)) = (inner_theta, outer_theta)
            && inner != outer
        {
            let message = format!("`rope_theta` is given twice: `{outer}` and `{inner}`");
            return Err(keys.inconsistent(message, Some("keep the one of `rope_parameters`")));
        }
        let rope_theta = match (inner_theta.or(outer_theta), default_theta) {
            (Some(theta), _) => theta,
            (None, Some(theta)) => {
                keys.note(format!("rope_theta is absent; a file of this age means {theta}"));
                theta
            }
            (None, None) => return Err(keys.missing("rope_theta", Some(NO_THETA))),
        };
        let scaling = found.map_or(RopeScaling::Default, |section| section.scaling);
        Ok(Self { rope_theta, scaling })
    }

    /// The object that today's config.json holds as `rope_parameters`.
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
const NO_THETA: &str =
    "the base of RoPE is never guessed; the first Llama models used `\"rope_theta\": 10000.0`";
const TYPES: &str = "supported rope types: default, linear, llama3, yarn";

const ORIGINAL: &str = "original_max_position_embeddings";

/// Where the context length before stretching comes from when the scaling does not say.
#[derive(Debug, Clone, Copy)]
struct Original {
    /// The key beside the scaling, which some files have.
    outer: Option<usize>,
    /// The context length of the model.
    context: usize,
}

struct Section {
    theta: Option<f64>,
    scaling: RopeScaling,
}

fn read_section(
    outer: &mut Keys,
    key: &str,
    scope: &'static str,
    original: Original,
) -> Result<Option<Section>> {
    let Some(mut keys) = outer.section(key, scope)? else { return Ok(None) };
    let theta = keys.float_or_none("rope_theta", THETA)?;
    keys.only("partial_rotary_factor", |v| v.as_f64() == Some(1.0), WHOLE_HEAD)?;
    let today = keys.text("rope_type")?;
    let older = keys.text("type")?;
    if let (Some(a), Some(b)) = (today, older)
        && a != b
    {
        let message = format!("`{scope}rope_type` is `{a}` and `{scope}type` is `{b}`");
        return Err(keys.inconsistent(message, Some("keep `rope_type` alone")));
    }
    let scaling = match today.or(older) {
        Some("default") => {
            keys.value(ORIGINAL);
            RopeScaling::Default
        }
        Some("linear") => {
            keys.value(ORIGINAL);
            RopeScaling::Linear { factor: keys.float("factor", FACTOR)? }
        }
        Some("llama3") => read_llama3(&mut keys, original)?,
        Some("yarn") => read_yarn(&mut keys, original)?,
        Some(other) => {
            return Err(keys.unsupported("rope_type", &json!(other), TYPES));
        }
        // Today's spelling may leave the type out where there is only a theta.
        None if theta.is_some() => RopeScaling::Default,
        None => return Err(keys.missing("rope_type", Some(TYPES))),
    };
    keys.finish()?;
    Ok(Some(Section { theta, scaling }))
}

fn read_llama3(keys: &mut Keys, original: Original) -> Result<RopeScaling> {
    let low_freq_factor = keys.float("low_freq_factor", 1e-6..=1e6)?;
    let high_freq_factor = keys.float("high_freq_factor", 1e-6..=1e6)?;
    if high_freq_factor <= low_freq_factor {
        let message = format!(
            "`high_freq_factor` must be above `low_freq_factor`: `{high_freq_factor}` and `{low_freq_factor}`"
        );
        return Err(keys.inconsistent(message, Some("Llama 3.1 has 4.0 and 1.0")));
    }
    Ok(RopeScaling::Llama3 {
        factor: keys.float("factor", FACTOR)?,
        low_freq_factor,
        high_freq_factor,
        original_max_position_embeddings: read_original(keys, original)?,
    })
}

fn read_yarn(keys: &mut Keys, original: Original) -> Result<RopeScaling> {
    let beta_fast = keys.float_or_none("beta_fast", 1e-6..=1e6)?.unwrap_or(32.0);
    let beta_slow = keys.float_or_none("beta_slow", 1e-6..=1e6)?.unwrap_or(1.0);
    if beta_fast < beta_slow {
        let message =
            format!("`beta_fast` must not be below `beta_slow`: `{beta_fast}` and `{beta_slow}`");
        return Err(keys.inconsistent(message, Some("the YaRN paper has 32 and 1")));
    }
    Ok(RopeScaling::Yarn {
        factor: keys.float("factor", FACTOR)?,
        original_max_position_embeddings: read_original(keys, original)?,
        attention_factor: keys.float_or_none("attention_factor", 1e-6..=1e6)?,
        beta_fast,
        beta_slow,
        mscale: keys.float_or_none("mscale", 0.0..=1e6)?,
        mscale_all_dim: keys.float_or_none("mscale_all_dim", 0.0..=1e6)?,
        truncate: keys.flag("truncate", true)?,
    })
}

fn read_original(keys: &mut Keys, original: Original) -> Result<usize> {
    let inner = keys.size_or_none(ORIGINAL, 1..=limits::POSITIONS)?;
    match (inner, original.outer) {
        (Some(inner), Some(outer)) if inner != outer => {
            let message = format!("`{ORIGINAL}` is given twice: `{outer}` and `{inner}`");
            Err(keys.inconsistent(message, Some("keep the one beside `rope_type`")))
        }
        (inner, outer) => Ok(inner.or(outer).unwrap_or(original.context)),
    }
}
