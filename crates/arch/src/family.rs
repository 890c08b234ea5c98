//! The parts of a family, and the entry of each. Each family has a file in `family/`, its module here and a line in
//! `family_list`.

mod exaone4;
mod gemma2;
mod gemma3;
mod gpt2;
mod granite;
mod llama;
mod mistral;
mod mixtral;
mod olmo2;
mod olmo3;
mod phi3;
mod qwen2;
mod qwen2_moe;
mod qwen3;
mod qwen3_moe;
mod smollm3;

use serde_json::{Map, Value};

use crate::config_reader::ConfigReader;
use crate::decoder::DecoderConfig;
use crate::error::Result;
use crate::family_config::FamilyConfig;
use crate::family_list::for_each_family;

pub use crate::activation::Activation;
pub use crate::family_list::Family;
pub use gpt2::Gpt2Config;

/// A family: its names, and its keys of config.json.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FamilyEntry {
    /// `model_type` in config.json.
    pub(crate) model_type: &'static str,
    /// Entries of `architectures` for a language model. The first is written, all are read.
    pub(crate) causal_lm: &'static [&'static str],
    /// Entries of `architectures` for a sequence classifier. The first is written, all are read.
    pub(crate) sequence_classifier: &'static [&'static str],
    /// Reads the family's keys, given the vocabulary size. Keys that change the forward pass are honoured or refused by
    /// name; other keys of the family's configuration class are ignored with [`ConfigReader::ignore`].
    pub(crate) read: fn(&mut ConfigReader<'_>, usize) -> Result<ModelConfig>,
    /// Adds the family's own keys to the common keys of decoders, or replaces some. Unused by other configurations.
    pub(crate) write: fn(&DecoderConfig, &mut Map<String, Value>),
    /// Whether transformers reads a text again where LongRoPE changes to its long factors.
    pub(crate) rereads_longrope: bool,
    /// The targets of a LoRA adapter that names none, from PEFT's table; empty if the table lacks the family.
    pub(crate) lora_targets: &'static [&'static str],
}

/// Declares the entry of each family, which its file calls `FAMILY`.
macro_rules! entries {
    ($($(#[$doc:meta])* $family:ident($module:ident),)+) => {
        impl Family {
            pub(crate) fn entry(self) -> &'static FamilyEntry {
                match self {
                    $(Self::$family => &$module::FAMILY,)+
                }
            }
        }
    };
}

for_each_family!(entries);

/// A model's configuration, as read from its config.json.
#[derive(Debug, Clone, PartialEq)]
// A process holds a handful of configurations, so their size on the stack does not matter.
#[allow(clippy::large_enum_variant)]
pub enum ModelConfig {
    /// A decoder with rotary positions, of most families.
    Decoder(DecoderConfig),
    /// GPT-2.
    Gpt2(Gpt2Config),
}

impl Family {
    /// The value of `model_type` in config.json.
    pub fn name(self) -> &'static str {
        self.entry().model_type
    }

    /// Entries of `architectures` in config.json that are read: of language models, of sequence classifiers.
    pub fn architectures(self) -> [&'static [&'static str]; 2] {
        [self.entry().causal_lm, self.entry().sequence_classifier]
    }
}

impl ModelConfig {
    /// The family.
    pub fn family(&self) -> Family {
        match self {
            Self::Decoder(config) => config.family,
            Self::Gpt2(_) => Family::Gpt2,
        }
    }

    pub(crate) fn as_family(&self) -> &dyn FamilyConfig {
        match self {
            Self::Decoder(config) => config,
            Self::Gpt2(config) => config,
        }
    }
}
