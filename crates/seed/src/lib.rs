//! All randomness of Temper: seeds by purpose, a shuffle with random access, a counter-based generator.
//!
//! Nothing here keeps state between runs or reads a clock: every value is a function of its
//! arguments, pinned by tests, and stays the same for ever. It deliberately offers no seeding from
//! entropy and no cryptographic guarantee.

mod derive;
mod rng;
mod shuffle;

pub use derive::{Purpose, derive};
pub use rng::Rng;
pub use shuffle::shuffled_index;
