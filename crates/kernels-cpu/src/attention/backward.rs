//! Attention backward in tiles: probabilities are computed again from the saved logarithms of the sums (Dao et al. 2022,
//! algorithm 4), so nothing of the size of all scores is forward.
//!
//! Each key-value head belongs to one task, which alone adds up the gradients of its keys and values.

use std::ops::Range;

use rayon::prelude::*;

use super::heads::{HeadView, Strides, load_rows, store_rows};
use super::panels::write_panels;
use super::problem::{BLOCK, Block, Problem, blocks, chunks};
use super::small_product::{LANES, PANEL, Panels, Part, ROWS, multiply};
use super::softmax::{RowState, Strip, gradients, part_of_scores, whole_vectors};
use super::visible::Range as KeyRange;
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

/// Writes every value of the three gradients.
pub(super) fn backward(
    problem: &Problem<'_>,
    forward: &ForwardState<'_>,
    gradients: &Gradients<'_>,
) {
    problem.tasks(Head::length(problem)).par_iter().on_all_threads(|(row, groups)| {
        some_heads(problem, forward, gradients, *row, groups.clone());
    });
}

fn some_heads(
    problem: &Problem<'_>,
    forward: &ForwardState<'_>,
    gradients: &Gradients<'_>,
    row: usize,
    groups: Range<usize>,
) {
    let (width, length) = (problem.width(), Head::length(problem));
    let rows = problem.r() * BLOCK.min(problem.t);
    let (of_rows, of_scores) = (rows * width, STRIP * STRIDE);
    let sizes =
        [groups.len() * length, of_rows, of_rows, of_rows, rows, rows, of_scores, of_scores];
    scratch(sizes, |[heads, queries, d_out, d_queries, means, log_sums, probs, d_probs]| {
        for panel in 0..problem.s.div_ceil(PANEL) {
            for (group, head) in groups.clone().zip(heads.chunks_mut(length)) {
                Head::of(problem, head).load(problem, row, group, panel);
            }
        }
        for block in blocks(problem.visible, row) {
            let rows = problem.r() * block.n;
            for (group, head) in groups.clone().zip(heads.chunks_mut(length)) {
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
                tile.run(problem, row, block, &mut Head::of(problem, head));
                tile.store(problem, gradients, row, group, block);
            }
        }
        for panel in 0..problem.s.div_ceil(PANEL) {
            for (group, head) in groups.clone().zip(heads.chunks_mut(length)) {
                Head::of(problem, head).store(problem, gradients, row, group, panel);
            }
        }
    });
}

/// A key-value head: keys in rows and panels, values in panels, and the gradients of both in rows.
struct Head<'a> {
    keys: &'a mut [f32],
    key_panels: &'a mut [f32],
    value_panels: &'a mut [f32],
    d_keys: &'a mut [f32],
    d_values: &'a mut [f32],
}

impl<'a> Head<'a> {
    fn length(problem: &Problem<'_>) -> usize {
        let Problem { s, k, .. } = *problem;
        let s = s.max(1);
        3 * s * problem.width() + 2 * s.next_multiple_of(PANEL) * k
    }

    /// # Panics
    /// If there are not [`Self::length`] values.
    fn of(problem: &Problem<'_>, values: &'a mut [f32]) -> Self {
        let Problem { s, k, .. } = *problem;
        let (of_rows, of_panels) = (s * problem.width(), s.next_multiple_of(PANEL) * k);
        let (keys, rest) = values.split_at_mut(of_rows);
        let (d_keys, rest) = rest.split_at_mut(of_rows);
        let (d_values, rest) = rest.split_at_mut(of_rows);
        let (key_panels, value_panels) = rest.split_at_mut(of_panels);
        Self { keys, key_panels, value_panels, d_keys, d_values }
    }

    /// The rows of a panel's keys, and the panel's values.
    fn of_panel(problem: &Problem<'_>, panel: usize) -> (Range<usize>, Range<usize>) {
        let (from, to) = (panel * PANEL, problem.s.min((panel + 1) * PANEL));
        let of_panel = PANEL * problem.k;
        (from * problem.width()..to * problem.width(), panel * of_panel..(panel + 1) * of_panel)
    }

    /// Loads the keys and values of a panel; their gradients become 0.
    fn load(&mut self, problem: &Problem<'_>, row: usize, group: usize, panel: usize) {
        let (k, width, position) = (problem.k, problem.width(), panel * PANEL);
        let (rows, of_panel) = Self::of_panel(problem, panel);
        // Rows of values are where the gradients of keys will be.
        let values = &mut self.d_keys[rows.clone()];
        problem.load_values(values, row, group, position);
        problem.round(values);
        write_panels(&mut self.value_panels[of_panel.clone()], values, width, k);
        values.fill(0.0);
        self.d_values[rows.clone()].fill(0.0);
        let keys = &mut self.keys[rows];
        problem.load_keys(keys, width, row, group, position);
        problem.round(keys);
        write_panels(&mut self.key_panels[of_panel], keys, width, k);
    }

    /// Writes the gradients of a panel.
    fn store(
        &mut self,
        problem: &Problem<'_>,
        gradients: &Gradients<'_>,
        row: usize,
        group: usize,
        panel: usize,
    ) {
        let (k, width, position) = (problem.k, problem.width(), panel * PANEL);
        let (rows, _) = Self::of_panel(problem, panel);
        let ((key, key_strides), (value, value_strides)) = (&gradients.key, &gradients.value);
        let key_at = (key_strides.at(row, position, group), key_strides.position);
        let value_at = (value_strides.at(row, position, group), value_strides.position);
        let angles = problem.angles(row, position);
        #[allow(unsafe_code)]
        // SAFETY: each task has its own key-value heads, so no other task writes to these ranges.
        unsafe {
            store_rows(key, key_at, &mut self.d_keys[rows.clone()], width, k, angles, 1.0);
            store_rows(value, value_at, &mut self.d_values[rows], width, k, None, 1.0);
        }
    }
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

    fn run(&mut self, problem: &Problem<'_>, row: usize, block: Block, head: &mut Head<'_>) {
        let rows = problem.r() * block.n;
        for (from, n) in chunks(problem.visible, row, block, KEYS) {
            for first in (0..rows).step_by(STRIP) {
                let mut ranges = [KeyRange::EMPTY; STRIP];
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
