//! Adapters attached, trained, merged, read and written; PEFT's numbers, names and bytes.
#![allow(clippy::print_stdout)] // A skipped test says so.

mod attaching;
mod hostile;
mod joining;
mod layer;
mod merging;
mod peft;
mod support;
mod training;
