//! Losses against plain loops in f64, against the reference's vectors, and under hostile masks.
#![allow(clippy::print_stdout)] // A skipped test says so.

mod advantages;
mod ppo;
mod preference;
mod reward;
mod sums;
mod support;
