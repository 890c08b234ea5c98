//! Tests of evaluate: measurements, and replays of the reference vectors.
#![allow(clippy::print_stdout)] // Replays print their differences.

mod measuring;
mod replays;
mod wrong_references;
