//! Attention forward in tiles: a few rows of queries and a chunk of keys at a time, whose scores stay in a first-level cache.
//!
//! The running maximum and sum of each row (Milakov and Gimelshein 2018) combine the chunks, so no matrix of all scores
//! exists. Chunks without a visible key are skipped. Borders of blocks and chunks depend on shape and mask alone.

use rayon::prelude::*;

use super::few::few;
use super::heads::copy_row;
use super::panels::write_panels;
use super::problem::{BLOCK, Block, CHUNK, Problem, blocks, chunks, inverse_of, put_log_sum};
use super::small_product::{LANES, PANEL, Panels, Part, ROWS, multiply};
use super::softmax::{Strip, Sums, part_of_scores, weigh};
use super::visible::Range;
use crate::buffer::{Shared, scratch};
use crate::matrix::{Matrix, MatrixMut, Write};
use crate::simd::multiversion;
use crate::team::AllThreads as _;

/// Rows of queries whose scores are computed together.
const STRIP: usize = 16;
/// Distance of rows of scores: not a power of two, whose rows would share few sets of a cache.
const STRIDE: usize = CHUNK + LANES;
/// Up to this many rows of queries, tiles cost more than they save.
const FEW: usize = 8;
/// With at least this many independent heads, a task is a head; with fewer, a block of queries of a head.
const MANY: usize = 8;

/// Writes `out` `[b, t, h · k]` and, unless it is empty, the logarithm of each row's sum of exponentials `[b, h, t]`. That
/// is infinite for a query without visible keys, so that all its probabilities are 0.
pub(super) fn forward(problem: &Problem<'_>, out: &mut [f32], log_sums: &mut [f32]) {
    let Problem { b, t, g, visible, .. } = *problem;
    let (out, log_sums) = (Shared::new(out), Shared::new(log_sums));
    let heads: Vec<(usize, usize)> =
        (0..b).flat_map(|row| (0..g).map(move |group| (row, group))).collect();
    if t * problem.r() <= FEW {
        heads.par_iter().on_all_threads(|&(row, group)| few(problem, row, group, &out, &log_sums));
        return;
    }
    let length = Piece::length(problem);
    let n_chunks = problem.s.max(1).div_ceil(CHUNK);
    let of_head = n_chunks * length;
    if heads.len() >= MANY {
        problem.tasks(of_head).par_iter().on_all_threads(|(row, groups)| {
            let sizes = with_buffers(problem, groups.len() * of_head);
            scratch(sizes, |[pieces, buffers @ ..]| {
                for from in (0..problem.s).step_by(PANEL) {
                    for (group, pieces) in groups.clone().zip(pieces.chunks_mut(of_head)) {
                        let piece = &mut pieces[from / CHUNK * length..][..length];
                        Piece::load(problem, (*row, group), (from, PANEL), piece);
                    }
                }
                let mut buffers = Buffers::of(buffers);
                for block in blocks(visible, *row) {
                    for (group, pieces) in groups.clone().zip(pieces.chunks(of_head)) {
                        let task = (*row, group, block);
                        attend(problem, task, pieces, &mut buffers, &out, &log_sums);
                    }
                }
            });
        });
        return;
    }
    let mut pieces = vec![0.0; heads.len() * of_head];
    pieces.par_chunks_mut(length).enumerate().on_all_threads(|(idx, piece)| {
        let (row, group) = heads[idx / n_chunks];
        Piece::load(problem, (row, group), (idx % n_chunks * CHUNK, CHUNK), piece);
    });
    // The last blocks have the most visible keys, so they start first.
    let of_row = |(head, &(row, group)): (usize, &(usize, usize))| {
        blocks(visible, row).map(move |block| (head, (row, group, block)))
    };
    let mut tasks: Vec<_> = heads.iter().enumerate().flat_map(of_row).collect();
    tasks.sort_by_key(|(_, (_, _, block))| std::cmp::Reverse(block.start));
    tasks.par_iter().on_all_threads(|&(head, task)| {
        let pieces = &pieces[head * of_head..][..of_head];
        scratch(with_buffers(problem, 0), |[_, buffers @ ..]| {
            attend(problem, task, pieces, &mut Buffers::of(buffers), &out, &log_sums);
        });
    });
}

/// A chunk of one head's keys, rotated, in panels, and its values in rows.
#[derive(Clone, Copy)]
struct Piece<'a> {
    keys: &'a [f32],
    values: &'a [f32],
}

impl<'a> Piece<'a> {
    /// Keys that there is space for.
    fn n_keys(problem: &Problem<'_>) -> usize {
        CHUNK.min(problem.s.max(1).next_multiple_of(PANEL))
    }

    fn length(problem: &Problem<'_>) -> usize {
        Self::n_keys(problem) * (problem.k + problem.width())
    }

    /// Loads up to `n` keys from one on, both multiples of [`PANEL`], into their piece.
    fn load(
        problem: &Problem<'_>,
        (row, group): (usize, usize),
        (from, n): (usize, usize),
        piece: &mut [f32],
    ) {
        let (k, width) = (problem.k, problem.width());
        let (keys, values) = piece.split_at_mut(Self::n_keys(problem) * k);
        let within = from % CHUNK;
        let values = &mut values[within * width..][..n.min(problem.s - from) * width];
        // Rows of keys are where values will be.
        problem.load_keys(values, width, row, group, from);
        problem.round(values);
        write_panels(&mut keys[within * k..], values, width, k);
        problem.load_values(values, row, group, from);
        problem.round(values);
    }

    fn of(problem: &Problem<'_>, pieces: &'a [f32], chunk: usize) -> Self {
        let length = Self::length(problem);
        let (keys, values) =
            pieces[chunk * length..][..length].split_at(Self::n_keys(problem) * problem.k);
        Self { keys, values }
    }
}

/// Buffers for a block of one key-value head's queries.
struct Buffers<'a> {
    queries: &'a mut [f32],
    /// Weighted sums of values.
    values: &'a mut [f32],
    max: &'a mut [f32],
    total: &'a mut [f32],
    /// Of a strip of the queries.
    scores: &'a mut [f32],
}

impl<'a> Buffers<'a> {
    fn of([queries, values, max, total, scores]: [&'a mut [f32]; 5]) -> Self {
        Self { queries, values, max, total, scores }
    }
}

/// The sizes of another buffer and [`Buffers`].
fn with_buffers(problem: &Problem<'_>, of_head: usize) -> [usize; 6] {
    let rows = problem.r() * BLOCK.min(problem.t);
    [of_head, rows * problem.width(), rows * problem.width(), rows, rows, STRIP * STRIDE]
}

/// A block of one key-value head's queries.
fn attend(
    problem: &Problem<'_>,
    (row, group, block): (usize, usize, Block),
    pieces: &[f32],
    buffers: &mut Buffers<'_>,
    out: &Shared<'_>,
    log_sums: &Shared<'_>,
) {
    let Problem { t, k, h, visible, .. } = *problem;
    let (r, width) = (problem.r(), problem.width());
    let rows = r * block.n;
    let queries = &mut buffers.queries[..rows * width];
    let values = &mut buffers.values[..rows * width];
    let (max, total) = (&mut buffers.max[..rows], &mut buffers.total[..rows]);
    max.fill(f32::NEG_INFINITY);
    total.fill(0.0);
    values.fill(0.0);
    problem.load_queries(queries, row, group, block);
    problem.round(queries);
    for (from, n) in chunks(visible, row, block, CHUNK) {
        let piece = Piece::of(problem, pieces, from / CHUNK);
        let base = from / CHUNK * CHUNK;
        for first in (0..rows).step_by(STRIP) {
            let of = first..rows.min(first + STRIP);
            let mut ranges = [Range::EMPTY; STRIP];
            let mut strip = Strip { row, block, first, ranges: &mut ranges[..of.len()] };
            strip.look(problem, base, (from, n));
            let of_values = of.start * width..of.end * width;
            let sums = Sums {
                max: &mut max[of.clone()],
                total: &mut total[of],
                values: &mut values[of_values.clone()],
                width,
            };
            add_chunk(problem, &strip, base, piece, &queries[of_values], buffers.scores, sums);
        }
    }
    divide(values, width, total);
    for (idx, value) in values.chunks(width).enumerate() {
        let (head, position) = (group * r + idx / block.n, block.start + idx % block.n);
        let at = ((row * t + position) * h + head) * k;
        #[allow(unsafe_code)]
        // SAFETY: each task has its own head or block, so no other task writes to this range.
        unsafe {
            out.with(at, k, |out| copy_row(out, &value[..k]));
        }
        put_log_sum(log_sums, (row * h + head) * t + position, max[idx], total[idx]);
    }
}

/// Adds the weighted values of a chunk of keys, of which `base` is the first, to the sums of a strip of queries.
fn add_chunk(
    problem: &Problem<'_>,
    strip: &Strip<'_>,
    base: usize,
    piece: Piece<'_>,
    queries: &[f32],
    scores: &mut [f32],
    mut sums: Sums<'_>,
) {
    let (k, width) = (problem.k, problem.width());
    let n_rows = strip.ranges.len();
    let scores = &mut scores[..n_rows * STRIDE];
    let mut of_scores = [Part::default(); STRIP / ROWS];
    let mut of_values = [Part::default(); STRIP / ROWS];
    let mut seen = (CHUNK, 0);
    for (idx, keys) in strip.tiles().enumerate() {
        of_scores[idx] = part_of_scores(keys, k);
        of_values[idx] = Part { columns: (0, width), inner: keys };
        if keys.0 < keys.1 {
            seen = (seen.0.min(keys.0), seen.1.max(keys.1));
        }
    }
    if seen.0 >= seen.1 {
        return;
    }
    let n_tiles = n_rows.div_ceil(ROWS);
    let queries = Matrix::strided(queries, n_rows, k, width);
    let out = MatrixMut::strided(scores, n_rows, CHUNK, STRIDE);
    let keys = Panels::packed(piece.keys, k);
    multiply(out, queries, keys, &of_scores[..n_tiles], Write::Over);
    strip.mask(problem, base, scores, STRIDE);
    weigh(scores, STRIDE, strip.ranges, seen, sums.again());
    if problem.is_rounded() {
        scores.chunks_mut(STRIDE).for_each(|row| problem.round(&mut row[seen.0..seen.1]));
    }
    let weights = Matrix::strided(scores, n_rows, CHUNK, STRIDE);
    let out = MatrixMut::new(sums.values, n_rows, width);
    let values = Panels::of_rows(piece.values, width);
    multiply(out, weights, values, &of_values[..n_tiles], Write::Add);
}

multiversion! {
    /// Divides rows of sums by their totals.
    fn divide(sums: &mut [f32], width: usize, totals: &[f32]) {
        for (row, total) in sums.chunks_mut(width).zip(totals) {
            let inverse = inverse_of(*total);
            for sum in row.iter_mut() {
                *sum *= inverse;
            }
        }
    }
}
