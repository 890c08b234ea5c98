//! `rope_scaling` of [model]: scaling of rotary position embeddings. The tables are computed in
//! `arch`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostics::Diagnostics;

/// Scaling of rotary position embeddings to sequences longer than the model was trained on. The
/// keys are those of config.json.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "rope_type", rename_all = "lowercase")]
pub enum RopeScaling {
    /// Every position is divided by the factor.
    Linear(LinearRope),
    /// Llama 3.1: low frequencies are divided by the factor, high ones are kept.
    Llama3(Llama3Rope),
    /// YaRN: low frequencies are divided by the factor, high ones are kept, and attention is
    /// sharpened slightly.
    Yarn(YarnRope),
}

/// Linear scaling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinearRope {
    /// Factor by which sequences become longer.
    #[schemars(range(min = 1.0, max = 1000.0))]
    pub factor: f64,
}

/// Scaling of Llama 3.1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Llama3Rope {
    /// Factor by which sequences become longer.
    #[schemars(range(min = 1.0, max = 1000.0))]
    pub factor: f64,
    /// Wavelengths above the original length divided by this are scaled fully.
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1000.0))]
    pub low_freq_factor: f64,
    /// Wavelengths below the original length divided by this are kept.
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1000.0))]
    pub high_freq_factor: f64,
    /// Maximum sequence length before scaling.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub original_max_position_embeddings: usize,
}

/// YaRN scaling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct YarnRope {
    /// Factor by which sequences become longer.
    #[schemars(range(min = 1.0, max = 1000.0))]
    pub factor: f64,
    /// Maximum sequence length before scaling.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub original_max_position_embeddings: usize,
    /// Frequencies with more rotations than this within the original length are kept.
    #[serde(default = "default_beta_fast")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 10_000.0))]
    pub beta_fast: f64,
    /// Frequencies with fewer rotations than this within the original length are scaled fully.
    #[serde(default = "default_beta_slow")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 10_000.0))]
    pub beta_slow: f64,
    /// Multiplier of queries and keys. Default: 0.1 ln(factor) + 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 100.0))]
    pub attention_factor: Option<f64>,
}

impl RopeScaling {
    pub(crate) fn check(&self, path: &str, diagnostics: &mut Diagnostics) {
        match self {
            Self::Linear(_) => {}
            Self::Llama3(rope) => {
                if rope.high_freq_factor <= rope.low_freq_factor {
                    diagnostics.value(
                        &format!("{path}.high_freq_factor"),
                        &format!("must be above `low_freq_factor` ({})", rope.low_freq_factor),
                        rope.high_freq_factor,
                    );
                }
            }
            Self::Yarn(rope) => {
                if rope.beta_fast <= rope.beta_slow {
                    diagnostics.value(
                        &format!("{path}.beta_fast"),
                        &format!("must be above `beta_slow` ({})", rope.beta_slow),
                        rope.beta_fast,
                    );
                }
            }
        }
    }
}

fn default_beta_fast() -> f64 {
    32.0
}

fn default_beta_slow() -> f64 {
    1.0
}
