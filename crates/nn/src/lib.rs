//! The blocks that model families are made of; each calls kernels for its mathematics.
//!
//! Fields carry Hugging Face names, so a field path is a checkpoint key. The crate deliberately
//! touches no file, no clock, no global state, and knows no config: values come down from model.
//!
//! Shape legend: b batch, t query time, s key time, d width, h heads, g key-value heads,
//! k head width, c half of k, v vocabulary, o output width, i input width.

mod attention;
mod batch;
mod cache;
mod embedding;
mod linear;
mod lora;
mod norm;
mod rope;

pub use attention::{HeadLayout, attend};
pub use batch::{PAD_SEGMENT, TokenBatch};
pub use cache::{KvCache, LayerCache};
pub use embedding::Embedding;
pub use linear::{Conv1d, Linear};
pub use lora::{
    DropoutKey, LoraAdapter, LoraDropout, LoraFactor, Projection, fused_linear, pin_masks,
};
pub use norm::{LayerNorm, RmsNorm};
pub use rope::RopeTables;
