//! Attention backward in the same tiles: probabilities are computed again from the saved logarithms of the sums
//! (Dao et al. 2022, algorithm 4), so nothing of the size of all scores is forward.
//!
//! Each key-value head is one task, which alone adds up the gradients of its keys and values.

use rayon::prelude::*;

use super::forward::{BLOCK, Block, CHUNK, Problem, blocks, cap_scores, chunks};
use super::heads::{HeadView, Strides, store};
use super::visible::Range;
use crate::bf16::multiplies_copies;
use crate::buffer::{Shared, scratch};
use crate::gemm::gemm_alone;
use crate::matrix::{Matrix, MatrixMut, Write};
use crate::rounding::round_in_place;
use crate::simd::{self, multiversion};
use crate::team::AllThreads as _;

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
    let Problem { b, g, .. } = *problem;
    let heads: Vec<(usize, usize)> =
        (0..b).flat_map(|row| (0..g).map(move |group| (row, group))).collect();
    heads
        .par_iter()
        .on_all_threads(|&(row, group)| one_head(problem, forward, gradients, row, group));
}

fn one_head(
    problem: &Problem<'_>,
    forward: &ForwardState<'_>,
    gradients: &Gradients<'_>,
    row: usize,
    group: usize,
) {
    let Problem { t, s, k, .. } = *problem;
    let rows = problem.r() * BLOCK.min(t);
    let sizes = [3 * s * k, 3 * rows * k, rows, rows * CHUNK, rows * CHUNK];
    scratch(sizes, |[all_keys, tiles, means, probs, d_probs]| {
        let (keys, sums) = all_keys.split_at_mut(s * k);
        sums.fill(0.0);
        let (d_keys, d_values) = sums.split_at_mut(s * k);
        problem.load_keys(keys, row, group);
        if multiplies_copies(problem.precision) {
            round_in_place(keys);
        }
        for block in blocks(problem.visible, row) {
            let rows = problem.r() * block.n;
            let (queries, rest) = tiles.split_at_mut(rows * k);
            let (d_out, rest) = rest.split_at_mut(rows * k);
            let mut tile = Tile {
                queries,
                d_out,
                d_queries: &mut rest[..rows * k],
                means: &mut means[..rows],
                probs,
                d_probs,
            };
            tile.load(problem, forward, row, group, block);
            tile.run(problem, forward.log_sums, (row, group, block), keys, d_keys, d_values);
            tile.store(problem, gradients, row, group, block);
        }
        for position in 0..s {
            let (key, value) = (&gradients.key, &gradients.value);
            let of = position * k..(position + 1) * k;
            let (key_at, value_at) =
                (key.1.at(row, position, group), value.1.at(row, position, group));
            #[allow(unsafe_code)]
            // SAFETY: each task has its own key-value head, so no other task writes to these ranges.
            unsafe {
                let angles = problem.angles(row, position);
                store(&key.0, key_at, &d_keys[of.clone()], angles, 1.0);
                store(&value.0, value_at, &d_values[of], None, 1.0);
            }
        }
    });
}

/// A block of one key-value head's queries, `[r · n, k]` each, and its scores for one chunk of keys.
struct Tile<'a> {
    queries: &'a mut [f32],
    d_out: &'a mut [f32],
    d_queries: &'a mut [f32],
    /// Σ dout · out of each row.
    means: &'a mut [f32],
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
        block: Block,
    ) {
        let (k, r) = (problem.k, problem.r());
        problem.load_queries(self.queries, row, group, block);
        for (idx, d_out) in self.d_out.chunks_mut(k).enumerate() {
            let (head, position) = (group * r + idx / block.n, block.start + idx % block.n);
            d_out.copy_from_slice(forward.d_out.row(row, position, head));
            self.means[idx] = dot(d_out, forward.out.row(row, position, head));
        }
        if multiplies_copies(problem.precision) {
            round_in_place(self.queries);
            round_in_place(self.d_out);
        }
        self.d_queries.fill(0.0);
    }

    fn run(
        &mut self,
        problem: &Problem<'_>,
        log_sums: &[f32],
        (row, group, block): (usize, usize, Block),
        keys: &[f32],
        d_keys: &mut [f32],
        d_values: &mut [f32],
    ) {
        let Problem { t, h, k, visible, soft_cap, precision, .. } = *problem;
        let r = problem.r();
        let rows = r * block.n;
        let is_rounded = multiplies_copies(precision);
        let queries = Matrix::new(self.queries, rows, k).with_rounded(is_rounded);
        let d_out = Matrix::new(self.d_out, rows, k).with_rounded(is_rounded);
        for (from, n) in chunks(visible, row, block) {
            let (probs, d_probs) = (&mut self.probs[..rows * n], &mut self.d_probs[..rows * n]);
            let of = from * k..(from + n) * k;
            let keys = Matrix::new(&keys[of.clone()], n, k).with_rounded(is_rounded);
            let values = problem.value.matrix(row, from, n, group);
            gemm_alone(
                MatrixMut::new(probs, rows, n),
                queries,
                keys.transposed(),
                Write::Over,
                precision,
            );
            gemm_alone(
                MatrixMut::new(d_probs, rows, n),
                d_out,
                values.transposed(),
                Write::Over,
                precision,
            );
            let both = probs.chunks_mut(n).zip(d_probs.chunks_mut(n)).enumerate();
            for (idx, (probs, d_probs)) in both {
                let (head, position) = (group * r + idx / block.n, block.start + idx % block.n);
                let Range { start, end, whole } = visible.within(row, position, from, n);
                for hidden in [0..start, end..n] {
                    probs[hidden.clone()].fill(0.0);
                    d_probs[hidden].fill(0.0);
                }
                let (probs, d_probs) = (&mut probs[start..end], &mut d_probs[start..end]);
                if let Some(cap) = soft_cap {
                    cap_scores(probs, cap);
                }
                if !whole {
                    visible.hide(row, position, from + start, probs);
                }
                let log_sum = log_sums[(row * h + head) * t + position];
                match soft_cap {
                    None => score_gradients(probs, d_probs, log_sum, self.means[idx]),
                    Some(cap) => {
                        capped_score_gradients(probs, d_probs, log_sum, self.means[idx], cap);
                    }
                }
                if is_rounded {
                    round_in_place(probs);
                    round_in_place(d_probs);
                }
            }
            let tile = |values| Matrix::new(values, rows, n).with_rounded(is_rounded);
            let (probs, d_scores) = (tile(&*probs), tile(&*d_probs));
            let d_values = MatrixMut::new(&mut d_values[of.clone()], n, k);
            gemm_alone(d_values, probs.transposed(), d_out, Write::Add, precision);
            let d_queries = MatrixMut::new(self.d_queries, rows, k);
            gemm_alone(d_queries, d_scores, keys, Write::Add, precision);
            let d_keys = MatrixMut::new(&mut d_keys[of], n, k);
            gemm_alone(d_keys, d_scores.transposed(), queries, Write::Add, precision);
        }
    }

    fn store(
        &self,
        problem: &Problem<'_>,
        gradients: &Gradients<'_>,
        row: usize,
        group: usize,
        block: Block,
    ) {
        let (out, strides) = &gradients.q;
        for (idx, d_query) in self.d_queries.chunks(problem.k).enumerate() {
            let head = group * problem.r() + idx / block.n;
            let position = block.start + idx % block.n;
            let angles = problem.angles(row, position);
            #[allow(unsafe_code)]
            // SAFETY: each task has its own heads, so no other task writes to this range.
            unsafe {
                let at = strides.at(row, position, head);
                store(out, at, d_query, angles, problem.scale);
            }
        }
    }
}

multiversion! {
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        simd::dot(a, b)
    }
}

multiversion! {
    /// As [`score_gradients`] of capped scores; the gradients are those of the scores before the cap, whose slope is
    /// 1 − tanh².
    fn capped_score_gradients(
        probs: &mut [f32],
        d_probs: &mut [f32],
        log_sum: f32,
        mean: f32,
        cap: f32,
    ) {
        let inverse = 1.0 / cap;
        for (prob, d_prob) in probs.iter_mut().zip(d_probs) {
            let tanh = *prob * inverse;
            // The score of a hidden key is minus infinity; its probability is 0 and so is its gradient.
            let slope = (1.0 - tanh * tanh).max(0.0);
            *prob = simd::exp(*prob - log_sum);
            *d_prob = (*d_prob - mean) * *prob * slope;
        }
    }
}

multiversion! {
    /// Replaces scores by probabilities, and gradients of probabilities by gradients of scores.
    fn score_gradients(probs: &mut [f32], d_probs: &mut [f32], log_sum: f32, mean: f32) {
        for (prob, d_prob) in probs.iter_mut().zip(d_probs) {
            *prob = simd::exp(*prob - log_sum);
            *d_prob = (*d_prob - mean) * *prob;
        }
    }
}
