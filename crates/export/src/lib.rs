//! Writes a model as a directory that transformers opens: weights, configs, tokenizer, chat template.
//!
//! The directory is created atomically.

mod error;
mod hugging_face;
mod options;
mod shards;

pub use error::{Error, Result};
pub use hugging_face::{description_files, hugging_face, hugging_face_with, write_files};
pub use options::Options;
