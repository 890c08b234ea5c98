//! GGUF, the model files of llama.cpp: header, metadata and tensors are read and written, without a tensor library.
//!
//! [`ModelFile`] shows a file as a Hugging Face directory. Sizes, counts and offsets are checked before memory is reserved; nothing is mapped.

mod dequantize;
mod error;
mod found_merges;
mod hugging_face;
pub mod limits;
mod metadata;
mod quantize;
mod read;
mod value;
mod write;

pub use dequantize::dequantize;
pub use error::{Error, Result};
pub use found_merges::FoundMerges;
pub use ggml_blocks::TensorType;
pub use hugging_face::{
    FileType, ModelExport, ModelFile, ModelWriter, TokenizerFile, TokenizerSource, architectures,
    is_gguf,
};
pub use metadata::Metadata;
pub use quantize::{is_written, quantize};
pub use read::{GgufFile, TensorInfo};
pub use value::{Array, Value};
pub use write::{GgufWriter, TensorSpec};
