//! Attention backward in tiles: probabilities are computed again from the saved logarithms of the sums (Dao et al. 2022,
//! algorithm 4), so nothing of the size of all scores is forward.
//!
//! Each key-value head is one task, which alone adds up the gradients of its keys and values.

use rayon::prelude::*;

use super::heads::{HeadView, Strides, load_rows, store_rows};
use super::panels::write_panels;
use super::problem::{BLOCK, Block, Problem, blocks, chunks};
use super::small_product::{LANES, PANEL, Panels, Part, ROWS, multiply};
use super::softmax::{RowState, Strip, gradients, part_of_scores, whole_vectors};
use super::visible::Range;
use crate::buffer::{Shared, scratch};
use crate::matrix::{Matrix, MatrixMut, Write};
use crate::simd::{self, multiversion};
use crate::team::AllThreads as _;

/// Rows of queries whose scores are computed together.
const STRIP: usize = 64;
/// Keys whose scores are computed together, a multiple of [`PANEL`].
const KEYS: usize = 64;
/// Distance of rows of scores: not a power of two, whose rows would share few sets of a cache.
const STRIDE: usize = KEYS + LANES;

/// Output buffers of the gradients of queries, keys and values.
pub(super) struct Gradients<'a> {
    pub(super) q: (Shared<'a>, Strides),
    pub(super) key: (Shared<'a>, Strides),
    pub(super) value: (Shared<'a>, Strides),
}

/// The saved output of the forward pass and the gradient of it, `[b, t, h, k]`, and the saved log sums, `[b, h, t]`.
#[derive(Clone, Copy)]
pub(super) struct ForwardState<'a> {
    pub(super) out: HeadView<'a>,
    pub(super) d_out: HeadView<'a>,
    pub(super) log_sums: &'a [f32],
}

impl Gradients<'_> {
    /// Asks for some positions of a key-value head and its query heads.
    fn prefetch(
        &self,
        problem: &Problem<'_>,
        (row, group): (usize, usize),
        positions: std::ops::Range<usize>,
    ) {
        for position in positions {
            if position < problem.s {
                for (out, strides) in [&self.key, &self.value] {
                    out.prefetch(strides.at(row, position, group), problem.k);
                }
            }
            let (out, strides) = &self.q;
            out.prefetch(strides.at(row, position, group * problem.r()), problem.r() * problem.k);
        }
    }
}

impl ForwardState<'_> {
    /// Asks for some positions of the query heads of a key-value head, if there is one.
    fn prefetch(
        &self,
        problem: &Problem<'_>,
        head: Option<&(usize, usize)>,
        positions: std::ops::Range<usize>,
    ) {
        let Some(&(row, group)) = head else { return };
        for position in positions {
            for head in group * problem.r()..(group + 1) * problem.r() {
                self.out.prefetch(row, position, head);
                self.d_out.prefetch(row, position, head);
            }
        }
    }
}

/// Writes every value of the three gradients.
pub(super) fn backward(
    problem: &Problem<'_>,
    forward: &ForwardState<'_>,
    gradients: &Gradients<'_>,
) {
    let Problem { b, g, .. } = *problem;
    let heads: Vec<(usize, usize)> =
        (0..b).flat_map(|row| (0..g).map(move |group| (row, group))).collect();
    heads.par_iter().enumerate().on_all_threads(|(idx, &(row, group))| {
        one_head(problem, forward, gradients, (row, group), heads.get(idx + 1));
    });
}

fn one_head(
    problem: &Problem<'_>,
    forward: &ForwardState<'_>,
    gradients: &Gradients<'_>,
    (row, group): (usize, usize),
    next: Option<&(usize, usize)>,
) {
    let Problem { t, s, k, .. } = *problem;
    let width = problem.width();
    let panels = s.next_multiple_of(PANEL) * k;
    let rows = problem.r() * BLOCK.min(t);
    let [of_rows, of_scores] = [rows * width, STRIP * STRIDE];
    let of_keys = s * width;
    let sizes = [
        of_keys, panels, panels, of_keys, of_keys, of_rows, of_rows, of_rows, rows, rows,
        of_scores, of_scores,
    ];
    scratch(sizes, |buffers| {
        let [keys, key_panels, value_panels, d_keys, d_values, tile @ ..] = buffers;
        // Rows of values are where the gradients of keys will be.
        problem.load_values(d_keys, row, group, 0);
        problem.round(d_keys);
        write_panels(value_panels, d_keys, width, k);
        problem.load_keys(keys, width, row, group, 0);
        problem.round(keys);
        write_panels(key_panels, keys, width, k);
        d_keys.fill(0.0);
        d_values.fill(0.0);
        let mut head = Head { keys, key_panels, value_panels, d_keys, d_values };
        let [queries, d_out, d_queries, means, log_sums, probs, d_probs] = tile;
        for block in blocks(problem.visible, row) {
            let rows = problem.r() * block.n;
            let mut tile = Tile {
                queries: &mut queries[..rows * width],
                d_out: &mut d_out[..rows * width],
                d_queries: &mut d_queries[..rows * width],
                means: &mut means[..rows],
                log_sums: &mut log_sums[..rows],
                probs,
                d_probs,
            };
            tile.load(problem, forward, row, group, block);
            tile.run(problem, row, block, &mut head, |positions| {
                gradients.prefetch(problem, (row, group), positions.clone());
                forward.prefetch(problem, next, positions.clone());
                problem.prefetch(next, positions);
            });
            tile.store(problem, gradients, row, group, block);
        }
        let ((key, key_strides), (value, value_strides)) = (&gradients.key, &gradients.value);
        let key_at = (key_strides.at(row, 0, group), key_strides.position);
        let value_at = (value_strides.at(row, 0, group), value_strides.position);
        #[allow(unsafe_code)]
        // SAFETY: each task has its own key-value head, so no other task writes to these ranges.
        unsafe {
            store_rows(key, key_at, head.d_keys, width, k, problem.angles(row, 0), 1.0);
            store_rows(value, value_at, head.d_values, width, k, None, 1.0);
        }
    });
}

/// A key-value head: keys in rows and panels, values in panels, and the gradients of both in rows.
struct Head<'a> {
    keys: &'a [f32],
    key_panels: &'a [f32],
    value_panels: &'a [f32],
    d_keys: &'a mut [f32],
    d_values: &'a mut [f32],
}

/// A block of one key-value head's queries, rows `[r · n]`, and scores of a part of them with a few keys.
struct Tile<'a> {
    queries: &'a mut [f32],
    d_out: &'a mut [f32],
    d_queries: &'a mut [f32],
    /// Σ dout · out of each row.
    means: &'a mut [f32],
    log_sums: &'a mut [f32],
    probs: &'a mut [f32],
    d_probs: &'a mut [f32],
}

impl Tile<'_> {
    fn load(
        &mut self,
        problem: &Problem<'_>,
        forward: &ForwardState<'_>,
        row: usize,
        group: usize,
        Block { start, n }: Block,
    ) {
        let Problem { t, h, k, .. } = *problem;
        let width = problem.width();
        problem.load_queries(self.queries, row, group, Block { start, n });
        for (idx, d_out) in self.d_out.chunks_mut(n * width).enumerate() {
            let head = group * problem.r() + idx;
            load_rows(d_out, width, forward.d_out.from(row, start, head), k, None, 1.0);
            let (out, stride) = forward.out.from(row, start, head);
            dots_of_rows(&mut self.means[idx * n..][..n], d_out, width, out, stride, k);
            let log_sums = &forward.log_sums[(row * h + head) * t + start..][..n];
            self.log_sums[idx * n..][..n].copy_from_slice(log_sums);
        }
        problem.round(self.queries);
        problem.round(self.d_out);
        self.d_queries.fill(0.0);
    }

    /// Calls `prefetch` with some of the block's positions at a time.
    fn run(
        &mut self,
        problem: &Problem<'_>,
        row: usize,
        block: Block,
        head: &mut Head<'_>,
        prefetch: impl Fn(std::ops::Range<usize>),
    ) {
        let rows = problem.r() * block.n;
        let chunks: Vec<_> = chunks(problem.visible, row, block, KEYS).collect();
        for (idx, &(from, n)) in chunks.iter().enumerate() {
            prefetch(block.part(idx, chunks.len()));
            for first in (0..rows).step_by(STRIP) {
                let mut ranges = [Range::EMPTY; STRIP];
                let ranges = &mut ranges[..STRIP.min(rows - first)];
                let mut strip = Strip { row, block, first, ranges };
                strip.look(problem, from / KEYS * KEYS, (from, n));
                self.add_strip(problem, &strip, from / KEYS * KEYS, head);
            }
        }
    }

    /// Adds the gradients from the scores of a strip of the rows and the [`KEYS`] keys from `base` on.
    fn add_strip(
        &mut self,
        problem: &Problem<'_>,
        strip: &Strip<'_>,
        base: usize,
        head: &mut Head,
    ) {
        let (k, width) = (problem.k, problem.width());
        let n_rows = strip.ranges.len();
        let parts = Parts::new(strip, k, width);
        let seen = parts.seen;
        if seen.0 >= seen.1 {
            return;
        }
        let of = strip.first * width..(strip.first + n_rows) * width;
        let (queries, d_out) = (&self.queries[of.clone()], &self.d_out[of.clone()]);
        let probs = &mut self.probs[..n_rows * STRIDE];
        let d_probs = &mut self.d_probs[..n_rows * STRIDE];
        let scores_of = |out: &mut [f32], rows: &[f32], panels: &[f32]| {
            let out = MatrixMut::strided(out, n_rows, KEYS, STRIDE);
            let panels = Panels::packed(&panels[base * k..], k);
            let rows = Matrix::strided(rows, n_rows, k, width);
            multiply(out, rows, panels, parts.of_scores(), Write::Over);
        };
        scores_of(probs, queries, head.key_panels);
        scores_of(d_probs, d_out, head.value_panels);
        strip.mask(problem, base, probs, STRIDE);
        let state = RowState {
            log_sums: &self.log_sums[strip.first..][..n_rows],
            means: &self.means[strip.first..][..n_rows],
        };
        gradients(probs, d_probs, STRIDE, strip.ranges, seen, state, problem.soft_cap);
        if problem.is_rounded() {
            for row in probs.chunks_mut(STRIDE).chain(d_probs.chunks_mut(STRIDE)) {
                problem.round(&mut row[seen.0..seen.1]);
            }
        }
        let probs = Matrix::strided(probs, n_rows, KEYS, STRIDE);
        let d_scores = Matrix::strided(d_probs, n_rows, KEYS, STRIDE);
        let of_keys = base * width..head.keys.len().min((base + KEYS) * width);
        let rows_of = |values| Panels::of_rows(values, width);
        let n_keys = of_keys.len() / width;
        let d_values = MatrixMut::new(&mut head.d_values[of_keys.clone()], n_keys, width);
        multiply(d_values, probs.transposed(), rows_of(d_out), parts.of_keys(), Write::Add);
        let d_queries = MatrixMut::new(&mut self.d_queries[of], n_rows, width);
        let keys = rows_of(&head.keys[of_keys.clone()]);
        multiply(d_queries, d_scores, keys, parts.of_queries(), Write::Add);
        let d_keys = MatrixMut::new(&mut head.d_keys[of_keys], n_keys, width);
        multiply(d_keys, d_scores.transposed(), rows_of(queries), parts.of_keys(), Write::Add);
    }

    fn store(
        &mut self,
        problem: &Problem<'_>,
        gradients: &Gradients<'_>,
        row: usize,
        group: usize,
        block: Block,
    ) {
        let (k, width) = (problem.k, problem.width());
        let (out, strides) = &gradients.q;
        let heads = self.d_queries.chunks_mut(block.n * width);
        for (head, d_queries) in (group * problem.r()..).zip(heads) {
            let at = (strides.at(row, block.start, head), strides.position);
            let angles = problem.angles(row, block.start);
            #[allow(unsafe_code)]
            // SAFETY: each task has its own heads, so no other task writes to this range.
            unsafe {
                store_rows(out, at, d_queries, width, k, angles, problem.scale);
            }
        }
    }
}

/// The parts of the five products of a strip, where there are visible keys.
struct Parts {
    n_rows: usize,
    /// From the first key that a row sees to one after the last, widened to whole vectors and so to whole tiles of keys.
    seen: (usize, usize),
    of_scores: [Part; STRIP / ROWS],
    of_queries: [Part; STRIP / ROWS],
    of_keys: [Part; KEYS / ROWS],
}

impl Parts {
    fn new(strip: &Strip<'_>, k: usize, width: usize) -> Self {
        let mut parts = Self {
            n_rows: strip.ranges.len(),
            seen: (KEYS, 0),
            of_scores: Default::default(),
            of_queries: Default::default(),
            of_keys: Default::default(),
        };
        for (tile, keys) in strip.tiles().enumerate() {
            parts.of_scores[tile] = part_of_scores(keys, k);
            parts.of_queries[tile] = Part { columns: (0, width), inner: keys };
            if keys.0 == keys.1 {
                continue;
            }
            parts.seen = (parts.seen.0.min(keys.0), parts.seen.1.max(keys.1));
            let (first, last) = (tile * ROWS, parts.n_rows.min((tile + 1) * ROWS));
            for part in &mut parts.of_keys[keys.0 / ROWS..keys.1.div_ceil(ROWS)] {
                let is_first = part.inner.1 == 0;
                let from = if is_first { first } else { part.inner.0 };
                *part = Part { columns: (0, width), inner: (from, last) };
            }
        }
        parts.seen = whole_vectors(parts.seen);
        parts
    }

    fn of_scores(&self) -> &[Part] {
        &self.of_scores[..self.n_rows.div_ceil(ROWS)]
    }

    fn of_queries(&self) -> &[Part] {
        &self.of_queries[..self.n_rows.div_ceil(ROWS)]
    }

    /// Those of tiles of the keys that are seen. Between the rows of two of them are rows that were not computed only if these
    /// keys are hidden from them, and then the rows hold zeros.
    fn of_keys(&self) -> &[Part] {
        &self.of_keys[..self.seen.1.div_ceil(ROWS)]
    }
}

multiversion! {
    /// The dot products of rows of `k` values with others.
    fn dots_of_rows(out: &mut [f32], rows: &[f32], width: usize, others: &[f32], stride: usize, k: usize) {
        // A single row may have any stride.
        let rows = rows.chunks(width).zip(others.chunks(stride.max(k)));
        for (out, (row, other)) in out.iter_mut().zip(rows) {
            *out = simd::dot(&row[..k], &other[..k]);
        }
    }
}
