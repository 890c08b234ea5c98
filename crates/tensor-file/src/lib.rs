//! Files of named tensors: a checked header, tensors read one at a time, a streaming writer. The format is safetensors;
//! GGUF files are read too.
//!
//! [`TensorFile`] opens one file and [`TensorDir`] a directory of weights, sharded or not; both return a [`TensorView`],
//! which has a tensor's name, shape and dtype and reads its bytes on request. Values stay in the dtype of the file until
//! a caller asks for another. [`SafetensorsWriter`] writes one tensor after the other.

mod dir;
mod dtype;
mod error;
mod file;
mod info;
mod safetensors;
mod shards;
mod source;
mod view;

pub use dir::TensorDir;
pub use dtype::{Element, StoredDtype};
pub use error::{Error, Result};
pub use file::TensorFile;
pub use gguf::TensorType;
pub use safetensors::{SafetensorsWriter, TensorSpec};
pub use shards::{INDEX_FILE, WEIGHTS_FILE, index_json, shard_name, split_by_bytes};
pub use view::TensorView;
