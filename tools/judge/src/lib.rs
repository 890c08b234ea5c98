//! An independent judge of an aligned model's completions: a bag-of-words or character n-gram classifier, fitted to
//! labelled texts that the reward model never saw.
//!
//! A development tool, not part of the `temper` binary. The results in `docs/results.md` come from it.

mod classifier;
mod error;
mod features;

mod judge;
mod metrics;

pub use classifier::Classifier;
pub use error::{Error, Result};
pub use features::Features;
pub use judge::{Judge, Measured, unseen};
pub use metrics::{Metrics, completions};
