//! Attention forward in tiles: the scores of a block of queries and a chunk of keys at a time.
//!
//! The running maximum and sum of each row (Milakov and Gimelshein 2018) combine the chunks, so no matrix of all scores
//! exists. Chunks without a visible key are skipped. Borders of blocks and chunks depend on shape and mask alone.

use rayon::prelude::*;

use super::dots::dots;
use super::heads::{HeadView, Rope, load};
use super::visible::VisibleKeys;
use crate::bf16::multiplies_copies;
use crate::buffer::{Shared, scratch};
use crate::gemm::gemm_alone;
use crate::matrix::{Matrix, MatrixMut, Write};
use crate::precision::Precision;
use crate::rounding::round_in_place;
use crate::simd::{self, multiversion};
use crate::team::AllThreads as _;

/// Query positions per block.
pub(super) const BLOCK: usize = 64;
/// Keys per chunk. Chunks begin at multiples of it, so keys that are moved by a multiple give the same bits.
pub const CHUNK: usize = 256;
/// Up to this many rows of queries, packing for a product costs more than it saves.
const FEW: usize = 8;
/// With at least this many independent heads, a task is a head; with fewer, a block of queries of a head.
const MANY: usize = 8;

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

    pub(super) fn angles(&self, row: usize, position: usize) -> Option<(&'a [f32], &'a [f32])> {
        self.rope.map(|rope| rope.row(row * self.t + position, self.k / 2))
    }

    /// Keys `0..s` of one head, rotated: `[s, k]`.
    pub(super) fn load_keys(&self, keys: &mut [f32], row: usize, group: usize) {
        for (position, out) in keys.chunks_mut(self.k).enumerate() {
            load(out, self.key.row(row, position, group), self.angles(row, position), 1.0);
        }
    }

    /// The queries of a block, rotated and scaled: `[r · n, k]`, head after head.
    pub(super) fn load_queries(&self, tile: &mut [f32], row: usize, group: usize, block: Block) {
        for (idx, out) in tile.chunks_mut(self.k).enumerate() {
            let (head, position) = (group * self.r() + idx / block.n, block.start + idx % block.n);
            let x = self.q.row(row, position, head);
            load(out, x, self.angles(row, position), self.scale);
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

/// Chunks of the keys that a block sees, at borders that are multiples of [`CHUNK`]: start and length.
pub(super) fn chunks(
    visible: &VisibleKeys,
    row: usize,
    block: Block,
) -> impl Iterator<Item = (usize, usize)> + use<> {
    let spans = visible.spans(row, block.start..block.start + block.n);
    spans.into_iter().flat_map(|(start, end)| {
        let first = start / CHUNK * CHUNK;
        (first..end).step_by(CHUNK).map(move |at| {
            let from = at.max(start);
            (from, (at + CHUNK).min(end) - from)
        })
    })
}

/// Writes `out` `[b, t, h · k]` and, unless it is empty, the logarithm of each row's sum of exponentials `[b, h, t]`. That
/// is infinite for a query without visible keys, so that all its probabilities are 0.
pub(super) fn forward(problem: &Problem<'_>, out: &mut [f32], log_sums: &mut [f32]) {
    let Problem { b, t, g, visible, .. } = *problem;
    let (out, log_sums) = (Shared::new(out), Shared::new(log_sums));
    let heads: Vec<(usize, usize)> =
        (0..b).flat_map(|row| (0..g).map(move |group| (row, group))).collect();
    if t * problem.r() <= FEW {
        heads.par_iter().on_all_threads(|&(row, group)| few(problem, row, group, &out, &log_sums));
    } else if heads.len() >= MANY {
        heads.par_iter().on_all_threads(|&(row, group)| {
            many(problem, row, group, blocks(visible, row), &out, &log_sums);
        });
    } else {
        // The last blocks have the most visible keys, so they start first.
        let of_head = |&(row, group): &(usize, usize)| {
            blocks(visible, row).map(move |block| (row, group, block))
        };
        let mut tasks: Vec<_> = heads.iter().flat_map(of_head).collect();
        tasks.sort_by_key(|(_, _, block)| std::cmp::Reverse(block.start));
        tasks.par_iter().on_all_threads(|&(row, group, block)| {
            many(problem, row, group, std::iter::once(block), &out, &log_sums);
        });
    }
}

/// Some blocks of one key-value head's queries.
fn many(
    problem: &Problem<'_>,
    row: usize,
    group: usize,
    blocks: impl Iterator<Item = Block>,
    out: &Shared<'_>,
    log_sums: &Shared<'_>,
) {
    let Problem { t, s, k, h, visible, precision, .. } = *problem;
    let r = problem.r();
    let rows = r * BLOCK.min(t);
    scratch([s * k, rows * k, rows * k, rows * CHUNK, 2 * rows], |buffers| {
        let [keys, queries, sums, scores, state] = buffers;
        problem.load_keys(keys, row, group);
        let is_rounded = multiplies_copies(precision);
        let round = |values: &mut [f32]| {
            if is_rounded {
                round_in_place(values);
            }
        };
        round(keys);
        for block in blocks {
            let rows = r * block.n;
            let (queries, sums) = (&mut queries[..rows * k], &mut sums[..rows * k]);
            let (max, total) = state.split_at_mut(state.len() / 2);
            max.fill(f32::NEG_INFINITY);
            total.fill(0.0);
            sums.fill(0.0);
            problem.load_queries(queries, row, group, block);
            round(queries);
            for (from, n) in chunks(visible, row, block) {
                let scores = &mut scores[..rows * n];
                let keys =
                    Matrix::new(&keys[from * k..(from + n) * k], n, k).with_rounded(is_rounded);
                let queries = Matrix::new(queries, rows, k).with_rounded(is_rounded);
                let out = MatrixMut::new(scores, rows, n);
                gemm_alone(out, queries, keys.transposed(), Write::Over, precision);
                for (idx, scores) in scores.chunks_mut(n).enumerate() {
                    let position = block.start + idx % block.n;
                    let state = (&mut max[idx], &mut total[idx]);
                    let sum = &mut sums[idx * k..(idx + 1) * k];
                    weigh(problem, row, position, from, scores, state, sum);
                    round(scores);
                }
                let values = problem.value.matrix(row, from, n, group);
                let scores = Matrix::new(scores, rows, n).with_rounded(is_rounded);
                let out = MatrixMut::new(sums, rows, k);
                gemm_alone(out, scores, values, Write::Add, precision);
            }
            for (idx, sum) in sums.chunks(k).enumerate() {
                let (head, position) = (group * r + idx / block.n, block.start + idx % block.n);
                let inverse = inverse_of(total[idx]);
                let at = ((row * t + position) * h + head) * k;
                let scaled = |out: &mut [f32]| {
                    out.iter_mut().zip(sum).for_each(|(out, sum)| *out = sum * inverse);
                };
                #[allow(unsafe_code)]
                // SAFETY: each task has its own head or block, so no other task writes to this range.
                unsafe {
                    out.with(at, k, scaled);
                }
                put_log_sum(log_sums, (row * h + head) * t + position, max[idx], total[idx]);
            }
        }
    });
}

fn put_log_sum(log_sums: &Shared<'_>, at: usize, max: f32, total: f32) {
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
fn inverse_of(total: f32) -> f32 {
    if total == 0.0 { 0.0 } else { 1.0 / total }
}

/// Replaces a row's scores of a chunk by weights relative to the row's maximum so far, and rescales the row's earlier sums
/// to it.
fn weigh(
    problem: &Problem<'_>,
    row: usize,
    position: usize,
    from: usize,
    scores: &mut [f32],
    (max, total): (&mut f32, &mut f32),
    sum: &mut [f32],
) {
    let Problem { visible, soft_cap, .. } = *problem;
    let range = visible.within(row, position, from, scores.len());
    scores[..range.start].fill(0.0);
    scores[range.end..].fill(0.0);
    let scores = &mut scores[range.start..range.end];
    if let Some(cap) = soft_cap {
        cap_scores(scores, cap);
    }
    if !range.whole {
        visible.hide(row, position, from + range.start, scores);
    }
    let (factor, added) = exp_from(scores, max);
    *total = *total * factor + added;
    if factor != 1.0 {
        for sum in sum.iter_mut() {
            *sum *= factor;
        }
    }
}

multiversion! {
    /// `cap · tanh(score / cap)` in place of each score.
    fn cap_scores(scores: &mut [f32], cap: f32) {
        let inverse = 1.0 / cap;
        for score in scores.iter_mut() {
            *score = cap * simd::tanh(*score * inverse);
        }
    }
}

multiversion! {
    /// Raises the maximum and replaces scores by their exponentials relative to it. Returns the factor for earlier sums,
    /// and the sum of the new exponentials.
    fn exp_from(scores: &mut [f32], max: &mut f32) -> (f32, f32) {
        let largest = simd::max(scores);
        if largest == f32::NEG_INFINITY {
            // No key is visible, or all visible scores are NaN, which must show in the result.
            let none = if scores.iter().any(|score| score.is_nan()) { f32::NAN } else { 0.0 };
            scores.fill(none);
            return (1.0, none);
        }
        let before = *max;
        let new = if largest > before { largest } else { before };
        *max = new;
        let added = simd::exp_and_sum(scores, new);
        (simd::exp(before - new), added)
    }
}

/// All queries of one key-value head if they are few, as in decoding: without tiles.
fn few(problem: &Problem<'_>, row: usize, group: usize, out: &Shared<'_>, log_sums: &Shared<'_>) {
    let Problem { t, s, k, h, visible, .. } = *problem;
    let rotated = if problem.rope.is_some() { s * k } else { 0 };
    scratch([rotated, k, s, 0, 0], |[keys, query, scores, _, _]| {
        if problem.rope.is_some() {
            problem.load_keys(keys, row, group);
        }
        for head in group * problem.r()..(group + 1) * problem.r() {
            for position in 0..t {
                let angles = problem.angles(row, position);
                load(query, problem.q.row(row, position, head), angles, problem.scale);
                let range = visible.within(row, position, 0, s);
                let scores = &mut scores[range.start..range.end];
                let (from, stride) = match problem.rope {
                    Some(_) => (&keys[range.start * k..], k),
                    None => problem.key.from(row, range.start, group),
                };
                dots(scores, query, from, stride);
                if let Some(cap) = problem.soft_cap {
                    cap_scores(scores, cap);
                }
                if !range.whole {
                    visible.hide(row, position, range.start, scores);
                }
                let mut max = f32::NEG_INFINITY;
                let (_, total) = exp_from(scores, &mut max);
                let inverse = inverse_of(total);
                let at = ((row * t + position) * h + head) * k;
                let (values, stride) = problem.value.from(row, range.start, group);
                #[allow(unsafe_code)]
                // SAFETY: each task has its own heads, so no other task writes to this range.
                unsafe {
                    out.with(at, k, |out| weighted_sum(out, scores, inverse, values, stride));
                }
                put_log_sum(log_sums, (row * h + head) * t + position, max, total);
            }
        }
    });
}

multiversion! {
    /// Σ weight · factor · value, with values `stride` apart.
    fn weighted_sum(out: &mut [f32], weights: &[f32], factor: f32, values: &[f32], stride: usize) {
        const WIDTH: usize = 32;
        // A part of the output at a time stays in registers.
        let width = out.len();
        let stride = stride.max(width);
        for (part, out) in out.chunks_mut(WIDTH).enumerate() {
            let start = part * WIDTH;
            if out.len() == WIDTH {
                let mut sums = [0.0_f32; WIDTH];
                for (weight, value) in weights.iter().zip(values.chunks(stride)) {
                    let weight = weight * factor;
                    for (sum, value) in sums.iter_mut().zip(&value[start..start + WIDTH]) {
                        *sum += weight * value;
                    }
                }
                out.copy_from_slice(&sums);
            } else {
                out.fill(0.0);
                for (weight, value) in weights.iter().zip(values.chunks(stride)) {
                    for (out, value) in out.iter_mut().zip(&value[start..width]) {
                        *out += weight * factor * value;
                    }
                }
            }
        }
    }
}
