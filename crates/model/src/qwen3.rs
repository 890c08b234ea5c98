//! The family `qwen3` (Qwen3 technical report 2025): Llama's blocks with an RMSNorm on each query head and each key head.

use arch::Qwen3Config;

use crate::llama;
use crate::rope_decoder::RopeDecoderSpec;

/// First part of parameter names.
pub(crate) const PREFIX: &str = "model";

pub(crate) fn spec(config: &Qwen3Config) -> RopeDecoderSpec {
    let windows = config.windows.clone();
    RopeDecoderSpec { qk_norm: true, windows, ..llama::spec(&config.decoder) }
}
