//! RoPE in config.json: `rope_parameters` of transformers 5, and `rope_theta` with `rope_scaling` of older versions.
//!
//! Both are written, because no reader knows both: transformers 4 and mlx-lm take a missing `rope_theta` for 10,000.

use serde_json::{Map, Value, json};

use super::{RopeParameters, RopeScaling};
use crate::config_reader::ConfigReader;
use crate::error::Result;
use crate::limits;

/// Differences between families in the keys of RoPE.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RopeKeys {
    /// The base in files that do not state it. Without a default, such a file is refused.
    pub(crate) default_theta: Option<f64>,
    /// Whether the family can rotate a part of each head.
    pub(crate) has_partial: bool,
}

impl RopeParameters {
    /// Reads `rope_parameters`, or `rope_theta` and `rope_scaling`. If both are present they must agree.
    pub(crate) fn read(
        reader: &mut ConfigReader,
        keys: RopeKeys,
        max_position_embeddings: usize,
    ) -> Result<Self> {
        let older = OlderKeys::read(reader, keys, max_position_embeddings)?;
        let context = older.context;
        let today = read_section(reader, "rope_parameters", "rope_parameters.", context)?;
        if let Some(today) = &today {
            older.check(reader, today, "rope_parameters")?;
        }
        let section = today.as_ref().or(older.section.as_ref());
        let theta = section.and_then(|section| section.theta).or(older.theta);
        let rope_theta = match (theta, keys.default_theta) {
            (Some(theta), _) => theta,
            (None, Some(theta)) => {
                reader.note(format!(
                    "rope_theta is absent and set to {theta}, the constant of transformers before 4.33"
                ));
                theta
            }
            (None, None) => return Err(reader.missing("rope_theta", Some(NO_THETA))),
        };
        let partial = section.and_then(|section| section.partial).or(older.partial);
        let scaling = section.map_or(RopeScaling::Default, |section| section.scaling.clone());
        Ok(Self { rope_theta, partial_rotary_factor: partial.unwrap_or(1.0), scaling })
    }

    /// Reads the two entries of `rope_parameters` in files that have one for each type of layer: full attention, sliding
    /// attention. `None` in files without them. The older keys describe full attention, and must agree.
    pub(crate) fn read_by_layer_type(
        reader: &mut ConfigReader,
        max_position_embeddings: usize,
    ) -> Result<Option<[Self; 2]>> {
        let has_types = reader
            .value("rope_parameters")
            .is_some_and(|value| value.get("full_attention").is_some_and(Value::is_object));
        if !has_types {
            return Ok(None);
        }
        let older = OlderKeys::read(reader, RopeKeys::default(), max_position_embeddings)?;
        let Some(mut types) = reader.section("rope_parameters", "rope_parameters.")? else {
            return Ok(None);
        };
        let mut of_type = |key: &str, scope: &'static str| {
            let Some(section) = read_section(&mut types, key, scope, older.context)? else {
                return Err(types.missing(key, Some("one entry for each type of layer")));
            };
            if section.theta.is_none() {
                return Err(types.missing(&format!("{key}.rope_theta"), Some(NO_THETA)));
            }
            Ok(section)
        };
        let full = of_type("full_attention", "rope_parameters.full_attention.")?;
        let sliding = of_type("sliding_attention", "rope_parameters.sliding_attention.")?;
        types.finish_section(reader);
        older.check(reader, &full, "rope_parameters.full_attention")?;
        let whole_heads = |section: Section| Self {
            rope_theta: section.theta.unwrap_or_default(),
            partial_rotary_factor: 1.0,
            scaling: section.scaling,
        };
        Ok(Some([whole_heads(full), whole_heads(sliding)]))
    }

    /// The value of `rope_parameters`.
    pub(crate) fn to_json(&self) -> Value {
        let mut map = Map::new();
        map.insert("rope_theta".to_owned(), json!(self.rope_theta));
        if self.partial_rotary_factor < 1.0 {
            map.insert(PARTIAL.to_owned(), json!(self.partial_rotary_factor));
        }
        map.extend(self.scaling.to_keys());
        Value::Object(map)
    }

    /// Adds the keys of transformers 4: `rope_theta`, and with scaling `rope_scaling`. In these versions LongRoPE reads the
    /// context before scaling from the top level, and computes the factor of cosines and sines from it.
    pub(crate) fn write_older_keys(&self, keys: &mut Map<String, Value>) {
        keys.insert("rope_theta".to_owned(), json!(self.rope_theta));
        let mut scaling = self.scaling.to_keys();
        match &self.scaling {
            RopeScaling::Default => return,
            RopeScaling::LongRope { original_max_position_embeddings, .. } => {
                keys.insert(ORIGINAL.to_owned(), json!(original_max_position_embeddings));
                scaling.insert("attention_factor".to_owned(), json!(self.attention_factor()));
            }
            RopeScaling::Linear { .. }
            | RopeScaling::Llama3 { .. }
            | RopeScaling::Yarn { .. }
            | RopeScaling::Dynamic { .. } => {}
        }
        keys.insert("rope_scaling".to_owned(), Value::Object(scaling));
    }
}

impl RopeScaling {
    /// The type and its parameters, as in `rope_parameters`.
    fn to_keys(&self) -> Map<String, Value> {
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
        match self {
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
            RopeScaling::LongRope {
                short_factor,
                long_factor,
                original_max_position_embeddings,
                factor,
                max_position_embeddings: _,
                attention_factor,
            } => {
                put("rope_type", json!("longrope"));
                put("short_factor", json!(short_factor));
                put("long_factor", json!(long_factor));
                put("original_max_position_embeddings", json!(original_max_position_embeddings));
                for (key, value) in [("factor", factor), ("attention_factor", attention_factor)] {
                    if let Some(value) = value {
                        put(key, json!(value));
                    }
                }
            }
            RopeScaling::Dynamic { factor, max_position_embeddings: _ } => {
                put("rope_type", json!("dynamic"));
                put("factor", json!(factor));
            }
        }
        map
    }

    /// Whether both give the same angles, whichever of the keys that follow from each other a file has.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        let without_ratio = |scaling: &Self| match scaling {
            Self::LongRope {
                short_factor, long_factor, original_max_position_embeddings, ..
            } => Self::LongRope {
                short_factor: short_factor.clone(),
                long_factor: long_factor.clone(),
                original_max_position_embeddings: *original_max_position_embeddings,
                factor: None,
                max_position_embeddings: 0,
                attention_factor: None,
            },
            Self::Default
            | Self::Linear { .. }
            | Self::Llama3 { .. }
            | Self::Yarn { .. }
            | Self::Dynamic { .. } => scaling.clone(),
        };
        let near = (self.attention_factor() / other.attention_factor() - 1.0).abs() < 1e-9;
        near && without_ratio(self) == without_ratio(other)
    }
}

const THETA: std::ops::RangeInclusive<f64> = 1.000_001..=1e15;
const FACTOR: std::ops::RangeInclusive<f64> = 1.0..=1e6;
const WHOLE_HEAD: &str = "only rotation of the whole head is supported (1.0)";
const HALF_SPLIT: &str = "only the half-split layout is supported (false)";
const NO_THETA: &str =
    "the base of RoPE has no default; the first Llama models use `\"rope_theta\": 10000.0`";
/// The values of `rope_type` that are read.
pub const ROPE_TYPES: [&str; 6] = ["default", "linear", "llama3", "yarn", "longrope", "dynamic"];
const TYPES: &str = "supported rope types: default, linear, llama3, yarn, longrope, dynamic";

const ORIGINAL: &str = "original_max_position_embeddings";
const PARTIAL: &str = "partial_rotary_factor";

/// Values outside the RoPE section that it depends on.
#[derive(Debug, Clone, Copy)]
struct Context {
    keys: RopeKeys,
    /// `original_max_position_embeddings` at the top level, where some files have it.
    top_level_original: Option<usize>,
    /// Context length of the model.
    max_position_embeddings: usize,
}

struct Section {
    theta: Option<f64>,
    partial: Option<f64>,
    scaling: RopeScaling,
}

/// The keys of transformers 4 at the top level.
struct OlderKeys {
    theta: Option<f64>,
    partial: Option<f64>,
    section: Option<Section>,
    context: Context,
}

impl OlderKeys {
    fn read(
        reader: &mut ConfigReader,
        keys: RopeKeys,
        max_position_embeddings: usize,
    ) -> Result<Self> {
        let top_level_original = reader.size_or_none(ORIGINAL, 1..=limits::POSITIONS)?;
        let theta = reader.float_or_none("rope_theta", THETA)?;
        let partial = read_partial(reader, keys)?;
        reader.require("rope_interleaved", |v| v.as_bool() == Some(false), HALF_SPLIT)?;
        let context = Context { keys, top_level_original, max_position_embeddings };
        let section = read_section(reader, "rope_scaling", "rope_scaling.", context)?;
        let older = Self { theta, partial, section, context };
        if let Some(section) = &older.section {
            older.check_numbers(reader, section, "rope_scaling")?;
        }
        Ok(older)
    }

    /// Refuses older keys that contradict the section `scope` of `rope_parameters`.
    fn check(&self, reader: &ConfigReader, today: &Section, scope: &str) -> Result<()> {
        if let Some(older) = &self.section
            && !older.scaling.agrees_with(&today.scaling)
        {
            let message = format!("`{scope}` and `rope_scaling` contradict each other");
            return Err(reader.inconsistent(message, Some("keep `rope_parameters` only")));
        }
        self.check_numbers(reader, today, scope)
    }

    /// Refuses numbers that the top level and the section `scope` give differently.
    fn check_numbers(&self, reader: &ConfigReader, section: &Section, scope: &str) -> Result<()> {
        for (key, outer, inner) in
            [("rope_theta", self.theta, section.theta), (PARTIAL, self.partial, section.partial)]
        {
            if let (Some(outer), Some(inner)) = (outer, inner)
                && inner != outer
            {
                let message = format!("`{key}` is given twice: `{outer}` and `{inner}`");
                return Err(
                    reader.inconsistent(message, Some(&format!("keep the one in `{scope}`")))
                );
            }
        }
        Ok(())
    }
}

/// The share of a head that is rotated; anything but 1 is refused where the family rotates whole heads.
fn read_partial(reader: &mut ConfigReader, keys: RopeKeys) -> Result<Option<f64>> {
    if keys.has_partial {
        return reader.float_or_none(PARTIAL, 0.01..=1.0);
    }
    reader.require(PARTIAL, |v| v.as_f64() == Some(1.0), WHOLE_HEAD)?;
    Ok(None)
}

fn read_section(
    outer: &mut ConfigReader,
    key: &str,
    scope: &'static str,
    context: Context,
) -> Result<Option<Section>> {
    let Some(mut reader) = outer.section(key, scope)? else { return Ok(None) };
    let theta = reader.float_or_none("rope_theta", THETA)?;
    let partial = read_partial(&mut reader, context.keys)?;
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
        Some("llama3") => read_llama3(&mut reader, context)?,
        Some("yarn") => read_yarn(&mut reader, context)?,
        // The name in the first files of Phi-3.
        Some("longrope" | "su") => read_longrope(&mut reader, context)?,
        Some("dynamic") => {
            reader.value(ORIGINAL);
            let max_position_embeddings = context.max_position_embeddings;
            RopeScaling::Dynamic {
                factor: reader.float("factor", FACTOR)?,
                max_position_embeddings,
            }
        }
        Some(other) => {
            return Err(reader.unsupported("rope_type", &json!(other), TYPES));
        }
        // transformers 5 may omit the type if there is only a base.
        None if theta.is_some() => RopeScaling::Default,
        None => return Err(reader.missing("rope_type", Some(TYPES))),
    };
    reader.finish_section(outer);
    Ok(Some(Section { theta, partial, scaling }))
}

fn read_longrope(reader: &mut ConfigReader, context: Context) -> Result<RopeScaling> {
    let short_factor = reader.floats("short_factor", 1e-6..=1e6)?;
    let long_factor = reader.floats("long_factor", 1e-6..=1e6)?;
    if short_factor.len() != long_factor.len() {
        let (short, long) = (short_factor.len(), long_factor.len());
        let message = format!(
            "`short_factor` and `long_factor` must have the same length: `{short}` and `{long}`"
        );
        return Err(reader.inconsistent(message, Some("one divisor for each rotated pair")));
    }
    Ok(RopeScaling::LongRope {
        short_factor,
        long_factor,
        original_max_position_embeddings: read_original(reader, context)?,
        factor: reader.float_or_none("factor", FACTOR)?,
        max_position_embeddings: context.max_position_embeddings,
        attention_factor: reader.float_or_none("attention_factor", 1e-6..=1e6)?,
    })
}

fn read_llama3(reader: &mut ConfigReader, context: Context) -> Result<RopeScaling> {
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
        original_max_position_embeddings: read_original(reader, context)?,
    })
}

fn read_yarn(reader: &mut ConfigReader, context: Context) -> Result<RopeScaling> {
    let beta_fast = reader.float_or_none("beta_fast", 1e-6..=1e6)?.unwrap_or(32.0);
    let beta_slow = reader.float_or_none("beta_slow", 1e-6..=1e6)?.unwrap_or(1.0);
    if beta_fast < beta_slow {
        let message =
            format!("`beta_fast` must be at least `beta_slow`: `{beta_fast}` and `{beta_slow}`");
        return Err(reader.inconsistent(message, Some("the YaRN paper uses 32 and 1")));
    }
    Ok(RopeScaling::Yarn {
        factor: reader.float("factor", FACTOR)?,
        original_max_position_embeddings: read_original(reader, context)?,
        attention_factor: reader.float_or_none("attention_factor", 1e-6..=1e6)?,
        beta_fast,
        beta_slow,
        mscale: reader.float_or_none("mscale", 0.0..=1e6)?,
        mscale_all_dim: reader.float_or_none("mscale_all_dim", 0.0..=1e6)?,
        truncate: reader.flag("truncate", true)?,
    })
}

fn read_original(reader: &mut ConfigReader, context: Context) -> Result<usize> {
    let inner = reader.size_or_none(ORIGINAL, 1..=limits::POSITIONS)?;
    match (inner, context.top_level_original) {
        (Some(inner), Some(outer)) if inner != outer => {
            let message = format!("`{ORIGINAL}` is given twice: `{outer}` and `{inner}`");
            Err(reader.inconsistent(message, Some("keep the one next to `rope_type`")))
        }
        (inner, outer) => Ok(inner.or(outer).unwrap_or(context.max_position_embeddings)),
    }
}
