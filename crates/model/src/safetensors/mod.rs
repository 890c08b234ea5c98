//! Safetensors files: a strict header, tensors read one at a time, and a streaming writer.
//!
//! Files from elsewhere are deliberately read, never mapped: someone who cuts a mapped file short
//! kills the process.

mod header;
mod read;
mod write;

pub use header::TensorInfo;
pub use read::SafetensorsFile;
pub use write::SafetensorsWriter;
