//! The safetensors format: the length of a JSON header, the header, the tensors' bytes.
//! <https://github.com/huggingface/safetensors#format>

mod header;
mod write;

pub(crate) use header::{Header, read_header};
pub use write::{SafetensorsWriter, TensorSpec};
