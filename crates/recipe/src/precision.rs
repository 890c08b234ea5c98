//! `precision`: in what numbers matrix products are computed. Computes nothing: that is `kernels`'.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The numbers that enter matrix products; sums are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32 throughout.
    #[default]
    F32,
    /// f32 rounded to ten bits of mantissa, as tensor cores take it; on CUDA only.
    Tf32,
    /// Rounded to bf16, eight bits of mantissa: products take about half the time where the processor
    /// has such ones.
    Bf16,
}

impl Precision {
    /// As recipes write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }
}
