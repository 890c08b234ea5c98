//! Product of few rows with a weight `[out, in]`, for decoding: the weight is read once, in its own order.
//!
//! General products first copy the weight into another order, which costs more than the product itself for few rows.

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod avx512;
#[cfg(feature = "portable")]
mod portable;

use half::bf16;
use rayon::prelude::*;

use crate::buffer::{Shared, scratch};
use crate::precision::Precision;
use crate::weight_storage::StoredWeight;

/// The maximum number of rows.
pub(crate) const MAX_ROWS: usize = 64;
/// Rows of the weight per task: about as many of a small model's as a second-level cache holds.
const TASK_OUTS: usize = 64;
/// Input rows per vector.
const LANES: usize = 16;
/// Rows of the weight per tile.
const OUTS: usize = 8;

/// Whether this processor has the instructions of [`add_product`].
///
/// The portable build emulates them, for its tests.
pub(crate) fn is_supported() -> bool {
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    {
        std::arch::is_x86_feature_detected!("avx512f")
    }
    #[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
    {
        cfg!(feature = "portable")
    }
}

/// Adds `x · weightᵀ` to `out`: x `[n, i]`, weight `[o, i]`, out `[n, o]` with rows `width` apart.
///
/// A weight that is stored in bf16 is widened, or x rounded if `precision` says so.
///
/// # Panics
/// If shapes do not fit, there are too many rows, or the processor lacks the instructions.
pub(crate) fn add_product(
    out: &mut [f32],
    width: usize,
    x: &[f32],
    weight: &StoredWeight,
    n: usize,
    precision: Precision,
) {
    assert!(is_supported() && (1..=MAX_ROWS).contains(&n), "{n} rows");
    let d_in = x.len() / n;
    let d_out = weight.len() / d_in.max(1);
    assert!(
        x.len() == n * d_in && weight.len() == d_out * d_in && d_out <= width,
        "{n} rows of {d_in} by {d_out}"
    );
    assert!(out.len() >= (n - 1) * width + d_out, "{n} rows every {width}");
    let sizes = Sizes { n, d_in, vectors: n.div_ceil(LANES), width };
    match weight {
        StoredWeight::F32(weight) => {
            let columns = columns(x, sizes);
            in_tasks(out, weight, sizes, |tile, weight| f32s(tile, &columns, weight, sizes));
        }
        StoredWeight::Bf16(weight)
            if precision == Precision::Bf16 && crate::bf16::is_supported() =>
        {
            let columns = pairs_of_columns(x, sizes);
            in_tasks(out, weight, sizes, |tile, weight| pairs(tile, &columns, weight, sizes));
        }
        StoredWeight::Bf16(weight) => {
            let columns = columns(x, sizes);
            in_tasks(out, weight, sizes, |tile, weight| widened(tile, &columns, weight, sizes));
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Sizes {
    n: usize,
    d_in: usize,
    /// Vectors per column of x.
    vectors: usize,
    /// Stride of the output's rows.
    width: usize,
}

/// Columns of x as vectors, so that one value of the weight is multiplied with all rows at once.
fn columns(x: &[f32], Sizes { d_in, vectors, .. }: Sizes) -> Vec<f32> {
    let mut columns = vec![0.0_f32; d_in * vectors * LANES];
    for (row, x) in x.chunks(d_in).enumerate() {
        for (idx, value) in x.iter().enumerate() {
            columns[idx * vectors * LANES + row] = *value;
        }
    }
    columns
}

/// The same rounded to bf16, two columns per lane.
fn pairs_of_columns(x: &[f32], Sizes { d_in, vectors, .. }: Sizes) -> Vec<u32> {
    let bits = |value: f32| u32::from(bf16::from_f32(value).to_bits());
    let mut columns = vec![0; d_in.div_ceil(2) * vectors * LANES];
    for (row, x) in x.chunks(d_in).enumerate() {
        for (idx, pair) in x.chunks(2).enumerate() {
            let high = pair.get(1).copied().map_or(0, bits);
            columns[idx * vectors * LANES + row] = bits(pair[0]) | (high << 16);
        }
    }
    columns
}

/// Adds the tiles that `multiply` computes of [`OUTS`] rows of the weight each, `tile[out][row]`.
fn in_tasks<T: Sync>(
    out: &mut [f32],
    weight: &[T],
    Sizes { n, d_in, vectors, width }: Sizes,
    multiply: impl Fn(&mut [f32], &[T]) + Sync,
) {
    let out = Shared::new(out);
    let task = |(task, weight): (usize, &[T])| {
        scratch([OUTS * vectors * LANES], |[tile]| {
            for (idx, weight) in weight.chunks(OUTS * d_in).enumerate() {
                let n_outs = weight.len() / d_in;
                multiply(tile, weight);
                let first = task * TASK_OUTS + idx * OUTS;
                for row in 0..n {
                    let add = |out: &mut [f32]| {
                        for (idx, out) in out.iter_mut().enumerate() {
                            *out += tile[idx * vectors * LANES + row];
                        }
                    };
                    #[allow(unsafe_code)]
                    // SAFETY: only this task writes these columns of the output.
                    unsafe {
                        out.with(row * width + first, n_outs, add);
                    }
                }
            }
        });
    };
    if n * weight.len() < 64 * 1024 {
        weight.chunks(TASK_OUTS * d_in).enumerate().for_each(task);
    } else {
        weight.par_chunks(TASK_OUTS * d_in).enumerate().for_each(task);
    }
}

/// Up to [`OUTS`] rows of the weight times all columns: `tile[out][row]`.
macro_rules! tile_of {
    ($name:ident, $kernel:ident, $column:ty, $weight:ty) => {
        fn $name(
            tile: &mut [f32],
            columns: &[$column],
            weight: &[$weight],
            Sizes { d_in, vectors, .. }: Sizes,
        ) {
            #[cfg(feature = "portable")]
            portable::$kernel(tile, columns, weight, d_in, vectors);
            #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
            for vector in 0..vectors {
                #[allow(unsafe_code)]
                // SAFETY: the caller checked for the instructions; the kernel checks the lengths.
                unsafe {
                    if weight.len() == OUTS * d_in {
                        avx512::$kernel::<OUTS>(tile, columns, weight, d_in, vectors, vector);
                    } else {
                        for (idx, weight) in weight.chunks(d_in).enumerate() {
                            let tile = &mut tile[idx * vectors * LANES..];
                            avx512::$kernel::<1>(tile, columns, weight, d_in, vectors, vector);
                        }
                    }
                }
            }
            #[cfg(not(any(target_arch = "x86_64", feature = "portable")))]
            unreachable!(
                "the caller checked for the instructions: {} {} {vectors}",
                tile.len(),
                columns.len() + weight.len() + d_in
            )
        }
    };
}

tile_of!(f32s, columns, f32, f32);
tile_of!(widened, widened, f32, bf16);
tile_of!(pairs, pairs, u32, bf16);

// A skipped test prints a note.
#[cfg(test)]
#[allow(clippy::print_stdout)]
mod tests {
    use half::bf16;

    use super::{MAX_ROWS, add_product, is_supported};
    use crate::precision::Precision;
    use crate::weight_storage::StoredWeight;

    /// Adds the product to a buffer of quarters and compares it with sums in f64.
    fn check([n, d_in, d_out]: [usize; 3], stored_bf16: bool, precision: Precision) {
        let value = |i: usize| ((i * 37 + 11) % 64) as f32 / 31.7 - 1.0;
        let round = |value: f32| bf16::from_f32(value).to_f32();
        let x: Vec<f32> = (0..n * d_in).map(value).collect();
        let weight: Vec<f32> = (0..d_out * d_in).map(|i| value(i + 5)).collect();
        let rounded: Vec<bf16> = weight.iter().map(|value| bf16::from_f32(*value)).collect();
        let stored = if stored_bf16 {
            StoredWeight::Bf16(rounded.as_slice().into())
        } else {
            StoredWeight::F32(weight.as_slice().into())
        };
        let width = d_out + 3;
        let mut out = vec![0.25; n * width];
        add_product(&mut out, width, &x, &stored, n, precision);
        for (row, out) in out.chunks(width).enumerate() {
            for (o, got) in out.iter().enumerate() {
                let sum = |o: usize| -> f64 {
                    let (x, w) = (&x[row * d_in..], &weight[o * d_in..][..d_in]);
                    let terms = x.iter().zip(w).map(|(x, w)| {
                        let w = if stored_bf16 { round(*w) } else { *w };
                        let x = if precision == Precision::Bf16 { round(*x) } else { *x };
                        f64::from(x) * f64::from(w)
                    });
                    terms.sum()
                };
                let want = if o < d_out { 0.25 + sum(o) } else { 0.25 };
                let near = (f64::from(*got) - want).abs() < 1e-4;
                assert!(near, "{n} {d_in} {d_out}: {got} {want}");
            }
        }
    }

    #[test]
    fn products_of_any_size() {
        if !is_supported() {
            println!("skipped: no AVX-512 here");
            return;
        }
        for sizes in
            [[1, 1, 1], [2, 3, 5], [16, 8, 8], [17, 9, 70], [MAX_ROWS, 33, 130], [5, 256, 512]]
        {
            check(sizes, false, Precision::F32);
            check(sizes, true, Precision::F32);
            if crate::bf16::is_supported() {
                check(sizes, true, Precision::Bf16);
            }
        }
    }
}
