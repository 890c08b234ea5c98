//! Sizes, inputs and mask of an attention, and its division into blocks of queries and chunks of keys.

use std::ops::Range;

use super::heads::{HeadView, Rope, load_rows};
use super::lanes::LANES;
use super::visible::VisibleKeys;
use crate::buffer::Shared;
use crate::precision::Precision;
use crate::rounding::round_in_place;

/// Query positions per block.
pub(super) const BLOCK: usize = 64;
/// Keys per chunk. Chunks begin at multiples of it, so keys that are moved by a multiple give the same bits.
pub const CHUNK: usize = 256;

/// Heads that one task computes, block by block: heads are narrow and positions far apart in memory, so a head alone would
/// read and write a little of many pages, which the processor does not prefetch.
const TOGETHER: usize = 4;
/// Values of heads of a task: fewer than a second-level cache holds.
const CACHED: usize = 160 * 1024;
/// Tasks that are wanted before heads are computed together.
const TASKS: usize = 8;

/// Sizes, inputs and mask of an attention.
#[derive(Clone, Copy)]
pub(super) struct Problem<'a> {
    pub(super) b: usize,
    pub(super) t: usize,
    pub(super) s: usize,
    pub(super) h: usize,
    pub(super) g: usize,
    pub(super) k: usize,
    pub(super) scale: f32,
    /// Bound of the scores, if they are capped.
    pub(super) soft_cap: Option<f32>,
    /// Of the products of tiles; few queries are multiplied in f32.
    pub(super) precision: Precision,
    pub(super) q: HeadView<'a>,
    pub(super) key: HeadView<'a>,
    pub(super) value: HeadView<'a>,
    /// Rotates queries and keys; their numbers are then equal.
    pub(super) rope: Option<Rope<'a>>,
    pub(super) visible: &'a VisibleKeys,
}

impl<'a> Problem<'a> {
    /// Query heads that share one key-value head.
    pub(super) fn r(&self) -> usize {
        self.h / self.g
    }

    /// Values from row to row of a head in tiles.
    pub(super) fn width(&self) -> usize {
        self.k.next_multiple_of(LANES)
    }

    /// Whether the products of tiles multiply values that are rounded to bf16. They are always copies in f32: pairs would have
    /// to be packed for products this small.
    pub(super) fn is_rounded(&self) -> bool {
        self.precision == Precision::Bf16
    }

    pub(super) fn round(&self, values: &mut [f32]) {
        if self.is_rounded() {
            round_in_place(values);
        }
    }

    /// The angles of positions from one on.
    pub(super) fn angles(&self, row: usize, position: usize) -> Option<(&'a [f32], &'a [f32])> {
        self.rope.map(|rope| rope.from(row * self.t + position, self.k / 2))
    }

    /// Keys of one head from a position on, rotated, in rows that are `width` apart.
    pub(super) fn load_keys(
        &self,
        out: &mut [f32],
        width: usize,
        row: usize,
        group: usize,
        position: usize,
    ) {
        let keys = self.key.from(row, position, group);
        load_rows(out, width, keys, self.k, self.angles(row, position), 1.0);
    }

    /// Values of one head from a position on, in rows of a tile.
    pub(super) fn load_values(&self, out: &mut [f32], row: usize, group: usize, position: usize) {
        let values = self.value.from(row, position, group);
        load_rows(out, self.width(), values, self.k, None, 1.0);
    }

    /// The key-value heads in groups of neighbours, each the work of one task: row and heads. `of_head` values are kept for each
    /// head.
    pub(super) fn tasks(&self, of_head: usize) -> Vec<(usize, Range<usize>)> {
        let many = self.b * self.g / TASKS;
        let n = (CACHED / of_head.max(1)).min(TOGETHER).min(many).max(1);
        let of_row =
            |row| (0..self.g).step_by(n).map(move |first| (row, first..self.g.min(first + n)));
        (0..self.b).flat_map(of_row).collect()
    }

    /// The queries of a block, rotated and scaled: `[r · n, width]`, head after head.
    pub(super) fn load_queries(&self, out: &mut [f32], row: usize, group: usize, block: Block) {
        let angles = self.angles(row, block.start);
        for (head, out) in (group * self.r()..).zip(out.chunks_mut(block.n * self.width())) {
            let queries = self.q.from(row, block.start, head);
            load_rows(out, self.width(), queries, self.k, angles, self.scale);
        }
    }
}

/// Query positions `start..start + n`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) start: usize,
    pub(super) n: usize,
}

/// The blocks of a row's queries.
pub(super) fn blocks(visible: &VisibleKeys, row: usize) -> impl Iterator<Item = Block> + use<> {
    visible.blocks(row, BLOCK).into_iter().map(|(start, n)| Block { start, n })
}

/// Chunks of the keys that a block sees, at borders that are multiples of `size`: start and length.
pub(super) fn chunks(
    visible: &VisibleKeys,
    row: usize,
    block: Block,
    size: usize,
) -> impl Iterator<Item = (usize, usize)> + use<> {
    let spans = visible.spans(row, block.start..block.start + block.n);
    spans.into_iter().flat_map(move |(start, end)| {
        let first = start / size * size;
        (first..end).step_by(size).map(move |at| {
            let from = at.max(start);
            (from, (at + size).min(end) - from)
        })
    })
}

/// Writes the logarithm of a row's sum of exponentials, unless none are kept.
pub(super) fn put_log_sum(log_sums: &Shared<'_>, at: usize, max: f32, total: f32) {
    if log_sums.is_empty() {
        return;
    }
    let log_sum = if total == 0.0 { f32::INFINITY } else { max + total.ln() };
    #[allow(unsafe_code)]
    // SAFETY: each row of scores has its own index.
    unsafe {
        log_sums.with(at, 1, |out| out.fill(log_sum));
    }
}

/// 1 / total; 0 for a query without visible keys. NaN stays NaN.
#[inline(always)]
#[allow(clippy::inline_always)]
pub(super) fn inverse_of(total: f32) -> f32 {
    if total == 0.0 { 0.0 } else { 1.0 / total }
}
