//! Random numbers: seeds by purpose, a shuffle with random access, a counter-based generator.
//!
//! Every value is a pure function of its arguments, pinned by tests, and never changes between versions. There is no
//! seeding from a clock or from entropy, and nothing here is cryptographically secure.

mod derive;
mod rng;
mod shuffle;

pub use derive::{Purpose, derive};
pub use rng::Rng;
pub use shuffle::shuffled_index;
