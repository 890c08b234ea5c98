//! Rows of scores of a strip of queries: their weights, forward, and their gradients.
//!
//! A row's visible keys are widened to whole vectors, whose other lanes have weight 0. Scores begin at a multiple of
//! [`LANES`] keys, so keys that are moved by a multiple of it are in the same lanes.

use super::lanes::LANES;
use super::problem::{Block, Problem};
use super::small_product::{Part, ROWS};
use super::visible::Range;
use crate::simd::{self, multiversion};

/// Some rows of a block's queries, `[r · n]`, and the keys that are visible to each, counted from the first column of scores.
pub(super) struct Strip<'a> {
    pub(super) row: usize,
    pub(super) block: Block,
    /// Index of the first of the block's rows.
    pub(super) first: usize,
    pub(super) ranges: &'a mut [Range],
}

impl Strip<'_> {
    /// Finds the visible ones of `n` keys from `from` on, where the first column of scores is that of key `base`.
    pub(super) fn look(&mut self, problem: &Problem<'_>, base: usize, (from, n): (usize, usize)) {
        let moved = from - base;
        for idx in 0..self.ranges.len() {
            let (_, position) = self.query(idx);
            let Range { start, end, whole } = problem.visible.within(self.row, position, from, n);
            self.ranges[idx] = Range { start: start + moved, end: end + moved, whole };
        }
    }

    /// Query head and position of one of the strip's rows.
    pub(super) fn query(&self, idx: usize) -> (usize, usize) {
        let at = self.first + idx;
        (at / self.block.n, self.block.start + at % self.block.n)
    }

    /// The keys that the rows of each tile see: from one to before another.
    pub(super) fn tiles(&self) -> impl Iterator<Item = (usize, usize)> {
        self.ranges.chunks(ROWS).map(|tile| {
            let seen = || tile.iter().filter(|range| range.start < range.end);
            let start = seen().map(|range| range.start).min().unwrap_or(0);
            (start, seen().map(|range| range.end).max().unwrap_or(0))
        })
    }

    /// Caps scores and hides those of other segments.
    pub(super) fn mask(
        &self,
        problem: &Problem<'_>,
        base: usize,
        scores: &mut [f32],
        stride: usize,
    ) {
        for (idx, Range { start, end, whole }) in self.ranges.iter().enumerate() {
            let scores = &mut scores[idx * stride..];
            if let Some(cap) = problem.soft_cap {
                cap_scores(&mut scores[*start..*end], cap);
            }
            if !whole {
                let (_, position) = self.query(idx);
                problem.visible.hide(self.row, position, base + start, &mut scores[*start..*end]);
            }
        }
    }
}

/// A range of keys, widened to whole vectors.
pub(super) fn whole_vectors((start, end): (usize, usize)) -> (usize, usize) {
    (start / LANES * LANES, end.next_multiple_of(LANES))
}

/// The part of the scores of a tile that sees these keys: all columns of `inner` values.
pub(super) fn part_of_scores(seen: (usize, usize), inner: usize) -> Part {
    let inner = if seen.0 < seen.1 { inner } else { 0 };
    Part { columns: whole_vectors(seen), inner: (0, inner) }
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

/// Rows that are weighed together, at most.
const MAX_ROWS: usize = 16;

/// The state of each row of a strip: the largest score so far, the sum of weights relative to it, and the weighted sum of
/// values, `width` apart.
pub(super) struct Sums<'a> {
    pub(super) max: &'a mut [f32],
    pub(super) total: &'a mut [f32],
    pub(super) values: &'a mut [f32],
    pub(super) width: usize,
}

impl Sums<'_> {
    /// The same for a shorter time.
    pub(super) fn again(&mut self) -> Sums<'_> {
        let Self { max, total, values, width } = self;
        Sums { max, total, values, width: *width }
    }
}

multiversion! {
    /// Replaces the scores of each row by weights relative to the row's maximum so far, and rescales the row's earlier sums
    /// to it. Columns of `seen` that are not visible to a row get weight 0.
    fn weigh(scores: &mut [f32], stride: usize, ranges: &[Range], seen: (usize, usize), sums: Sums<'_>) {
        let Sums { max, total, values, width } = sums;
        // All maxima first: a row's exponentials would wait for its own.
        let mut largest = [f32::NEG_INFINITY; MAX_ROWS];
        let rows = scores.chunks_mut(stride).zip(ranges).zip(&mut largest[..ranges.len()]);
        for ((row, range), largest) in rows {
            let (first, last) = clear_around(row, *range, seen);
            let (vectors, _) = row[first..last].as_chunks_mut::<LANES>();
            put_around(vectors, *range, f32::NEG_INFINITY);
            *largest = largest_of(vectors);
        }
        let rows = scores.chunks_mut(stride).zip(ranges).zip(values.chunks_mut(width));
        let state = max.iter_mut().zip(total).zip(largest);
        for (((row, range), values), ((max, total), largest)) in rows.zip(state) {
            let (first, last) = vectors_of(*range);
            let (vectors, _) = row[first..last].as_chunks_mut::<LANES>();
            if largest == f32::NEG_INFINITY {
                // No key is visible, or all visible scores are NaN, which must show in the result.
                let is_nan = vectors.as_flattened().iter().any(|score| score.is_nan());
                let none = if is_nan { f32::NAN } else { 0.0 };
                row[first..last].fill(0.0);
                row[range.start..range.end].fill(none);
                *total += none;
                continue;
            }
            let before = *max;
            *max = if largest > before { largest } else { before };
            let added = exponentials(vectors, *max);
            // Without scores before, there is nothing to rescale.
            if *max != before && before != f32::NEG_INFINITY {
                let factor = simd::exp(before - *max);
                *total *= factor;
                for value in values.iter_mut() {
                    *value *= factor;
                }
            }
            *total += added;
        }
    }
}

#[inline(always)]
#[allow(clippy::inline_always)]
fn largest_of(vectors: &[[f32; LANES]]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for vector in vectors {
        for (lane, value) in lanes.iter_mut().zip(vector) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    simd::largest_lane(lanes)
}

/// Replaces values by their exponentials relative to the largest; returns their sum.
#[inline(always)]
#[allow(clippy::inline_always)]
fn exponentials(vectors: &mut [[f32; LANES]], largest: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    for vector in vectors {
        for (lane, value) in lanes.iter_mut().zip(vector) {
            *value = simd::exp(*value - largest);
            *lane += *value;
        }
    }
    simd::sum_lanes(lanes)
}

/// The columns of a range's vectors; none if it is empty.
#[inline(always)]
#[allow(clippy::inline_always)]
fn vectors_of(Range { start, end, .. }: Range) -> (usize, usize) {
    let first = start / LANES * LANES;
    (first, if start == end { first } else { end.next_multiple_of(LANES) })
}

/// Replaces the columns of `seen` by 0, except for the vectors of a range. Returns these vectors' columns.
#[inline(always)]
#[allow(clippy::inline_always)]
fn clear_around(row: &mut [f32], range: Range, seen: (usize, usize)) -> (usize, usize) {
    if range.start == range.end {
        row[seen.0..seen.1].fill(0.0);
        return (seen.0, seen.0);
    }
    let (first, last) = vectors_of(range);
    if seen.0 < first {
        row[seen.0..first].fill(0.0);
    }
    if last < seen.1 {
        row[last..seen.1].fill(0.0);
    }
    (first, last)
}

/// Sixteen lanes from index `i` on are kept from lane `16 - i` on, or before lane `32 - i`.
const KEPT: [u32; 3 * LANES] = {
    let mut kept = [0; 3 * LANES];
    let mut lane = LANES;
    while lane < 2 * LANES {
        kept[lane] = u32::MAX;
        lane += 1;
    }
    kept
};

/// Replaces the lanes of a range's first and last vector that are not in it; by masks, because branches for each row would be
/// mispredicted.
#[inline(always)]
#[allow(clippy::inline_always)]
fn put_around(vectors: &mut [[f32; LANES]], range: Range, value: f32) {
    let put = |vector: &mut [f32; LANES], kept: &[u32]| {
        for (lane, kept) in vector.iter_mut().zip(&kept[..LANES]) {
            *lane = f32::from_bits((lane.to_bits() & kept) | (value.to_bits() & !kept));
        }
    };
    if let Some(first) = vectors.first_mut() {
        put(first, &KEPT[LANES - range.start % LANES..]);
    }
    if let Some(last) = vectors.last_mut() {
        put(last, &KEPT[LANES + range.end.wrapping_neg() % LANES..]);
    }
}

/// For each row, the logarithm of the sum of exponentials, and Σ dout · out.
pub(super) struct RowState<'a> {
    pub(super) log_sums: &'a [f32],
    pub(super) means: &'a [f32],
}

multiversion! {
    /// Replaces scores by probabilities, and gradients of probabilities by gradients of scores: those before the cap, if there
    /// is one, whose slope is 1 − tanh². Both are 0 in columns of `seen` that are not visible.
    fn gradients(
        scores: &mut [f32],
        d_probs: &mut [f32],
        stride: usize,
        ranges: &[Range],
        seen: (usize, usize),
        state: RowState<'_>,
        cap: Option<f32>,
    ) {
        let rows = scores.chunks_mut(stride).zip(d_probs.chunks_mut(stride)).zip(ranges);
        for (((row, d_row), range), (log_sum, mean)) in
            rows.zip(state.log_sums.iter().zip(state.means))
        {
            let (first, last) = clear_around(row, *range, seen);
            clear_around(d_row, *range, seen);
            let (vectors, _) = row[first..last].as_chunks_mut::<LANES>();
            let (d_vectors, _) = d_row[first..last].as_chunks_mut::<LANES>();
            match cap {
                None => {
                    for (vector, d_vector) in vectors.iter_mut().zip(d_vectors.iter_mut()) {
                        for (prob, d_prob) in vector.iter_mut().zip(d_vector) {
                            *prob = simd::exp(*prob - log_sum);
                            *d_prob = (*d_prob - mean) * *prob;
                        }
                    }
                }
                Some(cap) => {
                    let inverse = 1.0 / cap;
                    for (vector, d_vector) in vectors.iter_mut().zip(d_vectors.iter_mut()) {
                        for (prob, d_prob) in vector.iter_mut().zip(d_vector) {
                            let tanh = *prob * inverse;
                            // The score of a hidden key is minus infinity; its probability is 0 and so is its gradient.
                            let slope = (1.0 - tanh * tanh).max(0.0);
                            *prob = simd::exp(*prob - log_sum);
                            *d_prob = (*d_prob - mean) * *prob * slope;
                        }
                    }
                }
            }
            put_around(vectors, *range, 0.0);
            put_around(d_vectors, *range, 0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LANES, Range, RowState, Sums, gradients, weigh};

    const STRIDE: usize = 80;

    fn scores(rows: usize) -> Vec<f32> {
        (0..rows * STRIDE).map(|i| (i * 7919 % 1009) as f32 / 101.0 - 5.0).collect()
    }

    fn ranges() -> [Range; 6] {
        [(0, 64), (5, 6), (15, 33), (16, 32), (40, 40), (0, 1)].map(|(start, end)| Range {
            start,
            end,
            whole: true,
        })
    }

    #[test]
    fn weights_of_any_range_add_up_and_others_are_zero() {
        let ranges = ranges();
        let n = ranges.len();
        let before = scores(n);
        let mut found = before.clone();
        let (mut max, mut total) = (vec![-1.0_f32; n], vec![1.0_f32; n]);
        let mut values = vec![1.0; n * LANES];
        let sums = Sums { max: &mut max, total: &mut total, values: &mut values, width: LANES };
        weigh(&mut found, STRIDE, &ranges, (0, 64), sums);
        for (idx, Range { start, end, .. }) in ranges.into_iter().enumerate() {
            let seen = &before[idx * STRIDE..][start..end];
            let largest = seen.iter().copied().fold(-1.0, f32::max);
            assert_eq!(max[idx], largest);
            let factor = (-1.0_f64 - f64::from(largest)).exp();
            let mut sum = factor;
            for (column, weight) in found[idx * STRIDE..][..64].iter().enumerate() {
                if (start..end).contains(&column) {
                    let want = f64::from(before[idx * STRIDE + column] - largest).exp();
                    assert!((f64::from(*weight) - want).abs() < 1e-6, "{idx} {column}");
                    sum += want;
                } else {
                    assert_eq!(*weight, 0.0, "{idx} {column}");
                }
            }
            assert!((f64::from(total[idx]) - sum).abs() < 1e-5 * sum, "{idx}");
            assert!((f64::from(values[idx * LANES]) - factor).abs() < 1e-6, "{idx}");
        }
    }

    #[test]
    fn nan_scores_show_and_hidden_ones_do_not() {
        let mut found = vec![f32::NEG_INFINITY; 3 * STRIDE];
        found[STRIDE..STRIDE + 8].fill(f32::NAN);
        found[2 * STRIDE + 3] = f32::NAN;
        found[2 * STRIDE + 4] = 1.0;
        let ranges = [Range { start: 2, end: 8, whole: false }; 3];
        let (mut max, mut total) = (vec![f32::NEG_INFINITY; 3], vec![0.0; 3]);
        let mut values = vec![0.0; 3 * LANES];
        let sums = Sums { max: &mut max, total: &mut total, values: &mut values, width: LANES };
        weigh(&mut found, STRIDE, &ranges, (0, LANES), sums);
        assert_eq!(found[..LANES], [0.0; LANES]);
        assert_eq!(total[0], 0.0);
        assert!(total[1].is_nan() && total[2].is_nan());
        assert!(found[STRIDE + 2..STRIDE + 8].iter().all(|weight| weight.is_nan()));
        assert_eq!([found[STRIDE + 1], found[STRIDE + 8]], [0.0; 2]);
    }

    #[test]
    fn gradients_are_zero_where_nothing_is_visible() {
        let ranges = ranges();
        let n = ranges.len();
        for cap in [None, Some(6.0_f32)] {
            let before = scores(n);
            let (mut probs, mut d_scores) = (before.clone(), vec![2.0; n * STRIDE]);
            let (log_sums, means) = (vec![3.0; n], vec![0.5; n]);
            let state = RowState { log_sums: &log_sums, means: &means };
            gradients(&mut probs, &mut d_scores, STRIDE, &ranges, (0, 64), state, cap);
            for (idx, Range { start, end, .. }) in ranges.into_iter().enumerate() {
                for column in 0..64 {
                    let at = idx * STRIDE + column;
                    if !(start..end).contains(&column) {
                        assert_eq!([probs[at], d_scores[at]], [0.0; 2], "{idx} {column}");
                        continue;
                    }
                    let score = f64::from(before[at]);
                    let prob = (score - 3.0).exp();
                    let slope = cap.map_or(1.0, |cap| 1.0 - (score / f64::from(cap)).powi(2));
                    let want = 1.5 * prob * slope;
                    assert!((f64::from(probs[at]) - prob).abs() < 1e-5 * prob);
                    assert!((f64::from(d_scores[at]) - want).abs() < 1e-4 * prob);
                }
            }
        }
    }
}
