//! Dtype and sharding of exported weights.

use arch::Dtype;

/// Dtype and sharding of exported weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The dtype of every weight.
    pub dtype: Dtype,
    /// The largest size of a weight file in bytes; larger models are sharded and get an index.
    pub shard_bytes: u64,
}

impl Options {
    /// Weights in this dtype, in files of up to 5 GB.
    pub fn new(dtype: Dtype) -> Self {
        Self { dtype, shard_bytes: 5_000_000_000 }
    }
}
