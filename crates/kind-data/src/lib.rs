//! Fills the hand-written patterns of `datasets/kind` and cuts comments, instructions, pairs and prompts from them.
//!
//! Reading (`source`), filling (`fill`) and cutting (`outputs`) are pure functions of the two
//! source files and a fixed seed: the same patterns give the same bytes on every machine. The crate
//! deliberately invents no text of its own and is no part of the `temper` binary.

mod error;
mod fill;
mod outputs;
mod source;

pub use error::{Error, Result};
pub use fill::{Comment, Split, fill_all, fill_pattern};
pub use outputs::{OutputFile, outputs};
pub use source::{Emotion, Pattern, Piece, Slots, Source};

/// The seed of everything drawn here; changing it changes every output file.
pub const SEED: u64 = 1;

/// Comments filled in all, and how many of them come from held-out patterns.
pub const N_COMMENTS: usize = 30_000;
/// Comments from held-out patterns, of [`N_COMMENTS`]: the share of patterns that are held out.
pub const N_HELDOUT_COMMENTS: usize = N_COMMENTS / HELDOUT_ONE_IN;
/// One pattern in this many is held out, in every emotion.
pub const HELDOUT_ONE_IN: usize = 10;
/// Preference pairs made from training comments.
pub const N_PAIRS: usize = 8_000;
/// Preference pairs made from held-out comments.
pub const N_HELDOUT_PAIRS: usize = 1_200;
/// Of every ten instructions, how many name the emotion.
pub const NAMED_IN_TEN: u64 = 7;
/// The prompt that names no emotion: in the instructions, in every pair, and PPO's.
pub const PLAIN_PROMPT: &str = "Write a comment.";
