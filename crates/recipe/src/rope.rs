//! `rope_scaling` of [model]: how rotary positions stretch. Knows no formula: the tables are
//! `arch`'s.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::problems::Problems;

/// How rotary positions stretch to texts longer than the model was trained on; the keys are those
/// of config.json.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "rope_type", rename_all = "lowercase")]
pub enum RopeScaling {
    /// Every position divided by the factor.
    Linear(LinearRope),
    /// Low frequencies divided, high ones kept, as Llama 3.1 does.
    Llama3(Llama3Rope),
    /// YaRN: low frequencies divided, high ones kept, attention a little sharper.
    Yarn(YarnRope),
}

/// Linear stretching.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinearRope {
    /// How many times longer the texts become.
    #[schemars(range(min = 1.0, max = 1000.0))]
    pub factor: f64,
}

/// Llama 3.1's stretching.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Llama3Rope {
    /// How many times longer the texts become.
    #[schemars(range(min = 1.0, max = 1000.0))]
    pub factor: f64,
    /// Waves longer than the original length over this are stretched in full.
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1000.0))]
    pub low_freq_factor: f64,
    /// Waves shorter than the original length over this are kept.
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1000.0))]
    pub high_freq_factor: f64,
    /// The length that the positions were made for.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub original_max_position_embeddings: usize,
}

/// YaRN's stretching.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct YarnRope {
    /// How many times longer the texts become.
    #[schemars(range(min = 1.0, max = 1000.0))]
    pub factor: f64,
    /// The length that the positions were made for.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub original_max_position_embeddings: usize,
    /// Waves that turn more often than this within the original length are kept.
    #[serde(default = "default_beta_fast")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 10_000.0))]
    pub beta_fast: f64,
    /// Waves that turn less often than this within the original length are stretched in full.
    #[serde(default = "default_beta_slow")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 10_000.0))]
    pub beta_slow: f64,
    /// What queries and keys are multiplied by. Left out, 0.1 ln(factor) + 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 100.0))]
    pub attention_factor: Option<f64>,
}

impl RopeScaling {
    pub(crate) fn check(&self, path: &str, problems: &mut Problems) {
        match self {
            Self::Llama3(rope) if rope.high_freq_factor <= rope.low_freq_factor => problems.value(
                &format!("{path}.high_freq_factor"),
                &format!("must be above `low_freq_factor` ({})", rope.low_freq_factor),
                rope.high_freq_factor,
            ),
            Self::Yarn(rope) if rope.beta_fast <= rope.beta_slow => problems.value(
                &format!("{path}.beta_fast"),
                &format!("must be above `beta_slow` ({})", rope.beta_slow),
                rope.beta_fast,
            ),
            _ => {}
        }
    }
}

fn default_beta_fast() -> f64 {
    32.0
}

fn default_beta_slow() -> f64 {
    1.0
}
