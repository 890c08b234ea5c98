//! Attention forward of few queries, as in decoding: row by row, without tiles.

use super::dots::dots;
use super::heads::load;
use super::problem::{Problem, inverse_of, put_log_sum};
use super::softmax::cap_scores;
use crate::buffer::{Shared, scratch};
use crate::simd::{self, multiversion};

/// All queries of one key-value head.
pub(super) fn few(
    problem: &Problem<'_>,
    row: usize,
    group: usize,
    out: &Shared<'_>,
    log_sums: &Shared<'_>,
) {
    let Problem { t, s, k, h, visible, .. } = *problem;
    let rotated = if problem.rope.is_some() { s * k } else { 0 };
    scratch([rotated, k, s, 0, 0], |[keys, query, scores, _, _]| {
        if problem.rope.is_some() {
            problem.load_keys(keys, k, row, group, 0);
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
