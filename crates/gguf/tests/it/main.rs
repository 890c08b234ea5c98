//! Tests of the GGUF format against the `gguf` package and ggml, and against hostile files.

mod golden;
mod hostile;
mod models;
mod round_trip;
mod support;
mod tokenizers;
