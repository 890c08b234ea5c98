//! Measures models: loss, perplexity, bits per byte; and replays reference vectors (`temper verify`).
//!
//! A mean is one sum divided once by one count. Replays go through the same crates as training and
//! generation, not through copies of them. It trains nothing else and prints nothing.

mod error;
mod held_out;
mod measure;
mod token_bytes;
mod verify;

pub use error::{Error, Result};
pub use held_out::held_out;
pub use measure::{Measured, measure};
pub use verify::{Quantity, Report, Tolerance, verify};
