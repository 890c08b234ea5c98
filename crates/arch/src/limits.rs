//! Upper bounds on model sizes: far above any real model, and low enough that products of sizes do not overflow.

/// Largest vocabulary, in tokens.
pub const VOCABULARY: usize = 1 << 22;
/// Largest width of a hidden vector (residual stream, attention, MLP).
pub const WIDTH: usize = 1 << 20;
/// Largest number of blocks.
pub const LAYERS: usize = 1 << 10;
/// Largest number of attention heads.
pub const HEADS: usize = 1 << 12;
/// Largest width of an attention head.
pub const HEAD_WIDTH: usize = 1 << 12;
/// Largest number of positions.
pub const POSITIONS: usize = 1 << 24;
/// Largest number of elements in a tensor.
pub const TENSOR_PARAMETERS: u64 = 1 << 38;
/// Largest number of parameters of a model.
pub const PARAMETERS: u64 = 1 << 42;
/// Largest number of experts of a block.
pub const EXPERTS: usize = 1 << 12;
