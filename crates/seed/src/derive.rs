//! (run seed, stage, purpose, step, index) → a 64-bit key.
//!
//! It deliberately knows nothing of what the key is used for.

use sha2::{Digest, Sha256};

/// What a random draw is for; draws with different purposes never share a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Initial weights; the index is the parameter's number in module order.
    Init,
    /// The order of samples; the step is the epoch.
    Shuffle,
    /// Which source of a mixture a sample comes from.
    Mix,
    /// Which samples are held out for evaluation.
    Split,
    /// Sampling of tokens; the index is the prompt's number.
    Sample,
    /// Dropout masks.
    Dropout,
    /// Initial weights of adapters.
    LoraInit,
    /// How pairs are made from ranked answers.
    Pairs,
    /// Sampling of PPO episodes.
    Rollout,
    /// Anything random in an evaluation.
    Eval,
}

impl Purpose {
    /// The label that enters the hash; renaming a variant must not change it.
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
            Self::Eval => "eval",
        }
    }
}

/// The key of one random draw: SHA-256 over all five arguments, cut to 64 bits.
///
/// Strings enter with their length, so that no two argument lists give the same bytes.
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
