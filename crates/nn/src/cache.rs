//! Key-value cache: the keys and values of earlier tokens, so that generation computes each token once.
//!
//! Allocated once for a stated number of positions; a layer with a window has room for its window and two chunks of keys.
//! Rows have one common length: shorter ones are padded on the left, and padding is hidden by its segment.

use burn::tensor::{Device, Int, Tensor, TensorData};
use kernels::{AttentionMask, KEY_CHUNK};

use crate::PAD_SEGMENT;

/// The cache of a model. Clones share their memory until one of them changes.
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    segments_bs: Tensor<2, Int>,
    len: usize,
}

/// Keys and values of one layer, `[b, g, slots, k]` each: the positions of a head are contiguous, the order in which
/// decoding reads them.
///
/// Slot 0 has the key of position `start`, a multiple of [`KEY_CHUNK`]: chunks of keys in the kernels then have the borders
/// that they have in a cache of all positions, and results the same bits.
#[derive(Clone, Debug)]
pub struct LayerCache {
    keys: Tensor<4>,
    values: Tensor<4>,
    window: Option<usize>,
    /// Position of the key in slot 0.
    start: usize,
    /// Position of the first key that the newest tokens need, rounded down to a multiple of [`KEY_CHUNK`].
    first: usize,
}

impl KvCache {
    /// An empty cache for `rows` texts of up to `capacity` tokens, padding included. `windows` has the attention window of
    /// each layer.
    pub fn new(
        windows: &[Option<usize>],
        rows: usize,
        capacity: usize,
        n_kv_heads: usize,
        head_dim: usize,
        device: &Device,
    ) -> Self {
        let device = device.clone().inner();
        let layer = |window: &Option<usize>| {
            let slots = slots(*window, capacity);
            let zeros = || Tensor::zeros([rows, n_kv_heads, slots, head_dim], &device);
            LayerCache { keys: zeros(), values: zeros(), window: *window, start: 0, first: 0 }
        };
        let layers = windows.iter().map(layer).collect();
        Self { layers, segments_bs: padding(rows, capacity, &device), len: 0 }
    }

    /// Number of elements of keys and values in all layers.
    pub fn n_elements(&self) -> usize {
        let keys = self.layers.iter().map(|layer| layer.keys.dims().iter().product::<usize>());
        2 * keys.sum::<usize>()
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

    /// Makes room for tokens of these segments and returns their causal mask over all tokens so far; a layer's own mask
    /// is over the last [`Self::n_keys`] of them. Each layer then passes its keys and values to [`LayerCache::extend`].
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
        for layer in &mut self.layers {
            layer.first = first_key(layer.window, start);
        }
        let seen_bs = self.segments_bs.clone().slice([0..b, 0..end]);
        AttentionMask::causal(segments_bt, seen_bs)
    }

    /// Number of keys that a layer returns for the newest tokens: all, or with a window the last ones.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn n_keys(&self, layer_idx: usize) -> usize {
        self.len - self.layers[layer_idx].first
    }

    /// The cache of one layer and the number of tokens, the newest included.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn layer(&mut self, index: usize) -> (&mut LayerCache, usize) {
        (&mut self.layers[index], self.len)
    }

    /// Moves all texts so that they end at position `len`: padding is added on the left, or dropped there.
    ///
    /// # Panics
    /// If the cache has no room for `len` positions.
    pub fn end_at(&mut self, len: usize) {
        let [b, capacity] = self.segments_bs.dims();
        assert!(len <= capacity, "a cache of {capacity} positions: {len}");
        let (old, device) = (self.len, self.segments_bs.device());
        if len == old {
            return;
        }
        for layer in &mut self.layers {
            layer.end_at(old, len);
        }
        let kept = old.min(len);
        let padding = |n: usize| padding(b, n, &device);
        let texts_bs = self.segments_bs.clone().slice([0..b, old - kept..old]);
        let parts = [(len - kept > 0).then(|| padding(len - kept)), Some(texts_bs)];
        let rest = (capacity > len).then(|| padding(capacity - len));
        self.segments_bs = Tensor::cat(parts.into_iter().flatten().chain(rest).collect(), 1);
        self.len = len;
    }

    /// Changes the number of tokens that a row has room for.
    ///
    /// # Panics
    /// If the texts, with their padding, are longer.
    pub fn set_capacity(&mut self, capacity: usize) {
        let ([b, old], len) = (self.segments_bs.dims(), self.len);
        assert!(len <= capacity, "a capacity of {capacity} for {len} positions");
        if capacity == old {
            return;
        }
        for layer in &mut self.layers {
            layer.set_slots(slots(layer.window, capacity), len);
        }
        let texts_bs = self.segments_bs.clone().slice([0..b, 0..len]);
        let rest = (capacity > len).then(|| padding(b, capacity - len, &texts_bs.device()));
        self.segments_bs = Tensor::cat([texts_bs].into_iter().chain(rest).collect(), 1);
    }

    /// Replaces the text of `row` by that of row `other_row` of another cache of the same model. It ends where the other
    /// rows end, with padding on its left.
    ///
    /// # Panics
    /// If the other text, with its padding, is longer than those of this cache.
    pub fn replace_row(&mut self, row: usize, other: &Self, other_row: usize) {
        assert!(other.len <= self.len, "a text of {} positions for {}", other.len, self.len);
        let shift = self.len - other.len;
        for (layer, other) in self.layers.iter_mut().zip(&other.layers) {
            layer.replace_row(row, other, other_row, shift, self.len);
        }
        let text_1s = other.segments_bs.clone().slice([other_row..other_row + 1, 0..other.len]);
        let padding_1s = (shift > 0).then(|| padding(1, shift, &self.segments_bs.device()));
        let text_1s = Tensor::cat(padding_1s.into_iter().chain([text_1s]).collect(), 1);
        let place = [row..row + 1, 0..self.len];
        self.segments_bs.inplace(|all| all.slice_assign(place, text_1s));
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
            .map(|layer| LayerCache {
                keys: pick(&layer.keys),
                values: pick(&layer.values),
                window: layer.window,
                start: layer.start,
                first: layer.first,
            })
            .collect();
        let segments_bs = self.segments_bs.clone().select(0, ids.clone());
        Self { layers, segments_bs, len: self.len }
    }
}

/// Segments of padding, `[rows, n]`.
fn padding(rows: usize, n: usize, device: &Device) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(vec![PAD_SEGMENT; rows * n], [rows, n]), device)
}

/// Number of positions for which a layer has room in a cache of `capacity` positions.
fn slots(window: Option<usize>, capacity: usize) -> usize {
    // Slots are filled up before keys move, once in more than a chunk of tokens.
    window.map_or(capacity, |window| window.saturating_add(2 * KEY_CHUNK).min(capacity))
}

/// Position of the first key that tokens from position `start` on need, rounded down to a multiple of [`KEY_CHUNK`].
fn first_key(window: Option<usize>, start: usize) -> usize {
    window.map_or(0, |window| (start + 1).saturating_sub(window) / KEY_CHUNK * KEY_CHUNK)
}

impl LayerCache {
    /// Moves keys and values of texts that end at position `old` so that they end at `new`.
    fn end_at(&mut self, old: usize, new: usize) {
        let [b, g, n_slots, k] = self.keys.dims();
        let new_start = first_key(self.window, new);
        let n_kept = (new - new_start).min(old - self.start);
        let n_before = new - new_start - n_kept;
        let kept = old - n_kept - self.start..old - self.start;
        let moved = |slots_bgsk: &Tensor<4>| {
            let zeros = |n: usize| Tensor::zeros([b, g, n, k], &slots_bgsk.device());
            let kept_bgsk = slots_bgsk.clone().slice([0..b, 0..g, kept.clone(), 0..k]);
            let n_after = n_slots - n_before - n_kept;
            let before = (n_before > 0).then(|| zeros(n_before));
            let after = (n_after > 0).then(|| zeros(n_after));
            Tensor::cat(before.into_iter().chain([kept_bgsk]).chain(after).collect(), 2)
        };
        (self.keys, self.values) = (moved(&self.keys), moved(&self.values));
        (self.start, self.first) = (new_start, new_start);
    }

    /// Copies keys and values of texts that end at position `end` into `n_slots` slots.
    fn set_slots(&mut self, n_slots: usize, end: usize) {
        let [b, g, old, k] = self.keys.dims();
        if n_slots == old {
            return;
        }
        // Slots were moved only where a text needed them, so fewer may not have room for all of its keys.
        if end - self.start > n_slots {
            self.end_at(end, end);
        }
        let n_kept = end - self.start;
        let copied = |slots_bgsk: &Tensor<4>| {
            let kept_bgsk = slots_bgsk.clone().slice([0..b, 0..g, 0..n_kept, 0..k]);
            let n_free = n_slots - n_kept;
            let free = (n_free > 0).then(|| Tensor::zeros([b, g, n_free, k], &slots_bgsk.device()));
            Tensor::cat([kept_bgsk].into_iter().chain(free).collect(), 2)
        };
        (self.keys, self.values) = (copied(&self.keys), copied(&self.values));
    }

    /// Writes the text of another cache's row, `shift` positions later, into `row`; it then ends at position `end`.
    fn replace_row(
        &mut self,
        row: usize,
        other: &Self,
        other_row: usize,
        shift: usize,
        end: usize,
    ) {
        let [_, g, _, k] = self.keys.dims();
        let from = self.start.max(shift + other.start);
        let place = from - self.start..end - self.start;
        let text = from - shift - other.start..end - shift - other.start;
        let copy = |slots_bgsk: &mut Tensor<4>, other_bgsk: &Tensor<4>| {
            let range = [other_row..other_row + 1, 0..g, text.clone(), 0..k];
            let text_1gsk = other_bgsk.clone().slice(range);
            let range = [row..row + 1, 0..g, place.clone(), 0..k];
            slots_bgsk.inplace(|slots| slots.slice_assign(range, text_1gsk));
        };
        copy(&mut self.keys, &other.keys);
        copy(&mut self.values, &other.values);
    }

    /// Appends the newest keys and values, of positions up to `end`. Returns those of the last
    /// [`n_keys`](KvCache::n_keys) positions, `[b, s, g, k]` each, as views.
    ///
    /// Drop the views before the next call: while one exists, writing copies the whole buffer.
    pub fn extend(
        &mut self,
        k_btgk: Tensor<4>,
        v_btgk: Tensor<4>,
        end: usize,
    ) -> (Tensor<4>, Tensor<4>) {
        let by_head = |x_btgk: Tensor<4>| x_btgk.inner().swap_dims(1, 2);
        let (k_bgtk, v_bgtk) = (by_head(k_btgk), by_head(v_btgk));
        let place = Placement::of(self, k_bgtk.dims()[2], end);
        let keys = place.append(&mut self.keys, k_bgtk);
        let values = place.append(&mut self.values, v_bgtk);
        self.start = place.new_start;
        (keys.swap_dims(1, 2), values.swap_dims(1, 2))
    }
}

/// How the newest keys get into a layer's slots.
struct Placement {
    /// Position of slot 0 before and after.
    start: usize,
    new_start: usize,
    /// Position of the first key that is returned.
    first: usize,
    /// Position of the first new key, and the one after the last.
    new: std::ops::Range<usize>,
}

impl Placement {
    fn of(layer: &LayerCache, n_new: usize, end: usize) -> Self {
        let (start, first, n_slots) = (layer.start, layer.first, layer.keys.dims()[2]);
        let new_start = if end - start <= n_slots {
            start
        } else if end - first <= n_slots {
            first
        } else {
            // More new tokens than slots: only those that later tokens need are kept.
            first_key(layer.window, end)
        };
        Self { start, new_start, first, new: end - n_new..end }
    }

    /// Appends keys `[b, g, t, k]` and returns those from the first one needed on.
    fn append(&self, slots_bgsk: &mut Tensor<4>, new_bgtk: Tensor<4>) -> Tensor<4> {
        let Self { start, new_start, first, new } = self;
        let [b, g, n_slots, k] = slots_bgsk.dims();
        let range = |from: usize, to: usize| [0..b, 0..g, from..to, 0..k];
        if new_start == start {
            let place = range(new.start - start, new.end - start);
            slots_bgsk.inplace(|slots| slots.slice_assign(place, new_bgtk));
            return slots_bgsk.clone().slice(range(first - start, new.end - start));
        }
        let kept = *first..new.start;
        let all = if kept.is_empty() {
            new_bgtk
        } else {
            let kept_bgsk = slots_bgsk.clone().slice(range(kept.start - start, kept.end - start));
            Tensor::cat(vec![kept_bgsk, new_bgtk], 2)
        };
        let n_stored = new.end - new_start;
        let mut parts = Vec::new();
        if n_stored > 0 {
            parts.push(all.clone().slice(range(new_start - first, new.end - first)));
        }
        if n_stored < n_slots {
            parts.push(Tensor::zeros([b, g, n_slots - n_stored, k], &all.device()));
        }
        *slots_bgsk = Tensor::cat(parts, 2);
        all
    }
}
