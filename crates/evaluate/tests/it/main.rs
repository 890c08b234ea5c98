//! Tests of evaluate: what is measured, and replays of the reference vectors.
#![allow(clippy::print_stdout)] // A skipped test says so, and a replay shows its differences.

mod measuring;
mod replays;
mod wrong_references;
