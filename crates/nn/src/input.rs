//! Model input: token ids or embeddings, with the positions and segments that belong to them.

use std::sync::Arc;

use burn::tensor::{Int, Tensor};
use kernels::AttentionMask;

use crate::{Embedding, KvCache, TokenBatch};

/// Input of a backbone: `b` rows of `t` positions.
#[derive(Clone, Debug)]
pub struct Input {
    /// Token ids or vectors.
    pub values: InputValues,
    /// Position of each token, from 0 at the start of its own text.
    pub positions_bt: Tensor<2, Int>,
    /// Tokens attend within their segment only; [`crate::PAD_SEGMENT`] for padding.
    pub segments_bt: Tensor<2, Int>,
    /// The segment that each token's text continues, or its own; `None`: no text continues another.
    pub prefixes: Option<Arc<Vec<i32>>>,
    /// Largest position in the batch, known on the host.
    pub max_position: usize,
}

/// Token ids, or vectors in place of their embeddings.
#[derive(Clone, Debug)]
pub enum InputValues {
    /// `[b, t]`
    Ids(Tensor<2, Int>),
    /// `[b, t, d]`, from another model's output or from a trained prompt; gradients flow into them.
    Embeddings(Tensor<3>),
}

impl Input {
    /// The positions and segments of `tokens` with other vectors at each position.
    ///
    /// # Panics
    /// If rows or positions are not as many as those of `tokens`.
    pub fn with_embeddings(tokens: &TokenBatch, embeddings_btd: Tensor<3>) -> Self {
        let ([b, t], [rows, length, _]) = (tokens.dims(), embeddings_btd.dims());
        assert_eq!([rows, length], [b, t], "embeddings of {b} rows of {t} positions");
        Self { values: InputValues::Embeddings(embeddings_btd), ..Self::from(tokens) }
    }

    /// `[b, t]`
    pub fn dims(&self) -> [usize; 2] {
        self.positions_bt.dims()
    }

    /// The vectors at each position: those given, or the rows of `table`: `[b, t, d]`.
    pub fn embed(&self, table: &Embedding) -> Tensor<3> {
        match &self.values {
            InputValues::Ids(ids_bt) => table.forward(ids_bt.clone()),
            InputValues::Embeddings(embeddings_btd) => embeddings_btd.clone(),
        }
    }

    /// The causal mask of these positions; with a cache, which makes room for them, earlier positions are visible too.
    ///
    /// # Panics
    /// If the cache has no room left, or texts with prefixes have a cache.
    pub fn causal_mask(&self, cache: Option<&mut KvCache>) -> AttentionMask {
        let whole = || AttentionMask::causal(self.segments_bt.clone(), self.segments_bt.clone());
        match (cache, &self.prefixes) {
            (Some(cache), None) => cache.advance(self.segments_bt.clone()),
            (None, None) => whole(),
            (None, Some(prefixes)) => whole().with_prefixes(prefixes.clone()),
            (Some(_), Some(_)) => panic!("a cache of texts with prefixes"),
        }
    }
}

impl From<&TokenBatch> for Input {
    fn from(tokens: &TokenBatch) -> Self {
        Self {
            values: InputValues::Ids(tokens.ids_bt.clone()),
            positions_bt: tokens.positions_bt.clone(),
            segments_bt: tokens.segments_bt.clone(),
            prefixes: tokens.prefixes.clone(),
            max_position: tokens.max_position,
        }
    }
}
