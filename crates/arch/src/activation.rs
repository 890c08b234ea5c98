//! Activation functions and their names in config.json.

/// The names that are read, as a hint.
pub(crate) const ACTIVATION_NAMES: &str =
    "supported: gelu_new, gelu_pytorch_tanh, gelu_fast, gelu, relu, silu";

/// Activation function of an MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// GELU, tanh approximation (`gelu_new`, `gelu_pytorch_tanh`, `gelu_fast`).
    GeluTanh,
    /// GELU, exact (`gelu`).
    GeluExact,
    /// max(x, 0).
    Relu,
    /// x × sigmoid(x) (`silu`, `swish`).
    Silu,
}

impl Activation {
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Some(Self::GeluTanh),
            "gelu" | "gelu_python" => Some(Self::GeluExact),
            "relu" => Some(Self::Relu),
            "silu" | "swish" => Some(Self::Silu),
            _ => None,
        }
    }

    /// The name in config.json of GPT-2.
    pub fn name(self) -> &'static str {
        match self {
            Self::GeluTanh => "gelu_new",
            Self::GeluExact => "gelu",
            Self::Relu => "relu",
            Self::Silu => "silu",
        }
    }

    /// The name in config.json of decoders with rotary positions.
    pub fn name_in_decoders(self) -> &'static str {
        match self {
            Self::GeluTanh => "gelu_pytorch_tanh",
            Self::GeluExact | Self::Relu | Self::Silu => self.name(),
        }
    }
}
