//! Writes a model as a directory that transformers opens (weights, configs, tokenizer, chat template), or as a GGUF file
//! that llama.cpp opens.
//!
//! Directories and files are created atomically.

mod error;
mod gguf;
mod hugging_face;
mod modelfile;
mod options;
mod shards;

pub use self::gguf::{MODELFILE, PendingGguf, gguf};
pub use error::{Error, Result};
pub use hugging_face::{
    description_files, hugging_face, hugging_face_with, sampling_defaults, write_files,
    write_weights,
};
pub use options::Options;
