//! The loops over the columns without instructions of a processor; sums are in the same order as with them.

#[cfg(any(test, not(all(target_arch = "x86_64", not(feature = "portable")))))]
use half::bf16;

#[cfg(any(test, not(all(target_arch = "x86_64", not(feature = "portable")))))]
use super::{LANES, Part};

/// Lanes of the product of one row of the weight and one row of x.
#[cfg(any(test, not(all(target_arch = "x86_64", not(feature = "portable")))))]
type Lanes = [f32; LANES];

#[cfg(any(test, not(all(target_arch = "x86_64", not(feature = "portable")))))]
#[inline(always)]
#[allow(clippy::inline_always)]
pub(super) fn f32s<const R: usize, const O: usize>(sums: &mut [f32], part: &Part<'_, f32, f32>) {
    tile::<R, O, f32>(sums, part, |value| value);
}

/// Like [`f32s`], with the weight widened from bf16.
#[cfg(any(test, not(all(target_arch = "x86_64", not(feature = "portable")))))]
#[inline(always)]
#[allow(clippy::inline_always)]
pub(super) fn widened<const R: usize, const O: usize>(
    sums: &mut [f32],
    part: &Part<'_, f32, bf16>,
) {
    tile::<R, O, bf16>(sums, part, |value| f32::from_bits(u32::from(value.to_bits()) << 16));
}

#[cfg(any(test, not(all(target_arch = "x86_64", not(feature = "portable")))))]
#[inline(always)]
#[allow(clippy::inline_always)]
fn tile<const R: usize, const O: usize, W: Copy + Default>(
    sums: &mut [f32],
    part: &Part<'_, f32, W>,
    widen: impl Fn(W) -> f32,
) {
    let &Part { x, stride, weight, row: d_in, from, to, .. } = part;
    let (rows, rest) = sums.as_chunks_mut::<LANES>();
    assert!(rows.len() == R * O && rest.is_empty(), "{R} rows by {O}");
    let mut lanes = [[Lanes::default(); R]; O];
    for (lanes, sums) in lanes.as_flattened_mut().iter_mut().zip(&*rows) {
        *lanes = *sums;
    }
    let x: [&[Lanes]; R] =
        std::array::from_fn(|row| x[row * stride..][from..stride].as_chunks::<LANES>().0);
    let weight: [&[W]; O] = std::array::from_fn(|out| &weight[out * d_in..][from..to]);
    let mut add = |step: usize, weight: [[W; LANES]; O]| {
        for (lanes, weight) in lanes.iter_mut().zip(weight) {
            let weight = weight.map(&widen);
            for (lanes, x) in lanes.iter_mut().zip(&x) {
                for (lane, sum) in lanes.iter_mut().enumerate() {
                    *sum = weight[lane].mul_add(x[step][lane], *sum);
                }
            }
        }
    };
    let n_whole = (to - from) / LANES;
    for step in 0..n_whole {
        add(step, weight.map(|row| row.as_chunks::<LANES>().0[step]));
    }
    if n_whole * LANES < to - from {
        add(n_whole, weight.map(|row| padded(&row[n_whole * LANES..])));
    }
    for (sums, lanes) in rows.iter_mut().zip(lanes.as_flattened()) {
        *sums = *lanes;
    }
}

/// Fewer values than a step has, followed by zeros.
pub(super) fn padded<W: Copy + Default, const N: usize>(values: &[W]) -> [W; N] {
    let mut padded = [W::default(); N];
    padded[..values.len()].copy_from_slice(values);
    padded
}

/// Adds up the lanes of eight values: the halves first, then neighbours.
#[cfg(any(test, not(all(target_arch = "x86_64", not(feature = "portable")))))]
pub(super) fn sum_lanes(sums: &[f32; 8 * LANES]) -> [f32; 8] {
    let mut values = [0.0; 8];
    for (value, lanes) in values.iter_mut().zip(sums.as_chunks::<LANES>().0) {
        let half: [f32; 8] = std::array::from_fn(|idx| lanes[idx] + lanes[idx + 8]);
        let quarter = |at: usize| (half[at] + half[at + 1]) + (half[at + 2] + half[at + 3]);
        *value = quarter(0) + quarter(4);
    }
    values
}
