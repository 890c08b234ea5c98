//! `precision`: the type of the inputs of matrix products.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Type of the inputs of matrix products. Sums are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32 throughout.
    #[default]
    F32,
    /// f32 rounded to a mantissa of ten bits by the tensor cores; on CUDA only.
    Tf32,
    /// bf16, with a mantissa of eight bits. Products take less time on some processors, about half of it on
    /// AMD's Zen 5, and about as long on those whose instructions for bf16 are no faster.
    Bf16,
}

impl Precision {
    /// Name of the precision in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }
}
