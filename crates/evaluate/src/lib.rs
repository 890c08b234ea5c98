//! Measures models: loss, perplexity, bits per byte, accuracy on pairs; and replays reference vectors (`temper verify`).
//!
//! A mean is one sum divided once by one count. Replays go through the same crates as training and
//! generation, not through copies of them. It trains nothing else and prints nothing.

mod error;
mod measure;
mod pairs;
mod selftest;
mod token_bytes;
mod validation;
mod verify;

pub use error::{Error, Result};
pub use measure::{Measured, measure};
pub use pairs::{PairMetrics, held_out_pairs, judge_pairs, text_scores, text_scores_and_auxiliary};
pub use selftest::selftest;
pub use validation::validation;
pub use verify::{Quantity, Report, Tolerance, verify};
