//! Key-value cache: the keys and values of earlier tokens, so that generation computes each token once.
//!
//! Allocated once for a stated number of positions. Rows have one common length: shorter ones are padded on the left,
//! and padding is hidden by its segment.

use burn::tensor::{Device, Int, Tensor, TensorData};
use kernels::AttentionMask;

use crate::PAD_SEGMENT;

/// The cache of a model.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    segments_bs: Tensor<2, Int>,
    len: usize,
}

/// Keys and values of one layer, `[b, g, capacity, k]` each: the positions of a head are contiguous, the order in which
/// decoding reads them.
#[derive(Debug)]
pub struct LayerCache {
    keys: Tensor<4>,
    values: Tensor<4>,
}

impl KvCache {
    /// An empty cache for `rows` texts of up to `capacity` tokens, padding included.
    pub fn new(
        n_layers: usize,
        rows: usize,
        capacity: usize,
        n_kv_heads: usize,
        head_dim: usize,
        device: &Device,
    ) -> Self {
        let device = device.clone().inner();
        let zeros = || Tensor::zeros([rows, n_kv_heads, capacity, head_dim], &device);
        let layers = (0..n_layers).map(|_| LayerCache { keys: zeros(), values: zeros() }).collect();
        let segments = TensorData::new(vec![PAD_SEGMENT; rows * capacity], [rows, capacity]);
        Self { layers, segments_bs: Tensor::from_data(segments, &device), len: 0 }
    }

    /// Number of tokens in each row, padding included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no tokens.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of tokens that a row has room for.
    pub fn capacity(&self) -> usize {
        self.segments_bs.dims()[1]
    }

    /// Makes room for tokens of these segments and returns their causal mask over all tokens so far. Each layer then
    /// passes its keys and values to [`LayerCache::extend`].
    ///
    /// # Panics
    /// If the cache has no room left.
    pub fn advance(&mut self, segments_bt: Tensor<2, Int>) -> AttentionMask {
        let [b, t] = segments_bt.dims();
        let (start, end) = (self.len, self.len + t);
        assert!(end <= self.capacity(), "a cache of {} positions: {end}", self.capacity());
        let new_bt = segments_bt.clone();
        self.segments_bs.inplace(|all| all.slice_assign([0..b, start..end], new_bt));
        self.len = end;
        let seen_bs = self.segments_bs.clone().slice([0..b, 0..end]);
        AttentionMask::causal(segments_bt, seen_bs)
    }

    /// The cache of one layer and the number of tokens, the newest included.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn layer(&mut self, index: usize) -> (&mut LayerCache, usize) {
        (&mut self.layers[index], self.len)
    }

    /// A cache of the given rows, in that order; a row may be repeated or left out.
    ///
    /// One prompt can then be continued many times, and finished texts dropped.
    #[must_use]
    pub fn select_rows(&self, rows: &[usize]) -> Self {
        let device = self.segments_bs.device();
        let ids: Vec<i32> = rows.iter().map(|row| *row as i32).collect();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [rows.len()]), &device);
        let pick = |x: &Tensor<4>| x.clone().select(0, ids.clone());
        let layers = self
            .layers
            .iter()
            .map(|layer| LayerCache { keys: pick(&layer.keys), values: pick(&layer.values) })
            .collect();
        let segments_bs = self.segments_bs.clone().select(0, ids.clone());
        Self { layers, segments_bs, len: self.len }
    }
}

impl LayerCache {
    /// Appends the newest keys and values and returns all `end` of them, `[b, end, g, k]` each, as views.
    ///
    /// Drop the views before the next call: while one exists, writing copies the whole buffer.
    pub fn extend(
        &mut self,
        k_btgk: Tensor<4>,
        v_btgk: Tensor<4>,
        end: usize,
    ) -> (Tensor<4>, Tensor<4>) {
        let [b, t, g, k] = k_btgk.dims();
        let new = [0..b, 0..g, end - t..end, 0..k];
        let by_head = |x_btgk: Tensor<4>| x_btgk.inner().swap_dims(1, 2);
        self.keys.inplace(|keys| keys.slice_assign(new.clone(), by_head(k_btgk)));
        self.values.inplace(|values| values.slice_assign(new, by_head(v_btgk)));
        let seen = [0..b, 0..g, 0..end, 0..k];
        let keys = self.keys.clone().slice(seen.clone()).swap_dims(1, 2);
        (keys, self.values.clone().slice(seen).swap_dims(1, 2))
    }
}
