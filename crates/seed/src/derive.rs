//! (run seed, stage, purpose, step, index) → a 64-bit key.
//!
//! The purpose of a draw is part of its key, so draws for different purposes are independent.

use sha2::{Digest, Sha256};

/// Purpose of a random draw. Draws with different purposes use independent streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Initial weights. The index is the number of the parameter in module order.
    Init,
    /// Order of samples. The step is the epoch.
    Shuffle,
    /// Slices of a source with a fractional weight.
    Mix,
    /// Choice of validation samples.
    Split,
    /// Sampling of tokens. The index is the number of the prompt.
    Sample,
    /// Dropout masks.
    Dropout,
    /// Initial weights of adapters.
    LoraInit,
    /// Drawing of pairs from labelled texts.
    Pairs,
    /// Sampling of PPO episodes.
    Rollout,
    /// Choice of the steps on a student's own answers, and sampling of those.
    OnPolicy,
    /// Random draws of an evaluation.
    Eval,
}

impl Purpose {
    /// Label in the hash; it must stay the same when a variant is renamed.
    fn label(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Shuffle => "shuffle",
            Self::Mix => "mix",
            Self::Split => "split",
            Self::Sample => "sample",
            Self::Dropout => "dropout",
            Self::LoraInit => "lora-init",
            Self::Pairs => "pairs",
            Self::Rollout => "rollout",
            Self::OnPolicy => "on-policy",
            Self::Eval => "eval",
        }
    }
}

/// Key of one random draw: the first 64 bits of SHA-256 over all five arguments.
///
/// Strings are hashed with their lengths, so that no two argument lists have the same bytes.
pub fn derive(run_seed: u64, stage: &str, purpose: Purpose, step: u64, index: u64) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update(b"temper-seed-1");
    hasher.update(run_seed.to_le_bytes());
    for text in [stage, purpose.label()] {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.update(step.to_le_bytes());
    hasher.update(index.to_le_bytes());
    let digest = hasher.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(first)
}
