//! The sizes that every family has, under one set of names.

/// The sizes of a model, independent of how its family spells them in config.json.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) vocab_size: usize,
    pub(crate) hidden_size: usize,
    pub(crate) n_layers: usize,
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) max_positions: usize,
    /// Whether the token embedding is also the weight of the output layer.
    pub(crate) tied: bool,
}
