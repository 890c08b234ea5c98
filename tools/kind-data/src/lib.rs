//! Generator of the dataset `datasets/kind`: fills hand-written patterns and makes comments, instructions, pairs and
//! prompts from them.
//!
//! Reading (`source`), filling (`fill`) and making the files (`outputs`) are pure functions of the
//! two source files and a fixed seed: the same patterns give the same bytes on every machine. A
//! development tool, not part of the `temper` binary.

mod error;
mod fill;
mod outputs;
mod source;

pub use error::{Error, Result};
pub use fill::{Comment, Split, fill_all, fill_pattern};
pub use outputs::{OutputFile, outputs};
pub use source::{Emotion, Pattern, Piece, Slots, Source};

/// Seed of every random choice; changing it changes every output file.
pub const SEED: u64 = 1;

/// Total number of comments.
pub const N_COMMENTS: usize = 30_000;
/// Comments from held-out patterns, out of [`N_COMMENTS`].
pub const N_HELDOUT_COMMENTS: usize = N_COMMENTS / HELDOUT_ONE_IN;
/// One in this many patterns of each emotion is held out.
pub const HELDOUT_ONE_IN: usize = 10;
/// Preference pairs made from training comments.
pub const N_PAIRS: usize = 8_000;
/// Preference pairs made from held-out comments.
pub const N_HELDOUT_PAIRS: usize = 1_200;
/// Instructions, out of ten, that name the emotion.
pub const NAMED_IN_TEN: u64 = 7;
/// The prompt without an emotion, used in instructions, in every pair and for PPO.
pub const PLAIN_PROMPT: &str = "Write a comment.";
