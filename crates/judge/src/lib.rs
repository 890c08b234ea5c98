//! Judges the completions of an aligned model with a classifier that has nothing of the reward model: a bag of words or of
//! letters, fitted to labelled texts that the reward model never saw.
//!
//! It deliberately trains nothing that is used elsewhere and is no part of the `temper` binary: it is how `docs/results.md`
//! got its figures.

mod classifier;
mod error;
mod features;
mod figures;
mod judge;

pub use classifier::Classifier;
pub use error::{Error, Result};
pub use features::Features;
pub use figures::{Figures, completions};
pub use judge::{Judge, Measured, unseen};
