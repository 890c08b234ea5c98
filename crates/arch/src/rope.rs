//! Rotary position embedding: which scalings of its frequencies are known, and the tables of cosines and sines.
//! Tables are computed in f64 and cast last, so that position 131,071 is as exact as position 1; the rotation itself
//! belongs to `kernels`. Shapes: p positions, k2 half of the head width (half-split layout: element i turns with
//! element i + k2).

use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::keys::Keys;
use crate::limits;

/// The base of the frequencies and how they are stretched for longer texts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeParameters {
    /// The base of the geometric series of wavelengths.
    pub rope_theta: f64,
    /// How the frequencies are changed.
    pub scaling: RopeScaling,
}

/// How the frequencies of the plain series are changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all (Su et al. 2021, RoFormer, section 3.3).
    Default,
    /// All divided by one factor (Chen et al. 2023, Position Interpolation, equation 4).
    Linear {
        /// By how much.
        factor: f64,
    },
    /// Long wavelengths divided by a factor, short ones kept, a ramp between (Llama 3.1, as published with its code).
    Llama3 {
        /// By how much long wavelengths are stretched.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are stretched fully.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context length before stretching.
        original_max_position_embeddings: usize,
    },
    /// As Llama3 but by number of rotations, with a temperature on attention (Peng et al. 2023, YaRN, section 3.4).
    Yarn {
        /// By how much slow dimensions are stretched.
        factor: f64,
        /// Context length before stretching.
        original_max_position_embeddings: usize,
        /// Multiplies cosines and sines; worked out from the factor where absent.
        attention_factor: Option<f64>,
        /// Dimensions that turn more often than this over the original context are kept.
        beta_fast: f64,
        /// Dimensions that turn less often than this are stretched fully.
        beta_slow: f64,
        /// DeepSeek's numerator of the attention factor.
        mscale: Option<f64>,
        /// DeepSeek's denominator of the attention factor.
        mscale_all_dim: Option<f64>,
        /// Whether the borders of the ramp are rounded to whole dimensions.
        truncate: bool,
    },
}

/// Cosines and sines of each position, both `[p, k2]` in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeTable {
    /// Cosines, already multiplied by the attention factor.
    pub cos: Vec<f32>,
    /// Sines, already multiplied by the attention factor.
    pub sin: Vec<f32>,
    /// Number of positions p.
    pub n_positions: usize,
    /// Half of the head width k2.
    pub half_width: usize,
}

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
        let Some(rope_theta) = inner_theta.or(outer_theta).or(default_theta) else {
            let hint = "the base of RoPE is never guessed; the first Llama models used `\"rope_theta\": 10000.0`";
            return Err(keys.missing("rope_theta", Some(hint)));
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

    /// Radians per position of each pair of a head of this width; `[k2]`.
    pub fn inverse_frequencies(&self, head_dim: usize) -> Vec<f64> {
        let half = head_dim / 2;
        let plain = (0..half).map(|i| self.rope_theta.powf(-2.0 * i as f64 / head_dim as f64));
        match self.scaling {
            RopeScaling::Default => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|f| f / factor).collect(),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => plain
                .map(|f| {
                    let n_turns =
                        original_max_position_embeddings as f64 * f / std::f64::consts::TAU;
                    let kept = ((n_turns - low_freq_factor) / (high_freq_factor - low_freq_factor))
                        .clamp(0.0, 1.0);
                    f * (kept + (1.0 - kept) / factor)
                })
                .collect(),
            RopeScaling::Yarn {
                factor,
                original_max_position_embeddings,
                beta_fast,
                beta_slow,
                truncate,
                ..
            } => {
                // The dimension at which the original context holds this many turns; YaRN, equation 17's inverse.
                let dimension_of = |n_turns: f64| {
                    let wavelengths =
                        original_max_position_embeddings as f64 / (n_turns * std::f64::consts::TAU);
                    head_dim as f64 * wavelengths.ln() / (2.0 * self.rope_theta.ln())
                };
                let (mut low, mut high) = (dimension_of(beta_fast), dimension_of(beta_slow));
                if truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                low = low.max(0.0);
                high = high.min(head_dim as f64 - 1.0);
                if low == high {
                    // transformers' guard against a ramp of no length.
                    high += 0.001;
                }
                plain
                    .enumerate()
                    .map(|(i, f)| {
                        let stretched = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                        f * (1.0 - stretched) + f / factor * stretched
                    })
                    .collect()
            }
        }
    }

    /// What cosines and sines are multiplied by; 1 except for YaRN.
    pub fn attention_factor(&self) -> f64 {
        let RopeScaling::Yarn { factor, attention_factor, mscale, mscale_all_dim, .. } =
            self.scaling
        else {
            return 1.0;
        };
        // YaRN, equation 22: the temperature grows with the logarithm of the stretch.
        let grown = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
        match (attention_factor, mscale, mscale_all_dim) {
            (Some(given), _, _) => given,
            (None, Some(numerator), Some(denominator))
                if numerator != 0.0 && denominator != 0.0 =>
            {
                grown(numerator) / grown(denominator)
            }
            _ => grown(1.0),
        }
    }

    /// Cosines and sines of positions `0..n_positions` for heads of this width.
    pub fn table(&self, head_dim: usize, n_positions: usize) -> RopeTable {
        let inverse_frequencies = self.inverse_frequencies(head_dim);
        let half_width = inverse_frequencies.len();
        let factor = self.attention_factor();
        let mut cos = Vec::with_capacity(n_positions.saturating_mul(half_width));
        let mut sin = Vec::with_capacity(n_positions.saturating_mul(half_width));
        for position in 0..n_positions {
            for &inverse_frequency in &inverse_frequencies {
                let (s, c) = (position as f64 * inverse_frequency).sin_cos();
                cos.push((c * factor) as f32);
                sin.push((s * factor) as f32);
            }
        }
        RopeTable { cos, sin, n_positions, half_width }
    }
}

const THETA: std::ops::RangeInclusive<f64> = 1.000_001..=1e15;
const FACTOR: std::ops::RangeInclusive<f64> = 1.0..=1e6;
const WHOLE_HEAD: &str = "only rotation of the whole head is supported (1.0)";
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
