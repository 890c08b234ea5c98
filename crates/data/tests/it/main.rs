//! Tests of the data crate from outside.

// Tests write files of their own and print what they skip.
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

mod cache;
mod columns;
mod completions;
mod expansion;
mod files;
mod formats;
mod hostile;
mod label_pools;
mod layouts;
mod packing;
mod pairs;
mod prompts;
mod support;
mod typed_columns;
