//! The loops over the inner dimension without vector instructions; sums are in the same order as with them.

use half::bf16;

use super::LANES;

pub(super) fn columns(tile: &mut [f32], x: &[f32], weight: &[f32], d_in: usize, vectors: usize) {
    sums(tile, weight, d_in, vectors, |value| *value, |at, _| x[at]);
}

/// Like [`columns`], with the weight widened from bf16.
pub(super) fn widened(tile: &mut [f32], x: &[f32], weight: &[bf16], d_in: usize, vectors: usize) {
    sums(tile, weight, d_in, vectors, |value| value.to_f32(), |at, _| x[at]);
}

/// Like [`columns`], with both sides in bf16, two columns per lane.
pub(super) fn pairs(tile: &mut [f32], x: &[u32], weight: &[bf16], d_in: usize, vectors: usize) {
    let of_pair = |at: usize, idx: usize| {
        let stride = vectors * LANES;
        let bits = x[at % stride + idx / 2 * stride];
        f32::from_bits(if idx.is_multiple_of(2) { bits << 16 } else { bits & 0xffff_0000 })
    };
    sums(tile, weight, d_in, vectors, |value| value.to_f32(), of_pair);
}

/// `x` maps the index of a column's value, and the column, to the value.
fn sums<T>(
    tile: &mut [f32],
    weight: &[T],
    d_in: usize,
    vectors: usize,
    widen: impl Fn(&T) -> f32,
    x: impl Fn(usize, usize) -> f32,
) {
    let stride = vectors * LANES;
    for (tile, weight) in tile.chunks_mut(stride).zip(weight.chunks(d_in)) {
        for (row, out) in tile.iter_mut().enumerate() {
            let (mut even, mut odd) = (0.0_f32, 0.0_f32);
            for (idx, w) in weight.iter().enumerate() {
                let sum = if idx.is_multiple_of(2) { &mut even } else { &mut odd };
                *sum = widen(w).mul_add(x(idx * stride + row, idx), *sum);
            }
            *out = even + odd;
        }
    }
}
