//! The list of model families. Each has a file in `family/` and one line in `families!`; nothing else lists them.

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

pub use gpt2::{Activation, Gpt2Config};

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
}

/// Declares [`Family`] with a variant per family, and the match over its entries.
macro_rules! families {
    ($($(#[$doc:meta])* $family:ident($entry:path),)+) => {
        /// The model families.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Family {
            $($(#[$doc])* $family,)+
        }

        impl Family {
            /// All families.
            pub const ALL: &[Self] = &[$(Self::$family),+];

            pub(crate) fn entry(self) -> &'static FamilyEntry {
                match self {
                    $(Self::$family => &$entry,)+
                }
            }
        }
    };
}

families! {
    /// RMSNorm, rotary positions, SwiGLU.
    Llama(llama::FAMILY),
    /// LayerNorm, learned positions, GELU.
    Gpt2(gpt2::FAMILY),
    /// Llama with norms on queries and keys.
    Qwen3(qwen3::FAMILY),
    /// Llama with an attention window in all layers.
    Mistral(mistral::FAMILY),
    /// Llama with biases of queries, keys and values, and windows in the upper layers.
    Qwen2(qwen2::FAMILY),
    /// Norms before and after each half of a block, soft caps, alternating windows, GeGLU.
    Gemma2(gemma2::FAMILY),
    /// Gemma 2 with norms on queries and keys in place of soft caps, and a rotary base of its own in windowed layers.
    Gemma3Text(gemma3::FAMILY),
    /// Llama with packed projections and LongRoPE.
    Phi3(phi3::FAMILY),
    /// Norms after each half of a block, and over whole queries and keys.
    Olmo2(olmo2::FAMILY),
    /// OLMo 2 with windows in three of four layers.
    Olmo3(olmo3::FAMILY),
    /// Llama with layers without positions.
    SmolLm3(smollm3::FAMILY),
    /// Llama with multipliers of embeddings, scores, residual stream and logits.
    Granite(granite::FAMILY),
    /// Mistral with experts in place of the MLP.
    Mixtral(mixtral::FAMILY),
    /// Qwen2 with experts, one of which every token is sent to.
    Qwen2Moe(qwen2_moe::FAMILY),
    /// Qwen3 with experts.
    Qwen3Moe(qwen3_moe::FAMILY),
}

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
