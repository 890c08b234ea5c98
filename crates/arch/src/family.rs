//! The list of model families. Each has a file in `family/` and one line in `families!`; nothing else lists them.

mod gpt2;
mod llama;
mod qwen3;

use crate::config_reader::ConfigReader;
use crate::error::Result;
use crate::family_config::{FamilyConfig, FamilyNames};

pub use gpt2::{Activation, Gpt2Config};
pub use llama::LlamaConfig;
pub use qwen3::Qwen3Config;

/// Declares [`Family`] and [`ModelConfig`] with a variant per family, and every match over them.
macro_rules! families {
    ($($(#[$doc:meta])* $family:ident($config:ident),)+) => {
        /// A model's configuration, as read from its config.json.
        #[derive(Debug, Clone, PartialEq)]
        pub enum ModelConfig {
            $($(#[$doc])* $family($config),)+
        }

        /// The model families.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Family {
            $($(#[$doc])* $family,)+
        }

        impl Family {
            /// All families.
            pub const ALL: &[Self] = &[$(Self::$family),+];

            pub(crate) fn names(self) -> FamilyNames {
                match self {
                    $(Self::$family => $config::names(),)+
                }
            }

            pub(crate) fn read(self, reader: &mut ConfigReader, vocab_size: usize) -> Result<ModelConfig> {
                match self {
                    $(Self::$family => $config::read(reader, vocab_size).map(ModelConfig::$family),)+
                }
            }
        }

        impl ModelConfig {
            /// The family.
            pub fn family(&self) -> Family {
                match self {
                    $(Self::$family(_) => Family::$family,)+
                }
            }

            pub(crate) fn as_family(&self) -> &dyn FamilyConfig {
                match self {
                    $(Self::$family(config) => config,)+
                }
            }
        }
    };
}

families! {
    /// RMSNorm, rotary positions, SwiGLU.
    Llama(LlamaConfig),
    /// LayerNorm, learned positions, GELU.
    Gpt2(Gpt2Config),
    /// Llama with norms on queries and keys.
    Qwen3(Qwen3Config),
}

impl Family {
    /// The value of `model_type` in config.json.
    pub fn name(self) -> &'static str {
        self.names().model_type
    }
}
