//! Rotation of a head's pairs `(x[j], x[j + k/2])` by their angles.

use crate::simd::multiversion;

multiversion! {
    /// `out = scale · R·x` for one head, with R the rotation of each pair by its angle.
    fn rotate(out: &mut [f32], x: &[f32], cos: &[f32], sin: &[f32], scale: f32) {
        rotated(out, x, cos, sin, scale);
    }
}

multiversion! {
    /// `out = scale · Rᵀ·d` for one head: the gradient of [`rotate`].
    fn rotate_back(out: &mut [f32], d: &[f32], cos: &[f32], sin: &[f32], scale: f32) {
        let (d_first, d_second) = d.split_at(d.len() / 2);
        let (first, second) = out.split_at_mut(d.len() / 2);
        let halves = first.iter_mut().zip(second).zip(d_first.iter().zip(d_second));
        for (((first, second), (a, b)), (cos, sin)) in halves.zip(cos.iter().zip(sin)) {
            *first = (a * cos + b * sin) * scale;
            *second = (b * cos - a * sin) * scale;
        }
    }
}

/// Rows of `k` values, `stride` apart, and the angles of each.
#[derive(Clone, Copy)]
pub(crate) struct RotatedRows<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) cos: &'a [f32],
    pub(crate) sin: &'a [f32],
    pub(crate) k: usize,
}

multiversion! {
    /// [`rotate`] of rows; those of `out` are `width` apart and end with zeros.
    fn rotate_rows(out: &mut [f32], width: usize, from: RotatedRows<'_>, scale: f32) {
        // A width that the compiler knows needs no loop for a remainder.
        match from.k {
            32 => rows_of(out, width, from, 32, scale),
            64 => rows_of(out, width, from, 64, scale),
            128 => rows_of(out, width, from, 128, scale),
            k => rows_of(out, width, from, k, scale),
        }
    }
}

#[inline(always)]
#[allow(clippy::inline_always)]
fn rows_of(out: &mut [f32], width: usize, from: RotatedRows<'_>, k: usize, scale: f32) {
    let half = k / 2;
    let angles = from.cos.chunks(half.max(1)).zip(from.sin.chunks(half.max(1)));
    let rows = out.chunks_mut(width).zip(from.x.chunks(from.stride)).zip(angles);
    for ((out, x), (cos, sin)) in rows {
        let (out, rest) = out.split_at_mut(k);
        rotated(out, &x[..k], &cos[..half], &sin[..half], scale);
        rest.fill(0.0);
    }
}

#[inline(always)]
#[allow(clippy::inline_always)]
fn rotated(out: &mut [f32], x: &[f32], cos: &[f32], sin: &[f32], scale: f32) {
    let (x_first, x_second) = x.split_at(x.len() / 2);
    let (first, second) = out.split_at_mut(x.len() / 2);
    let halves = first.iter_mut().zip(second).zip(x_first.iter().zip(x_second));
    for (((first, second), (a, b)), (cos, sin)) in halves.zip(cos.iter().zip(sin)) {
        *first = (a * cos - b * sin) * scale;
        *second = (b * cos + a * sin) * scale;
    }
}

multiversion! {
    /// [`rotate_back`] of rows of `k` values, `width` apart, in place.
    fn rotate_rows_back(rows: &mut [f32], width: usize, k: usize, cos: &[f32], sin: &[f32], scale: f32) {
        match k {
            32 => rows_back(rows, width, 32, cos, sin, scale),
            64 => rows_back(rows, width, 64, cos, sin, scale),
            128 => rows_back(rows, width, 128, cos, sin, scale),
            k => rows_back(rows, width, k, cos, sin, scale),
        }
    }
}

#[inline(always)]
#[allow(clippy::inline_always)]
fn rows_back(rows: &mut [f32], width: usize, k: usize, cos: &[f32], sin: &[f32], scale: f32) {
    let half = k / 2;
    let angles = cos.chunks(half.max(1)).zip(sin.chunks(half.max(1)));
    for (row, (cos, sin)) in rows.chunks_mut(width).zip(angles) {
        let (first, second) = row[..2 * half].split_at_mut(half);
        let pairs = first.iter_mut().zip(second).zip(cos[..half].iter().zip(&sin[..half]));
        for ((first, second), (cos, sin)) in pairs {
            let (a, b) = (*first, *second);
            *first = (a * cos + b * sin) * scale;
            *second = (b * cos - a * sin) * scale;
        }
    }
}
