//! Parts that the attention kernels share: copies between tensors and shared memory, visible keys, products of tiles.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::tile::Tile;

/// Score of a hidden key. Finite: compilers with fast math promise no infinities.
pub(super) const HIDDEN: f32 = -1e30;
/// Upper bound of the scores of hidden keys.
pub(super) const HIDDEN_BOUND: f32 = -1e29;

/// Copies rows `first..first + rows` of `[b, n, w]` to shared memory, with zeros from row `limit` on.
///
/// `start` is the place of the head in the first row. With `rotated`, pairs `(x[j], x[j + width / 2])` are rotated by the
/// angles of their position; `angles` is the place of the first position's.
#[cube]
pub(super) fn load_rows(
    from: &Tensor<f32>,
    start: usize,
    first: usize,
    limit: usize,
    cos: &Tensor<f32>,
    sin: &Tensor<f32>,
    angles: usize,
    to: &mut Shared<[f32]>,
    #[comptime] rows: usize,
    #[comptime] rotated: bool,
    #[comptime] tile: Tile,
) {
    let stride = from.stride(1);
    let mut element = UNIT_POS as usize;
    while element < comptime!(rows * tile.padded) {
        let row = element / comptime!(tile.padded);
        let column = element % comptime!(tile.padded);
        let mut value = 0.0f32;
        if first + row < limit && column < comptime!(tile.width) {
            let at = start + (first + row) * stride + column;
            value = from[at];
            if comptime!(rotated) {
                let half = comptime!(tile.width / 2);
                let angle = angles + (first + row) * half + column % half;
                if column < half {
                    value = value * cos[angle] - from[at + half] * sin[angle];
                } else {
                    value = value * cos[angle] + from[at - half] * sin[angle];
                }
            }
        }
        to[row * comptime!(tile.padded + 1) + column] = value;
        element += comptime!(tile.unit_columns * tile.unit_rows);
    }
}

/// Copies rows from shared memory to rows `first..` of `[b, n, w]`, below `limit`. With `rotated`, they are gradients of
/// rotated values and are rotated back.
#[cube]
pub(super) fn store_rows(
    from: &Shared<[f32]>,
    to: &mut Tensor<f32>,
    start: usize,
    stride: usize,
    first: usize,
    limit: usize,
    cos: &Tensor<f32>,
    sin: &Tensor<f32>,
    angles: usize,
    #[comptime] rows: usize,
    #[comptime] rotated: bool,
    #[comptime] tile: Tile,
) {
    let mut element = UNIT_POS as usize;
    while element < comptime!(rows * tile.width) {
        let row = element / comptime!(tile.width);
        let column = element % comptime!(tile.width);
        if first + row < limit {
            let at = row * comptime!(tile.padded + 1) + column;
            let mut value = from[at];
            if comptime!(rotated) {
                let half = comptime!(tile.width / 2);
                let angle = angles + (first + row) * half + column % half;
                if column < half {
                    value = value * cos[angle] + from[at + half] * sin[angle];
                } else {
                    value = value * cos[angle] - from[at - half] * sin[angle];
                }
            }
            to[start + (first + row) * stride + column] = value;
        }
        element += comptime!(tile.unit_columns * tile.unit_rows);
    }
}

/// Copies `n` segments from position `first` on to shared memory, zeros from `limit` on.
#[cube]
pub(super) fn load_segments(
    from: &Tensor<i32>,
    start: usize,
    first: usize,
    limit: usize,
    to: &mut Shared<[i32]>,
    #[comptime] n: usize,
    #[comptime] tile: Tile,
) {
    let mut position = UNIT_POS as usize;
    while position < n {
        let mut segment = 0i32;
        if first + position < limit {
            segment = from[start + first + position];
        }
        to[position] = segment;
        position += comptime!(tile.unit_columns * tile.unit_rows);
    }
}

/// The smaller of two numbers.
#[cube]
pub(super) fn at_most(n: usize, #[comptime] most: usize) -> usize {
    let most = comptime!(most).runtime();
    select(n < most, n, most)
}

/// Whether the ranges of two lists of segments overlap; if not, no key of the tile is visible to a query of the other. The
/// lists have `n_a` and `n_b` valid entries.
#[cube]
pub(super) fn segments_overlap(
    a: &Shared<[i32]>,
    n_a: usize,
    b: &Shared<[i32]>,
    n_b: usize,
) -> bool {
    let mut low_a = a[0];
    let mut high_a = a[0];
    for i in 1..n_a {
        low_a = min(low_a, a[i]);
        high_a = max(high_a, a[i]);
    }
    let mut low_b = b[0];
    let mut high_b = b[0];
    for i in 1..n_b {
        low_b = min(low_b, b[i]);
        high_b = max(high_b, b[i]);
    }
    low_a <= high_b && low_b <= high_a
}

/// Whether a query sees a key: both exist, have one segment, and are near enough.
#[cube]
pub(super) fn is_visible(
    query: usize,
    key: usize,
    q_segment: i32,
    k_segment: i32,
    n_q: usize,
    n_k: usize,
    window: usize,
    #[comptime] tile: Tile,
) -> bool {
    let mut visible = query < n_q && key < n_k && q_segment == k_segment;
    // Sums on both sides: a difference of unsigned numbers would wrap.
    if comptime!(tile.causal) {
        visible = visible && key + n_q <= query + n_k && query + n_k < key + n_q + window;
    } else {
        visible = visible && query < key + window && key < query + window;
    }
    visible
}

/// The first key that a query from `first` on may see, rounded down to a tile.
#[cube]
pub(super) fn first_key(
    first: usize,
    n_q: usize,
    n_k: usize,
    window: usize,
    #[comptime] tile: Tile,
) -> usize {
    let mut reach = first + 1;
    if comptime!(tile.causal) {
        reach = first + 1 + n_k - n_q;
    }
    let mut key = 0usize;
    if reach > window {
        key = (reach - window) / comptime!(tile.keys) * comptime!(tile.keys);
    }
    key
}

/// One after the last key that a query of a tile from `first` on may see.
#[cube]
pub(super) fn end_key(
    first: usize,
    n_q: usize,
    n_k: usize,
    window: usize,
    #[comptime] tile: Tile,
) -> usize {
    let mut end = first + comptime!(tile.queries) - 1 + window;
    if comptime!(tile.causal) {
        end = first + comptime!(tile.queries) + n_k - n_q;
    }
    select(end < n_k, end, n_k)
}

/// The first query that may see a key from `first` on, rounded down to a tile.
#[cube]
pub(super) fn first_query(
    first: usize,
    n_q: usize,
    n_k: usize,
    window: usize,
    #[comptime] tile: Tile,
) -> usize {
    let mut query = 0usize;
    if comptime!(tile.causal) {
        if first + n_q > n_k {
            query = (first + n_q - n_k) / comptime!(tile.queries) * comptime!(tile.queries);
        }
    } else if first + 1 > window {
        query = (first + 1 - window) / comptime!(tile.queries) * comptime!(tile.queries);
    }
    query
}

/// One after the last query that may see a key of a tile from `first` on.
#[cube]
pub(super) fn end_query(
    first: usize,
    n_q: usize,
    n_k: usize,
    window: usize,
    #[comptime] tile: Tile,
) -> usize {
    let mut end = first + comptime!(tile.keys) - 1 + window;
    if comptime!(tile.causal) {
        // Queries are the last positions of the keys.
        end = select(end + n_q > n_k, end + n_q - n_k, 0usize);
    }
    select(end < n_q, end, n_q)
}

/// Dot products of a unit's rows of `left` and of `right`: entry `(i, j)` of its part of the tile.
#[cube]
pub(super) fn dots(
    left: &Shared<[f32]>,
    right: &Shared<[f32]>,
    #[comptime] tile: Tile,
) -> Array<f32> {
    let (rows, columns) = comptime!((tile.queries / tile.unit_rows, tile.keys / tile.unit_columns));
    let stride = comptime!(tile.padded + 1);
    let x = UNIT_POS_X as usize;
    let y = UNIT_POS_Y as usize;
    let mut sums = Array::<f32>::new(comptime!(rows * columns));
    #[unroll]
    for i in 0..rows {
        #[unroll]
        for j in 0..columns {
            sums[i * columns + j] = 0.0f32;
        }
    }
    for e in 0..tile.width {
        #[unroll]
        for i in 0..rows {
            let a = left[(y + i * tile.unit_rows) * stride + e];
            #[unroll]
            for j in 0..columns {
                let b = right[(x + j * tile.unit_columns) * stride + e];
                sums[i * columns + j] = sums[i * columns + j] + a * b;
            }
        }
    }
    sums
}

/// A score from the dot product of a query with a key: scaled, and capped softly.
#[cube]
pub(super) fn score(dot: f32, scale: f32, cap: f32, #[comptime] tile: Tile) -> f32 {
    let mut score = dot * scale;
    if comptime!(tile.capped) {
        score = cap * (score / cap).tanh();
    }
    score
}

/// The derivative of a score by the dot product.
#[cube]
pub(super) fn score_slope(score: f32, scale: f32, cap: f32, #[comptime] tile: Tile) -> f32 {
    let mut slope = scale;
    if comptime!(tile.capped) {
        let ratio = score / cap;
        slope = scale * (1.0f32 - ratio * ratio);
    }
    slope
}

/// The sum of a unit row's values, one per unit, in the order of the units. All units of the cube call it.
#[cube]
pub(super) fn row_sum(buffer: &Shared<[f32]>, row: usize, #[comptime] tile: Tile) -> f32 {
    let mut sum = 0.0f32;
    #[unroll]
    for c in 0..tile.unit_columns {
        sum += buffer[row * comptime!(tile.unit_columns + 1) + c];
    }
    sum
}
