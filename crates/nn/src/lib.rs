//! Blocks that model families are made of; kernels computes their mathematics.
//!
//! Fields carry Hugging Face names, so a field path is a checkpoint key. The crate touches no file, no clock and no
//! global state, and knows no config: the crate model passes plain values.
//!
//! Shape legend: b batch, t query time, s key time, d width, h heads, g key-value heads,
//! k head width, c half of k, v vocabulary, o output width, i input width, r rank.

mod adapter;
mod attention;
mod base_layer;
mod batch;
mod cache;
mod dora;
mod embedding;
mod input;
mod linear;
mod llm_int8;
mod lora;
mod norm;
mod projection;
mod rope;
mod routing;
mod row_adapters;
mod token_rows;
mod weight;

pub use adapter::{Adapter, FusedForm};
pub use attention::{HeadLayout, HeadTransforms, attend, cross_attend};
pub use base_layer::BaseLayer;
pub use batch::{PAD_SEGMENT, TokenBatch};
pub use cache::{KvCache, LayerCache};
pub use dora::DoraAdapter;
pub use embedding::{Embedding, EmbeddingAdapter, LoraEmbedding};
pub use input::{Input, InputValues};
pub use kernels::PackedFormat;
pub use linear::{Conv1d, Linear};
pub use lora::{DropoutKey, LoraAdapter, LoraDropout, LoraFactor};
pub use norm::{LayerNorm, RmsNorm};
pub use projection::{NamedProjection, Projection, fused_linear, pin_dropout, prefixed};
pub use rope::RopeTables;
pub use routing::Routing;
pub use row_adapters::{AdapterRows, RowAdapters};
pub use token_rows::TokenRows;
pub use weight::{PackedWeight, Weight, row_norms};
