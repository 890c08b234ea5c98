//! Tests of the GGUF format against the `gguf` package and ggml, and against hostile files.

#![allow(clippy::print_stdout, reason = "a skipped test says so")]

mod golden;
mod hostile;
mod models;
mod round_trip;
mod support;
mod tokenizers;
mod windows_and_heads;
