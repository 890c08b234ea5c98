//! Rotary position embedding (RoPE): scaling of frequencies, and tables of cosines and sines.
//!
//! Tables are computed in f64 and cast last, so that position 131,071 is as exact as position 1. The rotation itself is in
//! `kernels`. Shapes: p positions, k2 half of the head width (half-split layout: element i rotates with element i + k2).

mod config_json;

use std::collections::BTreeMap;

pub use config_json::ROPE_TYPES;
pub(crate) use config_json::RopeKeys;

/// Base and scaling of the frequencies.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeParameters {
    /// Base of the geometric series of wavelengths.
    pub rope_theta: f64,
    /// Share of a head's elements that are rotated: the first ones. 1: all.
    pub partial_rotary_factor: f64,
    /// Scaling of the frequencies.
    pub scaling: RopeScaling,
}

/// Scaling of the frequencies for longer contexts.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// No scaling (Su et al. 2021, RoFormer, section 3.2.2).
    Default,
    /// All frequencies divided by one factor (Chen et al. 2023, Position Interpolation, equation 4).
    Linear {
        /// Divisor of the frequencies.
        factor: f64,
    },
    /// Frequencies of long wavelengths divided by a factor, short ones kept, a ramp between (Llama 3.1, as in its published
    /// code).
    Llama3 {
        /// Divisor of the frequencies of long wavelengths.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are scaled fully.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context length before scaling.
        original_max_position_embeddings: usize,
    },
    /// A ramp over the number of rotations, and a temperature of attention (Peng et al. 2023, YaRN, section 3.4).
    Yarn {
        /// Divisor of the frequencies of slow dimensions.
        factor: f64,
        /// Context length before scaling.
        original_max_position_embeddings: usize,
        /// Multiplies cosines and sines. If absent, computed from `factor`.
        attention_factor: Option<f64>,
        /// Dimensions with more rotations than this over the original context are kept.
        beta_fast: f64,
        /// Dimensions with fewer rotations than this are scaled fully.
        beta_slow: f64,
        /// Numerator of the attention factor (DeepSeek).
        mscale: Option<f64>,
        /// Denominator of the attention factor (DeepSeek).
        mscale_all_dim: Option<f64>,
        /// Whether the ends of the ramp are rounded to whole dimensions.
        truncate: bool,
    },
    /// A divisor for each pair, one list for texts up to the original context and one for longer texts (Ding et al. 2024,
    /// LongRoPE, section 3.2).
    LongRope {
        /// Divisors in texts of at most `original_max_position_embeddings` tokens.
        short_factor: Vec<f64>,
        /// Divisors in longer texts.
        long_factor: Vec<f64>,
        /// Context length before scaling.
        original_max_position_embeddings: usize,
        /// Ratio of the context lengths. If absent, `max_position_embeddings / original_max_position_embeddings`.
        factor: Option<f64>,
        /// Context length of the model.
        max_position_embeddings: usize,
        /// Multiplies cosines and sines. If absent, computed from the ratio.
        attention_factor: Option<f64>,
    },
    /// A base that grows with the length of the text, beyond the model's context (NTK-aware scaling by length).
    Dynamic {
        /// Ratio by which texts may be longer than the context.
        factor: f64,
        /// Context length of the model.
        max_position_embeddings: usize,
    },
}

/// Cosines and sines by position, both `[p, k2]` in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeTable {
    /// Cosines times the attention factor.
    pub cos: Vec<f32>,
    /// Sines times the attention factor.
    pub sin: Vec<f32>,
    /// Number of positions p.
    pub n_positions: usize,
    /// Half of the head width k2.
    pub half_width: usize,
}

impl RopeParameters {
    /// RoPE on whole heads without scaling.
    pub fn plain(rope_theta: f64) -> Self {
        Self { rope_theta, partial_rotary_factor: 1.0, scaling: RopeScaling::Default }
    }

    /// Number of elements of a head of this width that are rotated.
    pub fn rotary_dim(&self, head_dim: usize) -> usize {
        (head_dim as f64 * self.partial_rotary_factor) as usize
    }

    /// The longest text whose frequencies are those of [`Self::inverse_frequencies`]; in longer texts they depend on the
    /// text's length. `None`: they never do.
    pub fn fixed_up_to(&self) -> Option<usize> {
        match self.scaling {
            RopeScaling::Default
            | RopeScaling::Linear { .. }
            | RopeScaling::Llama3 { .. }
            | RopeScaling::Yarn { .. } => None,
            RopeScaling::LongRope { original_max_position_embeddings: n, .. }
            | RopeScaling::Dynamic { max_position_embeddings: n, .. } => Some(n),
        }
    }

    /// Radians per position of each pair in a head of this width, `[k2]`, in texts of ordinary length.
    pub fn inverse_frequencies(&self, head_dim: usize) -> Vec<f64> {
        self.inverse_frequencies_of_text(head_dim, 1)
    }

    /// As [`Self::inverse_frequencies`], in a text of `length` tokens.
    pub fn inverse_frequencies_of_text(&self, head_dim: usize, length: usize) -> Vec<f64> {
        let rotary_dim = self.rotary_dim(head_dim);
        let theta = self.theta_of_text(rotary_dim, length);
        let plain = (0..rotary_dim / 2)
            .map(|pair| theta.powf(-2.0 * pair as f64 / rotary_dim as f64))
            .enumerate();
        plain.map(|(pair, frequency)| self.scaled(pair, frequency, rotary_dim, length)).collect()
    }

    /// The base in a text of `length` tokens.
    fn theta_of_text(&self, rotary_dim: usize, length: usize) -> f64 {
        let RopeScaling::Dynamic { factor, max_position_embeddings } = self.scaling else {
            return self.rope_theta;
        };
        let ratio = length.max(max_position_embeddings) as f64 / max_position_embeddings as f64;
        let exponent = rotary_dim as f64 / (rotary_dim as f64 - 2.0);
        self.rope_theta * (factor * ratio - (factor - 1.0)).powf(exponent)
    }

    /// The frequency of one pair after scaling.
    fn scaled(&self, pair: usize, frequency: f64, head_dim: usize, length: usize) -> f64 {
        match &self.scaling {
            RopeScaling::Default | RopeScaling::Dynamic { .. } => frequency,
            RopeScaling::LongRope {
                short_factor,
                long_factor,
                original_max_position_embeddings,
                ..
            } => {
                let is_long = length > *original_max_position_embeddings;
                let factors = if is_long { long_factor } else { short_factor };
                frequency / factors.get(pair).copied().unwrap_or(1.0)
            }
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let n_rotations =
                    *original_max_position_embeddings as f64 * frequency / std::f64::consts::TAU;
                let ramp = (n_rotations - low_freq_factor) / (high_freq_factor - low_freq_factor);
                let kept = ramp.clamp(0.0, 1.0);
                frequency * (kept + (1.0 - kept) / factor)
            }
            RopeScaling::Yarn { factor, .. } => {
                let (low, high) = self.yarn_ramp(head_dim);
                let scaled = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                frequency * (1.0 - scaled) + frequency / factor * scaled
            }
        }
    }

    /// The ends of YaRN's ramp: pairs below the first are kept, pairs above the second scaled.
    fn yarn_ramp(&self, head_dim: usize) -> (f64, f64) {
        let RopeScaling::Yarn {
            original_max_position_embeddings,
            beta_fast,
            beta_slow,
            truncate,
            ..
        } = self.scaling
        else {
            return (0.0, 1.0);
        };
        // The pair with this many rotations over the original context (Peng et al. 2023, section 3.2, solved for the pair).
        let pair_of = |n_rotations: f64| {
            let wavelength =
                original_max_position_embeddings as f64 / (n_rotations * std::f64::consts::TAU);
            head_dim as f64 * wavelength.ln() / (2.0 * self.rope_theta.ln())
        };
        let (mut low, mut high) = (pair_of(beta_fast), pair_of(beta_slow));
        if truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        low = low.max(0.0);
        high = high.min(head_dim as f64 - 1.0);
        // As in transformers, a ramp has a length above 0.
        if low == high { (low, high + 0.001) } else { (low, high) }
    }

    /// Factor of cosines and sines; 1 except for YaRN and LongRoPE.
    pub fn attention_factor(&self) -> f64 {
        self.scaling.attention_factor()
    }

    /// Cosines and sines of positions `0..n_positions` for a head of this width.
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

    /// Cosines and sines of tokens, each given as its position and the length of its text, for a head of this width. Row i
    /// of the table is token i. For texts longer than [`Self::fixed_up_to`].
    pub fn table_of_tokens(&self, head_dim: usize, tokens: &[(usize, usize)]) -> RopeTable {
        let factor = self.attention_factor();
        let mut by_length: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for &(position, length) in tokens {
            let frequencies = by_length
                .entry(length)
                .or_insert_with(|| self.inverse_frequencies_of_text(head_dim, length));
            for &mut inverse_frequency in frequencies {
                let (s, c) = (position as f64 * inverse_frequency).sin_cos();
                cos.push((c * factor) as f32);
                sin.push((s * factor) as f32);
            }
        }
        let half_width = self.rotary_dim(head_dim) / 2;
        RopeTable { cos, sin, n_positions: tokens.len(), half_width }
    }
}

impl RopeScaling {
    /// Factor of cosines and sines; 1 except for YaRN and LongRoPE.
    fn attention_factor(&self) -> f64 {
        match *self {
            Self::Default | Self::Linear { .. } | Self::Llama3 { .. } | Self::Dynamic { .. } => 1.0,
            Self::Yarn { factor, attention_factor, mscale, mscale_all_dim, .. } => {
                yarn_attention_factor(factor, attention_factor, mscale, mscale_all_dim)
            }
            Self::LongRope {
                original_max_position_embeddings,
                factor,
                max_position_embeddings,
                attention_factor,
                ..
            } => attention_factor.unwrap_or_else(|| {
                let original = original_max_position_embeddings as f64;
                let ratio = factor.unwrap_or(max_position_embeddings as f64 / original);
                if ratio <= 1.0 { 1.0 } else { (1.0 + ratio.ln() / original.ln()).sqrt() }
            }),
        }
    }
}

fn yarn_attention_factor(
    factor: f64,
    attention_factor: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
) -> f64 {
    // Peng et al. 2023, equation 22: the temperature grows with the logarithm of the factor.
    let grown = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    match (attention_factor, mscale, mscale_all_dim) {
        (Some(given), _, _) => given,
        (None, Some(numerator), Some(denominator)) if numerator != 0.0 && denominator != 0.0 => {
            grown(numerator) / grown(denominator)
        }
        _ => grown(1.0),
    }
}
