//! Losses as pure functions of tensors: each gives a sum and a count, and one place divides.
//!
//! The mean of a step is the sum over all its micro-batches divided by all their targets, so
//! splitting a step changes nothing. The crate deliberately touches no files, no clock, no state.
//!
//! Shape legend: d width, v vocabulary, n rows (positions of a batch).

mod cross_entropy;
mod sum;

pub use cross_entropy::cross_entropy;
pub use sum::LossSum;
