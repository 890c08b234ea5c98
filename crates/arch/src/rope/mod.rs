//! Rotary position embedding: which scalings of its frequencies are known, and the tables of cosines and sines.
//! Tables are computed in f64 and cast last, so that position 131,071 is as exact as position 1; the rotation itself
//! belongs to `kernels`. Shapes: p positions, k2 half of the head width (half-split layout: element i turns with
//! element i + k2).

mod config_json;

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
    /// Not at all (Su et al. 2021, RoFormer, section 3.2.2).
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
    /// Radians per position of each pair of a head of this width; `[k2]`.
    pub fn inverse_frequencies(&self, head_dim: usize) -> Vec<f64> {
        let plain = (0..head_dim / 2)
            .map(|pair| self.rope_theta.powf(-2.0 * pair as f64 / head_dim as f64))
            .enumerate();
        plain.map(|(pair, frequency)| self.scaled(pair, frequency, head_dim)).collect()
    }

    /// The frequency of one pair after scaling.
    fn scaled(&self, pair: usize, frequency: f64, head_dim: usize) -> f64 {
        match self.scaling {
            RopeScaling::Default => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let n_turns =
                    original_max_position_embeddings as f64 * frequency / std::f64::consts::TAU;
                let ramp = (n_turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                let kept = ramp.clamp(0.0, 1.0);
                frequency * (kept + (1.0 - kept) / factor)
            }
            RopeScaling::Yarn { factor, .. } => {
                let (low, high) = self.yarn_borders(head_dim);
                let stretched = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                frequency * (1.0 - stretched) + frequency / factor * stretched
            }
        }
    }

    /// The pairs between which YaRN's ramp runs: kept below the first, stretched above the second.
    fn yarn_borders(&self, head_dim: usize) -> (f64, f64) {
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
        // The pair that turns so many times over the original context (Peng et al. 2023, section 3.2, solved for it).
        let pair_of = |n_turns: f64| {
            let wavelength =
                original_max_position_embeddings as f64 / (n_turns * std::f64::consts::TAU);
            head_dim as f64 * wavelength.ln() / (2.0 * self.rope_theta.ln())
        };
        let (mut low, mut high) = (pair_of(beta_fast), pair_of(beta_slow));
        if truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        low = low.max(0.0);
        high = high.min(head_dim as f64 - 1.0);
        // transformers' guard against a ramp of no length.
        if low == high { (low, high + 0.001) } else { (low, high) }
    }

    /// What cosines and sines are multiplied by; 1 except for YaRN.
    pub fn attention_factor(&self) -> f64 {
        let RopeScaling::Yarn { factor, attention_factor, mscale, mscale_all_dim, .. } =
            self.scaling
        else {
            return 1.0;
        };
        // Peng et al. 2023, equation 22: the temperature grows with the logarithm of the stretch.
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
