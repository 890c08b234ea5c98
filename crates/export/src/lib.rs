//! Writes a model as a directory that transformers opens: weights, configs, tokenizer, chat template.
//!
//! A directory appears whole or not at all. It deliberately knows no run and chooses no place.

mod error;
mod hugging_face;
mod shards;

pub use error::{Error, Result};
pub use hugging_face::{Options, description_files, hugging_face, hugging_face_with, write_files};
