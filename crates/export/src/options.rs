//! Dtype and sharding of exported weights, and the sampling defaults beside them.

use arch::Dtype;
use serde_json::{Map, Value};

/// Dtype and sharding of exported weights, and the sampling defaults beside them.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The dtype of every weight.
    pub dtype: Dtype,
    /// The largest size of a weight file in bytes; larger models are sharded and get an index.
    pub shard_bytes: u64,
    /// Keys of generation_config.json besides the token ids: those of the model that training started from.
    pub generation: Map<String, Value>,
}

impl Options {
    /// Weights in this dtype, in files of up to 5 GB, without sampling defaults.
    pub fn new(dtype: Dtype) -> Self {
        Self { dtype, shard_bytes: 5_000_000_000, generation: Map::new() }
    }
}
