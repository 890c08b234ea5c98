//! Activation functions under their names in config.json.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Activation function, under its name in config.json.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x · sigmoid(x), as in Llama.
    Silu,
    /// Exact GELU.
    Gelu,
    /// GELU with the tanh approximation, as in GPT-2.
    GeluNew,
    /// The same function under its other name.
    GeluPytorchTanh,
}
